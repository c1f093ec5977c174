"""Weights: read without running anything in them, refused by name where they are not what was asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gan.features.published import NAMES, Published, open_published
from gan.features.resize import RESIZES
from gan.features.weights import SOURCES, digest, fill, read_weights
from gan.metrics.protocols import NETWORKS

pytestmark = pytest.mark.fast


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def filled(path: Path) -> nn.Module:
    with torch.device("meta"):
        found = network()
    fill(found, read_weights(path, sha256=digest(path)), name="this", path=path, ignored=("mask_token",))
    return found.eval()


@pytest.mark.parametrize("form", ["pth", "safetensors", "legacy.pth", "double.pth"])
def test_every_form_of_a_state_dict_is_read(tmp_path: Path, form: str) -> None:
    """Old files lack batch counters; a training's own tensors may be there; all becomes float32."""
    ours, path = network(), tmp_path / f"w.{form}"
    state = {name: value for name, value in ours.state_dict().items() if "num_batches" not in name}
    state["mask_token"] = torch.zeros(1)
    if form == "safetensors":
        save_file(state, path)
    elif form == "double.pth":
        torch.save({name: value.double() for name, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "pth")
    x = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled(path)(x), ours.eval()(x))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for save in (torch.save, lambda value, to: to.write_bytes(pickle.dumps(value))):
        save({"a": Bomb(tmp_path / "ran")}, path)
        with pytest.raises(ValueError, match=r"w.pth is not a plain file of tensors.*code or objects.*never loaded"):
            filled(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(network().state_dict(), path)
    whole = path.read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"w.{suffix} (cannot be read as weights|is not a plain file)"):
            filled(path)


def test_another_hash_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(ValueError, match=rf"w.pth is not there; place the weights with SHA-256 {'a' * 64}"):
        read_weights(path, sha256="a" * 64)
    torch.save(network().state_dict(), path)
    with pytest.raises(ValueError, match=rf"has SHA-256 {digest(path)}, but {'a' * 64} is asked for"):
        read_weights(path, sha256="a" * 64)


def test_weights_of_another_network_are_refused_by_what_differs(tmp_path: Path) -> None:
    path, state = tmp_path / "w.pth", network().state_dict()
    for change, message in (
        ({"0.weight": torch.zeros(2, 1, 5, 5)}, "the 6 tensors of this: 1 of another shape [(]first 0.weight[)]"),
        ({"9.bias": torch.zeros(2)}, "the 6 tensors of this: 1 unknown [(]first 9.bias[)]"),
        ({"0.weight": None}, "the 6 tensors of this: 1 missing [(]first 0.weight[)]"),
        ({"1.running_var": torch.full((2,), torch.nan)}, "values that are not finite, first in 1.running_var"),
    ):
        torch.save({k: v for k, v in (state | change).items() if v is not None}, path)
        with pytest.raises(ValueError, match=message):
            filled(path)
    for content in ([torch.zeros(2)], {"epoch": 3, "model": state}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no state dict"):
            filled(path)


def test_names_are_checked_before_files(tmp_path: Path) -> None:
    for name, resize, message in (
        ("inception", "clean", "one of inception_tf, vgg16, dinov2_vitb14, dinov2_vitl14; received 'inception'"),
        ("vgg16", "bilinear", "resize must be one of legacy_tf, clean, pil_bicubic; received 'bilinear'"),
    ):
        with pytest.raises(ValueError, match=message):
            open_published(name, resize=resize, weights=tmp_path / "w.pth", sha256="a" * 64)


def test_every_source_is_an_address_of_its_file_and_digits_come_from_its_name() -> None:
    assert set(SOURCES) == set(NAMES)
    assert all(NETWORKS[name][0] == name and NETWORKS[name][1] in RESIZES for name in NAMES)
    for source in SOURCES.values():
        assert source.url.startswith("https://") and source.url.endswith(f"/{source.file}")
        assert source.prefix == "" or f"-{source.prefix}." in source.file


def test_images_go_through_in_passes_and_come_back_in_order() -> None:
    """With a network whose feature is the mean level, so that every image's answer is known."""

    class Mean(nn.Module):
        side = 4

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert len(x) <= 64
            mean = x.mean((1, 2, 3))[:, None]
            return mean, torch.cat([mean, 2 * mean], 1)

    levels = np.arange(150, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (150, 6, 6, 1))
    features, odds = Published("mean", "legacy_tf", "a" * 64, 1, Mean())(images)
    assert np.array_equal(features[:, 0], levels) and features.dtype == np.float32
    assert odds is not None and odds.dtype == np.float64
    assert odds[:, 1] == pytest.approx(1 / (1 + np.exp(-levels.astype(float))))
