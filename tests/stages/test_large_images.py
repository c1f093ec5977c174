"""Images of 128 and 256 pixels through the rooms that had an end at 64: ingest, extractor, export; memory in pieces."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from consumer import Generator
from gan.attributes import measure
from gan.features import Recipe, features, fit
from gan.networks import build_generator, initialise
from stages.common.files import tree_digests, write_json
from stages.config import load_section
from stages.config.export import ExportConfig
from stages.export import run as export
from stages.ingest import _write
from stages.ingest.sources import folder
from stages.store import open_store
from tests.stages.ingesting import encoded, ingest, noise, same
from tests.stages.test_export import PARAMS

SIDES = (128, 256)
FOLDERS = folder.Config(name="folder", labels="folders", groups="none")


def textured(side: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey images and labels 0 and 1: stripes of one pixel, or of two, across. What 64 pixels show is the same."""
    labels = np.arange(count) % 2
    x = np.arange(side)
    stripes = np.stack([x % 2, x // 2 % 2])[labels]  # [N, W]
    levels = 100 + 60 * stripes[:, None, :] + np.random.default_rng(side).integers(0, 30, (count, side, side))
    return levels.astype(np.uint8)[..., None], labels


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_store_of_large_images(tmp_path: Path, side: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    wide = noise(side, 2 * side, 3)[..., : 3 if channels == 3 else 1].squeeze()
    for name in ("cat", "dog"):
        (raw / name).mkdir(parents=True)
        for at in range(4):
            pixels = noise(side, side, 3, seed=10 * ord(name[0]) + at)
            (raw / name / f"{at}.png").write_bytes(encoded(pixels if channels == 3 else pixels[..., 0]))
    (raw / "cat" / "large.png").write_bytes(encoded(wide.repeat(3, axis=0).repeat(3, axis=1)))
    settings: dict[str, Any] = {"source": FOLDERS, "resolution": side, "channels": channels, "shard_images": 8}
    result = ingest(raw, **settings)
    assert result.info["sample"]["shape"] == [side, side, channels] and result.counts["kept"] == 9
    assert same(result, "dog/2.png", np.asarray(Image.open(raw / "dog" / "2.png")))
    central = Image.fromarray(wide[:, side // 2 : side // 2 + side]).resize(
        (3 * side, 3 * side), Image.Resampling.NEAREST
    )
    small = np.asarray(central.resize((side, side), Image.Resampling.BICUBIC))
    assert same(result, "cat/large.png", small)
    monkeypatch.setattr(_write, "_PIECE", 3 * side * side * channels)  # shards written three images at a time
    assert tree_digests(ingest(raw, "pieces", **settings).path) == tree_digests(result.path)
    split = open_store(result.path).splits["train"]
    assert split.shape == (len(split), side, side, channels)
    np.testing.assert_array_equal(split[np.array([0])], split.all()[:1])


@pytest.mark.parametrize("side", SIDES)
def test_the_extractor_sees_detail_that_64_pixels_would_not_show(side: int) -> None:
    images, labels = textured(side, 40)
    network = fit(images[:24], labels[:24], classes=2, recipe=Recipe(steps=24, batch=8, width=16), seed=0)
    found, odds = features(network, images[24:])
    assert found.shape == (16, 16) and (odds.argmax(axis=1) == labels[24:]).all()


def test_attributes_are_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(6, 256, 256, 1)
    whole = measure(images)
    monkeypatch.setattr("gan.attributes._CHUNK", 2 * 256 * 256)
    for name, values in measure(images).items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.mark.parametrize("side", SIDES)
def test_a_generator_of_large_images_is_exported_and_drawn(tmp_path: Path, side: int) -> None:
    stages = side.bit_length() - 2
    arguments = {
        "widths": [16, 16] + [8] * (stages - 2),
        "blocks": [1, 1] + [0] * (stages - 2),
        "embedding": 4,
        "projection": 4,
    }
    architecture = {"name": "r3gan", "arguments": arguments}
    network = build_generator(architecture, z_dim=8, classes=2, resolution=side, channels=3)
    initialise("r3gan", network, torch.Generator().manual_seed(0))
    (tmp_path / "generator").mkdir()
    save_file(network.state_dict(), tmp_path / "generator" / "generator.safetensors")
    about = {"format": 1, "architecture": architecture, "z_dim": 8, "classes": ["a", "b"], "resolution": side,
             "channels": 3, "data_hash": "d" * 64, "prior": [0.5, 0.5], "licence": "CC0"}  # fmt: skip
    write_json(tmp_path / "generator" / "generator.json", about)
    params = yaml.safe_load(PARAMS)
    params["export"] |= {"parity_images": 4, "batch": 2, "parity_max_levels": 8}  # weights of chance are loud
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    config = load_section(ExportConfig, tmp_path / "params.yaml", "export")
    summary = export(config, generator=tmp_path / "generator", out=tmp_path / "export")
    assert summary.results["measures"]["parity_mean_levels"]["value"] < 0.1
    drawn = Generator(tmp_path / "export" / "generator.onnx").generate(3, seed=0, label="b")
    assert drawn.shape == (3, side, side, 3) and drawn.std() > 1
