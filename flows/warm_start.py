"""Start a training from a registered version: `python -m flows.warm_start models:/NAME@champion`.

The registry keeps a version's ONNX file and papers, not its discriminator. Among these papers is its `dvc.lock`, which
names the output of its training; that lies in DVC's cache or on its remote. From there both networks are copied to
data/init, as `python -m stages.warm_start` does, provided that their SHA-256 match the training's summary in the
registry and that the registered ONNX file was exported from them. The two settings for section `train` are printed. No
alias is moved.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.registry import parse
from flows.command import command
from flows.erase import TAG
from flows.state import settle
from flows.tracking.evidence import dvc_md5
from flows.tracking.record import PIPELINE
from flows.tracking.registry import ONNX, Registry, connect, fetch_file, sentences, unmade
from flows.upkeep.holdings import Cache, open_repo
from stages import warm_start
from stages.common.files import sha256_file
from stages.common.summary import read_summary
from stages.generator_folder import FILES

if TYPE_CHECKING:
    from dvc.repo import Repo
    from mlflow.entities.model_registry import ModelVersion


def main(argv: Sequence[str] | None = None) -> int:
    """Copy and print; exit code 0 done, 1 refused (data/init is as it was), 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m flows.warm_start", description=__doc__)
    parser.add_argument(
        "version", metavar="models:/NAME@ALIAS", help="the version to start from; also models:/NAME/VERSION"
    )
    parser.add_argument("--out", type=Path, default=Path("data/init"), help="folder to write to; default: data/init")
    options = parser.parse_args(argv)

    def act() -> int:
        sha256 = begin(Path.cwd(), settle(), options.version, options.out)
        sys.stdout.write(warm_start.settings(sha256, options.out) + "\n")
        return 0

    return command("warm_start", act)


def begin(project: Path, state: Path, uri: str, out: Path) -> str:
    """Write the networks of that version to `out`; returns the digest of `out`. Raises ValueError if there is no such
    version, or if its networks are gone or are not those that were registered."""
    name, alias, number = parse(uri)
    if unmade(state):
        raise ValueError(f"{uri} does not exist: nothing is registered here yet; run `make retrain` first")
    with sentences(), tempfile.TemporaryDirectory() as folder, open_repo(project) as repo:
        place, registry = Path(folder), connect(state, name)
        version = _version(registry, alias, number)
        called = f"version {version.version} of {registry.name}"
        if erased := json.loads(version.tags.get(TAG, "{}")):
            raise ValueError(
                f"{called} was made from data that held images erased since ({len(erased)}), and a training from it"
                " would inherit them; name another version, or train without a warm start"
            )
        onnx = registry.fetch(version, place / ONNX)
        for paper in (f"{PIPELINE}/dvc.lock", "train/summary.json"):
            _fetch_paper(registry, version, paper, place)
        md5 = dvc_md5(place / "dvc.lock", "data/train")
        if md5 is None:
            raise ValueError(
                f"the dvc.lock of {called} names no data/train, so its networks cannot be found; name another"
            )
        _bring_networks(repo, md5, place / "generator", called)
        expected = read_summary(place).outputs
        for name in FILES:
            if sha256_file(place / "generator" / name) != expected.get(f"generator/{name}"):
                raise ValueError(
                    f"{name} of the training {md5} in DVC's cache or remote is not the one that {called} was registered"
                    " with; remove that object, so that another remote or a new training can bring it back"
                )
        return warm_start.copy(place / "generator", out, onnx, version=f"{registry.name} {version.version}")


def _version(registry: Registry, alias: str | None, number: str | None) -> "ModelVersion":
    if not registry.exists():
        raise ValueError(f"the registry has no model {registry.name}")
    found = registry.alias(alias) if alias else registry.version(str(number))
    if found is None:
        known = {name for version in registry.versions() for name in version.aliases}
        what = f"version under the alias {alias}" if alias else f"version {number}"
        raise ValueError(f"{registry.name} has no {what}; its aliases are {', '.join(sorted(known)) or 'none'}")
    return found


def _fetch_paper(registry: Registry, version: "ModelVersion", paper: str, folder: Path) -> None:
    """Copy a file that was registered with the version to `folder`."""
    from mlflow.artifacts import list_artifacts

    parent, _, name = paper.rpartition("/")
    source = f"{registry.source(version)}/{parent}"
    if name not in {Path(item.path).name for item in list_artifacts(artifact_uri=source)}:
        raise ValueError(
            f"version {version.version} of {registry.name} was registered without {paper}, so it does not say which"
            " networks are its own; use `python -m stages.warm_start --from FOLDER --onnx FILE`"
        )
    fetch_file(f"{source}/{name}", folder / name)


def _bring_networks(repo: "Repo", md5: str, folder: Path, called: str) -> None:
    """Copy the folder `generator` of the training output with this MD5."""
    folder.mkdir()
    found = _bring(repo, md5, folder / "list")
    files = json.loads((folder / "list").read_text(encoding="utf-8")) if found else []
    objects = {entry["relpath"]: entry["md5"] for entry in files}
    for name in FILES:
        own = objects.get(f"generator/{name}")
        if own is None or not _bring(repo, own, folder / name):
            remote = repo.config["core"].get("remote")
            raise ValueError(
                f"the networks of {called} are gone: {name} of the training {md5} is not in DVC's cache "
                + (f"nor on its remote {remote}" if remote else "and no DVC remote is configured")
                + "; name another version, or train anew"
            )


def _bring(repo: "Repo", md5: str, to: Path) -> bool:
    """Copy the object with this MD5 from DVC's cache, or from its default remote; False if neither has it."""
    cached = Cache(repo).path(md5)
    if cached.is_file():
        shutil.copyfile(cached, to)
        return True
    remote = repo.config["core"].get("remote")
    if not remote:
        return False
    try:
        odb = repo.cloud.get_remote_odb(remote, "warm start")
        if not odb.fs.exists(odb.oid_to_path(md5)):
            return False
        odb.fs.get_file(odb.oid_to_path(md5), str(to))
    except Exception as error:  # noqa: BLE001  every kind of storage has its own errors
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"DVC's remote {remote} could not be read ({type(error).__name__}: {said})") from None
    return True


if __name__ == "__main__":
    sys.exit(main())
