"""Housekeeping of the two stores in which others could lose something: the registry and DVC's cache."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.promotion.moves import history
from flows.state import embedded_store, serialised
from flows.tracking.record import PAPERS, PIPELINE
from flows.tracking.registry import Registry, fetch_file
from flows.work.process import last_sentence
from flows.work.repository import git
from flows.work.workspace import dvc

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_RED = ("red", "unfit", "slow")
_TAG = "ganops-keep-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broom:
    """What is swept, and how. `before`: what is older than this time (seconds since 1970) may go."""

    project: Path
    state: Path
    before: float
    dry: bool
    say: Callable[[str], None]

    def remove(self, path: Path, what: str) -> None:
        """Remove a file or folder; in a dry run, only say that it would be removed."""
        size = sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())
        self.say(f"{'would remove' if self.dry else 'removed'} {what} {path.name} ({size / 1e6:.1f} MB)")
        if self.dry:
            return
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def old(self, path: Path) -> bool:
        """Whether nothing in `path` was written since `before`."""
        return written(path) < self.before


def written(path: Path) -> float:
    """When something in `path` was last written, in seconds since 1970."""
    return max(file.lstat().st_mtime for file in [path, *path.rglob("*")])


def aliased(registry: Registry) -> "list[ModelVersion]":
    """The versions that some alias points to."""
    return [version for version in registry.versions() if version.aliases] if registry.exists() else []


def red_versions(broom: Broom, registry: Registry) -> None:
    """Delete old versions that could not be promoted: red, unfit or slow, no alias, never champion, not the newest."""
    versions = registry.versions() if registry.exists() else []
    once = {move.version for move in history(registry.notes())} | {move.best for move in history(registry.notes())}
    for version in versions[:-1]:
        number, young = str(version.version), version.creation_timestamp / 1000 >= broom.before
        if version.aliases or young or number in once or version.tags.get("decision") not in _RED:
            continue
        broom.say(f"{'would remove' if broom.dry else 'removed'} version {number} ({version.tags['decision']})")
        if not broom.dry:
            with serialised(broom.state):
                registry.client.delete_model_version(registry.name, number)
                registry.client.delete_run(str(version.run_id))
    if not broom.dry:
        _deleted_runs(broom)


def _deleted_runs(broom: Broom) -> None:
    """Have MLflow remove deleted runs' files from the embedded store; on a server that is left to its operator."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri != embedded_store(broom.state):
        broom.say("files of deleted runs stay until `mlflow gc` runs on the server")
        return
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise ValueError(f"mlflow gc: {last_sentence(answer.stderr.splitlines())}")


def dvc_cache(broom: Broom, registry: Registry | None) -> None:
    """`dvc gc`, keeping what the working copy, all branches and tags, and all young or aliased versions name.

    A cache outside the project may belong to others too, and a version that does not say which data it needs could lose
    them: in either case the cache is left alone.
    """
    if not (broom.project / ".dvc").is_dir():
        return
    cache = Path(dvc(broom.project, "cache", "dir").strip())
    if not cache.is_relative_to(broom.project.resolve()):
        broom.say(f"DVC's cache {cache} lies outside the project and may be shared with others: left alone")
        return
    versions = registry.versions() if registry is not None and registry.exists() else []
    needed = [item for item in versions if item.aliases or item.creation_timestamp / 1000 >= broom.before]
    with kept(broom.project, registry, needed) as unknown:
        if unknown:
            broom.say(f"version {', '.join(unknown)} was registered without dvc.lock: DVC's cache is left alone")
            return
        options = ["--dry"] if broom.dry else []
        said = dvc(broom.project, "gc", "--workspace", "--all-branches", "--all-tags", "--force", *options)
    for line in said.splitlines():
        if line.strip() and "legacy" not in line:
            broom.say(f"dvc gc: {line}")


@contextmanager
def kept(project: Path, registry: Registry | None, needed: "Sequence[ModelVersion]") -> Iterator[list[str]]:
    """While the block runs, git tags show DVC what these versions need; yields the versions that do not say."""
    with tempfile.TemporaryDirectory() as folder:
        papers = {str(version.version): _papers(registry, version, Path(folder)) for version in needed if registry}
    with _tagged(project, {number: files for number, files in papers.items() if files}):
        yield [number for number, files in papers.items() if "dvc.lock" not in files]


def _papers(registry: Registry, version: "ModelVersion", folder: Path) -> dict[str, bytes]:
    """The pipeline files that were registered with a version, by their path in the project."""
    from mlflow.artifacts import list_artifacts

    source = f"{registry.source(version)}/{PIPELINE}"
    found = {}
    for name in {Path(item.path).name for item in list_artifacts(artifact_uri=source)}:
        fetch_file(f"{source}/{name}", folder / name)
        path = next((paper for paper in PAPERS if Path(paper).name == name), None)
        if path is not None:
            found[path] = (folder / name).read_bytes()
    return found


@contextmanager
def _tagged(project: Path, papers: dict[str, dict[str, bytes]]) -> Iterator[None]:
    """While the block runs, a git tag for each version names a commit that holds its pipeline files."""
    for left in git(project, "tag", "--list", f"{_TAG}*").split():
        git(project, "tag", "-d", left)
    try:
        for number, files in papers.items():
            git(project, "tag", f"{_TAG}{number}", _commit(project, files))
        yield
    finally:
        for tag in git(project, "tag", "--list", f"{_TAG}*").split():
            git(project, "tag", "-d", tag)


def _commit(project: Path, files: dict[str, bytes]) -> str:
    """A commit of HEAD's tree with `files` in it, on no branch; neither working copy nor index is touched."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        environment |= {f"GIT_{who}_{what}": "ganops" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

        def plumb(*arguments: str, given: bytes | None = None) -> str:
            answer = subprocess.run(["git", *arguments], cwd=project, env=environment, input=given, capture_output=True)
            if answer.returncode:
                raise ValueError(f"git {arguments[0]}: {last_sentence(answer.stderr.decode().splitlines())}")
            return answer.stdout.decode().strip()

        plumb("read-tree", "HEAD")
        for path, content in files.items():
            blob = plumb("hash-object", "-w", "--stdin", given=content)
            plumb("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        return plumb("commit-tree", plumb("write-tree"), "-m", "what a registered version needs")
