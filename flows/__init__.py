"""The edge: Prefect and MLflow live here and nowhere else. `python -m flows.retrain`, `python -m flows.status`."""
