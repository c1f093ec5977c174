"""The command line of a room: paths from options, settings from params.yaml, one sentence for every refusal.

Exit codes: 0 done, 1 failed, 2 wrong usage, 75 resume me, 130 interrupted.
"""

import argparse
import dataclasses
import errno
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stages.common.files import read_json
from stages.common.interrupt import Interrupted, interruptible
from stages.common.summary import Summary
from stages.config import build, read_section

RESUME_ME = 75
_NO_MEMORY = re.compile(r"out of memory|not enough memory|allocate memory|ALLOC_FAILED", re.IGNORECASE)  # torch's words


class ResumeLater(Exception):
    """Work was saved and should be started again: the process ends with code 75, silently where no word is given."""


class WorkSaved(Interrupted):
    """Ctrl-C ended a stage whose work so far is saved: the process ends with code 130 and this sentence."""

    def __init__(self, said: str) -> None:
        super().__init__(signal.SIGINT)
        self.said = said


def main(
    stage: str,
    config_class: type,
    run: Callable[..., Summary],
    *,
    inputs: Mapping[str, str],
    many: Sequence[str] = (),
    optional: Sequence[str] = (),
    words: Mapping[str, str] = MappingProxyType({}),
    argv: Sequence[str] | None = None,
) -> int:
    """Parse options, load the stage's section, run it, and return the exit code.

    `inputs` maps option names to their help; those in `many` take several paths, those in `optional` may be left out
    and are None then. `words` are further options that are no paths, None where they are left out. The summary's path
    goes to stdout as JSON, all talk to stderr. With GANOPS_TRACEBACK=1 refusals show where they were raised.
    """
    about = (run.__doc__ or "").partition("Raises")[0]  # what it raises is said in a sentence when it comes to that
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=about)
    for name, text in inputs.items():
        needed, count = name not in optional, "+" if name in many else None
        parser.add_argument(f"--{name}", type=Path, required=needed, help=text, nargs=count)
    for name, text in words.items():
        parser.add_argument(f"--{name}", metavar="KEY", help=text)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help=f"settings; section `{stage}` is read")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced as a whole at the end")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved settings as JSON and stop")
    options = vars(parser.parse_args(argv))
    _talk(stage)
    interruptible(signal.SIGINT)
    try:
        section = read_section(options["params"], stage)
        threads = section.get("threads") if isinstance(section, dict) else None
        pin_threads(threads if isinstance(threads, int) else None)  # before a chosen network's file loads torch
        config: Any = build(config_class, section, stage)
        if options["dry_run"]:
            print(json.dumps(dataclasses.asdict(config), indent=2))  # noqa: T201
            return 0
        missing = [path for name in inputs for path in _paths(options[name]) if not path.exists()]
        if missing:
            raise ValueError(f"{missing[0]} does not exist; run the stage before this one, or `dvc repro`")
        _check_out(stage, options["out"])
        run(config, **{name: options[name] for name in (*inputs, *words)}, out=options["out"])
    except ResumeLater as stop:
        return _complain(stage, stop, RESUME_ME) if stop.args else RESUME_ME
    except WorkSaved as stop:
        return _complain(stage, stop.said, 130)
    except KeyboardInterrupt:
        return _complain(stage, "interrupted; nothing was written, run it again", 130)
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        if os.environ.get("GANOPS_TRACEBACK") == "1" or not _is_refusal(error):
            raise
        return _complain(stage, _sentence(error), 1)
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(json.dumps({"stage": stage, "summary": str(options["out"] / "summary.json")}))  # noqa: T201
    return 0


def _talk(stage: str) -> None:
    """Show what the stages log on stderr, under the room's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{stage}: %(message)s"))
    logger = logging.getLogger("stages")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def pin_threads(threads: int | None) -> None:
    """Fix the thread pools before numpy or torch load: the count changes the last bits of results.

    Waiting threads sleep instead of spinning, which on shared cores is many times faster and changes no byte.
    """
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _paths(value: Any) -> list[Path]:
    return value if isinstance(value, list) else [value] if value else []


def _check_out(stage: str, out: Path) -> None:
    """Refuse to replace what no earlier run of this stage wrote: a slip of the hand must not cost a user's files."""
    if not out.name:
        raise ValueError(f"--out must name a folder of its own; received {str(out)!r}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder to write")
    if (out / "summary.json").is_file():
        owner = read_json(out / "summary.json").get("stage")
        if owner != stage:
            raise ValueError(f"--out {out} holds the results of {owner}, which would be lost; name another folder")
    elif out.is_dir() and any(out.iterdir()) and not (out / "expectations.json").is_file():  # of a red validate
        raise ValueError(f"--out {out} holds files that no stage wrote; name a new or an empty folder")


def _is_refusal(error: Exception) -> bool:
    """False for errors of our own making. torch says by RuntimeError that memory ran out, and much else."""
    return not isinstance(error, RuntimeError) or _NO_MEMORY.search(str(error)) is not None


def _sentence(error: Exception) -> str:
    """What went wrong in one line, with advice where the system's own words do not carry it."""
    if isinstance(error, MemoryError | RuntimeError):
        said = str(error).partition("\n")[0]
        return f"memory ran out ({said or 'no more is known'}); lower what is large in this section of params.yaml"
    if isinstance(error, FileNotFoundError) and error.strerror is None:  # of pyarrow, which says the path alone
        return f"{error}: No such file or directory"
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    place = error.filename2 or error.filename  # of two, the one that is written
    where = f"{place}: " if place else ""
    advice = {
        errno.ENOSPC: "; free some space and run it again, nothing was written",
        errno.EROFS: "; choose an --out that can be written",
        errno.EACCES: "; check the permissions of that path",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror}{advice}"


def _complain(stage: str, message: object, code: int) -> int:
    print(f"{stage}: {message}", file=sys.stderr)  # noqa: T201
    return code
