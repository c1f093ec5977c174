"""Git as the flows use it: which commit a run starts from, what that commit holds, and one sentence if git refuses.

A deployed run never reads the working copy: a person may be editing it.
"""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flows.work.process import without_passwords
from flows.work.retry import Unavailable
from stages.config import load_section

C = TypeVar("C")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_AWAY = re.compile(
    r"could not resolve host|(failed to|could not|couldn't) connect|connection (refused|reset|closed)|timed out"
    r"|network is unreachable|early eof|hung up unexpectedly|returned error: 5\d\d",
    re.IGNORECASE,
)
_WHY = re.compile(
    r"permission denied|host key verification|authentication failed|\[(remote )?rejected\]", re.IGNORECASE
)


def git(project: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
    """What `git ARGUMENTS` prints. Raises ValueError with git's own reason; Unavailable if a server is away."""
    quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(extra or {})}
    environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")} | quiet
    command = ["git", "-C", str(project), "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    except OSError:
        raise ValueError("git is not installed; install it: a deployed retrain starts from a commit") from None
    if answer.returncode:
        said = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
        told = next((line for line in said if line.startswith(("fatal:", "error:"))), said[-1] if said else "refused")
        told = next((line for line in said if _WHY.search(line)), told)
        if "[remote rejected]" in answer.stderr:  # the server's own words, for example on a protected branch
            told = " ".join(line.removeprefix("remote:").strip() for line in said if line.startswith("remote:")) or told
        kind = Unavailable if _AWAY.search(answer.stderr) else ValueError
        raise kind(f"git {arguments[0]}: {without_passwords(told)}")
    return answer.stdout


def head(project: Path) -> str:
    """The newest commit of the branch that is checked out, fetched from its upstream if it has one.

    Raises ValueError if `project` is not a clone, is a shallow one or has no branch or commit, or if the branch has
    diverged from its upstream; Unavailable if the upstream's server is away.
    """
    if not _says(project, "rev-parse", "--git-dir"):
        raise ValueError(
            f"{project} is not a git repository; a deployed retrain starts from a commit: clone the project, or run"
            " `make retrain`, which needs none"
        )
    if git(project, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise ValueError("this clone is shallow, so no run branch can be pushed from it; run `git fetch --unshallow`")
    branch = _says(project, "symbolic-ref", "--quiet", "--short", "HEAD")
    if not branch:
        raise ValueError("HEAD is detached, so no branch says which commit to train; run `git switch BRANCH`")
    own = _says(project, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not own:
        raise ValueError(f"branch {branch} has no commit yet; commit the project first")
    return _newest(project, branch, own)


def _newest(project: Path, branch: str, own: str) -> str:
    remote = _says(project, "config", f"branch.{branch}.remote")
    if not remote or remote == ".":
        return own
    git(project, "fetch", "--quiet", "--no-tags", remote)
    theirs = _says(project, "rev-parse", "--verify", "--quiet", "@{upstream}^{commit}")
    if not theirs or theirs == own:
        return own
    common = _says(project, "merge-base", own, theirs)
    if common not in (own, theirs):
        raise ValueError(
            f"branch {branch} ({own[:8]}) and its upstream ({theirs[:8]}) have diverged;"
            " merge or rebase, then run it again"
        )
    return theirs if common == own else own


def chosen(project: Path, commit: str) -> str:
    """`commit` in full. Raises ValueError unless it is the hash of a commit of the branch that is checked out."""
    newest = head(project)
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"a run starts from a commit's hash, 7 to 64 hexadecimal digits; received {commit[:80]!r}")
    found = _says(project, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if not found:
        raise ValueError(f"commit {commit} is not in this clone; fetch it, or name another")
    if _says(project, "merge-base", found, newest) != found:
        raise ValueError(f"commit {found[:8]} is not part of the branch that is checked out; name one that is")
    return found


def git_remote(project: Path) -> str | None:
    """The remote that clones share: `origin`, else the first one; None if there is none."""
    remotes = git(project, "remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), None)


def inputs(project: Path, commit: str) -> str:
    """Digest of all that `commit` gives a run to work with: data, code and lock files of dvc.yaml, and params.yaml.

    Two commits with the same inputs are the same work: whatever else changed (a page, a test) concerns no stage.
    """
    entries = [line.partition("\t") for line in git(project, "ls-tree", "-r", "-z", commit).split("\0") if line]
    blobs = {path: about.split()[2] for about, _, path in entries}
    used = _dependencies(pipeline(project, commit)) | {"dvc.yaml", "params.yaml", "infra/digits.py"}
    chosen_paths = {path for path in blobs if path.endswith(".dvc") or any(_below(path, part) for part in used)}
    return sha256("\n".join(f"{blobs[path]} {path}" for path in sorted(chosen_paths)).encode()).hexdigest()


def pipeline(project: Path, commit: str) -> dict[str, Any]:
    """dvc.yaml of `commit`. Raises ValueError if it has none."""
    try:
        content = yaml.safe_load(git(project, "show", f"{commit}:dvc.yaml"))
        return dict(content["stages"])
    except (ValueError, TypeError, KeyError, yaml.YAMLError):
        raise ValueError(f"commit {commit[:8]} holds no dvc.yaml with stages; commit the project first") from None


@contextlib.contextmanager
def params_of(project: Path, commit: str) -> Iterator[Path]:
    """params.yaml as it stands in `commit`, as a file; a ValueError that mentions the file names the commit instead."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(git(project, "show", f"{commit}:params.yaml"), encoding="utf-8")
        try:
            yield path
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), f"params.yaml of commit {commit[:8]}")) from None


def section(kind: type[C], project: Path, commit: str, name: str) -> C:
    """Section `name` of params.yaml as it stands in `commit`. Raises ValueError as `load_section` does."""
    with params_of(project, commit) as path:
        return load_section(kind, path, name)


def _dependencies(stages: Mapping[str, Any]) -> set[str]:
    """Paths of all deps; for a templated one, the folder before the template."""
    found: set[str] = set()
    for stage in stages.values():
        for dep in stage.get("deps", ()):
            path = dep if isinstance(dep, str) else next(iter(dep))
            found.add(path.partition("${")[0].rstrip("/"))
    return found


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _says(project: Path, *arguments: str) -> str:
    """As `git`, stripped; empty if git refuses."""
    try:
        return git(project, *arguments).strip()
    except ValueError:
        return ""
