"""The course of a run: it is measured, alarms are raised, it goes back, and what it publishes is chosen."""

import logging
from typing import TYPE_CHECKING

from stages.train._checkpoints import load_moment, load_newest
from stages.train._control import Control, Moment, better
from stages.train._measure import measured

if TYPE_CHECKING:
    from stages.train._loop import Run

_log = logging.getLogger(__name__)
_ADVICE = "raise the gamma of r1 and r2, or lower train.lr"


def measure(run: "Run") -> bool:
    """Evaluate the generator; whether the run must go back."""
    assert run.yardstick is not None
    players, row = run.players, {"step": float(run.step), "kimg": run.step * run.config.batch / 1000}
    found = {}
    if run.processes.first:
        found = measured(
            run.config, run.yardstick, players.average, players.discriminator, run.store, run.processes.device
        )
    found = run.processes.told(found)
    if not found:
        return alarm(run, "divergence", "the generator's images are not finite", fatal=True)
    if run.processes.first:
        run.meter.write(row | found)
        run.board.numbers("measures", row | found)
    every = run.interval("selection")
    alarms = run.control.evaluated(run.config, row | found, regular=run.step % every == 0)
    return any([alarm(run, kind, said) for kind, said in alarms])


def alarm(run: "Run", kind: str, said: str, *, fatal: bool = False) -> bool:
    """Say and record that something is wrong; True where the run must go back. Raises FloatingPointError where it
    cannot go on and may not go back, or has gone back as often as it may."""
    most = run.config.rollbacks.most
    run.control.alarmed(run.step, kind, said)
    if run.processes.first:
        run.meter.write({"step": run.step, "alarm": kind, "said": said})
        run.board.text(kind, said, run.step)
    if most > run.control.attempt:
        _warn(run, "%s at step %d: %s", kind, run.step, said)
        return True
    if most:
        raise FloatingPointError(
            f"{kind} at step {run.step}, and the run went back {most} times already: {said}; {_ADVICE}"
        )
    if fatal:
        raise FloatingPointError(f"training diverged at step {run.step}: {said}; {_ADVICE}")
    _warn(run, "%s at step %d: %s; training goes on, see train.rollbacks", kind, run.step, said)
    return False


def _warn(run: "Run", text: str, *arguments: object) -> None:
    """Say it once, whatever the number of processes."""
    if run.processes.first:
        _log.warning(text, *arguments)


def go_back(run: "Run") -> None:
    """Return to the last good checkpoint, or to the start, and go on from there in another way."""
    control, step = run.control, run.step
    rows: list[dict[str, float]]
    kind, good = control.alarms[-1]["kind"], control.good
    if good is None:
        run.renew()
        to, rows, earlier = 0, [], Control()
    else:
        found = load_moment(run.state, run.players, run.processes, Moment(good["attempt"], good["step"]))
        if found is None:  # train up to it again, and the alarm comes again
            run.renew()
            run.take(*load_newest(run.state, run.players, run.processes, up_to=run.steps))
            return
        to, rows, earlier = found
    final = step == run.steps and not run.regular(step)
    run.take(to, rows, control.went_back(earlier, step=step, to=to, kind=kind, final=final))
    _warn(run, "going back to step %d, %d of %d times", to, run.control.attempt, run.config.rollbacks.most)
    run.save()


def choose(run: "Run") -> Moment:
    """Put the networks to publish into `players`: the last ones, or those of the best evaluation."""
    selection, best, last = run.config.selection, run.control.best, Moment(run.control.attempt, run.step)
    if selection.name == "none" or selection.keep == "last" or best is None:
        return last
    moment, final = Moment(int(best["attempt"]), int(best["step"])), run.control.measures[-1]
    if final["step"] == run.step and not better(selection.metric, best["value"], final[selection.metric]):
        return last
    if moment != last and load_moment(run.state, run.players, run.processes, moment) is None:
        raise ValueError(
            f"the best checkpoint, of step {moment.step}, is missing or damaged in {run.state}; delete that folder "
            "and run it again"
        )
    return moment
