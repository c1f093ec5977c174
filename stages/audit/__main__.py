"""`python -m stages.audit`."""

import sys

from stages.audit import run
from stages.common.command import main
from stages.config.audit import AuditConfig

if __name__ == "__main__":
    inputs = {
        "onnx": "ONNX file of the generator, as export writes it",
        "reference": "folder of the stage reference",
        "images": "image store, as ingest writes it",
    }
    sys.exit(main("audit", AuditConfig, run, inputs=inputs))
