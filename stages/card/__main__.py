"""`python -m stages.card`."""

import sys

from stages.card import run
from stages.common.command import main
from stages.config.card import CardConfig

if __name__ == "__main__":
    inputs = {
        "summaries": "folders of the stages, each with its summary.json: ingest, reference, train, export, ...",
        "passed": "passed.json of validate",
    }
    sys.exit(main("card", CardConfig, run, inputs=inputs, many=["summaries"]))
