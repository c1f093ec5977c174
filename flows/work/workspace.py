"""A folder of its own for a deployed run: one commit in a git worktree, sharing DVC's cache and the state folder.

So neither a dirty working copy nor a person at work in it disturbs the run, and the run does not disturb them. The
worktree is removed when the run ends; that of a failed run stays until the next one starts, so there is never more than
one.
"""

import configparser
import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.work.pipeline import DVC
from flows.work.process import dvc_sentence, last_sentence
from flows.work.repository import git
from flows.work.retry import Unavailable

_AWAY = (
    "connect", "timed out", "timeout", "unreachable", "name resolution", "name or service", "temporar", "reset by peer",
    "slowdown", "service unavailable", "bad gateway", "502", "503", "504", "broken pipe", "server disconnected",
)  # fmt: skip
_PATHS = (  # settings of a remote that DVC resolves relative to the file that holds them
    "url", "credentialpath", "configpath", "keyfile", "cert_path", "key_path", "gdrive_service_account_json_file_path",
    "gdrive_user_credentials_file",
)  # fmt: skip
_OTHERS = 3  # exit code of infra.digits if other images belong there
_REFUSED = ("denied", "forbidden", "credential", "unauthor", "signature", "invalidaccesskey")


@dataclasses.dataclass(kw_only=True)
class Workspace:
    """Where a run works. `remote`: name of DVC's default remote, or None. `keep`: do not remove the folder."""

    home: Path
    """The clone that it belongs to."""
    path: Path
    remote: str | None
    keep: bool = False


@contextlib.contextmanager
def workspace(project: Path, state: Path, commit: str, name: str = "worktrees") -> Iterator[Workspace]:
    """A worktree of `commit` in a folder of the state folder; only one caller may use that folder at a time.

    Raises ValueError if git refuses, or as `_settle` does.
    """
    folder = state / name
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.iterdir():
        _remove(project, left)
    path = folder / f"run-{commit[:12]}"
    git(project, "worktree", "add", "--quiet", "--detach", "--force", str(path), commit)
    opened: Workspace | None = None
    try:
        opened = Workspace(home=project, path=path, remote=_settle(project, path))
        yield opened
    finally:
        if opened is None or not opened.keep:
            _remove(project, path)
        else:
            (path / ".dvc" / "config.local").unlink(missing_ok=True)  # it may hold credentials


def fill(place: Workspace, waiting: Callable[[Callable[[], str]], str]) -> None:
    """Put the raw data of the commit into the workspace: from DVC's cache, else from its remote.

    `waiting` calls what it is given, and again if that raises Unavailable. Raises ValueError if neither holds them.
    """
    tracked = git(place.path, "ls-files", "--", "*.dvc").splitlines()
    if "data/raw.dvc" not in tracked:
        _digits(place.path)
    if not tracked:
        return
    try:
        dvc(place.path, "checkout", "--force", *tracked)
    except ValueError as error:
        if place.remote is None:
            raise ValueError(
                f"the cache lacks data that {', '.join(tracked)} name, and there is no DVC remote to pull them from"
                f" ({error}); run `dvc add` where the data are, or configure the remote"
            ) from None
        waiting(lambda: dvc(place.path, "pull", "--force", *tracked))


def dvc(project: Path, *arguments: str) -> str:
    """What `dvc ARGUMENTS` prints. Raises ValueError with its last sentence; Unavailable if a store is away."""
    answer = subprocess.run([*DVC, *arguments], cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode == 0:
        return answer.stdout
    words = answer.stderr.lower()
    away = any(word in words for word in _AWAY) and not any(word in words for word in _REFUSED)
    raise (Unavailable if away else ValueError)(f"dvc {arguments[0]}: {dvc_sentence(answer.stderr)}")


def _digits(path: Path) -> None:
    """Write the default images if the commit's datasheet is theirs; for any other data set nothing is made up."""
    command = [sys.executable, "-m", "infra.digits", "--out", "data/raw", "--datasheet", "data/datasheet.yaml"]
    answer = subprocess.run(command, cwd=path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode == _OTHERS or not (path / "infra" / "digits.py").is_file():
        raise ValueError(
            "this commit has no data/raw.dvc, so a run outside the working copy cannot get its images;"
            " run `dvc add data/raw` and commit data/raw.dvc (`make retrain` works without it)"
        )
    if answer.returncode:
        raise ValueError(f"the default images could not be written: {last_sentence(answer.stderr.splitlines())}")


def _settle(project: Path, path: Path) -> str | None:
    """Give the worktree the clone's DVC settings (credentials too, mode 0600) and cache; returns its default remote.

    Raises ValueError if remotes are configured but none is the default, or if that is a folder that does not exist.
    """
    home, local = project / ".dvc", path / ".dvc" / "config.local"
    if not local.parent.is_dir():
        raise ValueError(f"{local.parent.name} is not part of this commit; run `dvc init` and commit it")
    config = configparser.RawConfigParser(strict=False)
    for name in ("config", "config.local"):
        for section, values in _read(home / name).items():
            if not config.has_section(section):
                config.add_section(section)
            for key, value in values.items():
                config.set(section, key, value)
    if not config.has_section("cache"):
        config.add_section("cache")
    config.set("cache", "dir", _absolute(config.get("cache", "dir", fallback="cache"), home))
    for section in config.sections():
        for key in _PATHS if "remote " in section else ():
            if config.has_option(section, key):
                config.set(section, key, _absolute(config.get(section, key), home))
    local.touch(mode=0o600)
    with local.open("w", encoding="utf-8") as file:
        config.write(file)
    return _default_remote(config)


def _default_remote(config: configparser.RawConfigParser) -> str | None:
    remotes = {section.strip("'\"").removeprefix("remote ").strip("'\""): section for section in config.sections()}
    remotes = {name: section for name, section in remotes.items() if "remote " in section}
    name = config.get("core", "remote", fallback=None)
    if name is None and remotes:
        raise ValueError(f"DVC has the remotes {', '.join(remotes)} but no default one; run `dvc remote default NAME`")
    if name is None:
        return None
    if name not in remotes:
        raise ValueError(f"DVC's default remote {name} is not configured; run `dvc remote add {name} URL`")
    url = config.get(remotes[name], "url", fallback="")
    if "://" not in url and not Path(url).is_dir():
        raise ValueError(f"DVC's remote {name} is the folder {url}, which does not exist; mount it, or make it")
    return name


def _read(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _absolute(place: str, home: Path) -> str:
    """The absolute form of a folder in DVC's settings, which are relative to the settings' own folder `home`."""
    return place if "://" in place else str((home / Path(place).expanduser()).resolve())


def _remove(project: Path, path: Path) -> None:
    with contextlib.suppress(ValueError):
        git(project, "worktree", "remove", "--force", "--force", str(path))
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
        git(project, "worktree", "prune")
