"""A night, accelerated: twenty changes of data, five kills, a full disk and a registry outage, on real servers.

    GANOPS_NIGHT=3 pytest -n 0 -s tests/flows/test_night.py        # another seed: other kills at other moments

PostgreSQL, the S3 store, MLflow, Prefect and its worker are those of `make up`; retrains are started by the project's
own deployments, on schedule and by events. In each of seven hours the data change while nothing runs and again while a
training runs; then something goes wrong, and then they change once more.
"""

import fcntl
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from tiny_helpers import aliases, set_params
from tiny_night import KINDS, PREFECT, RED, Night, qualities, small_disk
from tiny_world import commit, sh

from flows.tracking.registry import connect
from tests.infra.conftest import Servers, need_packages

SEED = int(os.environ.get("GANOPS_NIGHT", "7"))
CHANGES, HOURS, KILLS = 20, 7, 5
HOUR_SECONDS = 600.0
DISK = "the full disk"
BLAME = re.compile(r"No space left on device|the registry at \S+ (does not answer|refused)|was killed \(signal 9\)")


@pytest.fixture
def night(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """All servers of `make up` beside the clone, whose state folder they share; worktrees lie on a small disk."""
    need_packages()
    set_params(
        clone, train__act="nap", compare__margin=0.0, retrain__retries=3, retrain__retry_seconds=2.0,
        retrain__wait_minutes=1.0,
    )  # fmt: skip
    commit(clone)
    servers = Servers(clone / ".ganops")
    with ExitStack() as stack:
        stack.enter_context(small_disk(servers.state / "worktrees"))
        stack.callback(servers.remove)
        answer = servers.command("up")
        assert answer.returncode == 0, answer.stderr
        for name, value in servers.settings().items():
            if name.startswith("MLFLOW_"):
                monkeypatch.setenv(name, value)
        made = Night(clone, servers)
        made.arrange()
        yield made


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_night_ends_with_the_last_data_trained_and_the_best_as_champion(night: Night) -> None:
    dice = random.Random(SEED)
    night.say(f"seed {SEED}")
    mounted = os.path.ismount(night.state / "worktrees")
    faults = [*dice.sample(KINDS, KILLS), "the registry outage", *([DISK] if mounted else [])]
    dice.shuffle(faults)
    changes = qualities(dice, CHANGES)
    for hour in range(HOURS):
        live(night, changes[3 * hour : 3 * hour + 3], faults[hour] if hour < len(faults) else None, dice)
    morning(night)
    if not mounted:
        pytest.skip("all of the night held but the full disk, which needs a user who may mount one")


def live(night: Night, changes: list[float], fault: str | None, dice: random.Random) -> None:
    """One hour: a change, another while that trains, a fault, perhaps a third change, and all of it is made good."""
    night.change(changes[0])
    night.wait("a training", night.busy, HOUR_SECONDS)
    night.change(changes[1])
    night.wait("a training", night.busy, HOUR_SECONDS)
    if fault == DISK:
        night.full_disk()
    elif fault == "the registry outage":
        night.registry_outage()
    elif fault is not None:
        time.sleep(dice.uniform(0, 4))
        night.kill(fault)
    for quality in changes[2:]:
        night.change(quality)
    night.wait("the last data trained", night.trained, HOUR_SECONDS)
    night.say(f"the last data are trained, after {fault}")


def morning(night: Night) -> None:
    """What must be true at the end."""
    stop_the_clock(night)
    night.tell_runs()
    versions_are_right(night)
    everything_is_explained(night)
    for name in ("retrain-nightly", "retrain-on-data-change"):  # no slot is stuck: both can run again and end
        said = night.command(*PREFECT, "deployment", "run", f"retrain/{name}", "--watch", "--watch-interval", "1")
        assert "Completed" in said, said
    nothing_is_left(night)


def stop_the_clock(night: Night) -> None:
    """No further run by the clock; what runs or waits comes to its end."""
    for item in night.prefect("deployments/filter", {}):
        for schedule in item["schedules"]:
            night.prefect(f"deployments/{item['id']}/schedules/{schedule['id']}", {"active": False}, "PATCH")
    over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    night.wait("all runs over", lambda: all(run["state_type"] in over for run in night.runs()), 600)


def versions_are_right(night: Night) -> None:
    """The last data are trained, each content is one version, and the champion is the best of those that passed."""
    assert night.trained()
    registry = connect(night.state, "tiny")
    quality = {
        str(version.version): float(registry.client.get_run(version.run_id).data.params["train.quality"])
        for version in registry.versions()
    }
    night.say(f"versions and their quality: {quality}")
    assert len(set(quality.values())) == len(quality) >= HOURS
    assert set(quality.values()) <= set(night.contents)
    assert len({version.tags["idempotence_key"] for version in registry.versions()}) == len(quality)
    assert night.contents[-1] in quality.values()
    passed = {number: value for number, value in quality.items() if value >= RED}
    assert aliases(registry)["champion"] == max(passed, key=lambda number: passed[number])
    for version in registry.versions():
        assert version.tags["decision"] and version.tags["reason"] and version.tags["judged_by"], version.tags
        assert (version.tags["decision"] == "red") == (quality[str(version.version)] < RED), version.tags
    assert "intent" not in registry.notes()


def everything_is_explained(night: Night) -> None:
    """Each run that did not complete says why, in one sentence; one that failed names what was done to it."""
    for run in night.runs():
        if run["state_type"] != "COMPLETED":
            message = (run["state"] or {}).get("message") or ""
            assert len(message) > 20 and "Traceback" not in message and "\n" not in message.strip(), run
            assert run["state_type"] != "FAILED" or BLAME.search(message), run


def nothing_is_left(night: Night) -> None:
    """No process, no slot, no lock, no worktree; and after `make down` nothing at all."""
    night.wait("no slot taken", lambda: not night.slots(), 120)
    night.wait("no process in the clone", lambda: not night.own(), 60)
    assert not [path for path in night.state.glob("*.lock") if held(path)]
    assert not list((night.project / ".git").rglob("*.lock"))
    assert [path.name for path in (night.state / "worktrees").iterdir()] == []
    assert list((night.state / "looks").glob("*")) == []
    assert sh(night.project, "git", "worktree", "list").count("\n") == 0
    assert sh(night.project, "git", "status", "--porcelain", "--untracked-files=no") == ""
    runs = connect(night.state, "tiny").client.search_runs([connect(night.state, "tiny").experiment()])
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    assert night.servers.command("down").returncode == 0
    assert not [process for process in psutil.process_iter() if of_this_night(process, night.state)]


def held(path: Path) -> bool:
    """Whether somebody holds the kernel lock of this file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def of_this_night(process: psutil.Process, state: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("GANOPS_STATE") == str(state)
    except psutil.Error:
        return False
