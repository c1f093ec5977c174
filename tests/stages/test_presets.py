"""The `train:` sections of docs/presets: complete, and what the docs say of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan import networks
from stages.config import load_section
from stages.config.train import TrainConfig
from stages.train._loop import Run
from stages.train._processes import Processes
from tests.stages.stored_digits import write_store

PROJECT = Path(__file__).parents[2]
PRESETS = {
    "r3gan_32": ("CIFAR-10, 32 px", {"resolution": 32, "classes": 10}),
    "r3gan_64": ("FFHQ, 64 px", {"resolution": 64, "classes": 0}),
    "r3gan_256": ("FFHQ, 256 px", {"resolution": 256, "classes": 0}),
    "r3gan_small_64": ("small, 64 px", {"resolution": 64, "classes": 0}),
}


def preset(name: str) -> TrainConfig:
    return load_section(TrainConfig, PROJECT / "docs" / "presets" / f"{name}.yaml", "train")


@pytest.mark.fast
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete_and_the_rows_of_the_docs(name: str) -> None:
    title, shape = PRESETS[name]
    found = preset(name)
    text = (PROJECT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    *settings, millions = [cell.strip() for cell in line.strip("|").split("|")[1:]]
    network: Any = found.network
    augmentation: Any = found.augmentation
    assert settings == [
        *(str(number) for number in (network.width, network.full_to, network.group_width, found.batch)),
        f"{found.penalties[0].gamma:g} to {found.penalties[0].gamma_final:g}",
        f"{found.ema_halflife_start_kimg:g} to {found.ema_halflife_kimg:,g} kimg",
        f"{augmentation.strength:g} to {augmentation.strength_final:g}",
        f"{found.burn_in_kimg:,g} kimg",
    ]
    assert [p.name for p in found.penalties] == ["r1", "r2"] and network.projection == network.width
    assert len({(p.gamma, p.gamma_final) for p in found.penalties}) == 1
    with torch.device("meta"):
        nets = [
            networks.build_generator(networks.describe(network), z_dim=found.z_dim, channels=3, **shape),
            networks.build_discriminator(networks.describe(network), channels=3, **shape),
        ]
    counted = [sum(p.numel() for p in net.parameters()) / 1e6 for net in nets]
    assert counted == pytest.approx([float(number) for number in millions.split("/")], rel=0.006)


def test_the_small_preset_takes_a_step(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    store = write_store(tmp_path / "store", images, np.full(40, -1), np.zeros(40, np.int64), [])
    found = Run(preset("r3gan_small_64"), store, tmp_path, Processes())
    assert all(value.isfinite() for value in found.one_step().values()) and found.finite()
    found.feed.close()


@pytest.mark.fast
def test_every_preset_is_tested() -> None:
    assert {path.stem for path in (PROJECT / "docs" / "presets").iterdir()} == PRESETS.keys()
