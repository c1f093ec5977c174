"""Run by a test: trainings that go back once, killed with SIGKILL at random moments until they end.

Arguments: a folder, how many kills, a seed. Every training is a fork of this process, which has imported all and
computed nothing, so that a kill costs no start. Odd kills come by the clock, even ones inside a write, a rename or a
removal of a file. Prints the number of kills and the digests of the outputs: the first is that of a run left alone.
"""

import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save  # noqa: F401 (loaded before the forks)

import gan.metrics  # noqa: F401 (likewise)
from gan.features.domain import Recipe, features, fit
from stages.common import files
from stages.common.files import digest
from stages.config import build
from stages.config.train import TrainConfig
from stages.reference._selection import write_selection
from stages.store import open_store
from stages.train import _ancestry, _board, _checkpoints, _loop, _work, run  # noqa: F401 (likewise)

sys.path.insert(0, str(Path(__file__).parent))
from small_training import bars, collapsing, follow, small

COLLAPSES: dict[str, Any] = {
    "total_kimg": 3.84, "checkpoint_kimg": 0.32, "snapshot_kimg": 0.96,
    "alarms": {"loss": 1000.0, "collapse": 0.5, "separation": 1.0, "in_a_row": 2},
    "rollbacks": {"most": 1, "reseed": True, "lr_factor": 0.05},
    "selection": {
        "name": "domain", "metric": "fid_train", "keep": "best", "every_kimg": 0.32, "images": 200, "seed": 9,
        "patience_kimg": None,
    },
}  # fmt: skip


def prepare(home: Path) -> None:
    """A store and what the run is measured against."""
    store = open_store(bars(home))
    fitted = store.splits["fit"]
    network = fit(fitted.all(), fitted.labels, classes=2, recipe=Recipe(width=8, steps=40, batch=32), seed=0)
    real, _ = features(network, store.splits["train"].all())
    write_selection(home / "selection", network, real, store.info["data_hash"])


def train(home: Path, out: str, die_at: int | None = None) -> None:
    """One training; with `die_at` it kills itself at that operation on files."""
    if die_at is not None:
        dying(die_at)
    run(
        build(TrainConfig, small(**COLLAPSES), "train"),
        images=home / "ingest", passed=home / "passed.json", selection=home / "selection", out=home / out,
    )  # fmt: skip


def dying(left: int) -> None:
    """Let the process kill itself before, after or half-way through one of its operations on files."""
    count = [left]

    def strike() -> bool:
        count[0] -= 1
        return count[0] < 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if strike():
                os.kill(os.getpid(), signal.SIGKILL)
            value = real(*arguments, **named)
            if strike():
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return call

    def torn(path: Path, content: bytes | str) -> None:
        if strike():  # some of the bytes, under the name that is written first
            whole = content.encode() if isinstance(content, str) else content
            path.with_name(f".{path.name}.{os.getpid()}.partial").write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    write = files.write_atomically
    for module in (_checkpoints, _work):
        module.write_atomically = torn  # type: ignore[attr-defined]
    for name in ("replace", "unlink"):
        setattr(Path, name, wrapped(getattr(Path, name)))


def forked(call: Callable[[], None], seconds: float | None = None) -> int:
    """The exit code of `call` in a process of its own, negative for a signal; killed after `seconds`."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            call()
        except BaseException as error:  # noqa: BLE001 (this process ends here)
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(home: Path, wanted: int, seed: int) -> None:
    os.environ["GANOPS_STATE"] = str(home / "state-whole")
    chance, kills = random.Random(seed), 0
    follow(collapsing)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # what torch imports for it takes seconds
    assert forked(partial(prepare, home)) == 0
    start = time.monotonic()
    assert forked(partial(train, home, "whole")) == 0
    whole, digests = time.monotonic() - start, [digest(home / "whole")]
    while kills < wanted:
        out, code = f"killed-{len(digests)}", -1
        os.environ["GANOPS_STATE"] = str(home / f"state-{out}")
        while code != 0:
            call, seconds = partial(train, home, out), None
            if kills < wanted and kills % 2:
                seconds = chance.uniform(0.05, 0.7) * whole
            elif kills < wanted:
                call = partial(train, home, out, die_at=int(math.exp(chance.uniform(0, math.log(120)))))
            code = forked(call, seconds)
            assert code in (0, -signal.SIGKILL), code
            kills += code != 0
            if seconds is not None and code == 0:
                whole /= 2  # the machine has become quicker than it was for the first run
            print(f"{out}: {kills} kills", file=sys.stderr, flush=True)
        digests.append(digest(home / out))
    back = json.loads((home / "whole" / "summary.json").read_text())["results"]["control"]["rollbacks"]
    print(json.dumps({"kills": kills, "digests": digests, "rollbacks": len(back)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
