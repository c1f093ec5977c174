"""Erasure and tracing with real DVC, a real remote folder and real MLflow: no byte of the image is left."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_images import VICTIM, holding, made, sh

from flows.erase import erase, main
from flows.trace import main as trace_main
from flows.trace import text, trace
from flows.tracking.registry import connect
from flows.upkeep.holdings import Cache, copies, state_places, unstored, unstored_sources
from stages.common.files import read_json, sha256_file
from stages.config.ingest import NearDuplicates
from stages.ingest import run
from stages.ingest.sources.folder import Config
from tests.stages.ingesting import CONFIG, SHEET, encoded, ingest, noise, zipped


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder as its remote, two model versions, and the checkpoints of their trainings."""
    project = made(tmp_path, monkeypatch, str(tmp_path / "remote"))
    register(tmp_path / "state", "1", read_json(project / "data" / "ingest" / "dataset.json")["data_hash"])
    register(tmp_path / "state", "2", "0" * 64)
    return project


def register(state: Path, version: str, data_hash: str) -> None:
    """A model version of these data, and the checkpoints of its training."""
    registry = connect(state, "digits")
    if not registry.exists():
        registry.client.create_registered_model("digits")
    run = registry.client.create_run(registry.experiment())
    entered = registry.client.create_model_version(
        "digits", "file:///nowhere", run.info.run_id, {"data_hash": data_hash}
    )
    assert str(entered.version) == version
    folder = state / "train" / f"work-{version}"
    folder.mkdir(parents=True)
    (folder / "trajectory.json").write_text(json.dumps({"format": 1, "data_hash": data_hash}))
    (folder / "checkpoint-1.safetensors").write_bytes(b"weights")


def image(project: Path) -> tuple[str, bytes, bytes]:
    """Hash, encoded bytes and stored pixels of the one to erase."""
    path = project / "data" / "raw" / VICTIM
    content = path.read_bytes()
    return sha256_file(path), content, b"".join(_rows(content))


def _rows(png: bytes) -> list[bytes]:
    from io import BytesIO

    return [np.asarray(Image.open(BytesIO(png))).tobytes()]


def test_an_erased_image_is_gone_from_everywhere_and_never_comes_back(world: Path, tmp_path: Path) -> None:
    state, remote = tmp_path / "state", tmp_path / "remote"
    sha256, content, pixels = image(world)
    everywhere = [world, remote, state]
    before = holding(everywhere, content, pixels)
    assert len(before) >= 8
    remembered = list((state / "ingest-since").iterdir())

    leads_to_the_models(world, state, sha256)
    listed = erase(world, state, sha256, None, remove=False)
    assert {place["kind"] for place in listed["places"]} == {
        "raw", "workspace", "cache", "run cache", "remote", "state",
    }  # fmt: skip
    assert [model["version"] for model in listed["models"]] == ["1"] and not listed["models"][0]["marked"]
    assert holding(everywhere, content, pixels) == before, "listing changes nothing"
    assert {version["place"][:9] for version in listed["data_versions"]} == {"data/inge", "DVC cache"}
    told = [place["where"] for place in listed["places"] if place["kind"] == "raw"]
    assert told == ["data/raw/0/8.png", "data/raw/0/under another name.png"]

    with pytest.raises(ValueError, match="--remove needs --reason"):
        erase(world, state, sha256, " ", remove=True)
    done = erase(world, state, sha256, "asked for\nby the person shown", remove=True)
    assert done["tombstone"]["reason"] == "asked for by the person shown"
    left = {path.relative_to(world).parts[:2] for path in holding(everywhere, content, pixels)}
    assert left <= {("data", "ingest"), ("data", "validate")}, "what `dvc repro` replaces"
    assert not (state / "train" / "work-1").exists() and (state / "train" / "work-2").exists()
    assert len(remembered) == 1 and not remembered[0].exists()

    (world / "data" / "raw" / "1" / "again.png").write_bytes(content)  # somebody brings it back
    sh(world, "dvc", "repro", "--force")
    refused = (world / "data" / "ingest" / "quarantine.csv").read_text()
    assert f'1/again.png,"erased: {done["tombstone"]["date"]}, asked for by the person shown",{sha256},' in refused
    (world / "data" / "raw" / "1" / "again.png").unlink()
    assert not holding([world / "data"], content, pixels)
    summary = read_json(world / "data" / "ingest" / "summary.json")
    assert summary["results"]["erased"] == [done["tombstone"]]

    again = erase(world, state, sha256, "another reason", remove=True)
    assert again["tombstone"] == done["tombstone"] and again["models"] == done["models"]
    assert done["models"] == [{"version": "1", "aliases": [], "split": done["models"][0]["split"], "marked": True}]
    assert not holding([remote, state / "ingest"], content, pixels)


def test_a_refused_image_and_a_copy_are_gone_from_cache_and_remote_too(world: Path, tmp_path: Path) -> None:
    """Neither is in a manifest: one is found by the list of what was refused, one by its bytes alone."""
    raw = world / "data" / "raw" / "0"
    picture = Image.open(raw / "2.png")
    picture.save(raw / "copy.bmp")
    Image.merge("RGB", [picture, picture.rotate(90), picture]).save(raw / "person.png")
    for command in (("add", "data/raw"), ("repro",), ("push", "--run-cache")):
        sh(world, "dvc", *command)
    told = erase(world, tmp_path / "state", sha256_file(raw / "copy.bmp"), None, remove=False)
    assert told["copies"] == ["0/2.png"], "although no manifest holds what is asked for"
    contents = {name: (raw / name).read_bytes() for name in ("copy.bmp", "person.png")}
    assert '0/person.png,"colour' in (world / "data" / "ingest" / "quarantine.csv").read_text()
    assert "0/copy.bmp" in (world / "data" / "ingest" / "duplicates.csv").read_text()
    left_out_is_traced(world, tmp_path / "state", contents)
    (raw / "person.png").unlink()  # only the store's list knows it now
    everywhere = [world / ".dvc", tmp_path / "remote"]
    for content in contents.values():
        assert len(holding(everywhere, content)) == 2
        erase(world, tmp_path / "state", hashlib.sha256(content).hexdigest(), "asked for", remove=True)
        assert not holding([*everywhere, raw], content)


def left_out_is_traced(project: Path, state: Path, contents: dict[str, bytes]) -> None:
    """A copy leads to the image that has its pixels, in the workspace and the cache; a refusal has its reason."""
    kept = sha256_file(project / "data" / "raw" / "0" / "2.png")
    data_hash = read_json(project / "data" / "ingest" / "dataset.json")["data_hash"]
    copy = trace(project, state, hashlib.sha256(contents["copy.bmp"]).hexdigest())
    assert copy["data_versions"] == []
    assert [one["place"][:9] for one in copy["left_out"]] == ["data/inge", "DVC cache"]
    assert {(one["data_hash"], one["copy_of"]) for one in copy["left_out"]} == {(data_hash, kept)}
    assert copy["copy_of"] == [
        {key: trace(project, state, kept)[key] for key in ("sha256", "data_versions", "left_out")}
    ]
    assert f"  a copy of {kept}, whose trace is\n    data {data_hash[:12]} (data/ingest): 0/2.png, " in text(copy)
    assert "in no data version" not in text(copy)

    refused = trace(project, state, hashlib.sha256(contents["person.png"]).hexdigest())
    assert f"left out of data {data_hash[:12]} (data/ingest): 0/person.png, refused, colour" in text(refused)
    assert "in no data version" not in text(refused) and refused["copy_of"] == []
    assert text(trace(project, state, "0" * 64)).endswith("in no data version of the workspace or of DVC's cache\n")


@pytest.mark.fast
def test_all_that_shows_the_picture_is_named(tmp_path: Path) -> None:
    """Kept or not: left-out copies, the same in another class, near ones on one side or two, in archives too."""
    raw = tmp_path / "data" / "raw"
    (raw / "cat").mkdir(parents=True)
    (raw / "dog").mkdir()
    first, second, third = (encoded(noise(16, 16, seed=seed)) for seed in (1, 2, 3))
    (raw / "cat" / "first.png").write_bytes(first)
    Image.open(raw / "cat" / "first.png").save(raw / "dog" / "first again.bmp")
    (raw / "cat" / "second.png").write_bytes(second)
    (raw / "cat" / "packed.zip").write_bytes(zipped({"second.bmp": encoded(noise(16, 16, seed=2), "BMP")}))
    for seed in range(10):
        rough = Image.fromarray(noise(4, 4, seed=seed)).point(lambda level: 50 + level // 2)
        picture = rough.resize((16, 16), Image.Resampling.BICUBIC)
        (raw / "dog" / f"{seed}.png").write_bytes(encoded(picture))
        (raw / "dog" / f"{seed} brighter.png").write_bytes(encoded(picture.point(lambda level: level + 2)))
    (raw / "cat" / "third.png").write_bytes(third)
    folders = Config(name="folder", labels="folders", groups="none")
    near = NearDuplicates(distance=7, levels=4.0)
    stored = ingest(raw, "ingest", source=folders, resolution=16, near_duplicates=near)
    assert stored.table("near_duplicates.csv") and stored.table("near_refused.csv")
    assert not {"cat/first.png", "dog/first again.bmp"} & {row["source"] for row in stored.rows}
    assert copies(tmp_path, {"cat/first.png"}) == ["dog/first again.bmp"]
    assert copies(tmp_path, {"dog/first again.bmp"}) == ["cat/first.png"]
    assert copies(tmp_path, {"cat/second.png"}) == ["cat/packed.zip/second.bmp"]
    assert copies(tmp_path, {"cat/packed.zip/second.bmp"}) == ["cat/second.png"]
    for seed in range(10):
        assert copies(tmp_path, {f"dog/{seed}.png"}) == [f"dog/{seed} brighter.png"]
        assert copies(tmp_path, {f"dog/{seed} brighter.png"}) == [f"dog/{seed}.png"]
    assert copies(tmp_path, {"cat/third.png"}) == []
    contents = {"cat/second.png": second, "cat/packed.zip/second.bmp": encoded(noise(16, 16, seed=2), "BMP")}
    ((left_out, *_),) = stored.table("duplicates.csv")
    assert unstored_sources(tmp_path, Cache(None), hashlib.sha256(contents[left_out]).hexdigest()) == {left_out}


@pytest.mark.fast
def test_a_copy_leads_to_its_original_although_that_was_refused(tmp_path: Path) -> None:
    """Of copies one stays, and that one may be too near to an image on another side."""
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    for seed in range(10):
        rough = Image.fromarray(noise(4, 4, seed=seed)).point(lambda level: 50 + level // 2)
        picture = rough.resize((16, 16), Image.Resampling.BICUBIC)
        for name in (f"{seed}.png", f"{seed} again.bmp"):
            picture.save(raw / name)
        picture.point(lambda level: level + 2).save(raw / f"{seed} brighter.png")
    stored = ingest(raw, "ingest", resolution=16, near_duplicates=NearDuplicates(distance=7, levels=4.0))
    kept = {row["source"] for row in stored.rows}
    assert {original in kept for _, original, _ in stored.table("duplicates.csv")} == {True, False}
    for copy, original, sha256 in stored.table("duplicates.csv"):
        (one,) = unstored(tmp_path, Cache(None), sha256)
        assert (one.source, one.reason, one.copy_of) == (copy, f"a copy of {original}", sha256_file(raw / original))
        assert one.data_hash == stored.info["data_hash"]
        (refused,) = unstored(tmp_path, Cache(None), one.copy_of) or [None]
        assert (refused is None) == (original in kept)
        assert refused is None or refused.reason.startswith("refused, near duplicate: of")


@pytest.mark.fast
def test_what_came_back_and_was_refused_is_nowhere_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash alone is remembered; to remove its folder would cost every image there."""
    state = tmp_path / "state"
    monkeypatch.setenv("GANOPS_STATE", str(state))
    raw, erased = tmp_path / "raw", tmp_path / "erased.json"
    raw.mkdir()
    contents = [encoded(noise(8, 8, seed=seed)) for seed in range(3)]
    for seed, content in enumerate(contents):
        (raw / f"{seed}.png").write_bytes(content)
    back, kept = (hashlib.sha256(content).hexdigest() for content in contents[:2])
    erased.write_text(json.dumps({"format": 1, "images": [{"sha256": back, "date": "2026-01-01", "reason": "asked"}]}))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    run(CONFIG, raw=raw, datasheet=tmp_path / "sheet.yaml", erased=erased, out=tmp_path / "store")
    assert len(holding([state / "ingest"], bytes.fromhex(back))) == 1
    assert state_places(state, back, set()) == []
    places = [path.parent.name for path, _ in state_places(state, kept, set())]
    assert places == ["ingest", "ingest-since"], "decoded, and in the manifest"


@pytest.mark.slow
def test_other_images_keep_their_shards_and_runs(world: Path, tmp_path: Path) -> None:
    """A data version without the image stays whole in the cache."""
    sha256, content, _ = image(world)
    for path in list((world / "data" / "raw").rglob("*.png")):
        if path.read_bytes() == content:
            path.unlink()
    sh(world, "dvc", "add", "data/raw")
    sh(world, "dvc", "repro")
    sh(world, "dvc", "push", "--run-cache")
    erase(world, tmp_path / "state", sha256, "asked for", remove=True)
    shutil.rmtree(world / "data" / "ingest")
    sh(world, "dvc", "checkout", "ingest")
    shutil.rmtree(world / ".dvc" / "cache")
    shutil.rmtree(world / "data" / "ingest")
    sh(world, "dvc", "pull", "ingest", "data/raw.dvc")
    assert read_json(world / "data" / "ingest" / "dataset.json")["counts"]["kept"] == 29


def leads_to_the_models(project: Path, state: Path, sha256: str) -> None:
    """The trace of an image goes through its data version to the run and the model version made of it."""
    found = trace(project, state, sha256)
    data_hash = read_json(project / "data" / "ingest" / "dataset.json")["data_hash"]
    assert {version["data_hash"] for version in found["data_versions"]} == {data_hash}
    models = [model for version in found["data_versions"] for model in version["models"]]
    registry = connect(state, "digits")
    assert {model["run_id"] for model in models} == {registry.client.get_model_version("digits", "1").run_id}
    assert f"run {models[0]['run_id']}: model version 1\n" in text(found)
    assert trace(project, state, "0" * 64)["data_versions"] == []


@pytest.mark.fast
def test_what_is_no_hash_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits; received 'abc'"):
        trace(tmp_path, tmp_path, "abc")
    with pytest.raises(ValueError, match="64 hexadecimal digits; received 'ABC'"):
        erase(tmp_path, tmp_path, "ABC", "asked for", remove=True)
    assert main(["f" * 63]) == trace_main(["f" * 63]) == 1
    assert capsys.readouterr().err.count("\n") == 2
