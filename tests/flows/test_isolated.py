"""The deployed retrain on real git and DVC: from a commit, in a worktree, data before pointer, nothing half done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_helpers import gone, set_params
from tiny_world import ME, commit, enter, sh, versions

from flows import deployments, isolated
from flows.ask import recheck
from flows.state import hold
from flows.tracking.registry import connect
from flows.work.repository import chosen, git, head, inputs
from flows.work.workspace import workspace


@pytest.fixture(scope="session")
def once(published: Path, prefect_api: str, schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That world after one run, started where somebody was at work."""
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        project = enter(published, tmp_path_factory.mktemp("once"), schema, patch)
        set_params(project, train__act="fail")
        (project / "data" / "raw" / "one.txt").write_text("half an edit")
        assert retrain()[0] == "Completed"
    for name in set(os.environ) - set(before):
        del os.environ[name]
    return project.parent


@pytest.fixture
def trained(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that world, with nobody at work any more."""
    project = enter(once, tmp_path, None, monkeypatch)
    sh(project, "git", "checkout", "-q", "params.yaml")
    return project


def retrain(commit: str | None = None) -> tuple[str, str]:
    """One run of the deployed flow, on the session's server: its state's name and message."""
    state = deployments.retrain(commit, return_state=True)
    return state.name, state.message or ""


def run_branches(folder: Path) -> list[str]:
    return sh(folder, "git", "for-each-ref", "--format=%(refname:short)", "refs/heads/ganops").split()


def untouched(project: Path, said: str = "") -> None:
    """Nothing half done: no version, no run branch here or on the remote."""
    assert not connect(project / ".ganops", "tiny").exists(), said
    assert run_branches(project) == run_branches(project.parent / "origin.git") == []


def test_a_dirty_copy_is_left_alone_and_data_go_before_the_pointer(once: Path) -> None:
    project = once / "project"
    assert sh(project, "git", "status", "--porcelain").split() == ["M", "params.yaml"]
    assert (project / "data" / "raw" / "one.txt").read_text() == "half an edit"
    assert sorted(path.name for path in (project / "data").iterdir()) == ["raw", "raw.dvc"]
    assert list((project / ".ganops" / "worktrees").iterdir()) == []
    assert sh(project, "git", "worktree", "list").count("\n") == 0

    [branch] = run_branches(once / "origin.git")
    assert run_branches(project) == [branch]
    assert sh(project, "git", "rev-parse", f"{branch}^") == sh(project, "git", "rev-parse", "main")
    assert sh(project, "git", "diff", "--name-only", "main", branch) == "dvc.lock"

    sh(once, "git", "clone", "-q", "-b", branch, "origin.git", "other")  # somebody else has only the two remotes
    sh(once / "other", sys.executable, "-m", "dvc", "pull", "-q")
    assert json.loads((once / "other" / "data" / "card" / "verdict.json").read_text())["passed"] is True
    assert sh(once / "other", sys.executable, "-m", "dvc", "status", "--json") == "{}"


def test_the_version_names_the_commit_that_holds_its_lock(trained: Path) -> None:
    [version], [branch] = versions(trained), run_branches(trained)
    run = connect(trained / ".ganops", "tiny").client.get_run(version.run_id)
    assert (run.data.tags["git.commit"], run.data.tags["git.dirty"]) == (
        sh(trained, "git", "rev-parse", branch),
        "false",
    )
    assert branch.startswith(f"ganops/run-{run.data.tags['work_key'][:12]}-")


def test_nothing_new_ends_without_a_workspace_and_a_page_is_no_work(
    trained: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained / "README.md").write_text("a page\n")
    sh(trained, "git", "add", "README.md")
    commit(trained)
    monkeypatch.setattr(isolated, "workspace", None)  # calling it would fail
    assert retrain()[0] == "Completed"
    assert len(versions(trained)) == len(run_branches(trained)) == 1


@pytest.mark.slow
def test_what_changes_during_a_run_is_taken_up_by_another_round(
    clone: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.work import publish

    push_data, pushed = publish.push_data, []

    def push_and_change(place: Any) -> str:
        if len(pushed) < 2:  # somebody else's push moves the branch while the run is busy
            set_params(clone, train__seed=1 + len(pushed))
            pushed.append(commit(clone))
        return push_data(place)

    monkeypatch.setattr(publish, "push_data", push_and_change)
    assert retrain()[0] == "Completed"
    assert next(version.tags["decision"] for version in versions(clone)) == "promoted"
    assert len(versions(clone)) == len(run_branches(clone)) == 3
    assert isolated.finished(clone, clone / ".ganops", inputs(clone, pushed[-1]))


@pytest.mark.slow
def test_a_failed_round_keeps_its_workspace_until_the_next(clone: Path, prefect_api: str) -> None:
    set_params(clone, train__act="fail")
    commit(clone)
    name, message = retrain()
    assert (name, message) == ("Failed", "stage train: the loss is not finite at step 7; lower train.rate")
    [kept] = (clone / ".ganops" / "worktrees").iterdir()
    assert (kept / "data" / "ingest" / "dataset.json").is_file()
    untouched(clone)
    set_params(clone, train__act="work")
    commit(clone)
    assert retrain()[0] == "Completed"
    assert list((clone / ".ganops" / "worktrees").iterdir()) == []


def shallow(project: Path) -> None:
    (project / ".git" / "shallow").write_text(sh(project, "git", "rev-parse", "HEAD") + "\n")


def detached(project: Path) -> None:
    sh(project, "git", "switch", "-q", "--detach")


def upstream_diverged(project: Path) -> None:
    other = project.parent / "other"
    sh(project.parent, "git", "clone", "-q", "-b", "main", "origin.git", "other")
    sh(other, "git", *ME, "commit", "-q", "--allow-empty", "-m", "theirs")
    sh(other, "git", "push", "-q")
    sh(project, "git", *ME, "commit", "-q", "--allow-empty", "-m", "ours")


def no_store(project: Path) -> None:
    shutil.rmtree(project.parent / "store")


def store_without_default(project: Path) -> None:
    sh(project, sys.executable, "-m", "dvc", "remote", "default", "-u", "-q")


def store_away(project: Path) -> None:
    sh(project, sys.executable, "-m", "dvc", "remote", "modify", "-q", "store", "url", "http://127.0.0.1:9/store")


def data_nowhere(project: Path) -> None:
    shutil.rmtree(project / ".dvc" / "cache")
    store_without_default(project)
    sh(project, sys.executable, "-m", "dvc", "remote", "remove", "-q", "store")


def data_untracked(project: Path) -> None:
    sh(project, "git", "rm", "-q", "--cached", "data/raw.dvc")
    commit(project)


def lock_cut(project: Path) -> None:
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  ingest:\n    cmd: python tiny_stages.py ingest\n")
    sh(project, "git", "add", "dvc.lock")
    commit(project)


def params_wrong(project: Path) -> None:
    set_params(project, retrain__rounds=0)
    commit(project)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shallow, "this clone is shallow, so no run branch can be pushed from it; run `git fetch --unshallow`"),
        (detached, "HEAD is detached, so no branch says which commit to train; run `git switch BRANCH`"),
        (upstream_diverged, "have diverged; merge or rebase, then run it again"),
        (no_store, "store, which does not exist; mount it, or make it"),
        (store_without_default, "DVC has the remotes store but no default one; run `dvc remote default NAME`"),
        pytest.param(store_away, "dvc push: ", marks=pytest.mark.slow),
        (data_nowhere, "the cache lacks data that data/raw.dvc name, and there is no DVC remote to pull them from"),
        (data_untracked, "run `dvc add data/raw` and commit data/raw.dvc"),
        (lock_cut, "dvc.lock is not what DVC wrote (edited by hand, or cut off); run `git checkout dvc.lock`"),
        (params_wrong, "retrain.rounds"),
    ],
)
def test_what_a_run_cannot_start_from_or_end_in_is_one_sentence(
    clone: Path, prefect_api: str, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(clone)
    name, message = retrain()
    assert name == "Failed"
    assert sentence in message and "\n" not in message and len(message) < 400
    untouched(clone, message)


def test_a_run_branch_with_another_history_is_not_overwritten(trained: Path, prefect_api: str) -> None:
    [branch] = run_branches(trained)
    foreign = sh(trained, "git", *ME, "commit-tree", "main^{tree}", "-p", "main", "-m", "foreign")
    sh(trained, "git", "push", "-q", "--force", "origin", f"{foreign}:refs/heads/{branch}")
    sh(trained, "git", "branch", "-D", branch)
    name, message = retrain()
    assert name == "Failed"
    assert f"on origin, branch {branch} holds another history, which is not overwritten" in message
    assert sh(trained.parent / "origin.git", "git", "rev-parse", branch) == foreign


def test_what_the_git_server_refuses_is_told_in_its_own_words(clone: Path, prefect_api: str) -> None:
    hook = clone.parent / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'You are not allowed to push to protected branches' >&2\nexit 1\n")
    hook.chmod(0o755)
    assert retrain() == ("Failed", "git push: You are not allowed to push to protected branches")


def test_a_server_that_knows_nobody_is_not_told_as_something_else(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sh(clone, "git", "remote", "set-url", "origin", "ssh://git@example.invalid/project")
    said = "git@example.invalid: Permission denied (publickey)."
    monkeypatch.setenv("GIT_SSH_COMMAND", f"sh -c 'echo \"{said}\" >&2; exit 255'")
    with pytest.raises(ValueError, match=r"^git fetch: git@example\.invalid: Permission denied \(publickey\)\.$"):
        head(clone)


def test_settings_of_remotes_name_the_same_files_in_a_workspace(clone: Path) -> None:
    local = clone / ".dvc" / "config.local"
    local.write_text("['remote \"keys\"']\n    url = s3://bucket/files\n    credentialpath = ../keys/credentials\n")
    with workspace(clone, clone / ".ganops", head(clone), "looks") as place:
        said = (place.path / ".dvc" / "config.local").read_text()
        place.keep = True
    assert f"credentialpath = {clone / 'keys' / 'credentials'}\n" in said and "url = s3://bucket/files\n" in said
    assert place.path.is_dir() and not (place.path / ".dvc" / "config.local").exists()  # it may hold passwords


def test_the_champion_is_checked_on_the_newest_commit_and_not_on_the_working_copy(
    trained: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    before = sh(trained, "git", "status", "--porcelain")
    (trained / "data" / "raw" / "one.txt").write_text("7")  # the content of tiny data says how hard they are
    assert recheck(return_state=True).name == "Completed"
    sh(trained, sys.executable, "-m", "dvc", "add", "-q", "data/raw")
    commit(trained)
    found = recheck(return_state=True)
    assert found.name == "Failed" and "ALARM: champion tiny version 1: distance: the" in str(found.message)
    assert sh(trained, "git", "status", "--porcelain") == before
    assert sorted(path.name for path in (trained / "data").iterdir()) == ["raw", "raw.dvc"]
    assert list((trained / ".ganops" / "rechecks").iterdir()) == []


def test_a_hand_edited_lock_is_put_right(trained: Path, prefect_api: str) -> None:
    [branch] = run_branches(trained)
    sh(trained, "git", "merge", "-q", branch)
    lock = (trained / "dvc.lock").read_text()
    digest = lock.partition("path: data/train\n")[2].partition("md5: ")[2].split()[0]
    (trained / "dvc.lock").write_text(lock.replace(digest, "0" * 32 + ".dir"))
    edited = commit(trained)
    connect(trained / ".ganops", "tiny").client.delete_model_version_tag("tiny", "1", "judged_by")
    assert retrain()[0] == "Completed"
    newest = f"{branch[: -len('-12345678')]}-{edited[:8]}"
    assert sh(trained, "git", "show", f"{newest}:dvc.lock") == lock.strip()
    assert len(versions(trained)) == 1


def test_a_commit_is_a_hash_of_this_branch_and_nothing_else(clone: Path) -> None:
    first = sh(clone, "git", "rev-parse", "main~1")
    assert chosen(clone, first) == chosen(clone, first[:9]) == first
    stray = sh(clone, "git", *ME, "commit-tree", "main^{tree}", "-m", "of nowhere")
    for wrong, sentence in (
        ("--upload-pack=touch x", "hexadecimal digits; received '--upload-pack=touch x'"),
        ("main; rm -rf /", "hexadecimal digits"),
        ("../../etc/passwd", "hexadecimal digits"),
        ("f" * 40, "is not in this clone"),
        (stray, "is not part of the branch that is checked out"),
    ):
        with pytest.raises(ValueError, match=sentence):
            chosen(clone, wrong)


def test_the_upstream_is_where_a_run_starts_when_it_is_ahead(clone: Path) -> None:
    other = clone.parent / "other"
    sh(clone.parent, "git", "clone", "-q", "-b", "main", "origin.git", "other")
    sh(other, "git", *ME, "commit", "-q", "--allow-empty", "-m", "theirs")
    sh(other, "git", "push", "-q")
    assert head(clone) == sh(other, "git", "rev-parse", "HEAD") != sh(clone, "git", "rev-parse", "HEAD")
    git(clone, "remote", "set-url", "origin", "http://127.0.0.1:9/origin.git")
    with pytest.raises(ValueError, match="git fetch: fatal: unable to access") as caught:
        head(clone)
    assert type(caught.value).__name__ == "Unavailable"


def test_a_run_waits_for_another_no_longer_than_it_may(clone: Path, prefect_api: str) -> None:
    with hold(clone / ".ganops"):
        name, message = retrain()
    assert (name, "another retrain holds" in message) == ("Failed", True)
    untouched(clone)


@pytest.mark.slow
def test_a_training_of_another_machine_is_restored_from_the_remote(
    clone: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, dvc = clone.parent / "gpu node", [sys.executable, "-m", "dvc"]
    sh(clone.parent, "git", "clone", "-q", "-b", "main", "origin.git", str(other))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    sh(clone, *dvc, "push", "-q")
    sh(other, *dvc, "repro", "--pull", "train")
    sh(other, *dvc, "push", "--run-cache")
    monkeypatch.setenv("TINY_NO_TRAINING", "1")
    assert retrain()[0] == "Completed"
    assert len(versions(clone)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_trainer_and_the_next_one_cleans_up(
    clone: Path, prefect_api: str, number: signal.Signals
) -> None:
    set_params(clone, train__act="sleep")
    commit(clone)
    code = "from flows.deployments import retrain; retrain()"
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(clone)}
    places = clone / ".ganops" / "worktrees"
    with (clone.parent / "said").open("w") as said:
        flow = subprocess.Popen([sys.executable, "-c", code], cwd=clone, env=environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + 120
            while not (found := list(places.glob("*/trainer.pid"))) or not found[0].read_text():
                assert flow.poll() is None and time.monotonic() < deadline, (clone.parent / "said").read_text()
                time.sleep(0.1)
            trainer = int(found[0].read_text())
            flow.send_signal(number)
            flow.wait(60)
        finally:
            flow.kill()
    assert gone(trainer, 30)
    set_params(clone, train__act="work")
    commit(clone)
    deadline = time.monotonic() + 30
    while (answer := retrain())[1].startswith("another retrain") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer[0] == "Completed"
    assert list(places.iterdir()) == []
