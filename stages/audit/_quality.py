"""Quality of every group against the real images of the same group, at one number of images for all groups.

Precision (k = 3): share of the group's generated images inside the real group's manifold; coverage (k = 5): share of
the group's real images that a generated one comes near to. Both are shares, so small groups get honest intervals,
while a Fréchet distance of 30 images says nothing. With unequal numbers, gaps would appear out of nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.draws import spread
from gan.intervals import LEVEL, wilson
from gan.metrics.neighbours import density_coverage, expected_coverage, precision_recall
from gan.metrics.protocols import K_COVERAGE, K_PRECISION
from stages.audit._sides import Group
from stages.config.audit import AuditConfig


def quality(
    config: AuditConfig,
    groups: list[Group],
    real: NDArray[np.float32],
    fake: NDArray[np.float32],
    heldout: dict[tuple[str, str], NDArray[np.float32]],
    blind: str | None,
) -> dict[str, Any]:
    """Precision and coverage of every group, family by family.

    Args:
        real, fake: features of the training and the generated images, [N, D] and [M, D].
        heldout: features of the held-out images of each (family, group), to show what unseen real images reach.
        blind: why the features show nothing, so that no group is assessed; None if they can be used.
    """
    rows = []
    for family in dict.fromkeys(group.family for group in groups):
        members = [group for group in groups if group.family == family]
        sizes = [group.size for group in members if group.refusal(config.min_group) is None]
        count = min([config.quality_images, *sizes])
        for group in members:
            reason = blind or group.refusal(config.min_group)
            rows.append(_row(config, group, count, real, fake, heldout[family, group.name], reason))
    return {"k_precision": K_PRECISION, "k_coverage": K_COVERAGE, "rows": rows}


def _row(
    config: AuditConfig, group: Group, count: int, real: NDArray[np.float32], fake: NDArray[np.float32],
    unseen: NDArray[np.float32], reason: str | None,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {
        "family": group.family, "group": group.name, "n_real": len(group.real), "n_fake": len(group.fake),
        "status": "not_assessed" if reason else "assessed", "reason": reason,
        "images": 0, "precision": None, "precision_unseen": None, "coverage": None, "coverage_expected": None,
    }  # fmt: skip
    if reason:
        return row
    a, b = real[spread(group.real, count)], fake[spread(group.fake, count)]
    row["images"] = count
    row["precision"] = share(round(precision_recall(a, b, k=K_PRECISION)[0] * count), count)
    row["coverage"] = share(round(density_coverage(a, b, k=K_COVERAGE)[1] * count), count)
    row["coverage_expected"] = expected_coverage(count, count, K_COVERAGE)
    if len(unseen) >= config.min_group:
        found = precision_recall(a, unseen, k=K_PRECISION)[0]
        row["precision_unseen"] = share(round(found * len(unseen)), len(unseen))
    return row


def share(hits: int, count: int) -> dict[str, Any]:
    """A share with its counts and Wilson interval."""
    low, high = wilson(hits, count)
    return {"value": hits / count, "low": low, "high": high, "hits": hits, "count": count}


def worst(shares: list[dict[str, Any]]) -> tuple[float, float, float]:
    """(value, low, high) of the smallest of several shares.

    The smallest true share lies between the smallest lower and the smallest upper end if all intervals hold at once, so
    each is taken at a level corrected for their number (Bonferroni).
    """
    level = 1 - (1 - LEVEL) / len(shares)
    ends = [wilson(each["hits"], each["count"], level=level) for each in shares]
    return min(each["value"] for each in shares), min(low for low, _ in ends), min(high for _, high in ends)
