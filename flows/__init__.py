"""The edge: Prefect and MLflow live here and nowhere else.

In front are the commands (`python -m flows.retrain`, `python -m flows.status`, ...), the flows that Prefect starts
(`deployments.py`, `ask.py`) and what both share; behind them stand four packages: `work` runs the pipeline, `tracking`
knows MLflow, `promotion` decides who is champion, `upkeep` takes away and gives back.
"""
