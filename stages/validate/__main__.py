"""`python -m stages.validate`."""

import sys

from stages.common.command import main
from stages.config.validate import ValidateConfig
from stages.validate import run

INPUTS = {
    "images": "image store of stages.ingest",
    "baseline": "profile of the data of the last promoted run; without it nothing is compared",
}

if __name__ == "__main__":
    sys.exit(main("validate", ValidateConfig, run, inputs=INPUTS, optional=["baseline"]))
