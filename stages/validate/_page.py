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

from stages.store import SPLITS, Split, Store
from stages.validate._drift import Moved
from stages.validate._drift_checks import probability, title
from stages.validate._frames import MEASURED, Frames
from stages.validate._run import Finding

_STRIP = 16  # pictures shown per class
_CLASSES = 40  # classes shown; more would make the page heavy
_QUARANTINE = 50  # refused files listed
_BARS = 32  # bars of a histogram
_SPREADS = {  # measure: title, left end, right end (0: the largest value found)
    "brightness": ("Brightness: mean level of an image", 0, 255),
    "contrast": ("Contrast: standard deviation of the levels", 0, 128),
    "level_range": ("Brightest less darkest level", 0, 255),
    "sharpness": ("Sharpness: mean absolute Laplacian, levels", 0, 0),
    "saturation": ("Saturation", 0, 1),
}


def page(
    frames: Frames, findings: list[Finding], left_out: dict[str, str], moved: list[Moved],
    baseline: dict[str, Any] | None,
) -> str:  # fmt: skip
    """The report as HTML: everything embedded, all text escaped, the same bytes for the same store and findings.
    `left_out` names expectations that were not checked, with the reason."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    info, quarantine = frames.store.info, _read_pairs(frames.store.path / "quarantine.csv")
    return environment.get_template("report.html.j2").render(
        info=info,
        datasheet={name.replace("_", " "): _in_words(value) for name, value in info["datasheet"].items()},
        findings=findings,
        left_out=left_out,
        failed=[finding for finding in findings if not finding.passed and finding.severity == "critical"],
        warned=[finding for finding in findings if not finding.passed and finding.severity == "warning"],
        shots={finding.name: _examples(frames.store, finding.rows) for finding in findings},
        baseline=baseline,
        moved=[_moved(one) for one in sorted(moved, key=lambda one: (not one.alarm, -one.moved))],
        classes=_class_rows(frames.classes),
        shown=_CLASSES,
        splits=frames.splits.to_dict("records"),
        strips=_strips(frames.store),
        histograms=_histograms(frames.images),
        attributes=_attributes(frames),
        quarantine=quarantine[:_QUARANTINE],
        reasons=_count(reason.split(":")[0] for _, reason in quarantine),
    )


def _in_words(value: Any) -> str:
    """Texts, lists and mappings of a datasheet as people write them."""
    if isinstance(value, dict):
        parts = [f"{name}: {f'({_in_words(one)})' if isinstance(one, dict) else _in_words(one)}"
                 for name, one in value.items()]  # fmt: skip
        return "; ".join(parts)
    return ", ".join(map(_in_words, value)) if isinstance(value, list) else str(value)


def _examples(store: Store, rows: list[int]) -> str:
    """The pictures of these rows of the store as one embedded PNG; empty if there are none."""
    shards = store.splits["train"].shards
    there = [row for row in rows if row < sum(len(shard) for shard in shards)]
    if not there:
        return ""
    return _png(Split(shards, np.array(there), np.zeros(len(there), np.int64)).all())


def _moved(one: Moved) -> dict[str, Any]:
    """A column's row of the drift table: bars of the shares before and now, in per cent of the largest."""
    top = max(*one.before, *one.now, 1e-12)
    bars = [
        {"label": label, "before": 100 * old / top, "now": 100 * new / top, "old": 100 * old, "new": 100 * new}
        for label, old, new in zip(one.labels, one.before, one.now, strict=True)
    ]
    return {
        "title": title(one.name),
        "moved": 100 * one.moved,
        "p": probability(one.p).removeprefix("= "),
        "alarm": one.alarm,
        "bars": bars[:_CLASSES],
    }


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
    """uint8 [n, H, W, C] side by side as a PNG in base64; pictures are repeated or averaged to 64 px each."""
    (count, side, _, channels), gap = images.shape, 4
    scale, block = max(1, 64 // side), max(1, side // 64)
    blocks = images.reshape(count, side // block, block, side // block, block, channels)
    small = images if block == 1 else np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    large = small.repeat(scale, axis=1).repeat(scale, axis=2)
    padded = np.pad(large, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    row = np.concatenate(list(padded), axis=1)[:, :-gap]
    buffer = io.BytesIO()
    Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _histograms(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Histograms of what was measured on the pixels."""
    found = []
    for name, (words, low, high) in _SPREADS.items():
        if MEASURED + name not in images:
            continue
        values = images[MEASURED + name].dropna().to_numpy(np.float64)
        top = high or max(1.0, float(values.max(initial=0)))
        counts = np.histogram(values, bins=_BARS, range=(low, top))[0]
        bars = [
            {
                "height": 100 * int(count) / max(1, int(counts.max())),
                "images": int(count),
                "from": f"{low + place * (top - low) / _BARS:.4g}",
            }
            for place, count in enumerate(counts)
        ]
        least, most = (f"{values.min():.4g}", f"{values.max():.4g}") if len(values) else ("-", "-")
        ends = {"left": f"{low:g}", "right": f"{top:.4g}"}
        found.append({"title": words, "bars": bars, "low": least, "high": most, **ends})
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
