"""Population values: the distances of this generator beyond these samples, including the reference's own chance.

They are reported beside the measures and gate nothing. The measures compare at equal N, given the held-out images; a
population value asks what two infinite sets would give, so its interval also covers the draw of the held-out images.
"""

from typing import Any

from gan.intervals import LEVEL
from gan.population import LEAST_KERNEL, frechet_population, kernel_population, least_frechet
from stages.reference_folder import Reference
from stages.scoring import Sets

_ESTIMAND = "squared distance of the generator's distribution and the one that the held-out images come from"


def population(reference: Reference, sets: Sets, *, seed: int) -> dict[str, Any]:
    """By measure: value, interval, counts and how it was made; with too few held-out images, or an extractor that
    learned nothing, no value but the reason.

    All generated images of all sets are used, against all held-out ones.
    """
    real = reference.features("heldout")
    width = real.shape[1]
    least = least_frechet(width)
    counts = {"n_real": len(real), "n_fake": len(sets.features), "level": LEVEL, "estimand": _ESTIMAND}
    found: dict[str, Any] = {
        "fid_domain": {
            "title": "Fréchet distance", **counts, "seed": seed,
            "method": "extrapolated in both sizes from disjoint halves and quarters; jackknife over 16 groups",
            "reason": _reason(len(real), least, f"eight for each of {width} features and 32 at least"),
        },
        "kid_domain": {
            "title": "Kernel distance", **counts,
            "method": "full U-statistic, with its variance and second-order terms",
            "reason": _reason(len(real), LEAST_KERNEL, "below which its interval was found to cover too rarely"),
        },
    }  # fmt: skip
    for name, each in found.items():
        each["reason"] = reference.blind or each["reason"]
        ends: tuple[float | None, ...] = (None, None, None)
        if each["reason"] is None:
            ends = (
                frechet_population(real, sets.features, seed=seed)
                if name == "fid_domain"
                else kernel_population(real, sets.features)
            )
        each |= dict(zip(("value", "low", "high"), ends, strict=True))
    return found


def _reason(count: int, least: int, why: str) -> str | None:
    return None if count >= least else f"{count} held-out images are fewer than {least}, {why}"
