"""Run by the tests under torch's launcher: steps of networks with batch statistics, dropout, groups and adaptive
augmentation, as one of several processes. Argument: the file that the first process writes, curves and
weights by network.
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from gan import batches, training
from gan.losses.hinge import Config as Hinge
from gan.objective import Adaptive, Objective
from tests.gan.small_networks import NETWORKS, batch, players

SIZE, RESOLUTION = 16, 16


def trained(name: str, wide: torch.dtype, precision: torch.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Loss terms [steps, 3] and final weights and running means of the average, which are `wide`."""
    rank, world = dist.get_rank(), dist.get_world_size()
    found = players(NETWORKS[name], resolution=RESOLUTION)
    for net in (found.generator, found.discriminator, found.average):
        net.to(wide)
    gammas = {} if name == "transposed" else {"real": 0.5, "fake": 0.5, "between": 0.1}
    strength = Adaptive(target=0.0, change=0.02, limit=0.8)
    objective = Objective(
        loss=Hinge(), gammas=gammas, transforms=("flip", "zoom", "cutout"), strength=strength, instance_noise=0.1,
        label_noise=0.05, precision=precision,
    )  # fmt: skip
    own, curve = slice(rank * SIZE // world, (rank + 1) * SIZE // world), []
    for step in range(10):
        parts = [
            batches.Batch(b.images[own].to(wide), b.label[own], b.z[own].to(wide), b.keys[own])
            for b in batch(step, SIZE, resolution=RESOLUTION)
        ]
        terms = training.discriminator_step(found, objective, parts[:1])
        terms |= training.generator_step(found, objective, parts[1:])
        training.update_average(found, images=SIZE, images_done=step * SIZE, halflife=200, ramp=1.0)
        row = torch.stack([terms["loss_d"], terms["loss_g"], found.strength.double()])
        dist.all_reduce(row)
        curve.append((row / world).tolist())
    weights = [t.flatten() for t in (*found.average.parameters(), *found.average.buffers())]
    return np.array(curve), torch.cat(weights).numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {}
    for name in ("transposed", "resnet", "compared"):
        results[f"{name}-curve"], results[f"{name}-weights"] = trained(name, torch.float64)
    results["narrow-curve"], results["narrow-weights"] = trained("transposed", torch.float32, torch.bfloat16)
    if dist.get_rank() == 0:
        np.savez(sys.argv[1], **results)
    dist.destroy_process_group()
