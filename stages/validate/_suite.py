"""The expectations, and Great Expectations run on them: no context on disk, no Data Docs, no analytics."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.config.validate import ValidateConfig
from stages.store import SPLITS
from stages.validate._frames import Frames

os.environ["GX_ANALYTICS_ENABLED"] = "false"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports use deprecated parts of the standard library
    import great_expectations as gx

gxe: Any = gx.expectations  # it exports its classes without saying so to type checkers


@dataclass(frozen=True)
class Check:
    """One expectation: the table it is about, its name in results, and its rule in words."""

    table: str
    name: str
    rule: str
    expectation: Any


@dataclass(frozen=True)
class Finding:
    """What came out of one check; `examples` are at most ten offending rows in words."""

    table: str
    name: str
    rule: str
    passed: bool
    found: str
    examples: list[str]
    expectation: str
    arguments: dict[str, Any]


def checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    """All expectations on the tables, with the thresholds of `config`."""
    return [*_file_checks(config, frames), *_picture_checks(config), *_group_checks(config, frames)]


def _file_checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    info, classes = frames.store.info, frames.store.classes
    side, labels = info["resolution"], list(range(len(classes))) or [-1]
    found = [
        Check("images", "row_count", f"at least {config.min_images:,} images (validate.min_images)",
              gxe.ExpectTableRowCountToBeBetween(min_value=config.min_images)),
        Check("manifest", "schema", f"the manifest has the columns {', '.join(frames.columns)} in this order",
              gxe.ExpectTableColumnsToMatchOrderedList(column_list=frames.columns)),
        Check("images", "complete", "no field of the manifest is empty",
              gxe.ExpectColumnValuesToBeBetween(column="missing_fields", max_value=0)),
        Check("images", "hashes", "sha256 is a SHA-256 in hexadecimal",
              gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$")),
        Check("images", "files_distinct", "no file occurs twice",
              gxe.ExpectColumnValuesToBeUnique(column="sha256")),
        Check("images", "splits_known", f"split is {', '.join(SPLITS)}",
              gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS))),
        Check("images", "labels_known", f"label lies in {labels[0]}..{labels[-1]}" if classes else "label is -1",
              gxe.ExpectColumnValuesToBeInSet(column="label", value_set=labels)),
        Check("images", "classes_known", "class is one of dataset.json" if classes else "class is empty",
              gxe.ExpectColumnValuesToBeInSet(column="class", value_set=classes or [""])),
        Check("images", "widths", f"files are at least {side} px wide",
              gxe.ExpectColumnValuesToBeBetween(column="width", min_value=side)),
        Check("images", "heights", f"files are at least {side} px high",
              gxe.ExpectColumnValuesToBeBetween(column="height", min_value=side)),
        Check("images", "labels_stored", "the labels beside the pixels are those of the manifest",
              gxe.ExpectColumnPairValuesToBeEqual(column_A="label", column_B="stored_label")),
        Check("images", "splits_stored", "the splits beside the pixels are those of the manifest",
              gxe.ExpectColumnPairValuesToBeEqual(column_A="split", column_B="stored_split")),
    ]  # fmt: skip
    for name, bins in info["attributes"].items():
        expectation = gxe.ExpectColumnValuesToBeInSet(column=name, value_set=bins)
        found.append(Check("images", f"{name}_known", f"{name} is {', '.join(bins)}", expectation))
    return found


def _picture_checks(config: ValidateConfig) -> list[Check]:
    low, high = config.min_mean_level, config.max_mean_level
    return [
        Check("images", "pictures_distinct", "no two images have the same pixels",
              gxe.ExpectColumnValuesToBeUnique(column="pixels")),
        Check("images", "splits_disjoint", "no picture lies in two splits",
              gxe.ExpectColumnValuesToBeBetween(column="splits_of_picture", max_value=1)),
        Check("images", "not_constant",
              f"brightest less darkest pixel is at least {config.min_level_range} levels (validate.min_level_range)",
              gxe.ExpectColumnValuesToBeBetween(column="level_range", min_value=config.min_level_range)),
        Check("images", "exposure",
              f"the mean level of all images is {low:g} to {high:g} (validate.min_mean_level, max_mean_level)",
              gxe.ExpectColumnMeanToBeBetween(column="mean_level", min_value=low, max_value=high)),
    ]  # fmt: skip


def _group_checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    least = config.min_images_per_class
    found = [
        Check("splits", "split_shares",
              f"shares lie within {config.max_split_deviation:g} standard deviations of ingest.splits "
              "(validate.max_split_deviation)",
              gxe.ExpectColumnValuesToBeBetween(column="deviation", max_value=config.max_split_deviation)),
        Check("classes", "class_counts",
              f"each {'class' if frames.store.classes else 'split'} has at least {least} images"
              f"{' in each split' if frames.store.classes else ''} (validate.min_images_per_class)",
              gxe.ExpectColumnValuesToBeBetween(column="images", min_value=least)),
    ]  # fmt: skip
    if frames.store.classes:
        balance = config.min_class_balance
        rule = f"each class has at least {balance:g} times the images of the largest (validate.min_class_balance)"
        expectation = gxe.ExpectColumnValuesToBeBetween(column="of_largest", min_value=balance)
        found.append(Check("classes", "class_balance", rule, expectation))
    return found


def run_checks(frames: Frames, wanted: list[Check]) -> list[Finding]:
    """A finding for every check, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its calls of pandas are not ours to mend
        found = _run_tables(frames, wanted)
    # An empty suite would count as passed: every check must have come back.
    assert set(found) == {check.name for check in wanted}
    return [found[check.name] for check in wanted]


def _run_tables(frames: Frames, wanted: list[Check]) -> dict[str, Finding]:
    context = gx.get_context(mode="ephemeral")
    bars: Any = {"globally": False, "metric_calculations": False}
    context.variables.progress_bars = bars
    source = context.data_sources.add_pandas("ingest")
    found: dict[str, Finding] = {}
    for table, index in (
        ("manifest", []),
        ("images", ["source"]),
        ("classes", ["class", "split"]),
        ("splits", ["split"]),
    ):
        frame: pd.DataFrame = getattr(frames, table)
        mine = [check for check in wanted if check.table == table]
        found |= _run_table(source, table, frame, mine, [name for name in index if name in frame])
    return found


def _run_table(source: Any, table: str, frame: pd.DataFrame, mine: list[Check], index: list[str]) -> dict[str, Finding]:
    definition = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=table)
    for check in mine:
        check.expectation.meta = {"name": check.name}  # results come back in another order
        suite.add_expectation(check.expectation)
    batch = definition.get_batch(batch_parameters={"dataframe": frame})
    form = {"result_format": "SUMMARY", "partial_unexpected_count": 10, "unexpected_index_column_names": index}
    results = batch.validate(suite, result_format=form).results
    by_name = {result.expectation_config.meta["name"]: result for result in results}
    return {check.name: _finding(check, by_name[check.name], index) for check in mine}


def _finding(check: Check, result: Any, index: list[str]) -> Finding:
    config = result.expectation_config
    arguments = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    answer = result.result or {}
    words = answer.get("partial_unexpected_index_list") or []
    examples = [_example(row, index) for row in words[:10]]
    return Finding(
        check.table, check.name, check.rule, bool(result.success), _found(answer), examples, config.type, arguments
    )


def _found(answer: dict[str, Any]) -> str:
    """The outcome in words; an expectation that could not be evaluated has none, and has failed."""
    if "unexpected_count" in answer:
        missing = answer.get("missing_count") or 0
        tail = f", {missing:,} of them empty" if missing else ""
        return f"{answer['unexpected_count']:,} of {answer['element_count']:,} rows break it{tail}"
    value = answer.get("observed_value")
    if isinstance(value, list):
        return f"columns {', '.join(map(str, value))}"
    if isinstance(value, int):
        return f"{value:,}"
    return "could not be evaluated: a column is missing" if value is None else f"{value:.2f}"


def _example(row: dict[str, Any], index: list[str]) -> str:
    where = " ".join(str(row[name]) for name in index)
    values = [str(value) for key, value in row.items() if key not in index]
    return f"{where}: {', '.join(values)}" if values else where
