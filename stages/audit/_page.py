"""`index.html` of the audit: one file that opens without a network."""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from stages.pictures import image_uri

LIMIT = 60  # table rows shown; audit.json has all
_TEMPLATE = Path(__file__).with_name("page.html.j2")


def render(report: dict[str, Any], *, alpha: float, pictures: dict[str, NDArray[np.uint8]]) -> str:
    """The page's HTML. `pictures`: the images of the closest pairs, see `stages.audit._work.closest_images`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    memorization = report["memorization"]
    names, table = _class_table(report["shares"]["rows"])
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        **report,
        alpha=alpha,
        limit=LIMIT,
        rows_tail=list(zip(memorization["ranks"], memorization["counts"], memorization["tails"], strict=True)),
        pairs=_pairs(memorization["closest"], pictures["generated"], pictures["generated_train"]),
        control_pairs=_pairs(memorization["closest_controls"], pictures["unseen"], pictures["unseen_train"]),
        class_columns=names,
        class_table=table[:LIMIT],
        class_table_left=max(0, len(table) - LIMIT),
    )


def _pairs(listed: list[dict[str, Any]], images: NDArray[np.uint8], train: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """The pairs that have pictures: both kinds get as many as the shorter of their lists has pairs."""
    return [
        {"image": image_uri(a), "train": image_uri(b), "rms": pair["rms_levels"]}
        for pair, a, b in zip(listed[: len(images)], images, train, strict=True)
    ]


def _class_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    """Column names `attribute: bin`, and per class its cells in that order; None for a cell that is not assessed."""
    columns = [(row["attribute"], cell["bin"]) for row in rows if row["family"] == "all" for cell in row["cells"]]
    table: dict[str, dict[tuple[str, str], Any]] = {}
    for row in rows:
        if row["family"] == "class":
            cells = table.setdefault(row["group"], {})
            cells.update({(row["attribute"], cell["bin"]): cell for cell in row["cells"]})
    names = [f"{attribute}: {name}" for attribute, name in columns]
    return names, [(group, [cells.get(column) for column in columns]) for group, cells in table.items()]
