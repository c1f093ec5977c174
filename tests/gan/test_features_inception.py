"""The Inception network against those that FID is computed with: same random weights in, same features out.

torch-fidelity's and pytorch-fid's (which clean-fid's copy equals) networks, with their own resizing.
"""

import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

from gan.features.published import Published, _exact
from gan.features.resize import resized
from tests.gan.random_networks import images, inception_file, opened

pytestmark = pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning")  # clean-fid under Pillow 13
TOLERANCE = 1e-5  # absolute, of features that are of order one; measured: the same to the bit


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inception_file(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def legacy(weights: Path) -> Published:
    return opened("inception_tf", "legacy_tf", weights)


@pytest.fixture(scope="module")
def fidelity(weights: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    taps = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception", taps, feature_extractor_weights_path=str(weights))


@pytest.fixture(scope="module")
def pytorch_fid(weights: Path) -> torch.nn.Module:
    """Its whole network, which takes pixels that are scaled already."""
    from pytorch_fid import inception

    def local(*_: object, **__: object) -> dict[str, torch.Tensor]:
        return torch.load(weights, weights_only=True)

    with mock.patch.object(inception, "load_state_dict_from_url", local):
        return inception.fid_inception_v3().eval()


def pooled(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What comes out before the last layer of a network of torchvision's form."""
    found: list[torch.Tensor] = []
    hook = network.avgpool.register_forward_hook(lambda module, inputs, output: found.append(output))
    with torch.inference_mode():
        network(x)
    hook.remove()
    return found[0].flatten(1)


def test_random_weights_tell_networks_apart(legacy: Published, weights: Path) -> None:
    """Else the agreement below would mean nothing: features vary by about one, and torchvision's own pools show."""
    x = images(4, 64)
    found, odds = legacy(x)
    assert found.dtype == np.float32 and found.shape == (4, 2048) and 0.2 < found.std(axis=0).mean() < 5
    assert odds is not None and odds.shape == (4, 1008) and odds.sum(axis=1) == pytest.approx(1)
    assert np.abs(odds[0] - odds[1]).max() > 0.01
    stock = torchvision.models.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    stock.load_state_dict(torch.load(weights, weights_only=True))
    theirs = pooled(stock.eval(), (resized(x, 299, "legacy_tf") - 128) / 128).numpy()
    assert np.abs(theirs - found).max() > 0.05


@pytest.mark.parametrize("side", [8, 64, 299, 400])
def test_legacy_tf_features_are_those_of_torch_fidelity(
    legacy: Published, fidelity: torch.nn.Module, side: int
) -> None:
    x = images(2, side)
    with torch.inference_mode():
        theirs, logits = fidelity(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
    features, odds = legacy(x)
    assert np.abs(features - theirs.numpy()).max() < TOLERANCE
    with torch.inference_mode():
        ours = legacy.network(resized(x, 299, "legacy_tf"))[1]
    assert ours is not None
    assert (ours - logits).abs().max() < TOLERANCE
    assert odds == pytest.approx(torch.softmax(logits.double(), 1).numpy(), abs=TOLERANCE)


def test_the_last_bias_is_left_out(legacy: Published, fidelity: torch.nn.Module) -> None:
    x = images(2, 32)
    with torch.inference_mode():
        features = torch.from_numpy(legacy(x)[0])
        biased = F.linear(features, fidelity.fc.weight, fidelity.fc.bias)
    odds = legacy(x)[1]
    assert odds is not None and np.abs(odds - torch.softmax(biased.double(), 1).numpy()).max() > 1e-3


@pytest.mark.parametrize("side", [8, 400])
def test_clean_features_are_those_of_clean_fid(weights: Path, pytorch_fid: torch.nn.Module, side: int) -> None:
    """clean-fid resizes, then runs NVIDIA's copy of the graph on (x - 128) / 128; the network is the same one."""
    from cleanfid.resize import build_resizer

    x = images(2, side)
    scaled = torch.from_numpy(np.stack([build_resizer("clean")(image) for image in x])).permute(0, 3, 1, 2).contiguous()
    theirs = pooled(pytorch_fid, (scaled - 128) / 128)
    features, odds = opened("inception_tf", "clean", weights)(x)
    assert np.abs(features - theirs.numpy()).max() < TOLERANCE
    logits = F.linear(theirs, pytorch_fid.fc.weight.detach())
    assert odds == pytest.approx(torch.softmax(logits.double(), 1).numpy(), abs=TOLERANCE)


def test_features_do_not_depend_on_the_batch(legacy: Published) -> None:
    x = images(5, 32)
    whole, odds = legacy(x)
    assert odds is not None
    for size in (1, 3):
        parts = [legacy(x[start : start + size]) for start in range(0, 5, size)]
        assert np.abs(np.concatenate([part[0] for part in parts]) - whole).max() < 1e-4  # measured 2e-5
        assert np.abs(np.concatenate([part[1] for part in parts]) - odds).max() < 1e-4
    assert legacy(x[:0])[0].shape == (0, 2048)


def test_grey_images_are_read_as_equal_channels(legacy: Published) -> None:
    grey = images(2, 28, channels=1)
    assert np.array_equal(legacy(grey)[0], legacy(grey.repeat(3, axis=3))[0])


def test_opening_and_reading_warns_of_nothing_and_leaves_settings_alone(weights: Path) -> None:
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_grad_enabled())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = opened("inception_tf", "legacy_tf", weights)
        extractor(images(1, 8))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()) == before
    assert extractor.key == "inception_tf-legacy_tf" and extractor.width == 2048
    with _exact():  # cuDNN, in full precision
        assert torch.backends.cudnn.enabled and not torch.backends.cudnn.allow_tf32
