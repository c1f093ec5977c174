"""Run by the tests under torch's launcher: steps of a small R3GAN on random images, as one of several processes.

Arguments: a folder, and how many parts a process makes of its batch, one training for each, with one update of the
discriminator a step and with three. The first process writes loss terms and final weights there.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from gan import batches, networks, training
from gan.exchange import GradientMean
from gan.losses.relativistic import Config as Relativistic
from gan.objective import Objective

BATCH, Z_DIM, CLASSES = 16, 5, 3
SMALL = {"name": "r3gan", "arguments": {"widths": [8, 4], "blocks": [1, 1], "embedding": 4, "projection": 6}}
SHAPE = {"classes": CLASSES, "resolution": 8, "channels": 1}


def trained(dtype: torch.dtype, steps: int, parts: int, turns: int) -> dict[str, np.ndarray]:
    """Loss terms [steps, 4] and final weights of the moving average."""
    rank, world = dist.get_rank(), dist.get_world_size()
    pair = [networks.build_generator(SMALL, z_dim=Z_DIM, **SHAPE), networks.build_discriminator(SMALL, **SHAPE)]
    for net in pair:
        networks.initialise("r3gan", net, torch.Generator().manual_seed(0))
        net.to(dtype)
    players = training.assemble(*pair, lr=1e-3, betas=(0.0, 0.99))
    # Many buckets; the default's 25 MB would hold each of these networks whole.
    means = [GradientMean(net.parameters(), bucket_bytes=400) for net in pair]
    players.generator_exchange, players.discriminator_exchange = means
    assert world == 1 or min(len(mean._buckets) for mean in means) > 3
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(50, 1, 8, 8, generator=generator, dtype=dtype)
    labels = torch.arange(50) % CLASSES
    own, size = BATCH // world, BATCH // world // parts
    curve = []
    for step in range(steps):
        objective = Objective(loss=Relativistic(), gammas={"real": 1.0, "fake": 1.0})
        terms = dict[str, torch.Tensor]()
        for turn in range(turns + 1):
            number = step * (turns + 1) + turn
            indices, z = batches.draw(7, number, BATCH, len(images), Z_DIM, own=slice(rank * own, (rank + 1) * own))
            pieces = [slice(begin, begin + size) for begin in range(0, own, size)]
            shares = [
                batches.Batch(images[indices[p]], labels[indices[p]], torch.from_numpy(z[p]).to(dtype)) for p in pieces
            ]
            update = training.discriminator_step if turn < turns else training.generator_step
            terms |= update(players, objective, shares)
        shown = BATCH * turns
        training.update_average(players, images=shown, images_done=step * shown, halflife=500, ramp=0.05)
        row = torch.stack([terms["loss_d"], terms["gradient_real"], terms["gradient_fake"], terms["loss_g"]])
        dist.all_reduce(row)
        curve.append((row / world).tolist())
    weights = torch.cat([p.detach().flatten() for p in players.average.parameters()])
    return {"curve": np.array(curve), "weights": weights.numpy()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for parts in map(int, sys.argv[2:]):
        for dtype, steps, turns in (
            (torch.float64, 200, 1), (torch.float32, 20, 1), (torch.float64, 60, 3), (torch.float32, 5, 3)
        ):  # fmt: skip
            found = trained(dtype, steps, parts, turns)
            if dist.get_rank() == 0:
                name = f"{str(dtype)[6:]}-{turns}-{dist.get_world_size()}x{parts}.npz"
                np.savez(Path(sys.argv[1]) / name, **found)
    dist.destroy_process_group()
