"""MLflow: the registry, what it records about a candidate, and the curve of a training while it runs."""
