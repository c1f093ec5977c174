"""The edge: Prefect and MLflow live here and nowhere else.

In front are the commands (`python -m flows.retrain`, `python -m flows.status`, ...), the flows that Prefect starts
(`deployments.py`, `ask.py`) and what both share. Behind them are four packages: `work` runs the pipeline, `tracking`
talks to MLflow, `promotion` decides which version is champion, and `upkeep` locates, removes and restores data.
"""
