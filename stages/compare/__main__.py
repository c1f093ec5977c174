"""`python -m stages.compare`."""

import sys

from stages.common.command import main
from stages.compare import run
from stages.config.compare import CompareConfig

if __name__ == "__main__":
    inputs = {
        "candidate": "ONNX file of the candidate, which may become champion",
        "champion": "ONNX file of the present champion",
        "reference": "folder of the stage reference, on which both are scored",
    }
    sys.exit(main("compare", CompareConfig, run, inputs=inputs))
