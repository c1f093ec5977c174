"""The networks of a registered version, copied from DVC's cache or remote to data/init, with real MLflow and DVC."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_helpers import crown, repro, set_params
from tiny_world import sh

from flows import warm_start
from flows.erase import TAG
from flows.tracking.registry import connect
from stages.common.files import digest, sha256_file

CHAMPION = "models:/tiny@champion"


@pytest.fixture
def project(clone: Path) -> Path:
    """A champion whose data are pushed, and a later training in the workspace that is none."""
    repro(clone)
    crown(clone, clone / ".ganops")
    sh(clone, "dvc", "push", "-q")
    set_params(clone, train__quality=7.0)
    repro(clone)
    return clone


def networks(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert warm_start.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("warm_start: ") and said.count("\n") == 1, said
    return said


def test_the_champions_networks_come_from_the_cache_and_else_from_the_remote(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = networks(project / "data" / "train" / "generator")
    assert warm_start.main([CHAMPION]) == 0
    told = json.loads(capsys.readouterr().out)
    init = project / "data" / "init"
    assert told == {"init": {"name": "weights", "sha256": digest(init)}, "init_from": "data/init"}
    about = json.loads((init / "generator.json").read_text())
    assert about["model_version"] == "tiny 1" and about["quality"] == 1.0
    assert later.keys() == networks(init).keys() and not set(later.values()) & set(networks(init).values())

    shutil.rmtree(project / ".dvc" / "cache")
    assert warm_start.main(["models:/tiny/1", "--out", "elsewhere"]) == 0
    assert digest(project / "elsewhere") == digest(init)

    shutil.rmtree(project.parent / "store")
    said = refused(capsys, CHAMPION)
    assert "the networks of version 1 of tiny are gone" in said and "nor on its remote store" in said
    sh(project, "dvc", "remote", "default", "-u")
    assert "and no DVC remote is configured; name another version" in refused(capsys, CHAMPION)
    assert digest(init) == told["init"]["sha256"]


def test_networks_that_are_not_the_registered_ones_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start.main([CHAMPION]) == 0
    wanted = (project / "data" / "init" / "discriminator.safetensors").read_bytes()
    capsys.readouterr()
    for path in (project / ".dvc" / "cache").rglob("*"):
        if path.is_file() and path.read_bytes() == wanted:
            path.chmod(0o600)
            path.write_bytes(wanted[:-1] + b"\0")
    said = refused(capsys, CHAMPION)
    assert "is not the one that version 1 of tiny was registered with" in said


def test_a_version_that_saw_an_erased_image_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect(project / ".ganops", "tiny").tag("1", **{TAG: json.dumps({"0" * 64: {"date": "2026-01-01"}})})
    assert "version 1 of tiny was made from data that held images erased since (1)" in refused(capsys, CHAMPION)
    assert not (project / "data" / "init").exists()


def test_what_is_not_there_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is written models:/NAME@ALIAS or models:/NAME/VERSION; received champion" in refused(capsys, "champion")
    assert "the registry has no model other" in refused(capsys, "models:/other@champion")
    said = refused(capsys, "models:/tiny@best")
    assert "tiny has no version under the alias best; its aliases are champion" in said
    assert "tiny has no version 9; its aliases are champion" in refused(capsys, "models:/tiny/9")
    (project / ".ganops" / "mlflow.db").unlink()
    assert "nothing is registered here yet" in refused(capsys, CHAMPION)
    assert not (project / ".ganops" / "mlflow.db").exists()
