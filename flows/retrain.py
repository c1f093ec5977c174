"""`make retrain`: run what is stale, register the result and promote it if it earned it, all in this working copy.

If nothing is stale and the registry holds the result, this ends before Prefect and MLflow are imported. Exit codes: 0
done (a red verdict or a champion that stays are results too), 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.command import command
from flows.state import hold, settle
from flows.tracking.registry import address
from flows.work import budget
from flows.work.decide import Work, decide
from flows.work.pipeline import Reproduction, reproduce, stage_names
from flows.work.server import temporary_server
from stages.config import load_section
from stages.config.retrain import RetrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Decide, then run the flow if there is work; returns the exit code."""
    argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__).parse_args(argv)
    return command("retrain", _retrain)


def _retrain() -> int:
    began, project, state = time.monotonic(), Path.cwd(), settle()
    with hold(state) as held:
        work = decide(project, state)
        if not work.done:
            return _run(project, state, held, work, began)
        _say(f"nothing to do: no stage is stale, {work.done}", f"took {time.monotonic() - began:.1f} s")
        return 0


def _run(project: Path, state: Path, held: int, work: Work, began: float) -> int:
    with temporary_server(held) as ready, _begun(project, state, held, work) as begun:
        import mlflow  # noqa: F401  the flow needs it at once; imported here, it costs the stages no time

        from flows.flow import hand_over, run
        from flows.tracking.report import lines

        ready()
        try:
            outcome = run(project, state, held, work, begun)
        finally:
            hand_over()
    _say("", *lines(outcome, time.monotonic() - began, f"registry {address()}"))
    return 1 if outcome.error else 0


@contextlib.contextmanager
def _begun(project: Path, state: Path, held: int, work: Work) -> Iterator[list[Reproduction]]:
    """`dvc repro`, running while Prefect and MLflow are imported; none if no stage is stale or a budget forbids it.

    In the latter case the flow gives the reason: it checks the budget itself.
    """
    config = load_section(RetrainConfig, project / "params.yaml", "retrain")
    try:
        budget.check(config, stage_names(project), [project, state], state)
    except ValueError:
        work = Work(stale={})
    if not work.stale:
        yield []
        return
    with reproduce(project, held=held) as running:
        yield [running]


def _say(*text: str) -> None:
    sys.stdout.write("\n".join(text) + "\n")


if __name__ == "__main__":
    sys.exit(main())
