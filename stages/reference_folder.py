"""The folder that reference writes, for the stages that measure against it."""

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gan.draws import spread
from gan.features.domain import DomainNetwork, load
from stages.common.files import read_array, read_json, sha256_file
from stages.common.summary import read_summary

if TYPE_CHECKING:
    from gan.features.published import Published

_LITTLE = 0.02  # total variation of class shares that is too small for any measure to show
_NEEDS = ("data_hash", "classes", "counts", "set_size", "extractor", "recipe", "floors", "baselines", "seed")


@dataclasses.dataclass(frozen=True)
class Reference:
    """An opened reference: `info` is `reference.json`; arrays are read when asked for."""

    path: Path
    info: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names in label order; empty if the images carry no labels."""
        return list(self.info["classes"])

    @property
    def heldout(self) -> int:
        """Number of held-out images."""
        return int(self.info["counts"]["heldout"])

    @property
    def set_size(self) -> int:
        """N, images in a set, real or generated: as many as are held out, and at most `reference.largest_set`."""
        return int(self.info["set_size"])

    def compared(self) -> NDArray[np.float32]:
        """Features [N, D] of the held-out images that sets are scored against, evenly spread over all of them."""
        return spread(self.features("heldout"), self.set_size)

    @property
    def blind(self) -> str | None:
        """Why no measure on the domain extractor's features means anything; None if the extractor learned something."""
        reason: str | None = self.info["extractor"].get("blind")
        return reason

    def served_otherwise(self, prior: list[float]) -> str | None:
        """Why images served in the shares `prior` [K] differ from the held-out ones however good they are, or None.

        The total variation of prior and held-out shares is compared with what chance gives if they agree: mean plus
        two deviations of N draws, by the normal approximation, and a little that does not matter.
        """
        if not prior or not self.classes:
            return None
        served, labels = np.asarray(prior), self.pictures("heldout")[1]
        deviations = np.sqrt(served * (1 - served) / len(labels))
        chance = math.sqrt(2 / math.pi) * deviations.sum() / 2 + math.sqrt((1 - 2 / math.pi) * (deviations**2).sum())
        variation = np.abs(np.bincount(labels, minlength=len(served)) / len(labels) - served).sum() / 2
        if variation <= _LITTLE + chance:
            return None
        return (
            f"labels are served in other shares than the held-out images have (total variation {variation:.2f}, chance "
            f"gives up to {chance:.2f}), which distances, precision, recall, density and coverage show too, however "
            "good the images are: set export.prior: {name: training}, or read them with care"
        )

    def published(self) -> list[dict[str, Any]]:
        """The extractors beside `domain`: {name, resize, sha256, width, device}; empty if there are none."""
        return list(self.info.get("published", []))

    def features(self, split: str, extractor: str = "domain") -> NDArray[np.float32]:
        """Features [N, D] of a split: train, fit or heldout.

        A published `extractor` is named `<name>-<resize>`; its features, of train and heldout alone, are mapped into
        memory, read-only. Raises ValueError if the reference was made without it.
        """
        if extractor == "domain":
            return read_array(self.path / f"features-{split}.npy")
        return read_array(self._of(extractor) / f"features-{split}.npy", mapped=True)

    def probabilities(self, split: str, extractor: str) -> NDArray[np.float64]:
        """Probabilities [N, K] of train or heldout by a published extractor that has them (`inception_tf`), mapped."""
        path = self._of(extractor) / f"probabilities-{split}.npy"
        if not path.is_file():
            raise ValueError(f"{extractor} gives no probabilities, which the inception score needs; inception_tf does")
        return read_array(path, mapped=True)

    def moments(self, split: str, extractor: str = "domain") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean [D] and covariance [D, D] (ddof 1) of the features of a split."""
        folder = self.path if extractor == "domain" else self._of(extractor)
        path = folder / f"moments-{split}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return stored["mean"], stored["cov"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); run `python -m stages.reference` again") from None

    def open_published(self, extractor: str, *, device: str = "cpu") -> "Published":
        """The published network itself, to take features of other images. Raises ValueError if its file is gone."""
        from stages.extraction import open_entry  # loads networks and Pillow, which few readers need

        self._of(extractor)
        keys = ("name", "resize", "weights", "sha256")
        entries = [{key: entry[key] for key in keys} for entry in read_summary(self.path).config["published"]]
        (entry,) = (entry for entry in entries if f"{entry['name']}-{entry['resize']}" == extractor)
        return open_entry(**entry, device=device)

    def _of(self, extractor: str) -> Path:
        known = [f"{entry['name']}-{entry['resize']}" for entry in self.published()]
        if extractor not in known:
            asked = extractor.replace("-", " --resize ", 1)
            raise ValueError(
                f"{self.path} holds no features of {extractor}; it holds {', '.join(['domain', *known])}. Add it to "
                f"reference.published: `python -m stages.reference.weights {asked}`"
            )
        return self.path / "published" / extractor

    def pictures(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images uint8 [N, H, W, C], mapped, and labels [N] of `heldout` (all) or `train` (some, evenly spread)."""
        images = read_array(self.path / f"{split}_images.npy", mapped=True)
        return images, read_array(self.path / f"{split}_labels.npy")

    def train_labels(self) -> NDArray[np.int64]:
        """Labels [N] of the whole train split, in the order of its features."""
        return read_array(self.path / "labels-train.npy")

    def network(self) -> DomainNetwork:
        """The feature network. Raises ValueError if the file is not the one that `reference.json` names."""
        path = self.path / "extractor.safetensors"
        found, stated = sha256_file(path), self.info["extractor"]["sha256"]
        if found != stated:
            raise ValueError(
                f"{path} has SHA-256 {found}, reference.json names {stated}; run `python -m stages.reference`"
            )
        return load(path)


def open_reference(path: Path) -> Reference:
    """Open the folder `path`. Raises ValueError if reference has not finished there."""
    if not (path / "summary.json").is_file():
        raise ValueError(
            f"{path} is not a finished reference: it holds no summary.json; run `python -m stages.reference`"
        )
    return Reference(path, read_json(path / "reference.json", needs=_NEEDS))
