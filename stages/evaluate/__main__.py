"""`python -m stages.evaluate`."""

import sys

from stages.common.command import main
from stages.config.evaluate import EvaluateConfig
from stages.evaluate import run

if __name__ == "__main__":
    inputs = {
        "onnx": "ONNX file of the generator, as export writes it",
        "reference": "folder of the stage reference",
        "curves": "curves.csv of the training, for the page; may be left out",
    }
    sys.exit(main("evaluate", EvaluateConfig, run, inputs=inputs, optional=("curves",)))
