"""`python -m stages.train`"""

import sys

from stages.common.command import main
from stages.config.train import TrainConfig
from stages.train import run
from stages.train._stopper import resumable

if __name__ == "__main__":
    inputs = {
        "images": "image store that ingest wrote",
        "passed": "passed.json that validate wrote",
        "selection": "folder `selection` that reference wrote; for train.selection, not looked at without it",
        "init": "networks that `python -m stages.warm_start` copied; for train.init, not looked at without it",
    }
    words = {"adopt": "KEY of other work in the state folder on these images, to go on with under these settings"}
    with resumable():
        sys.exit(main("train", TrainConfig, run, inputs=inputs, optional=("selection", "init"), words=words))
