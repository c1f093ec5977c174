"""Published networks with random weights that behave like trained ones: activations of order one in every layer.

Weights alone are not enough. With batch-norm statistics of 0 and 1 the activations die out or blow up over fifty
layers, and any two networks would agree; so the statistics are taken from images, layer by layer.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gan.features.published import Published, open_published


def images(count: int, side: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, channels]: blocks of colour with noise on them, each image its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, channels)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)
    noisy = coarse[:, :side, :side] + rng.normal(0, 30, (count, side, side, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def randomize(network: nn.Module, side: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of `network` (built with memory) after drawing its weights and taking its statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.momentum = 1.0
        if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
            pixels = torch.from_numpy(images(8, side, seed=seed + 1)).permute(0, 3, 1, 2).float()
            network.train()(pixels)
    return {name: value.clone() for name, value in network.eval().state_dict().items()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opened(name: str, resize: str, path: Path) -> Published:
    return open_published(name, resize=resize, weights=path, sha256=sha256(path))


def inception_file(path: Path) -> Path:
    """Random weights under the names of the official Inception file."""
    from gan.features.inception_tf import InceptionTF

    torch.save(randomize(InceptionTF(), 299), path)
    return path
