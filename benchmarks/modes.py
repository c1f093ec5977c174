"""Mode coverage on stacked digits: three digits in the three colour channels, 1,000 modes (Metz et al. 2017).

    python -m benchmarks.modes --data data            (needs data/ingest and data/reference)

The network of params.yaml without classes, with its batches and schedules and a quarter of its budget for each loss,
one thread each; 12,800 generated images, each channel read by the domain classifier. Reports the number of modes found
and the reverse Kullback-Leibler divergence from the uniform distribution (ln 1000 = 6.9 for a single mode); as many
stacks of real digits show what could be reached. The command resumes where it was stopped and writes its table into
docs/recipes.md.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.resumed import Result, measured, spread, write_section
from gan import batches, latents, networks, pixels, training
from gan.features import domain
from gan.losses import non_saturating, relativistic
from gan.objective import Objective, cosine
from stages.state import state_folder
from stages.store import open_store

SEEDS, KIMG, BATCH, Z_DIM, SAMPLES = 3, 32, 64, 32, 12800
NETWORK = {"name": "r3gan", "arguments": {"widths": [48, 24], "blocks": [1, 0], "embedding": 1, "projection": 64}}
REAL = "real digits, stacked"
METHODS: dict[str, tuple[Any, dict[str, float]]] = {
    "relativistic, R1 and R2": (relativistic.Config(), {"real": 1.0, "fake": 1.0}),
    "relativistic, R1": (relativistic.Config(), {"real": 1.0}),
    "relativistic": (relativistic.Config(), {}),
    "non-saturating, R1 and R2": (non_saturating.Config(), {"real": 1.0, "fake": 1.0}),
    "non-saturating, R1": (non_saturating.Config(), {"real": 1.0}),
    "non-saturating": (non_saturating.Config(), {}),
}


def trained(digits: NDArray[np.uint8], method: str, seed: int, kimg: float) -> torch.nn.Module:
    """The moving average of a generator of stacked digits; `digits` uint8 [N, 8, 8, 1]."""
    shape: dict[str, Any] = {"classes": 0, "resolution": digits.shape[1], "channels": 3}
    pair = [networks.build_generator(NETWORK, z_dim=Z_DIM, **shape), networks.build_discriminator(NETWORK, **shape)]
    randomness = torch.Generator().manual_seed(seed)
    for net in pair:
        networks.initialise("r3gan", net, randomness)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    players = training.assemble(*pair, lr=1e-3, betas=(0.0, 0.99))
    loss, gammas = METHODS[method]
    steps = int(kimg * 1000 / BATCH)
    for step in range(steps):
        falling = cosine(1.0, 0.1, 2 * step / steps)
        objective = Objective(loss=loss, gammas={side: g * falling for side, g in gammas.items()})
        training.set_learning_rate(players, cosine(1e-3, 2.5e-4, step / steps))
        _, z = batches.draw(seed, step, 2 * BATCH, 1, Z_DIM)
        images = torch.from_numpy(pixels.to_float(stacked(digits, seed, 2 * BATCH * step, 2 * BATCH)))
        images = images.contiguous(memory_format=torch.channels_last)
        parts = [
            batches.Batch(images[h], None, torch.from_numpy(z[h])) for h in (slice(None, BATCH), slice(BATCH, None))
        ]
        training.step(players, objective, lambda turn, parts=parts: parts[turn : turn + 1])  # type: ignore[misc]
        training.update_average(players, images=BATCH, images_done=step * BATCH, halflife=kimg * 1000, ramp=0.05)
    return players.average


def stacked(digits: NDArray[np.uint8], seed: int, start: int, count: int) -> NDArray[np.uint8]:
    """Stacks [count, 8, 8, 3] of three independently drawn digits, from number `start` of the seed on."""
    u = latents.uniforms(seed, latents.LABELS, np.arange(start, start + count), 3)
    return digits[(u * len(digits)).astype(np.int64), :, :, 0].transpose(0, 2, 3, 1)


def drawn(generator: torch.nn.Module, start: int, count: int) -> NDArray[np.uint8] | None:
    """Samples [count, 8, 8, 3]; None if the generator has diverged."""
    with torch.no_grad():
        images = generator(torch.from_numpy(latents.latents(1, start, count, Z_DIM))).numpy()
    return pixels.to_uint8(images) if np.isfinite(images).all() else None


def coverage(
    source: Callable[[int, int], NDArray[np.uint8] | None], classifier: domain.DomainNetwork, samples: int
) -> Result:
    """Number of modes and reverse divergence of `samples` images from `source(start, count)`; if that gives None, no
    modes and the divergence of a single one."""
    counts = np.zeros(1000)
    for start in range(0, samples, 1024):
        images = source(start, min(1024, samples - start))
        if images is None:
            return {"modes": 0.0, "divergence": float(np.log(1000))}
        digits = [domain.features(classifier, images[..., c : c + 1])[1].argmax(1) for c in range(3)]
        np.add.at(counts, digits[0] * 100 + digits[1] * 10 + digits[2], 1)
    shares = counts[counts > 0] / counts.sum()
    return {"modes": float((counts > 0).sum()), "divergence": float((shares * np.log(shares * 1000)).sum())}


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of ingest and reference")
    parser.add_argument("--kimg", type=float, default=KIMG, help="thousand images, of each")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each")
    parser.add_argument("--quick", action="store_true", help="1 kimg, one seed, few samples; no page is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kimg, seeds, samples = (1.0, 1, 2048) if options.quick else (options.kimg, options.seeds, SAMPLES)
    store = open_store(options.data / "ingest")
    digits = store.splits["train"].all()
    if digits.shape[3] != 1:
        raise SystemExit(
            f"stacked digits are made of grey images; {options.data}/ingest has {digits.shape[3]} channels"
        )
    classifier = domain.load(options.data / "reference" / "extractor.safetensors")
    keys = {f"{m}/{seed}/{kimg:g}": (m, seed) for seed in range(seeds) for m in (REAL, *METHODS)}

    def measure(key: str) -> Result:
        method, seed = keys[key]
        if method == REAL:
            return coverage(partial(stacked, digits, seed), classifier, samples)
        return coverage(partial(drawn, trained(digits, method, seed, kimg)), classifier, samples)

    path = state_folder() / "benchmarks" / f"modes-{store.info['data_hash'][:12]}-{samples}.jsonl"
    found = measured(path, keys, measure)
    if not options.quick:
        lines = [
            f"Stacked digits: modes met of 1,000 and reverse divergence in nats, {seeds} seeds (mean and range), "
            f"{kimg:g} kimg and {samples:,} samples each.",
            "",
            "| loss | modes | divergence |",
            "|---|---|---|",
        ]
        for method in (REAL, *METHODS):
            rows = [found[f"{method}/{seed}/{kimg:g}"] for seed in range(seeds)]
            cells = [spread([row[name] for row in rows]) for name in ("modes", "divergence")]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        write_section("modes", lines)


if __name__ == "__main__":
    main()
