"""Do images show the class that was asked for, class by class, and does each class appear as often as declared?

An image's label is what the reference's classifier says. The classifier's own errors on held-out real images stand
beside every number, and the class shares are corrected for them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.shares import corrected_shares
from stages.audit._quality import share
from stages.config.audit import AuditConfig


def agreement(
    config: AuditConfig, labels: NDArray[np.int64], predicted: NDArray[np.int64], confusion: NDArray[np.int64],
    prior: list[float], classes: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per class: agreement of generated images, accuracy of the classifier on real ones, commonest mistake."""
    rows, enough_samples = [], _samples_for(config, prior)
    for label, name in enumerate(classes):
        chosen = predicted[labels == label]
        enough = len(chosen) >= config.min_group
        reason = f"{len(chosen)} generated images, audit.min_group asks for {config.min_group}: {enough_samples}"
        others = np.bincount(chosen[chosen != label], minlength=len(classes))
        real = confusion[label]
        rows.append(
            {
                "class": name,
                "n_fake": len(chosen),
                "n_real": int(real.sum()),
                "status": "assessed" if enough else "not_assessed",
                "reason": None if enough else reason,
                "agreement": share(int((chosen == label).sum()), len(chosen)) if enough else None,
                "classifier": share(int(real[label]), int(real.sum())) if real.sum() else None,
                "mistaken_for": classes[int(others.argmax())] if others.any() else None,
            }
        )
    return rows


def _samples_for(config: AuditConfig, prior: list[float]) -> str:
    """What to do about too small a class: draw so many samples that the rarest is expected twice as often as required.

    If it were expected just as often as required, half of all runs would have too few of it.
    """
    least = min(prior)
    if least <= 0:
        return "the serving prior leaves out a class"
    wanted = math.ceil(2 * config.min_group / least - 1e-6)
    return f"set audit.samples to {max(wanted, config.samples + 1)} or more (it is {config.samples})"


def class_shares(
    config: AuditConfig, predicted: NDArray[np.int64], confusion: NDArray[np.int64], prior: list[float],
    classes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Shares of the classes that the images show, corrected for the classifier's errors, against the prior.

    If the correction is refused, `reason` says why.
    """
    counts = np.bincount(predicted, minlength=len(classes))
    raw = (counts / len(predicted)).tolist()
    try:
        found = corrected_shares(counts, confusion, np.asarray(prior), resamples=config.resamples, seed=config.seed)
    except ValueError as refusal:
        return {"status": "not_assessed", "reason": str(refusal), "condition": None, "variation": None, "rows": []}
    rows = [
        {"class": name, "prior": weight, "predicted": plain, "corrected": corrected._asdict()}
        for name, weight, plain, corrected in zip(classes, prior, raw, found.shares, strict=True)
    ]
    variation = found.variation._asdict()
    return {"status": "assessed", "reason": None, "condition": found.condition, "variation": variation, "rows": rows}
