"""The course of a run: it is measured, alarms are raised, it goes back, and what it publishes is chosen."""

import logging
from typing import TYPE_CHECKING

from stages.config.train import TrainConfig
from stages.train._checkpoints import Position, load_moment, load_newest
from stages.train._control import Moment, better
from stages.train._measure import measured

if TYPE_CHECKING:
    from stages.train._loop import Run

_log = logging.getLogger(__name__)


def measure(run: "Run") -> bool:
    """Evaluate the generator; whether the run must go back."""
    assert run.yardstick is not None
    players, row = run.players, {"step": float(run.step), "kimg": run.images / 1000}
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
    cannot go on, may not go back any more, and has no best moment to end with."""
    most = run.config.rollbacks.most
    run.control.alarmed(run.step, kind, said)
    if run.processes.first:
        run.meter.write({"step": run.step, "alarm": kind, "said": said})
        run.board.text(kind, said, run.step)
    if most > run.control.attempt:
        _warn(run, "%s at step %d: %s", kind, run.step, said)
        return True
    if not (most or fatal):
        _warn(run, "%s at step %d: %s; training goes on, see train.rollbacks", kind, run.step, said)
        return False
    if run.control.to_publish(run.config) is None:
        raise _failure(run)
    return True


def _failure(run: "Run") -> FloatingPointError:
    """Why the run cannot go on from its last alarm, and what may help."""
    last, most = run.control.alarms[-1], run.config.rollbacks.most
    kind, step, said = last["kind"], last["step"], last["said"]
    again = f"{kind} at step {step}, and the run went back {most} times already"
    begin = again if most else f"training diverged at step {step}"
    return FloatingPointError(f"{begin}: {said}; {_advice(run.config, kind, images=len(run.split))}")


def _advice(config: TrainConfig, kind: str, *, images: int) -> str:
    """What may help against such trouble and is not refused with these settings and so many training images."""
    if kind == "overfitting":
        return "use more images, or more of train.augmentation and train.variations"
    ways = ["lower train.lr"]
    if config.penalties:
        ways.insert(0, f"raise the gamma of {' and '.join(penalty.name for penalty in config.penalties)}")
    elif "discriminator" not in config.network.batch_statistics:
        ways.insert(0, "add the penalties r1 and r2")
    if kind == "collapse" and config.batch < images:
        ways.append("raise train.batch")
    return ", ".join([*ways[:-1], f"or {ways[-1]}"]) if len(ways) > 1 else ways[0]


def _warn(run: "Run", text: str, *arguments: object) -> None:
    """Say it once, whatever the number of processes."""
    if run.processes.first:
        _log.warning(text, *arguments)


def go_back(run: "Run") -> None:
    """Go on in another way from the last good checkpoint or the start; where that was done as often as it may be, end
    with the best moment."""
    if run.control.attempt < run.config.rollbacks.most:
        _roll_back(run)
    else:
        _end_with_the_best(run)


def _roll_back(run: "Run") -> None:
    """Go to the last good checkpoint, or to the start where there is none."""
    good, earlier = run.control.good, Position.start()
    if good is None:
        run.renew()
    else:
        found = load_moment(run.state, run.players, run.processes, Moment.of(good))
        if found is None:  # train up to it again, and the alarm comes again
            run.renew()
            run.take(load_newest(run.state, run.players, run.processes, up_to=run.steps))
            return
        earlier = found
    attempt, most = run.control.attempt + 1, run.config.rollbacks.most
    _warn(run, "going back to step %d, %d of %d times", earlier.step, attempt, most)
    _return_to(run, earlier)


def _end_with_the_best(run: "Run") -> None:
    """Go to the best moment, and no further. Raises FloatingPointError where its checkpoint is lost."""
    assert run.control.best is not None
    earlier = load_moment(run.state, run.players, run.processes, Moment.of(run.control.best))
    if earlier is None or not earlier.rows:  # without a row of the curves there is nothing to publish
        raise _failure(run)
    stopped = str(_failure(run))
    _warn(run, "%s; the run ends with its best moment, step %d", stopped, earlier.step)
    _return_to(run, earlier, stopped=stopped)


def _return_to(run: "Run", earlier: Position, *, stopped: str | None = None) -> None:
    """Stand at an earlier moment, whose networks `players` hold already: enter that in the decisions, and save."""
    final = run.step == run.steps and not run.regular(run.step)
    kind = run.control.alarms[-1]["kind"]
    back = run.control.went_back(earlier.control, step=run.step, to=earlier.step, kind=kind, final=final)
    back.stopped = stopped
    run.take(earlier._replace(control=back))
    run.save()


def choose(run: "Run") -> Moment:
    """Put the networks to publish into `players`: the last ones, or those of the best evaluation."""
    selection, best = run.config.selection, run.control.to_publish(run.config)
    last = Moment(run.control.attempt, run.step)
    if selection.name == "none" or best is None:
        return last
    moment, final = Moment.of(best), run.control.measures[-1]
    if final["step"] == run.step and not better(selection.metric, best["value"], final[selection.metric]):
        return last
    if moment != last and load_moment(run.state, run.players, run.processes, moment) is None:
        raise ValueError(
            f"the best checkpoint, of step {moment.step}, is missing or damaged in {run.state}; delete that folder "
            "and run it again"
        )
    return moment
