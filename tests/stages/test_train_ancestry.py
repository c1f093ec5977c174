"""What a training begins with: adopted work under changed settings, or other networks, pinned; both are recorded."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages import warm_start
from stages.common.files import digest, sha256_file
from stages.common.summary import Summary
from stages.config import build, load_section
from stages.config.export import ExportConfig
from stages.config.train import TrainConfig
from stages.export import run as export
from stages.store import open_store
from stages.train import run
from stages.train._trajectory import differences, key, recorded, trajectory
from tests.stages.small_training import bars, small
from tests.tracing import declared_by_stage

PROJECT = Path(__file__).parents[2]
SHORT = {"total_kimg": 0.48}  # 30 steps


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bars(tmp_path)
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    return tmp_path


def train(home: Path, out: str, *, adopt: str | None = None, networks: Path | None = None, **changes: Any) -> Summary:
    config = build(TrainConfig, small(**changes), "train")
    paths = {"images": home / "ingest", "passed": home / "passed.json", "out": home / out}
    return run(config, **paths, adopt=adopt, init=networks)


def named(home: Path, **changes: Any) -> str:
    return key(trajectory(build(TrainConfig, small(**changes), "train"), open_store(home / "ingest")))


def rows(home: Path, out: str) -> np.ndarray:
    return np.genfromtxt(home / out / "curves.csv", delimiter=",", names=True)


def test_adopted_work_goes_on_under_other_settings_and_says_so(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(home, "first", **SHORT)
    other = {"lr": 0.004, "seed": 8}
    adopted = train(home, "adopted", adopt=named(home), **other)
    assert "going on from step 30 of 60" in caplog.text and "seed 3 -> 8; lr 0.002 -> 0.004" in caplog.text
    assert rows(home, "adopted")[0] == rows(home, "first")[0]
    (entry,) = adopted.results["ancestry"]
    assert entry == {"adopted": named(home), "step": 30, "changes": ["seed 3 -> 8", "lr 0.002 -> 0.004"]}
    generator = json.loads((home / "adopted" / "generator" / "generator.json").read_text())
    assert generator["ancestry"] == [entry]

    # It stays what it is, asked again with the key or without, and is not the work that began afresh.
    assert train(home, "again", adopt=named(home), **other).outputs == adopted.outputs
    assert train(home, "again", **other).outputs == adopted.outputs
    (home / "state" / "train" / named(home, **other)).rename(home / "aside")
    fresh = train(home, "fresh", **other)
    assert fresh.outputs != adopted.outputs and fresh.results["ancestry"] == []
    with pytest.raises(ValueError, match="this work has begun already; to begin it anew delete"):
        train(home, "fresh", adopt=named(home), **other)


def test_adopted_work_may_have_other_losses_to_write_down(home: Path) -> None:
    """Its early rows know nothing of a penalty that came later; a reader of the curve passes over what is empty."""
    from flows.tracking.curves import whole

    r1, r2 = small()["penalties"]
    train(home, "first", penalties=[r1], **SHORT)
    for adopt in (named(home, penalties=[r1]), None):
        train(home, "data/train", adopt=adopt, penalties=[r1, r2])
    found = whole(home / "data", home / "state")
    assert [row["step"] for row in found] == [20.0, 40.0, 60.0]
    assert ["gradient_fake" in row for row in found] == [False, True, True]


def test_work_from_before_a_setting_was_there_is_adopted_as_what_it_was(home: Path) -> None:
    train(home, "first", **SHORT)
    record = home / "state" / "train" / named(home) / "trajectory.json"
    found = json.loads(record.read_text())
    assert [found["settings"].pop(name) for name in ("discriminator_steps", "generator_batch")] == [1, "fresh"]
    record.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"train\.discriminator_steps differs"):
        train(home, "twice", adopt=named(home), discriminator_steps=2)
    (entry,) = train(home, "adopted", adopt=named(home), seed=8).results["ancestry"]
    assert entry["changes"] == ["seed 3 -> 8"]


def test_a_record_with_bare_names_of_files_still_says_what_differs(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such records named fewer files, and kept one `__init__.py`, that of the networks."""
    caplog.set_level(logging.INFO)
    train(home, "first", **SHORT)
    record = home / "state" / "train" / named(home) / "trajectory.json"
    found = json.loads(record.read_text())
    later = ["gan/exchange.py", "gan/losses/__init__.py", "gan/ranks.py", "stages/config/train.py"]
    later += ["stages/processor.py", "stages/store.py", "stages/train/_processes.py", "stages/train/_samples.py"]
    code = {name.rpartition("/")[2]: digest for name, digest in found["code"].items() if name not in later}
    assert {"__init__.py", "r3gan.py", "relativistic.py", "training.py", "_loop.py"} < code.keys()
    assert len(code) == len(found["code"]) - len(later)
    for changed in ([], ["gan/training.py", "gan/networks/r3gan.py", "stages/train/_loop.py"]):
        altered = dict.fromkeys((name.rpartition("/")[2] for name in changed), "of another version")
        record.write_text(json.dumps(found | {"code": code | altered}))
        said = [*(f"{name} changed" for name in changed), f"code that did not count before: {', '.join(later)}"]
        assert list(differences(recorded(record.parent), found)) == said
    with pytest.raises(ValueError, match=r"train\.batch differs"):
        train(home, "other", adopt=named(home), batch=32)
    (entry,) = train(home, "adopted", adopt=named(home), seed=8).results["ancestry"]
    assert entry["changes"] == ["seed 3 -> 8", *said]
    train(home, "fresh", loss={"name": "hinge"}, **SHORT)
    assert "no longer counts: gan/losses/relativistic.py" in caplog.text


# Files of dvc.yaml that the stage loads and no byte of a trajectory follows from, and why.
NO_PART = {
    "gan/__init__.py": "a docstring",
    "stages/__init__.py": "a docstring",
    "stages/common/__init__.py": "a docstring",
    "stages/common/command.py": "the one thing it decides, the count of threads, is a setting",
    "stages/common/files.py": "files are read and written whole",
    "stages/common/interrupt.py": "ends a run",
    "stages/common/summary.py": "written when all is done",
    "stages/common/yaml_files.py": "what it reads, the settings, is in the record",
    "stages/config/__init__.py": "likewise",
    "stages/generator_folder.py": "names of files",
    "stages/pictures.py": "draws grids, which people look at",
    "stages/state.py": "where the work lies",
    "stages/train/__init__.py": "hands arguments on",
    "stages/train/__main__.py": "likewise",
    "stages/train/_board.py": "shows the run to people",
    "stages/train/_checkpoints.py": "its format has a number of its own, and another one is refused",
    "stages/train/_launch.py": "starts processes, whose number is no part of the result",
    "stages/train/_memory.py": "explains an error that ends the run",
    "stages/train/_meter.py": "shows the run to people",
    "stages/train/_progress.py": "draws what people look at",
    "stages/train/_stopper.py": "ends a run between two steps",
    "stages/train/_trajectory.py": "makes the record",
    "stages/train/_work.py": "publishes, anew each time",
}


@pytest.mark.fast
def test_the_key_of_a_training_covers_all_code_that_decides_it(home: Path) -> None:
    config = load_section(TrainConfig, PROJECT / "params.yaml", "train")
    hashed = trajectory(config, open_store(home / "ingest"))["code"]
    assert hashed == {name: sha256_file(PROJECT / name) for name in hashed}
    declared = {name for name in declared_by_stage(PROJECT)["train"] if name.endswith(".py")}
    assert hashed.keys() | NO_PART.keys() == declared and not hashed.keys() & NO_PART.keys()


def test_what_does_not_fit_is_not_adopted(home: Path) -> None:
    train(home, "first", **SHORT)
    for changes, said in (
        ({"batch": 32}, "train.batch differs, and a checkpoint does not fit another"),
        ({"z_dim": 7}, "train.z_dim differs"),
        ({"discriminator_steps": 2}, "train.discriminator_steps differs"),
        ({"total_kimg": 0.16, "seed": 9}, "no sound checkpoint of 10 steps or fewer"),
    ):
        with pytest.raises(ValueError, match=said):
            train(home, "other", adopt=named(home), **changes)
    with pytest.raises(ValueError, match=rf"--adopt must name other work in .*: {named(home)}"):
        train(home, "other", adopt="0123456789abcdef", seed=9)
    work, info = named(home), home / "ingest" / "dataset.json"
    info.write_text(info.read_text().replace('"data_hash": "h"', '"data_hash": "g"'))
    (home / "passed.json").write_text(json.dumps({"format": 1, "data_hash": "g", "passed": True}))
    with pytest.raises(ValueError, match="that work is on other images"):
        train(home, "other", adopt=work)


def test_a_warm_start_begins_with_pinned_networks_and_the_papers_say_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(home, "first", **SHORT)
    published = home / "first" / "generator"
    config = load_section(ExportConfig, PROJECT / "params.yaml", "export")
    export(config, generator=published, out=home / "export")
    command = ["--from", str(published), "--onnx", str(home / "export" / "generator.onnx"), "--out", str(home / "init")]
    assert warm_start.main(command) == 0
    pinned = json.loads(capsys.readouterr().out)
    assert pinned["init"] == {"name": "weights", "sha256": digest(home / "init")}

    train(home, "other", seed=5, **SHORT)
    assert warm_start.main(["--from", str(home / "other" / "generator"), *command[2:]]) == 1
    assert "was exported from networks of digest" in capsys.readouterr().err and digest(home / "init") in str(pinned)

    # Rates next to nothing: what comes out is what went in, and not what the seed would have drawn.
    still = {"lr": 1e-12, "lr_final": 1e-12, "seed": 4, "init": pinned["init"]} | SHORT
    summary = train(home, "warm", networks=home / "init", **still)
    before, after = (load_file(home / name / "generator" / "generator.safetensors") for name in ("first", "warm"))
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    (entry,) = summary.results["ancestry"]
    assert entry == {
        "init": digest(home / "init"), "name": "bars", "licence": "CC0-1.0", "data_hash": "h", "step": 30, "seed": 3
    }  # fmt: skip
    assert summary.inputs["init"] == digest(home / "init")

    # Networks of a registry say so, and are the same otherwise.
    sha256 = warm_start.copy(published, home / "registered", version="bars 7")
    known = train(
        home, "known", networks=home / "registered", **still | {"init": {"name": "weights", "sha256": sha256}}
    )
    assert known.results["ancestry"] == [entry | {"init": sha256, "model_version": "bars 7"}]
    assert known.results["last"] == summary.results["last"]

    # Without the option it is the folder of the settings.
    named_there = train(home, "settings", init_from=str(home / "init"), **still)
    assert named_there.results["ancestry"] == summary.results["ancestry"]

    # The ancestry is handed on, and a stopped run keeps its own.
    assert warm_start.main(["--from", str(home / "warm" / "generator"), "--out", str(home / "init-2")]) == 0
    pinned = json.loads(capsys.readouterr().out)
    second = train(home, "third", networks=home / "init-2", init_from="elsewhere", **still | {"init": pinned["init"]})
    assert [each["init"] for each in second.results["ancestry"]] == [digest(home / "init"), digest(home / "init-2")]
    shutil.rmtree(home / "third")
    assert train(home, "third", networks=home / "init-2", **still | {"init": pinned["init"]}).results == second.results


def test_networks_that_are_not_the_pinned_ones_or_do_not_fit_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(home, "first", **SHORT)
    sha256 = warm_start.copy(home / "first" / "generator", home / "init")
    pinned = {"init": {"name": "weights", "sha256": sha256}}
    with pytest.raises(ValueError, match=r"needs train\.init_from to be a folder that holds generator\.json"):
        train(home, "warm", networks=home / "passed.json", **pinned)
    with pytest.raises(ValueError, match="have z_dim 6, this run 5; a warm start needs the same"):
        train(home, "warm", networks=home / "init", z_dim=5, **pinned)
    with pytest.raises(ValueError, match=r"train\.init\.sha256 is 00, but the digest of"):
        train(home, "warm", networks=home / "init", init_from="x", **{"init": {"name": "weights", "sha256": "00"}})
    assert warm_start.main(["--from", str(home / "first"), "--out", str(home / "no")]) == 1
    assert "lacks generator.json" in capsys.readouterr().err


def test_only_whole_networks_are_copied_and_no_other_file_is_lost(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(home, "first", **SHORT)
    source, precious = home / "first" / "generator", home / "precious"
    precious.mkdir()
    (precious / "photo.png").write_bytes(b"mine")
    for out in (precious, precious / "photo.png"):
        assert warm_start.main(["--from", str(source), "--out", str(out)]) == 1
        assert "holds other files, which would be lost" in capsys.readouterr().err
    assert (precious / "photo.png").read_bytes() == b"mine"
    warm_start.copy(source, home / "init")
    sha256 = warm_start.copy(source, home / "init")  # again, over itself

    weights = source / "discriminator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert warm_start.main(["--from", str(source), "--out", str(home / "cut")]) == 1
    assert f"{weights} holds no whole networks (" in capsys.readouterr().err and not (home / "cut").exists()
    assert digest(home / "init") == sha256
    shutil.copy(weights, home / "init")
    cut = {"init": {"name": "weights", "sha256": digest(home / "init")}}
    with pytest.raises(ValueError, match="holds no whole networks"):
        train(home, "warm", networks=home / "init", **cut)
    shutil.copy(source / "generator.safetensors", home / "init" / "discriminator.safetensors")
    swapped = {"init": {"name": "weights", "sha256": digest(home / "init")}}
    with pytest.raises(ValueError, match=r"the networks of train\.init are not those of their generator\.json"):
        train(home, "warm", networks=home / "init", **swapped)
