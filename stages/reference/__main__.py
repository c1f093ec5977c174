"""`python -m stages.reference`."""

import sys

from stages.common.command import main
from stages.config.reference import ReferenceConfig
from stages.reference import run

if __name__ == "__main__":
    inputs = {"images": "image store that ingest wrote", "passed": "passed.json that validate wrote"}
    sys.exit(main("reference", ReferenceConfig, run, inputs=inputs))
