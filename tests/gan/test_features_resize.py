"""Resizing: to the bit what the tool does that defines each rule, at sizes below and above the network's."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms import InterpolationMode, Resize

from gan.features.resize import resized
from tests.gan.random_networks import images

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning"),  # clean-fid under Pillow 13
]
SIZES = [1, 8, 32, 64, 224, 299, 300, 517]


@pytest.mark.parametrize("side", [224, 299])
@pytest.mark.parametrize("size", SIZES)
def test_legacy_tf_is_that_of_torch_fidelity(size: int, side: int) -> None:
    x = images(2, size)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(x).permute(0, 3, 1, 2).float(), size=(side, side), align_corners=False
    )
    assert torch.equal(resized(x, side, "legacy_tf"), theirs)


def test_legacy_tf_by_hand() -> None:
    """Two pixels to four: output i reads place i / 2, the last one beyond the end repeats the edge."""
    x = np.array([[0, 100], [0, 100]], np.uint8)[None, :, :, None]
    assert resized(x, 4, "legacy_tf")[0, 0, 0].tolist() == [0, 50, 100, 100]


@pytest.mark.parametrize("size", SIZES)
def test_clean_is_that_of_clean_fid(size: int) -> None:
    x = images(2, size)
    theirs = np.stack([build_resizer("clean")(image) for image in x]).transpose(0, 3, 1, 2)
    ours = resized(x, 299, "clean").numpy()
    assert np.array_equal(ours, theirs) and ours.min() >= 0 and ours.max() <= 255
    assert (ours != np.rint(ours)).any() or size == 1 or size == 299, "levels are not rounded"


@pytest.mark.parametrize("size", SIZES)
def test_pil_bicubic_is_that_of_torchvision_on_pillow_images(size: int) -> None:
    x = images(2, size)
    scale = Resize((224, 224), InterpolationMode.BICUBIC)
    theirs = np.stack([np.asarray(scale(Image.fromarray(image))) for image in x]).transpose(0, 3, 1, 2)
    assert np.array_equal(resized(x, 224, "pil_bicubic").numpy(), theirs.astype(np.float32))


@pytest.mark.parametrize("resize", ["legacy_tf", "clean", "pil_bicubic"])
def test_grey_images_become_three_equal_channels_of_the_same_values(resize: str) -> None:
    grey = images(3, 20, channels=1)
    found = resized(grey, 64, resize)
    assert found.shape == (3, 3, 64, 64) and found.dtype == torch.float32
    assert torch.equal(found, resized(grey.repeat(3, axis=3), 64, resize))
    assert resized(grey[:0], 64, resize).shape == (0, 3, 64, 64)
    wide = resized(images(1, 40)[:, :10], 32, resize)  # 10 high, 40 wide
    assert wide.shape == (1, 3, 32, 32)


def test_the_rules_differ_by_more_than_rounding() -> None:
    """Shrinking shows it most: without antialiasing the noise of single pixels stays in."""
    x = images(1, 517)
    legacy, clean, torch_like = (
        resized(x, 299, "legacy_tf").numpy(),
        resized(x, 299, "clean").numpy(),
        make_resizer("PyTorch", False, "bilinear", (299, 299))(x[0]).transpose(2, 0, 1)[None],
    )
    assert np.abs(legacy - clean).mean() > 5 and np.abs(legacy - torch_like).mean() > 2


@pytest.mark.parametrize(
    ("pixels", "resize", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "clean", "uint8 images.*received float32"),
        (np.zeros((8, 8, 3), np.uint8), "clean", r"\[8, 8, 3\]"),
        (np.zeros((1, 8, 8, 4), np.uint8), "legacy_tf", r"grey \(C = 1\) or RGB.*\[1, 8, 8, 4\]"),
        (np.zeros((1, 0, 8, 3), np.uint8), "legacy_tf", "at least one pixel"),
        (np.zeros((1, 8, 8, 3), np.uint8), "bilinear", "one of legacy_tf, clean, pil_bicubic; received 'bilinear'"),
    ],
)
def test_what_is_no_image_is_refused(pixels: np.ndarray, resize: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resized(pixels, 32, resize)
