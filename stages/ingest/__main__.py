"""`python -m stages.ingest`."""

import sys

from stages.common.command import main
from stages.config.ingest import IngestConfig
from stages.ingest import run

INPUTS = {
    "raw": "folder of raw data, as ingest.source says",
    "datasheet": "YAML file that says what they are and why we may use them",
    "erased": "tombstones of images that must never come back, written by flows.erase",
}

if __name__ == "__main__":
    sys.exit(main("ingest", IngestConfig, run, inputs=INPUTS, optional=["erased"]))
