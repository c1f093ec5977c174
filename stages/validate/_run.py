"""Great Expectations run on the tables, without a context on disk, Data Docs or analytics; and the results in words."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.validate._expectations import gx, gxe
from stages.validate._frames import UNDECLARED, UNLABELLED, Frames
from stages.validate._suite import Check

SHOWN = 10  # examples per finding


@dataclass(frozen=True)
class Finding:
    """What came out of one check; `examples` are at most ten offending rows in words, `rows` the images to look at."""

    table: str
    name: str
    group: str
    severity: str
    rule: str
    passed: bool
    found: str
    examples: list[str]
    rows: list[int]
    expectation: str
    arguments: dict[str, Any]


def run_checks(frames: Frames, wanted: list[Check], severity: dict[str, str], drift: pd.DataFrame) -> list[Finding]:
    """A finding for every check, in order; `drift` is the table of that name. Raises ValueError without any check."""
    if not wanted:
        raise ValueError("no expectation would be checked, and unchecked data never pass")
    tables = {"images": frames.images, "manifest": frames.manifest, "classes": frames.classes}
    tables |= {"splits": frames.splits, "drift": drift}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how it calls pandas is not ours to mend
        results = _run_tables(tables, wanted)
    return [_finding(check, results[check.name], frames, tables[check.table], severity) for check in wanted]


def _run_tables(tables: dict[str, pd.DataFrame], wanted: list[Check]) -> dict[str, Any]:
    context = gx.get_context(mode="ephemeral")
    bars: Any = {"globally": False, "metric_calculations": False}
    context.variables.progress_bars = bars
    source = context.data_sources.add_pandas("ingest")
    found: dict[str, Any] = {}
    for table, frame in tables.items():
        mine = [check for check in wanted if check.table == table]
        if mine:
            found |= _run_table(source, table, frame, mine)
    # Great Expectations passes an empty suite, so make sure that every check has come back.
    assert set(found) == {check.name for check in wanted}
    return found


def _run_table(source: Any, table: str, frame: pd.DataFrame, mine: list[Check]) -> dict[str, Any]:
    definition = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=table)
    for check in mine:
        check.expectation.meta = {"name": check.name}  # results come back in another order
        suite.add_expectation(check.expectation)
    batch = definition.get_batch(batch_parameters={"dataframe": frame})
    # Not asked for the rows that break a rule: listing them takes minutes if most of a million do; see `breaking`.
    results = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0}).results
    return {result.expectation_config.meta["name"]: result for result in results}


def _finding(check: Check, result: Any, frames: Frames, frame: pd.DataFrame, severity: dict[str, str]) -> Finding:
    config, answer = result.expectation_config, result.result or {}
    arguments = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    # Great Expectations passes every column expectation on an empty table; we do not.
    passed = bool(result.success) and len(frame) > 0
    found = check.found or _found(answer) if len(frame) else "the table is empty: nothing could be looked at"
    examples, rows = ([], []) if passed else _shown(check, answer, frames)
    return Finding(
        check.table, check.name, check.group, severity[check.name], check.rule, passed, found, examples, rows,
        config.type, arguments,
    )  # fmt: skip


def _found(answer: dict[str, Any]) -> str:
    """The outcome in words; an expectation that could not be evaluated has none, and has failed."""
    if "element_count" in answer and "unexpected_count" in answer:
        missing = answer.get("missing_count") or 0
        tail = f", {missing:,} of them empty" if missing else ""
        return f"{answer['unexpected_count']:,} of {answer['element_count']:,} rows break it{tail}"
    value = answer.get("observed_value")
    if isinstance(value, list):
        return f"{', '.join(map(str, value))}"
    if isinstance(value, int):
        return f"{value:,}"
    return "could not be evaluated: a column is missing" if value is None else f"{value:.4g}"


def breaking(frame: pd.DataFrame, rule: Any) -> NDArray[np.bool_]:
    """Which rows break an expectation about single rows; as in Great Expectations, empty fields break none."""
    if hasattr(rule, "column_A"):
        one, two = frame[rule.column_A], frame[rule.column_B]
        return np.asarray((one != two) & (one.notna() | two.notna()))
    column = frame[rule.column]
    if isinstance(rule, gxe.ExpectColumnValuesToBeUnique):
        broken = column.duplicated(keep=False)
    elif isinstance(rule, gxe.ExpectColumnValuesToMatchRegex):
        broken = ~column.astype("str").str.match(rule.regex)
    elif isinstance(rule, gxe.ExpectColumnValuesToBeInSet):
        broken = ~column.isin(rule.value_set)
    else:
        low, high = rule.min_value, rule.max_value
        broken = ~column.between(-np.inf if low is None else low, np.inf if high is None else high)
    return np.asarray(broken & column.notna())


def _shown(check: Check, answer: dict[str, Any], frames: Frames) -> tuple[list[str], list[int]]:
    """Examples in words, and images that show them: rows that break the rule, images of the class, or picked ones."""
    if "element_count" in answer and check.table in ("images", "classes", "splits"):
        frame: pd.DataFrame = getattr(frames, check.table)
        rows = np.flatnonzero(breaking(frame, check.expectation))[:SHOWN].tolist()
        if check.table == "images":
            return [_told(frame, row, check.expectation) for row in rows], rows
        words = [{name: frame[name].iloc[row] for name in ("class", "split") if name in frame} for row in rows]
        told = [" ".join(str(value) for value in word.values()) for word in words]
        return told, [row for word in words for row in _rows_of(frames, word)][:SHOWN]
    picked = check.pick(frames)[:SHOWN].tolist() if check.pick and len(frames.images) else []
    return [], picked


def _told(images: pd.DataFrame, row: int, rule: Any) -> str:
    """Name of an image and the values that break the rule."""
    names = [getattr(rule, key) for key in ("column", "column_A", "column_B") if hasattr(rule, key)]
    shown = [name.removeprefix(UNDECLARED) for name in names]
    values = [images[name].iloc[row] for name in shown if name in images]
    source = str(images["source"].iloc[row]) if "source" in images else f"row {row}"
    return f"{source}: {', '.join(_short(value) for value in values)}"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"


def _rows_of(frames: Frames, word: dict[str, Any]) -> list[int]:
    """Up to three images of the class and split, or of the split, that a row of that table is about."""
    part = frames.store.splits[word["split"]]
    if word.get("class", UNLABELLED) == UNLABELLED:
        return part.rows[:3].tolist()
    return part.rows[part.labels == frames.store.classes.index(word["class"])][:3].tolist()
