"""The search for copies of training images, with its positive control and its statement of power.

Controls are the held-out images and the images of the split `fit`: the generator saw neither, and nothing is fitted
in pixel space, so fit images are as good a control as held-out ones and triple the power. (Held-out images are still
used for nothing but scoring: no choice in training or of the extractor depends on them.) The controls' distances take
into account the training images that ingest refused because of them; see `stages.audit._refused`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gan.draws import spread
from gan.features.domain import Pictures
from gan.memorization import (
    Neighbours,
    controls_needed,
    copies_needed,
    copying,
    counted,
    detectable_share,
    fingerprints,
    nearest,
    samples_needed,
)
from stages.config.audit import MOST_SAMPLES, AuditConfig

_GROUPED = (
    "the images come in groups, and the unseen real ones show groups that training never saw: a generator that copies "
    "nothing comes nearer to training images than they do, so copies were not tested for; look at the closest pairs on "
    "the audit's page"
)


def copies(
    config: AuditConfig, fake: Pictures, train: Pictures, controls: Pictures, refused: NDArray[np.int64],
    *, grouped: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Results of the test and of the same test with planted copies, its power, and the closest pairs.

    Images are uint8 [N, H, W, C]; `refused` is what `nearest_refused` gives for the controls. `status` is
    `not_assessed` if the images are `grouped`, as the test then has no null, and if planted copies, or any number of
    copies, would not be found: a test without power says nothing by passing.
    """
    with tqdm(total=len(fake) + len(controls), desc="audit: nearest", unit="image", disable=None) as bar:
        found, real = nearest(fake, train, done=bar.update), nearest(controls, train, done=bar.update)
    unseen = np.minimum(real.squared, refused)
    prints = fingerprints(fake)
    counts = counted(prints, found.squared)
    result = copying(found.squared[counts], unseen)
    planted, planted_p = _planted(config, prints, found, train, unseen)
    needed = copies_needed(result.fakes, result.controls, alpha=config.alpha)
    power = detectable_share(result.fakes, result.controls, alpha=config.alpha)
    reason = None
    if grouped:
        reason = _GROUPED
    elif planted_p >= config.alpha:
        reason = (
            f"{planted} planted training copies among {len(fake)} images are not found at level {config.alpha:g} "
            f"(p {planted_p:.3g}): {_advice(config, result.controls)}"
        )
    elif power is None:
        reason = (
            f"{result.fakes} different generated images against {result.controls} unseen real ones cannot give a p "
            f"below {config.alpha:g}, whatever they show"
        )
    pixels = int(np.prod(train.shape[1:]))
    return {
        "status": "not_assessed" if reason else "assessed",
        "reason": reason,
        "grouped": grouped,
        **result._asdict(),
        "repeated": int(len(fake) - counts.sum()),
        "exact_copies": int((found.squared == 0).sum()),
        "exact_copies_among_controls": int((unseen == 0).sum()),
        "controls_near_refused": int((refused < real.squared).sum()),
        "planted": {"copies": planted, "p": planted_p},
        "copies_needed": needed,
        "detectable_share": power,
        "rms_levels": {
            "generated": _quartiles(found.squared[counts], pixels),
            "unseen_real": _quartiles(unseen, pixels),
        },
        "closest": _closest(config, found, pixels),
        "closest_controls": _closest(config, real, pixels),
    }


def _advice(config: AuditConfig, controls: int) -> str:
    """Settings with which planted copies would be found, whatever the other images are like."""
    rule = {"share": config.planted_share, "alpha": config.alpha}
    samples = samples_needed(controls, **rule, most=MOST_SAMPLES)
    if samples is not None:
        return f"set audit.samples to {samples} or more (it is {config.samples}), or raise audit.planted_share"
    needed = controls_needed(config.samples, **rule)
    few = f"{controls} unseen real images are too few, whatever audit.samples is; {needed} are enough"
    if controls >= config.controls:
        return f"{few}: set audit.controls to {needed} or more, or raise audit.planted_share"
    return f"{few}: add images, give fit or heldout a larger share in ingest.splits, or raise audit.planted_share"


def _planted(
    config: AuditConfig, prints: list[bytes], found: Neighbours, train: Pictures, unseen: NDArray[np.int64]
) -> tuple[int, float]:
    """(copies, p) of the test with a share of the generated images replaced by training images."""
    count = math.ceil(config.planted_share * len(prints))
    prints, squared = prints.copy(), found.squared.copy()
    places = spread(np.arange(len(prints)), count)
    copied = train[spread(np.arange(len(train)), count)]  # some more than once if training images are few
    squared[places] = nearest(copied, train).squared
    for place, each in zip(places.tolist(), fingerprints(copied), strict=True):
        prints[place] = each
    return count, copying(squared[counted(prints, squared)], unseen).p


def _closest(config: AuditConfig, found: Neighbours, pixels: int) -> list[dict[str, Any]]:
    """The nearest pairs, nearest first: indices on both sides and the root mean square difference in grey levels."""
    order = np.argsort(found.squared, kind="stable")[: config.pairs]
    return [
        {"image": int(i), "train": int(found.place[i]), "rms_levels": math.sqrt(found.squared[i] / pixels)}
        for i in order
    ]


def _quartiles(squared: NDArray[np.int64], pixels: int) -> dict[str, float]:
    """Smallest, quartiles and largest of the root mean square distances, in grey levels 0..255."""
    values = np.quantile(np.sqrt(squared / pixels), [0, 0.25, 0.5, 0.75, 1])
    return dict(zip(("least", "quarter", "median", "three_quarters", "most"), values.tolist(), strict=True))
