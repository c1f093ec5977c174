"""The rooms of the pipeline: files in, files out, one front door each (`from stages.train import run`)."""
