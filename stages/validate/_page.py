"""report.html: the findings, the pictures and their statistics on one page that needs no network."""

import base64
import csv
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.store import SPLITS, Store
from stages.validate._frames import Frames
from stages.validate._suite import Finding

_STRIP = 16  # pictures shown of each class
_CLASSES = 40  # classes shown; more would make the page heavy
_QUARANTINE = 50  # refused files listed
_BARS = 32  # bars of a histogram over the levels 0..255


def page(frames: Frames, findings: list[Finding]) -> str:
    """The report as HTML: everything embedded, all text escaped, the same bytes for the same store and findings."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    info, quarantine = frames.store.info, _read_pairs(frames.store.path / "quarantine.csv")
    return environment.get_template("report.html.jinja").render(
        info=info,
        findings=findings,
        failed=[finding for finding in findings if not finding.passed],
        classes=_class_rows(frames.classes),
        shown=_CLASSES,
        splits=frames.splits.to_dict("records"),
        strips=_strips(frames.store),
        histograms=_histograms(frames.images),
        attributes=_attributes(frames),
        quarantine=quarantine[:_QUARANTINE],
        reasons=_count(reason.split(":")[0] for _, reason in quarantine),
    )


def _class_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per class: its name, its images, and per split the images and their length relative to the largest."""
    largest = max(1, int(classes["class_images"].max()))
    rows = []
    for name, group in classes.groupby("class", sort=False):
        parts = [
            {"split": split, "images": images, "width": 100 * images / largest}
            for split, images in zip(group["split"], group["images"], strict=True)
        ]
        rows.append({"name": name, "images": int(group["class_images"].iloc[0]), "parts": parts})
    return rows


def _strips(store: Store) -> list[dict[str, Any]]:
    """The first training pictures of every class, each row one embedded PNG; unlabelled pictures fill four rows."""
    train = store.splits["train"]
    if store.classes:
        wanted = [(name, np.flatnonzero(train.labels == label)[:_STRIP]) for label, name in enumerate(store.classes)]
    else:
        wanted = [("", np.arange(start, min(start + _STRIP, len(train)))) for start in range(0, 4 * _STRIP, _STRIP)]
    return [
        {"name": name, "count": len(places), "png": _png(train.take(places))}
        for name, places in wanted[:_CLASSES]
        if len(places)
    ]


def _png(images: NDArray[np.uint8]) -> str:
    """uint8 [n, H, W, C] side by side, enlarged to 64 px a picture by repetition, as base64 of a PNG."""
    scale, gap = 64 // images.shape[1], 4
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    padded = np.pad(large, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    row = np.concatenate(list(padded), axis=1)[:, :-gap]
    buffer = io.BytesIO()
    Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _histograms(images: pd.DataFrame) -> list[dict[str, Any]]:
    """How the two pixel statistics are spread over the levels 0..255."""
    found = []
    for column, title in (("mean_level", "Mean level of an image"), ("level_range", "Brightest less darkest pixel")):
        values = images[column].dropna().to_numpy(np.float64)
        counts = np.histogram(values, bins=_BARS, range=(0, 256))[0]
        bars = [
            {
                "height": 100 * int(count) / max(1, int(counts.max())),
                "images": int(count),
                "level": 256 // _BARS * place,
            }
            for place, count in enumerate(counts)
        ]
        low, high = (f"{values.min():.0f}", f"{values.max():.0f}") if len(values) else ("-", "-")
        found.append({"title": title, "bars": bars, "low": low, "high": high})
    return found


def _attributes(frames: Frames) -> list[dict[str, Any]]:
    """Share of every bin of every attribute in each split; an attribute that the manifest lacks is left out."""
    found = []
    for name, bins in frames.store.info["attributes"].items():
        if name in frames.images and "split" in frames.images:
            table = pd.crosstab(frames.images["split"], frames.images[name], normalize="index")
            table = table.reindex(index=list(SPLITS), columns=bins, fill_value=0.0)
            rows = [{"split": split, "shares": [float(table.loc[split, bin_]) for bin_ in bins]} for split in SPLITS]
            found.append({"name": name, "bins": bins, "rows": rows})
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:]]


def _count(words: Any) -> list[tuple[str, int]]:
    """(word, times), the commonest first."""
    counts = pd.Series(list(words), dtype=object).value_counts(sort=False)
    return sorted(((str(word), int(times)) for word, times in counts.items()), key=lambda pair: (-pair[1], pair[0]))
