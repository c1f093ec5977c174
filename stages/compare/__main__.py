"""`python -m stages.compare`."""

import sys

from stages.common.command import main
from stages.compare import run
from stages.config.compare import CompareConfig

if __name__ == "__main__":
    inputs = {
        "candidate": "ONNX file that wants to be champion",
        "champion": "ONNX file that is champion",
        "reference": "folder of the stage reference, on which both are scored",
    }
    sys.exit(main("compare", CompareConfig, run, inputs=inputs))
