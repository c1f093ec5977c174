"""Section `card` of params.yaml: the thresholds of the gate."""

import dataclasses
from fnmatch import fnmatchcase
from typing import Literal

KINDS = {
    "distance": ("fid*_*", "kid*_*", "fd*_*", "kd*_*"),
    "fidelity": ("precision_*", "density_*", "pr*_precision", "dc*_density"),
    "coverage": ("recall_*", "coverage_*", "pr*_recall", "dc*_coverage"),
    "label agreement": ("label_agreement*",),
    "classification accuracy score": ("cas",),
    "memorization": ("memorization_*",),
    "parity": ("parity_*",),
    "data rights": ("data_rights",),
}  # what a gate must look at, and the names of measures of that kind: the domain extractor's, then those of papers
LABELLED_KINDS = ("label agreement", "classification accuracy score")  # meaningless if images carry no labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the gate: the bad end of a measure's interval against a threshold."""

    name: str
    """Name in the verdict."""
    source: Literal["ingest", "reference", "train", "export", "evaluate", "audit"]
    """Stage whose summary holds the measure."""
    measure: str
    """Key in that summary's `measures`; `data_rights` is judged from the datasheet in ingest's summary."""
    op: Literal["<=", ">="]
    """Direction: `<=` compares the upper end of the interval, `>=` the lower one."""
    threshold: float
    """Limit, in the unit that `relative_to` gives."""
    relative_to: Literal["none", "ratio", "deviations", "difference"]
    """What is compared: the value, value / reference mean, (value - mean) / reference sd, or value - mean."""
    required: bool
    """Whether the verdict is red when this check fails or cannot be assessed."""

    @property
    def kind(self) -> str | None:
        """The kind of KINDS that the measure belongs to, or None."""
        return next((k for k, names in KINDS.items() if any(fnmatchcase(self.measure, n) for n in names)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardConfig:
    """What a generator must reach."""

    registrable: bool
    """Whether a green verdict of this configuration may be registered; false for cut runs."""
    checks: tuple[Check, ...]
    """The gate, line by line."""

    def __post_init__(self) -> None:
        """Refuse a gate that leaves out a kind of evidence, or names two lines alike."""
        names = [check.name for check in self.checks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"checks must have different names; {name!r} is used twice")
        present = {check.kind for check in self.checks if check.required}
        for kind, known in KINDS.items():
            if kind not in present:
                raise ValueError(
                    f"checks must hold a required check of {kind}, on the measure {' or '.join(known)}; found none"
                )
