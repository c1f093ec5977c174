"""`python -m stages.train`"""

import os
import sys
import traceback

from stages.common.command import main
from stages.config.train import TrainConfig
from stages.train import run
from stages.train._stopper import resumable


def ended() -> int:
    """Train as the command line says; the exit code, 1 after an error of our own, whose traceback was shown."""
    inputs = {
        "images": "image store that ingest wrote",
        "passed": "passed.json that validate wrote",
        "selection": "folder `selection` that reference wrote, for train.selection; otherwise train.selection_inputs",
        "init": "networks that `python -m stages.warm_start` copied, for train.init; otherwise train.init_from",
    }
    words = {"adopt": "KEY of other work in the state folder on these images, to go on with under these settings"}
    try:
        with resumable():
            return main("train", TrainConfig, run, inputs=inputs, optional=("selection", "init"), words=words)
    except Exception:  # noqa: BLE001  # whatever it is, the others must not wait for this process
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    code = ended()
    if code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: its closed connections tell the others, while NCCL's own end would wait for them
    sys.exit(code)
