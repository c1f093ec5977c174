"""DINOv2: timm's transformer, with the position embedding resampled as the official code does it."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

import gan.features
from gan.features.dinov2 import DinoV2, resampled, vitb14, vitl14
from gan.features.published import open_published
from gan.features.standard import DEVIATION, MEAN
from tests.gan.random_networks import images, opened, sha256

SMALL = {"width": 48, "depth": 3, "heads": 3}


def official(network: torch.nn.Module, path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in the form of an official checkpoint, and the file of them."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.ones(value.shape) if name.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight"))
        else torch.randn(value.shape, generator=generator) * (value.shape[-1] ** -0.5 if value.ndim == 2 else 0.3)
        for name, value in network.state_dict().items()
    }  # fmt: skip
    state["mask_token"] = torch.zeros(1, state["cls_token"].shape[-1])  # of training; published with the rest
    torch.save(state, path)
    return state


def scaled(x: np.ndarray) -> torch.Tensor:
    """Pixels as torchvision's ToTensor and Normalize give them."""
    share = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (share - mean) / deviation


def test_the_networks_have_the_tensors_of_the_official_checkpoints() -> None:
    """Names and shapes of timm's own models, which load those checkpoints."""
    with torch.device("meta"):
        for ours, name in ((vitb14(), "vit_base_patch14_dinov2"), (vitl14(), "vit_large_patch14_dinov2")):
            theirs = timm.create_model(name, pretrained=False, num_classes=0)
            shapes = [{key: tuple(v.shape) for key, v in net.state_dict().items()} for net in (ours, theirs)]
            assert shapes[0] == shapes[1] and shapes[0]["pos_embed"] == (1, 1 + 37 * 37, ours.width)


def test_at_the_size_of_the_training_features_are_those_of_timm(tmp_path: Path) -> None:
    ours = DinoV2(**SMALL).eval()
    state = official(ours, tmp_path / "small.pth")
    ours.load_state_dict({key: value for key, value in state.items() if key != "mask_token"})
    theirs = timm.create_model(
        "vit_base_patch14_dinov2", embed_dim=48, depth=3, num_heads=3, num_classes=0, pretrained=False
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    x = images(2, 518)
    with torch.inference_mode():
        features, none = ours(torch.from_numpy(x).permute(0, 3, 1, 2).float())
        expected = theirs(scaled(x))
    assert none is None and features.shape == (2, 48) and features.std() > 0.1
    assert (features - expected).abs().max() < 1e-5


def by_hand(positions: torch.Tensor, side: int) -> torch.Tensor:
    """Bicubic (a = -0.75) of a 37 x 37 grid at (i + .5) * 37 / (side + .1) - .5, the edge repeated, in float64."""
    place = (np.arange(side) + 0.5) * 37 / (side + 0.1) - 0.5
    weights = np.zeros((side, 37))
    for row, at in enumerate(place):
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            t = abs(at - tap)
            value = 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[row, min(max(tap, 0), 36)] += value
    grid = positions[0, 1:].double().numpy().reshape(37, 37, -1)
    return torch.from_numpy(np.einsum("ia,jb,abd->ijd", weights, weights, grid).reshape(1, side * side, -1))


def test_positions_are_resampled_by_the_official_rule() -> None:
    side = 16
    positions = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    found = resampled(positions, side, side)
    assert torch.equal(found[:, 0], positions[:, 0]) and found.shape == (1, 1 + side * side, 8)
    assert (found[:, 1:] - by_hand(positions, side)).abs().max() < 2e-5  # places are float32 there
    assert torch.equal(resampled(positions, 37, 37), positions)
    for antialias, least in ((False, 0.5), (True, 1.5)):  # what timm would do: values of order one move by 1 and by 3
        other = resample_abs_pos_embed(positions, new_size=[side, side], old_size=[37, 37], antialias=antialias)
        assert (found - other).abs().max() > least


def test_an_official_checkpoint_gives_features_of_224_pixels(tmp_path: Path) -> None:
    """ViT-B whole, against timm's own pass over our positions."""
    state = official(vitb14(), tmp_path / "b.pth")
    extractor = opened("dinov2_vitb14", "pil_bicubic", tmp_path / "b.pth")
    x = images(1, 224)  # at the network's size every rule leaves pixels alone
    features, odds = extractor(x)
    theirs = timm.create_model("vit_base_patch14_dinov2", img_size=224, num_classes=0, pretrained=False).eval()
    state["pos_embed"] = resampled(state["pos_embed"], 16, 16)
    theirs.load_state_dict({key: value for key, value in state.items() if key != "mask_token"})
    with torch.inference_mode():
        expected = theirs(scaled(x)).numpy()
    assert odds is None and features.shape == (1, 768) and features.std() > 0.1
    assert np.abs(features - expected).max() < 1e-5


@pytest.mark.slow
def test_the_large_one_opens_and_runs(tmp_path: Path) -> None:
    official(vitl14(), tmp_path / "l.pth")
    assert opened("dinov2_vitl14", "pil_bicubic", tmp_path / "l.pth")(images(1, 32))[0].shape == (1, 1024)


def test_without_timm_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    load = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return load(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "gan.features.dinov2")
    monkeypatch.delattr(gan.features, "dinov2")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r'dinov2_vitb14 needs timm; install it with: pip install "timm>=1\.0\.20"'):
        open_published("dinov2_vitb14", resize="clean", weights=tmp_path / "w.pth", sha256=sha256(tmp_path / "w.pth"))
