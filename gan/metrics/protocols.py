"""Named protocols: each name fixes the network, its resize, the real split, every count and every convention.

A number without these is comparable with nothing. Names are built from parts and never mean two things:

    <metric><count>[_k<k>]_<network>[_<split>]      fid50k_inception_tf_train, pr50k_k3_vgg16_train, is50k_inception_tf
    <metric>[_k<k>]_<network>_heldout               kid_dinov2_vitb14_heldout
    <metric>_domain, precision_k3, ...              the domain extractor's, the default

With a count: that many generated images, conventions of the papers (Fréchet distance against the whole split, kernel
distance over 100 subsets of 1,000, inception score in 10 splits, neighbours among as many real images). Without one: as
many generated as held-out images, every pair counted once. `fid` and `kid` are the Inception network's; other networks
have `fd` and `kd`. Standard library only.
"""

import dataclasses
import difflib
from typing import Any, Literal

Kind = Literal[
    "frechet", "kernel", "energy", "inception", "precision", "recall", "density", "coverage",
    "precision_recall", "density_coverage", "label_agreement", "cas",
]  # fmt: skip
Split = Literal["train", "heldout"]

K_PRECISION, K_COVERAGE = 3, 5
ROWS_PER_FEATURE = 2  # a Fréchet distance of fewer images per feature is mostly bias; it is refused

_CONVENTIONS: dict[Kind, dict[str, Any]] = {
    "frechet": {"metric": "squared Frechet distance", "ddof": 1},
    "kernel": {"metric": "unbiased squared MMD, kernel (x.y / D + 1)^3"},
    "energy": {"metric": "energy distance, 2 E|x - y| - E|x - x'| - E|y - y'|"},
    "inception": {"metric": "exp of the mean KL divergence of p(y|x) from p(y)"},
    "precision": {"metric": "improved precision", "inside": "<="},
    "recall": {"metric": "improved recall", "inside": "<="},
    "density": {"metric": "density", "inside": "<"},
    "coverage": {"metric": "coverage", "inside": "<"},
    "precision_recall": {"metric": "improved precision and recall", "inside": "<="},
    "density_coverage": {"metric": "density and coverage", "inside": "<"},
    "label_agreement": {"metric": "share of images that the extractor's classifier gives the label asked for"},
    "cas": {"metric": "share of held-out images that a classifier trained on samples alone reads right"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to get a number. None means: not fixed by the name; the result then states what it was."""

    name: str
    kind: Kind
    extractor: str
    """Network: `domain`, or a name of gan.features.published."""
    resize: str
    """How images reach the network's size; `none` for the domain extractor, which is made for theirs."""
    real: Split | None
    """Split of the real images; None if none are compared."""
    n_real: int | None = None
    """Real images, evenly spread over the split; None: all of it."""
    n_fake: int | None = None
    """Generated images; None: as many as held-out ones, or for `cas` as train ones."""
    k: int | None = None
    """Neighbour whose distance is the radius."""
    score_splits: int | None = None
    """Parts over which an inception score is averaged, in the order drawn."""
    subsets: int | None = None
    """Random subsets of a kernel distance; None: the full U-statistic."""
    subset_size: int | None = None
    """Rows per side in each of them."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of its numbers: its own, or, if there are two, its own followed by what each measures."""
        pair = {"precision_recall": ("precision", "recall"), "density_coverage": ("density", "coverage")}
        return tuple(f"{self.name}_{each}" for each in pair.get(self.kind, ())) or (self.name,)

    def as_record(self) -> dict[str, Any]:
        """Everything that the name fixes, as a result carries it."""
        record: dict[str, Any] = {
            "name": self.name, "extractor": self.extractor, "resize": self.resize, "pixels": "uint8, never mirrored",
            "labels": "drawn from the serving prior", "arithmetic": "features float32, metric float64",
            "splits": "generated" if self.real is None else f"{self.real} against generated",
            **_CONVENTIONS[self.kind],
        }  # fmt: skip
        if self.k is not None:
            record["k"] = self.k
        if self.score_splits is not None:
            record["score_splits"] = self.score_splits
        if self.kind == "kernel":
            drawn = f"{self.subsets} of {self.subset_size}, without replacement in each"
            record["subsets"] = "none: full U-statistic" if self.subsets is None else drawn
        return record


def named(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError with the nearest known ones if there is none."""
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3)
        known = f"did you mean {', '.join(near)}?" if near else "docs/metrics.md says how names are built"
        raise ValueError(f"{name!r} is not a protocol; {known}")
    return PROTOCOLS[name]


def _domain() -> list[Protocol]:
    """What every run reports: the domain extractor at as many generated as held-out images."""
    common: dict[str, Any] = {"extractor": "domain", "resize": "none", "real": "heldout"}
    kinds: dict[str, tuple[Kind, dict[str, Any]]] = {
        "fid_domain": ("frechet", {}),
        "kid_domain": ("kernel", {}),
        "energy_domain": ("energy", {}),
        "is_domain": ("inception", {"score_splits": 1, "real": None}),
        "precision_k3": ("precision", {"k": K_PRECISION}),
        "recall_k3": ("recall", {"k": K_PRECISION}),
        "density_k5": ("density", {"k": K_COVERAGE}),
        "coverage_k5": ("coverage", {"k": K_COVERAGE}),
        "label_agreement": ("label_agreement", {"real": None}),
        "cas": ("cas", {}),
    }
    return [Protocol(name=name, kind=kind, **(common | fixed)) for name, (kind, fixed) in kinds.items()]


# Network of a name, its extractor and the resize of the tool that defines the number.
NETWORKS = {
    "inception_tf": ("inception_tf", "legacy_tf"),  # Heusel et al. 2017, the TensorFlow graph of 2015-12-05
    "inception_clean": ("inception_tf", "clean"),  # Parmar et al. 2022, clean-fid
    "vgg16": ("vgg16", "legacy_tf"),  # Kynkäänniemi et al. 2019
    "dinov2_vitb14": ("dinov2_vitb14", "pil_bicubic"),  # Stein et al. 2023 (dgm-eval), for tracking
    "dinov2_vitl14": ("dinov2_vitl14", "pil_bicubic"),  # Stein et al. 2023 (dgm-eval), for reports
}


def _published() -> list[Protocol]:
    """The numbers of papers, on networks that others trained."""
    found = []
    for network, (extractor, resize) in NETWORKS.items():
        common: dict[str, Any] = {"extractor": extractor, "resize": resize}
        inception = network.startswith("inception")
        frechet, kernel = ("fid", "kid") if inception else ("fd", "kd")
        splits: tuple[Split, ...] = ("train", "heldout")
        for size, split in ((size, split) for size in (10, 50) for split in splits):
            count, tail = 1000 * size, f"{network}_{split}"
            some = {"real": split, "n_fake": count, **common}
            found += [
                Protocol(name=f"{frechet}{size}k_{tail}", kind="frechet", **some),
                Protocol(name=f"{kernel}{size}k_{tail}", kind="kernel", subsets=100, subset_size=1000, **some),
                Protocol(name=f"pr{size}k_k3_{tail}", kind="precision_recall", k=K_PRECISION, n_real=count, **some),
                Protocol(name=f"dc{size}k_k5_{tail}", kind="density_coverage", k=K_COVERAGE, n_real=count, **some),
            ]
        held = {"real": "heldout", **common}
        found += [
            Protocol(name=f"{frechet}_{network}_heldout", kind="frechet", **held),
            Protocol(name=f"{kernel}_{network}_heldout", kind="kernel", **held),
            Protocol(name=f"energy_{network}_heldout", kind="energy", **held),
            Protocol(name=f"pr_k3_{network}_heldout", kind="precision_recall", k=K_PRECISION, **held),
            Protocol(name=f"dc_k5_{network}_heldout", kind="density_coverage", k=K_COVERAGE, **held),
        ]
        for size in (10, 50) if inception else ():
            name = f"is{size}k_{network}"
            found.append(
                Protocol(name=name, kind="inception", real=None, n_fake=1000 * size, score_splits=10, **common)
            )
    return found


def _table() -> dict[str, Protocol]:
    found = [*_domain(), *_published()]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


PROTOCOLS = _table()
