"""All networks with all losses on the digits: a tenth of the default budget, three seeds, the distance of their images.

    python -m benchmarks.recipes --data data          (needs data/ingest, data/validate and data/reference)

The networks have at most about as many weights as the default's. Everything else is as in params.yaml and was not tuned
for any of them; penalties are those that belong to the loss. One thread each. Results are kept in the state folder, so
that the command resumes where it was stopped; at the end it writes the table of docs/recipes.md.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.resumed import Result, measured, spread, write_section
from gan import latents, networks, pixels
from gan.features import domain
from gan.metrics import frechet_distance
from stages.common.files import read_json
from stages.config import build
from stages.config.train import TrainConfig
from stages.reference_folder import open_reference
from stages.state import state_folder
from stages.train import run

PROJECT, SEEDS, SHARE = Path(__file__).parents[1], 3, 0.1
SETS = 5  # generated sets, each as large as the reference's sets; the mean of their distances counts
_LENGTHS = ("total_kimg", "lr_kimg", "burn_in_kimg", "ema_halflife_start_kimg", "ema_halflife_kimg")
_DCGAN = {
    "name": "dcgan",
    "embedding": 32,
    "norm": "spectral",
    "dropout": 0.0,
    "minibatch": "none",
    "group": 1,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "r3gan": {},  # that of params.yaml
    "r3gan_paper": {
        "name": "r3gan_paper", "width": 48, "full_to": 8, "blocks": 1, "group_width": 16, "embedding": 32,
        "projection": 48,
    },
    "dcgan, transposed": _DCGAN | {"form": "transposed", "width": 96},
    "dcgan, upsampling": _DCGAN | {"form": "upsampling", "width": 64},
    "dcgan, batch norm": _DCGAN | {"form": "transposed", "width": 96, "norm": "batch"},  # the classic, so no penalties
    "resnet": {"name": "resnet", "generator_width": 48, "discriminator_width": 48},
}  # fmt: skip
SHARED = {f"{name}, shared batch": name for name in ("r3gan", "dcgan, batch norm")}  # generator_batch: shared
ROWS = [*NETWORKS, *SHARED]
R1, R2 = ({"name": name, "gamma": 1.0, "gamma_final": 0.1} for name in ("r1", "r2"))
TARGETS = {"real_target": 1.0, "fake_target": 0.0}
LOSSES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "relativistic": ({}, [R1, R2], "R1, R2"),
    "non_saturating": (TARGETS, [R1], "R1"),
    "minimax": (TARGETS, [R1], "R1"),
    "hinge": ({}, [R1], "R1"),
    "least_squares": (TARGETS, [R1], "R1"),
    "wasserstein": ({}, [{"name": "wgan_gp", "gamma": 10.0, "gamma_final": 10.0}], "gradient penalty"),
}


def combinations() -> list[tuple[str, str]]:
    """Networks and losses that go together: the Wasserstein loss needs a penalty, batch normalisation allows none."""
    every = [(row, loss) for row in ROWS for loss in LOSSES]
    return [(row, loss) for row, loss in every if "batch norm" not in row or loss != "wasserstein"]


def section(row: str, loss: str, seed: int, share: float) -> TrainConfig:
    """Section `train` of this row and loss, its budget and schedules cut to `share`."""
    settings = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))["train"]
    more, penalties, _ = LOSSES[loss]
    settings |= {"loss": {"name": loss} | more, "penalties": penalties, "seed": seed}
    settings |= {"processes": 1, "threads": 1, "tensorboard": False}
    settings["network"] = NETWORKS[SHARED.get(row, row)] or settings["network"]
    settings["generator_batch"] = "shared" if row in SHARED else "fresh"
    if settings["network"].get("norm") == "batch":
        settings["penalties"] = []
    settings |= {name: settings[name] * share for name in _LENGTHS}
    config: TrainConfig = build(TrainConfig, settings, "train")
    return config


def measure(config: TrainConfig, data: Path) -> Result:
    """Train, draw sets as large as the reference says, and compare them in the domain extractor's features.

    A run that diverged gets an infinite distance.
    """
    reference = open_reference(data / "reference")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "train"
        os.environ["GANOPS_STATE"] = str(Path(folder) / "state")
        try:
            summary = run(config, images=data / "ingest", passed=data / "validate" / "passed.json", out=out)
        except FloatingPointError:
            return {"fid_domain": float("inf"), "ratio": float("inf")}
        info = read_json(out / "generator" / "generator.json")
        weights = load_file(out / "generator" / "generator.safetensors")
    shape = {key: info[key] for key in ("resolution", "channels")} | {"classes": len(info["classes"])}
    generator = networks.build_generator(info["architecture"], z_dim=info["z_dim"], **shape)
    generator.load_state_dict(weights)
    count, found = reference.set_size, []
    extractor = domain.load(data / "reference" / "extractor.safetensors")
    for start in range(0, SETS * count, count):
        z = torch.from_numpy(latents.latents(1, start, count, info["z_dim"]))
        label = torch.from_numpy(latents.labels(1, start, count, info["prior"])) if info["classes"] else None
        with torch.no_grad():
            images = pixels.to_uint8(generator.eval()(z, label).numpy())
        features, _ = domain.features(extractor, images)
        found.append(frechet_distance(reference.compared(), features))
    value, floor = float(np.mean(found)), reference.info["floors"]["fid_domain"]["mean"]
    sizes = {f"weights_{side[0]}": float(number) for side, number in summary.results["parameters"].items()}
    return {"fid_domain": value, "ratio": value / floor} | sizes


def table(found: dict[str, Result], share: float, seeds: int) -> list[str]:
    """The table of docs/recipes.md: one row per network, one column per loss."""
    lines = [
        f"Frechet distance on the domain features against the held-out digits, as a multiple of what real images have; "
        f"{share:g} of the default budget, {seeds} seeds (mean and range), {SETS} generated sets each. "
        "Nothing was tuned for any of them; where the discriminator has batch normalisation there are no penalties.",
        "",
        f"| network | weights G / D | {' | '.join(f'{loss} ({about[2]})' for loss, about in LOSSES.items())} |",
        f"|---|---{'|---' * len(LOSSES)}|",
    ]
    for network in ROWS:
        rows = {
            loss: [found[f"{network}/{loss}/{seed}/{share}"] for seed in range(seeds)]
            for other, loss in combinations()
            if other == network
        }
        sizes = next(row for of_loss in rows.values() for row in of_loss if "weights_g" in row)
        cells = [spread([row["ratio"] for row in rows[loss]]) if loss in rows else "refused" for loss in LOSSES]
        size = f"{sizes['weights_g'] / 1000:.0f} k / {sizes['weights_d'] / 1000:.0f} k"
        lines.append(f"| {network} | {size} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=PROJECT / "data", help="folder of ingest, validate and reference")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the budget, one seed; no page is written")
    options = parser.parse_args()
    share, seeds = (0.01, 1) if options.quick else (SHARE, options.seeds)
    keys = {f"{n}/{loss}/{seed}/{share}": (n, loss, seed) for seed in range(seeds) for n, loss in combinations()}
    asked = [dataclasses.asdict(section(network, loss, 0, share)) for network, loss in combinations()]
    asked.append(read_json(options.data / "reference" / "reference.json")["data_hash"])
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]  # other settings have other results
    path = state_folder() / "benchmarks" / f"recipes-{digest}.jsonl"
    found = measured(path, keys, lambda key: measure(section(*keys[key], share), options.data))
    if not options.quick:
        write_section("recipes", table(found, share, seeds))


if __name__ == "__main__":
    main()
