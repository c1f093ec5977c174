"""`python -m stages.ingest`."""

import sys

from stages.common.command import main
from stages.config.ingest import IngestConfig
from stages.ingest import run

if __name__ == "__main__":
    inputs = {"raw": "folder of PNG and JPEG files", "datasheet": "YAML file that says what they are and why we may"}
    sys.exit(main("ingest", IngestConfig, run, inputs=inputs))
