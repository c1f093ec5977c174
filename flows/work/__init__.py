"""One run of the pipeline: what there is to do, where it is done, how DVC and its stages are started and stopped."""
