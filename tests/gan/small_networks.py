"""Every architecture, small, for tests: descriptions by a name, and players in their first state."""

from typing import Any

import torch

from gan import batches, networks, training

_DCGAN = {"width": 8, "embedding": 4, "dropout": 0.0, "minibatch": "none", "group": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "r3gan": {"name": "r3gan", "arguments": {"widths": [8, 4], "blocks": [1, 1], "embedding": 4, "projection": 6}},
    "r3gan_paper": {
        "name": "r3gan_paper",
        "arguments": {"width": 16, "full_to": 256, "blocks": 1, "group_width": 16, "embedding": 4, "projection": 6},
    },
    "transposed": {"name": "dcgan", "arguments": {"form": "transposed", "norm": "batch"} | _DCGAN},
    "upsampling": {"name": "dcgan", "arguments": {"form": "upsampling", "norm": "none"} | _DCGAN},
    "compared": {
        "name": "dcgan",
        "arguments": {"form": "upsampling", "norm": "spectral"}
        | _DCGAN
        | {"dropout": 0.25, "minibatch": "deviation", "group": 4},
    },
    "resnet": {"name": "resnet", "arguments": {"generator_width": 8, "discriminator_width": 8}},
}
Z_DIM = 5


def pair(description: dict[str, Any], *, classes: int = 3, resolution: int = 8, channels: int = 1) -> list[Any]:
    """A generator and a discriminator with the weights of seed 0."""
    shape = {"classes": classes, "resolution": resolution, "channels": channels}
    nets = [
        networks.build_generator(description, z_dim=Z_DIM, **shape),
        networks.build_discriminator(description, **shape),
    ]
    randomness = torch.Generator().manual_seed(0)
    for net in nets:
        networks.initialise(description["name"], net, randomness)
    return nets


def players(description: dict[str, Any], **shape: int) -> training.Players:
    return training.assemble(*pair(description, **shape), lr=1e-3, betas=(0.0, 0.99))


def batch(step: int, size: int = 8, *, classes: int = 3, resolution: int = 8, channels: int = 1) -> list[batches.Batch]:
    """The discriminator's and the generator's batch of a step: noise that is brighter on one side."""
    _, z = batches.draw(7, step, 2 * size, 1, Z_DIM)
    keys = torch.from_numpy(batches.draw_keys(7, step, 2 * size))
    images = torch.randn(2 * size, channels, resolution, resolution, generator=torch.Generator().manual_seed(step))
    images[..., : resolution // 2] += 1
    label = torch.arange(2 * size) % classes if classes else None
    halves = (slice(None, size), slice(size, None))
    return [
        batches.Batch(images[h], None if label is None else label[h], torch.from_numpy(z[h]), keys[h]) for h in halves
    ]
