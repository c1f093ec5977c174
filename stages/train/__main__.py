"""`python -m stages.train`"""

import sys

from stages.common.command import main
from stages.config.train import TrainConfig
from stages.train import run

if __name__ == "__main__":
    inputs = {"images": "image store that ingest wrote", "passed": "passed.json that validate wrote"}
    sys.exit(main("train", TrainConfig, run, inputs=inputs))
