"""Section `compare` of params.yaml; no DVC stage reads it."""

import dataclasses
from typing import Annotated, Literal

from stages.config import Range

HIGHER_IS_BETTER = {
    "fid_domain": False,
    "kid_domain": False,
    "precision_k3": True,
    "recall_k3": True,
    "density_k5": True,
    "coverage_k5": True,
    "label_agreement": True,
}  # what candidate and champion can be compared by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Margin:
    """How much worse than the champion a candidate may be on one measure."""

    measure: str
    """One of the measures that both generators are scored by."""
    margin: Annotated[float, Range(ge=0)]
    """Largest loss that still counts as not worse, in the unit that `relative_to` gives."""
    relative_to: Literal["none", "ratio", "deviations"]
    """Unit of `margin`: the measure's own, the mean of its real-against-real floor, or the deviation of the floor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """How candidate and champion are scored on the same latents, and what `not worse` means."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of the latents, the same for both generators."""
    sets: Annotated[int, Range(ge=3, le=1000)]
    """Sets of images, each as large as the reference says; the interval is over sets."""
    margins: tuple[Margin, ...]
    """Measures that decide, each with its margin."""
    primary: tuple[str, ...]
    """Measures of `margins`; on the champion's own data at least one must be shown to be better."""

    def __post_init__(self) -> None:
        """Refuse margins of unknown or repeated measures, and a comparison that no measure decides."""
        names = [margin.measure for margin in self.margins]
        if not names:
            raise ValueError("margins must name at least one measure, or every candidate would be `not worse`")
        for margin in self.margins:
            name = margin.measure
            if name not in HIGHER_IS_BETTER:
                raise ValueError(f"margins must be of {', '.join(HIGHER_IS_BETTER)}; received {name!r}")
            if names.count(name) > 1:
                raise ValueError(f"margins must name each measure once; {name!r} is named twice")
            if name == "label_agreement" and margin.relative_to != "none":
                raise ValueError("margins of label_agreement must be relative_to none: it has no floor of real draws")
        wrong = [name for name in self.primary if name not in names or self.primary.count(name) > 1]
        if wrong or not self.primary:
            raise ValueError(f"primary must name measures of margins, each once; received {list(self.primary)}")
