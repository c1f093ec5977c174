"""`index.html` of evaluate: one file that opens without a network, for a person who has to judge a generator."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from gan.intervals import RARE, wilson
from stages.evaluate._latent import STEPS, Walks
from stages.evaluate._pictures import Pictures
from stages.pictures import grid_uri, image_uri, row_texts

_TEMPLATE = Path(__file__).with_name("page.html.j2")
LIMIT = 60  # classes in the tables; evaluation.json has all
WIDTH, NARROW = 260, 150  # CSS pixels of an interval plot: of measures, and of classes


class Text(NamedTuple):
    """How a measure is shown: its name, which way is better (-1 lower, 1 higher, 0 neither), and what it says."""

    title: str
    better: int
    percent: bool
    meaning: str


MEASURES = {
    "fid_domain": Text(
        "Fréchet distance (FID)", -1, False,
        "How far the cloud of generated images lies from the real one: place, spread and shape in one number.",
    ),
    "kid_domain": Text(
        "Kernel distance (KID)", -1, False,
        "The same question with another ruler, unbiased at every size. It may be negative; near the real mark is best.",
    ),
    "energy_domain": Text(
        "Energy distance", -1, False,
        "A third ruler, by plain distances between images; unbiased, and steady where there are few images.",
    ),
    "precision_k3": Text(
        "Precision", 1, True, "Fidelity: generated images that lie among the real ones. A blur or a smear does not."
    ),
    "recall_k3": Text(
        "Recall", 1, True, "Variety: real images in the range of the generated ones. It falls when modes are lost."
    ),
    "density_k5": Text(
        "Density", 1, False, "Fidelity, counted: real neighbourhoods that a generated image falls into; may exceed 1."
    ),
    "coverage_k5": Text(
        "Coverage", 1, True, "Variety: real images that have a generated one in their own neighbourhood."
    ),
    "label_agreement": Text(
        "Label agreement", 1, True, "Generated images that a classifier of real images takes for the class asked for."
    ),
    "cas": Text(
        "Learned from samples (CAS)", 1, True,
        "A classifier that has seen generated images only, tested on real ones: what the samples can teach.",
    ),
    "is_domain": Text(
        "Inception score, domain", 0, False,
        "Sure and varied predictions of our own classifier. For information; it is compared with nothing else.",
    ),
}  # fmt: skip
HEADLINES = ("fid_domain", "label_agreement", "coverage_k5", "cas")
UNLABELLED_HEADLINES = ("fid_domain", "precision_k3", "recall_k3", "coverage_k5")


def render(report: dict[str, Any], pictures: Pictures, training: list[dict[str, Any]], *, columns: int) -> str:
    """The page's text, everything embedded; `training` as `read_curves` gives it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["plain"] = plain
    measures = report["measures"]
    rows = [_row(name, measures[name]) for name in MEASURES]
    names = HEADLINES if measures["label_agreement"]["value"] is not None else UNLABELLED_HEADLINES
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        **report,
        rows=rows,
        behind=[row["title"] for row in rows if row.get("standing") == "behind"],
        level=sum(row.get("standing") == "level" for row in rows),
        missing=Counter(row["reason"] for row in rows if row["value"] is None and row["better"]),
        published=[{"name": name, **found} for name, found in measures.items() if name not in MEASURES],
        class_rows=_class_rows(report["per_class"][:LIMIT]),
        any_frechet=any(row["distances"]["frechet"]["value"] is not None for row in report["per_class"][:LIMIT]),
        training=training,
        headlines=[row for name in names for row in rows if row["name"] == name and row["value"] is not None],
        width=WIDTH,
        narrow=NARROW,
        limit=LIMIT,
        samples=measures["label_agreement"]["n_fake"],
        heldout=measures["fid_domain"]["n_real"],
        real_grid=grid_uri(pictures.real, columns=columns, row_labels=pictures.rows),
        generated_grid=grid_uri(pictures.generated, columns=columns, row_labels=pictures.rows),
        best_grid=grid_uri(pictures.best, columns=columns),
        worst_grid=grid_uri(pictures.worst, columns=columns),
        row_key=row_key(pictures.rows),
        walks_key=row_key(pictures.walks.rows),
        walks_grid=grid_uri(pictures.walks.interpolations, columns=STEPS, row_labels=pictures.walks.rows),
        sweep=_sweep(pictures.walks),
        disagreements=[
            {"image": image_uri(image), "asked": asked, "taken": taken}
            for image, asked, taken in pictures.disagreements
        ],
        pairs={
            kind: [{"image": image_uri(a), "train": image_uri(b), "rms": rms} for a, b, rms in listed]
            for kind, listed in pictures.pairs.items()
        },
        protocol_text=json.dumps(report["protocols"], indent=2, ensure_ascii=False),
    )


def row_key(names: list[str]) -> str:
    """Which row is which, if the grid can only draw their numbers; else empty."""
    texts = row_texts(names)
    return "" if texts == names else ", ".join(f"{text}: {name}" for text, name in zip(texts, names, strict=True))


def _row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the table: texts, plot and how it stands to real images."""
    text, real = MEASURES[name], found["reference"]
    row = {"name": name, **text._asdict(), **found}
    if found["value"] is None:
        return row
    row |= {"value_text": _number(found["value"], text), "low_text": _number(found["low"], text),
            "high_text": _number(found["high"], text)}  # fmt: skip
    if real is not None:
        band = _share_band(found) if text.percent else _band(found)
        row |= {
            "real_text": _number(real["mean"], text),
            "band_text": f"{_number(band[0], text)} to {_number(band[1], text)}",
            "plot": _plot(found, band, percent=text.percent, width=WIDTH),
            "standing": _standing(found, band, text.better),
            "against": _against(name, found, text),
        }
    return row


def _number(value: float, text: Text) -> str:
    return f"{100 * value:.1f} %" if text.percent else plain(value)


def plain(value: float | None) -> str:
    """A number as people read it: three decimals if it is small, fewer if it is large; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _against(name: str, found: dict[str, Any], text: Text) -> str:
    """The value beside what real images reach, in the unit that the gate uses."""
    mean, sd = found["reference"]["mean"], found["reference"]["sd"]
    if name in ("kid_domain", "energy_domain"):
        return f"{(found['value'] - mean) / sd:+.1f} sd" if sd else "–"
    if text.percent:
        return f"{100 * (found['value'] - mean):+.1f} points"
    return f"{found['value'] / mean:.2f} times" if mean > 0 else "–"


def _band(found: dict[str, Any]) -> tuple[float, float]:
    """What real images reach: two deviations to each side."""
    mean, sd = found["reference"]["mean"], found["reference"]["sd"]
    return mean - 2 * sd, mean + 2 * sd


def _share_band(found: dict[str, Any]) -> tuple[float, float]:
    """The same for a share; with fewer than RARE hits or misses, when deviations say little, at least Wilson's band.

    If all real images hit, the deviation is 0, and by a band without width one miss in a thousand would be behind.
    """
    low, high = _band(found)
    hits, count = round(found["reference"]["mean"] * found["n_real"]), found["n_real"]
    if min(hits, count - hits) < RARE:
        ends = wilson(hits, count)
        low, high = min(low, ends[0]), max(high, ends[1])
    return max(0.0, low), min(1.0, high)


def _standing(found: dict[str, Any], band: tuple[float, float], better: int) -> str:
    """`behind` if the interval lies wholly on the bad side of the band of real images, else `level`; `info` if neither
    direction is better."""
    if not better:
        return "info"
    behind = found["low"] > band[1] if better < 0 else found["high"] < band[0]
    return "behind" if behind else "level"


def _plot(found: dict[str, Any], band: tuple[float, float], *, percent: bool, width: int) -> dict[str, Any]:
    """Positions in pixels of the interval and the band of real images, and the ends of the axis as text."""
    bounds = (min(found["low"], band[0]), max(found["high"], band[1]))
    margin = 0.08 * (bounds[1] - bounds[0]) or 1.0
    start, end = bounds[0] - margin, bounds[1] + margin
    if percent:
        start, end = max(0.0, start), min(1.0, end)

    def place(value: float) -> float:
        return round((min(max(value, start), end) - start) / (end - start) * width, 1)

    return {
        "band": place(band[0]), "band_width": max(1.0, round(place(band[1]) - place(band[0]), 1)),
        "mean": place(found["reference"]["mean"]),
        "low": place(found["low"]), "high": place(found["high"]), "value": place(found["value"]),
        "start": f"{100 * start:.1f} %" if percent else plain(start),
        "end": f"{100 * end:.1f} %" if percent else plain(end),
    }  # fmt: skip


def _class_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Energy, kernel and Fréchet distances of each class, with plots of those that have a value and a floor."""
    shown = []
    for row in rows:
        cells = []
        for name in ("energy", "kernel", "frechet"):
            found = row["distances"][name]
            drawable = found["value"] is not None and found["reference"] is not None
            plot = _plot(found, _band(found), percent=False, width=NARROW) if drawable else None
            cells.append({**found, "plot": plot, "standing": _standing(found, _band(found), -1) if drawable else None})
        shown.append({"class": row["class"], "cells": cells})
    return shown


def _sweep(walks: Walks) -> list[dict[str, Any]]:
    """Rows of the truncation sweep: its numbers and a strip of its images."""
    columns = len(walks.truncations) // len(walks.sweep)
    return [
        {**row, "strip": grid_uri(walks.truncations[i * columns : (i + 1) * columns], columns=columns)}
        for i, row in enumerate(walks.sweep)
    ]
