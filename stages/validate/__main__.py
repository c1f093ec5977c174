"""`python -m stages.validate`."""

import sys

from stages.common.command import main
from stages.config.validate import ValidateConfig
from stages.validate import run

if __name__ == "__main__":
    sys.exit(main("validate", ValidateConfig, run, inputs={"images": "image store of stages.ingest"}))
