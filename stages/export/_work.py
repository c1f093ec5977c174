"""The work of export: from the generator's folder to `data/export/`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from consumer import Generator
from gan.latents import labels, latents
from stages.common.files import output_folder, write_json
from stages.common.summary import Summary, measure, write_summary
from stages.config.export import ExportConfig
from stages.export._network import Trained, open_generator
from stages.export._onnx import export_module, fp16_share
from stages.export._parity import FP16_LARGEST, FP16_WARN, compared, probe
from stages.processor import use_processor

_DESCRIBED = ("licence", "classes", "resolution", "channels", "z_dim")


def export(config: ExportConfig, *, generator: Path, out: Path) -> Summary:
    """See `stages.export.run`."""
    use_processor(config.threads)
    trained = open_generator(generator)
    info = trained.info
    with output_folder(out) as work:
        # Translate to one file with FP16 inside and nothing in it that the inputs do not determine.
        file = work / "generator.onnx"
        model = export_module(
            trained.network,
            file,
            z_dim=info["z_dim"],
            classes=info["classes"],
            resolution=info["resolution"],
            channels=info["channels"],
            metadata={
                "name": config.name,
                "licence": info["licence"],
                "prior": serving_prior(config, info),
                "data_hash": info["data_hash"],
                "input_digest": trained.digest,
            },
            opset=config.opset,
        )

        # Compare the file as it ships with the network as it was trained.
        shipped = Generator(file, providers=["CPUExecutionProvider"], threads=config.threads)
        overflow = find_overflow(config, trained, shipped)
        parity = compared(
            trained.network, shipped, count=config.parity_images, seed=config.parity_seed, batch=config.batch
        )
        check(config, overflow, parity)
        file_facts = {"bytes": file.stat().st_size, "fp16_share": fp16_share(model)}
        write_json(work / "parity.json", {"format": 1, "file": file_facts, **parity, "overflow": overflow})
        return write_summary(
            work,
            stage="export",
            config=config,
            inputs={"generator": generator},
            results={
                "onnx_sha256": shipped.sha256,
                "input_digest": trained.digest,
                "data_hash": info["data_hash"],
                "generator": {"name": config.name, **{key: info[key] for key in _DESCRIBED}},
                **file_facts,
                "measures": measures(config, parity, overflow),
                "protocols": protocols(config, parity),
            },
        )


def serving_prior(config: ExportConfig, info: dict[str, Any]) -> list[float]:
    """Shares in which classes are served if a caller names no label; empty without classes."""
    if config.prior.name == "training":
        return list(info["prior"])
    return [1 / len(info["classes"]) for _ in info["classes"]]


def find_overflow(config: ExportConfig, trained: Trained, shipped: Generator) -> dict[str, Any]:
    """`probe` on the parity latents, as drawn and again stretched; warns of layers that come close to the limit."""
    count, seed = config.parity_images, config.parity_seed
    z = latents(seed, 0, count, shipped.z_dim)
    drawn = labels(seed, 0, count, shipped.prior) if shipped.classes else None
    both = np.concatenate([z, z * np.float32(config.parity_stretch)])
    found = probe(trained.network, both, None if drawn is None else np.tile(drawn, 2), config.batch)
    if found["close"]:
        peaks = ", ".join(f"{name} {found['largest'][name]:g}" for name in found["close"])
        print(f"export: values beyond {FP16_WARN:g} (FP16 ends at {FP16_LARGEST:g}): {peaks}", file=sys.stderr)  # noqa: T201
    return {"latents": len(both), "stretch": config.parity_stretch, **found}


def check(config: ExportConfig, overflow: dict[str, Any], parity: dict[str, Any]) -> None:
    """Raise ValueError if FP16 overflows, or the file differs from the network by more than the settings allow."""
    if overflow["non_finite"]:
        raise ValueError(
            f"{overflow['non_finite']} values leave the range of FP16 (largest {FP16_LARGEST:g}) on latents stretched "
            f"up to {config.parity_stretch:g} times; train with smaller activations"
        )
    for name in ("max_levels", "mean_levels", "share_changed"):
        value, allowed = parity["onnx"][name], getattr(config, f"parity_{name}")
        if value > allowed:
            raise ValueError(
                f"the ONNX file differs from the trained network: {name} is {value:g}, export.parity_{name} allows "
                f"{allowed:g}; look for layers that lose precision in FP16 before allowing more"
            )


def measures(config: ExportConfig, parity: dict[str, Any], overflow: dict[str, Any]) -> dict[str, Any]:
    """What the gate reads. The latents are fixed, so nothing is sampled and both ends of an interval are the value."""
    values = {f"parity_{name}": parity["onnx"][name] for name in ("max_levels", "mean_levels", "share_changed")}
    counts = dict.fromkeys(values, config.parity_images)
    values["overflow"], counts["overflow"] = overflow["non_finite"], overflow["latents"]
    return {
        name: measure(
            value, value, value, n_real=0, n_fake=counts[name], protocol=name if name == "overflow" else "parity"
        )
        for name, value in values.items()
    }


def protocols(config: ExportConfig, parity: dict[str, Any]) -> dict[str, Any]:
    """How the numbers were made: what was compared, on which latents, in which arithmetic."""
    common = {"n_real": 0, "seed": config.parity_seed, "interval": "none: the latents are fixed"}
    return {
        "parity": {
            **common,
            "n_fake": config.parity_images,
            "arithmetic": parity["onnx"]["arithmetic"],
            "runtime": f"onnxruntime {onnxruntime.__version__} on CPUExecutionProvider",
            "estimand": "difference in 8-bit levels between the ONNX file and torch in float32",
        },
        "overflow": {
            **common,
            "n_fake": 2 * config.parity_images,
            "arithmetic": "float16",
            "runtime": f"torch {torch.__version__.split('+')[0]} on CPU",
            "stretch": config.parity_stretch,
            "estimand": "values that are not finite, over the outputs of all layers",
        },
    }
