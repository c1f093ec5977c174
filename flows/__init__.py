"""The edge: Prefect and MLflow live here and nowhere else.

The files of this folder are what people and Prefect start (`python -m flows.retrain`, `python -m flows.status`, ...);
behind them stand four rooms: `work` runs the pipeline, `tracking` knows MLflow, `promotion` decides who is champion,
`upkeep` takes away and gives back.
"""
