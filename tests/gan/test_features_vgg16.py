"""VGG16's second fully connected layer: that of torch-fidelity with the same random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gan.random_networks import images, opened, randomize


def test_features_are_those_of_torch_fidelity(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    from gan.features.vgg16 import VGG16

    path = tmp_path / "vgg16.pth"
    torch.save(randomize(VGG16(), 224), path)
    fidelity = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))
    ours = opened("vgg16", "legacy_tf", path)
    path.unlink()  # half a gigabyte
    for side in (32, 300):
        x = images(2, side)
        with torch.inference_mode():
            (theirs,) = fidelity(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
        features, odds = ours(x)
        assert odds is None and features.shape == (2, 4096) and (features >= 0).all()
        assert features.std(axis=0).mean() > 0.05 and np.abs(features[0] - features[1]).max() > 0.1
        assert features == pytest.approx(theirs.numpy(), abs=1e-5)
