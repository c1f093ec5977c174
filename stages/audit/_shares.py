"""Shares of the measured attributes: among all images, and within every class."""

from typing import Any

import numpy as np

from gan.attributes import bins
from gan.shares import difference, fisher_exact, holm, total_variation
from stages.audit._quality import share
from stages.audit._sides import Group, Side, by_class, everything
from stages.config.audit import AuditConfig


def shares(config: AuditConfig, real: Side, fake: Side, classes: list[str], prior: list[float]) -> dict[str, Any]:
    """Per attribute and group: one cell per bin with both shares, their difference, ratio and corrected p-value.

    The test is against the training images in the class shares `prior` of serving, as a perfect generator
    would draw them; `training` is the share among all training images as they are, or those of the class.
    """
    groups = [everything(real, fake, prior), *by_class(real, fake, classes)]
    table = [
        _group(config, attribute, names, group, real, fake)
        for attribute, names in bins(real.images.shape[-1]).items()
        for group in groups
    ]
    for row in table:
        for index, cell in enumerate(row["cells"]):
            inside = real.attributes[row["attribute"]] == index
            cell["training"] = float(inside.mean()) if row["family"] == "all" else cell["real"]["value"]
    cells = [cell for row in table for cell in row["cells"]]
    for cell, corrected in zip(cells, holm([cell["p"] for cell in cells]), strict=True):
        cell["p_corrected"] = corrected
        cell["differs"] = corrected < config.alpha
    return {
        "rows": table,
        "tests": len(cells),
        "correction": f"Fisher's exact test per cell, Holm over {len(cells)} cells, level {config.alpha:g}",
        "not_assessed": sum(row["status"] != "assessed" for row in table),
    }


def _group(
    config: AuditConfig, attribute: str, names: list[str], group: Group, real: Side, fake: Side
) -> dict[str, Any]:
    reason = group.refusal(config.min_group)
    row: dict[str, Any] = {
        "attribute": attribute,
        "family": group.family,
        "group": group.name,
        "n_real": len(group.real),
        "n_fake": len(group.fake),
        "status": "not_assessed" if reason else "assessed",
        "reason": reason,
        "variation": None,
        "cells": [],
    }
    if reason:
        return row
    counts_real, counts_fake = (
        np.bincount(a_side.attributes[attribute][places], minlength=len(names))
        for a_side, places in ((real, group.real), (fake, group.fake))
    )
    row["variation"] = total_variation(counts_real, counts_fake, resamples=config.resamples, seed=config.seed)._asdict()
    row["cells"] = [
        _cell(name, (int(a), len(group.real)), (int(b), len(group.fake)))
        for name, a, b in zip(names, counts_real, counts_fake, strict=True)
    ]
    return row


def _cell(name: str, real: tuple[int, int], fake: tuple[int, int]) -> dict[str, Any]:
    """One bin: `ratio` is the amplification, generated share over real share; None if no real image is in it."""
    shown = {"real": share(*real), "fake": share(*fake)}
    return {
        "bin": name,
        **shown,
        "difference": difference(real, fake)._asdict(),
        "ratio": shown["fake"]["value"] / shown["real"]["value"] if real[0] else None,
        "p": fisher_exact(real, fake),
    }
