"""MLflow: the registry, what a candidate says of itself there, and the curve of a training while it runs."""
