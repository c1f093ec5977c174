"""The drift baseline: the profile of the data of the last promoted run, kept in git, changed only by a promotion.

`validate` compares the present data with it and depends on it, so it runs once more after a promotion. What it finds
then (no drift, since these are the same data) changes neither `passed.json` nor any later stage.
"""

import json
from pathlib import Path

from flows.work.pipeline import DVC
from flows.work.process import last_sentence
from flows.work.testbench import Testbench
from stages.common.files import write_atomically

BASELINE, PROFILE = "data/baseline.json", "data/validate/profile.json"
_MINUTES = 360.0


def follow_promotion(bench: Testbench, data_hash: str) -> None:
    """Make the data of the promoted run the baseline and bring `validate` up to date, if anything is to be done.

    Doing it again is harmless, so a crash costs nothing. Raises ValueError if validate fails.
    """
    profile, baseline = bench.project / PROFILE, bench.project / BASELINE
    if _hash(profile) != data_hash or not baseline.is_file():
        return
    if baseline.read_bytes() != profile.read_bytes():
        write_atomically(baseline, profile.read_bytes())
        bench.log(f"{BASELINE}: later data are compared with these from now on")
    code, lines = bench.run([*DVC, "repro", "validate"], minutes=_MINUTES)
    if code:
        raise ValueError(f"promoted, but validate fails on the promoted data: {last_sentence(lines)}; run it again")


def _hash(path: Path) -> str | None:
    """The hash of the data that a profile describes; None if there is no profile yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("data_hash")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not a profile; delete it and run `dvc repro validate`") from None
    return str(found) if found else None
