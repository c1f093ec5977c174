"""Validation of stores unlike the digits: without labels, with any attributes, in groups, large, or none at all."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.common.files import read_json
from stages.ingest import run as ingest
from stages.ingest.sources import folder, manifest
from stages.validate import run
from stages.validate._frames import _splits
from tests.stages.validating import CONFIG, INGEST, SHEET, declare, limit


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_without_labels(tmp_path: Path, channels: int) -> None:
    (tmp_path / "raw").mkdir()
    generator = np.random.default_rng(0)
    for index in range(80):
        pixels = generator.integers(0, 256, (20, 16 + index % 3, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels)
        (picture if channels == 3 else picture.convert("L")).save(tmp_path / "raw" / f"{index}.png")
    (tmp_path / "sheet.yaml").write_text(SHEET)
    source = folder.Config(name="folder", labels="none", groups="none")
    config = dataclasses.replace(
        INGEST, source=source, resolution=16, channels=3 if channels == 3 else 1, near_duplicates=None
    )
    ingest(config, raw=tmp_path / "raw", datasheet=tmp_path / "sheet.yaml", out=tmp_path / "store")
    limits = dataclasses.replace(
        CONFIG, min_images=80, min_images_per_class=4, limits=limit("saturation", max=1.0),
        warn=("near_splits", "near_duplicates", "class_balance", "saturation"),
    )  # fmt: skip
    run(limits, images=tmp_path / "store", out=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    checked = {one["name"] for one in read_json(tmp_path / "out" / "expectations.json")["expectations"]}
    assert not checked & {"near_splits", "near_duplicates", "class_balance"}
    assert text.count("not looked for: ingest.near_duplicates is null") == 2, "nobody looked, so nothing is green"
    assert "does not apply: the images carry no labels" in text
    assert ("saturation" in checked) != ("does not apply: the images are grey" in text) == (channels == 1)
    assert text.count("data:image/png") >= 2


def test_attributes_may_have_the_names_of_anything_and_be_empty_unless_declared(tmp_path: Path) -> None:
    names = ["row", "pixels", "label_stored", "stored_label", "stored_split", "missing_fields", "near_duplicate",
             "near_in_other_split", "splits_of_picture", "undeclared_age", "age"]  # fmt: skip
    (tmp_path / "raw").mkdir()
    lines = [",".join(["file", *names])]
    for at in range(100):
        picture = np.random.default_rng(at).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "raw" / f"{at}.png")
        lines.append(",".join([f"{at}.png", *(f"said of {name}" for name in names[:-1]), "" if at == 7 else "old"]))
    (tmp_path / "raw" / "list.csv").write_text("\n".join(lines))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    source = manifest.Config(
        name="manifest", file="list.csv", images=".", path="file", label=None, group=None, attributes=tuple(names),
        unlisted="refuse",
    )  # fmt: skip
    ingest(dataclasses.replace(INGEST, source=source), raw=tmp_path / "raw", datasheet=tmp_path / "sheet.yaml",
           out=tmp_path / "store")  # fmt: skip
    config = dataclasses.replace(CONFIG, min_images=100)
    run(config, images=tmp_path / "store", out=tmp_path / "out")
    profile = read_json(tmp_path / "out" / "profile.json", format=2)["columns"]
    assert all(profile[name]["counts"] == {f"said of {name}": 100} for name in names[:-1])
    declare(attributes={"age": {"values": ["old"]}})(tmp_path / "store")
    with pytest.raises(ValueError, match="expectations failed: age_declared; first: age is old"):
        run(config, images=tmp_path / "store", out=tmp_path / "out")


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match="has not finished"):
        run(CONFIG, images=tmp_path / "store", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_splits_of_groups_vary_as_groups_do() -> None:
    """Whole groups are assigned: 40 of 100 images each are 40 draws, not 4,000, seldom 5 deviations off."""
    from types import SimpleNamespace

    dice, shares = np.random.default_rng(0), {"train": 0.55, "fit": 0.3, "heldout": 0.15}
    alarms = 0
    for _ in range(300):
        side = np.repeat(dice.choice(3, 40, p=list(shares.values())), 100)
        splits = {name: np.flatnonzero(side == at) for at, name in enumerate(shares)}
        store: Any = SimpleNamespace(splits=splits)
        grouped = _splits(store, shares, pd.DataFrame({"group": np.repeat(np.arange(40), 100).astype(str)}), 0, 0)
        alone = _splits(store, shares, pd.DataFrame({"source": np.arange(4000)}), 0, 0)
        np.testing.assert_allclose(grouped["deviation"], alone["deviation"] / 10)
        alarms += bool((grouped["deviation"] > 5).any())
    assert alarms == 0


@pytest.mark.parametrize(("kind", "alarms"), [("near", False), ("copies", False), ("none", False), ("shifted", True)])
def test_a_million_images_assigned_as_wished_pass_whatever_ingest_takes_out(kind: str, alarms: bool) -> None:
    """What is refused or left out lay on the sides nearer to training: a bias that does not shrink with the number."""
    from types import SimpleNamespace

    shares = {"train": 0.55, "fit": 0.3, "heldout": 0.15}
    drawn = [0.56, 0.29, 0.15] if kind == "shifted" else list(shares.values())
    side = np.random.default_rng(0).choice(3, 1_000_000, p=drawn)
    stays, pairs = np.ones(len(side), bool), 0 if kind in ("none", "shifted") else 20_000
    one, two = side[:pairs], side[pairs : 2 * pairs]  # of each pair the one nearer to training goes
    if kind == "near":
        stays[:pairs], stays[pairs : 2 * pairs] = one >= two, two >= one  # on one side both stay
    if kind == "copies":
        stays[:pairs], stays[pairs : 2 * pairs] = one > two, two >= one
    splits = {name: np.flatnonzero(stays & (side == at)) for at, name in enumerate(shares)}
    gone = int((~stays).sum())
    near, copied = (gone, 0) if kind == "near" else (0, gone)
    images = pd.DataFrame({"source": np.arange(len(side) - gone)})
    store: Any = SimpleNamespace(splits=splits)
    deviation = _splits(store, shares, images, near, copied)["deviation"].max()
    assert (deviation > 5) == alarms
    if gone:
        assert _splits(store, shares, images, 0, 0)["deviation"].max() > 5, "the shares of what is left are others"
