"""The expectations: what params.yaml, the datasheet and the baseline say, as checks on the tables."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.config.validate import Limits, ValidateConfig
from stages.store import SPLITS
from stages.validate import _expectations as ours
from stages.validate._expectations import gxe
from stages.validate._frames import (
    MEASURED,
    MISSING,
    NEAR,
    SPLITS_OF_GROUP,
    SPLITS_OF_PICTURE,
    STORED_LABEL,
    STORED_SPLIT,
    UNDECLARED,
    Frames,
)

Rows = NDArray[np.int64]
_SOURCE = ("width", "height")  # measures that are columns of the manifest


@dataclass(frozen=True)
class Check:
    """One expectation: the table it is about, its name in results, its group, and its rule in words.

    `pick` finds pictures that show what is wrong if no single row breaks the rule; `found` is the outcome in words if
    Great Expectations gives none that reads well.
    """

    table: str
    name: str
    group: str
    rule: str
    expectation: Any
    pick: Callable[[Frames], Rows] | None = None
    found: str | None = None


def checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    """All expectations on the tables that need no baseline, except those that are `left_out`."""
    wanted = [
        *_table_checks(config, frames), *_value_checks(frames), *_leak_checks(config, frames),
        *_picture_checks(config), *_balance_checks(config, frames), *_declared_checks(frames),
    ]  # fmt: skip
    without = left_out(config, frames)
    return [check for check in wanted if check.name not in without]


def left_out(config: ValidateConfig, frames: Frames) -> dict[str, str]:
    """Expectations that do not apply to these data, by name, with the reason."""
    found = {}
    if not frames.store.classes:
        found["class_balance"] = "does not apply: the images carry no labels"
    if not frames.near:
        found |= dict.fromkeys(("near_splits", "near_duplicates"), "not looked for: ingest.near_duplicates is null")
    if frames.store.info["channels"] == 1 and "saturation" in [limit.measure for limit in config.limits]:
        found["saturation"] = "does not apply: the images are grey"
    return found


def severities(wanted: list[Check], warn: tuple[str, ...], possible: set[str]) -> dict[str, str]:
    """`critical` or `warning` for every check. Raises ValueError for a name in `warn` that is not a check or group;
    `possible` names checks that are not wanted now but could be."""
    known = {check.name for check in wanted} | GROUPS | possible
    for name in warn:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            raise ValueError(
                f"validate.warn names {name!r}, which is neither an expectation on these images nor a group of "
                f"them{hint}; groups are {', '.join(sorted(GROUPS))}"
            )
    return {check.name: "warning" if {check.name, check.group} & set(warn) else "critical" for check in wanted}


GROUPS = {"table", "values", "leaks", "pictures", "balance", "declared", "drift"}


def _table_checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    return [
        Check("images", "row_count", "table", f"at least {config.min_images:,} images (validate.min_images)",
              gxe.ExpectTableRowCountToBeBetween(min_value=config.min_images)),
        Check("manifest", "schema", "table",
              f"the manifest has the columns {', '.join(frames.columns)} in this order",
              gxe.ExpectTableColumnsToMatchOrderedList(column_list=frames.columns)),
        Check("images", "complete", "table",
              "no field of the manifest is missing (attributes may be empty texts, unless the datasheet declares them)",
              gxe.ExpectColumnValuesToBeBetween(column=MISSING, max_value=0)),
        Check("images", "labels_stored", "table", "the labels beside the pixels are those of the manifest",
              gxe.ExpectColumnPairValuesToBeEqual(column_A="label", column_B=STORED_LABEL)),
        Check("images", "splits_stored", "table", "the splits beside the pixels are those of the manifest",
              gxe.ExpectColumnPairValuesToBeEqual(column_A="split", column_B=STORED_SPLIT)),
    ]  # fmt: skip


def _value_checks(frames: Frames) -> list[Check]:
    classes, side = frames.store.classes, frames.smallest
    labels = list(range(len(classes))) or [-1]
    found = [
        Check("images", "hashes", "values", "sha256 is a SHA-256 in hexadecimal",
              gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$")),
        Check("images", "splits_known", "values", f"split is {', '.join(SPLITS)}",
              gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS))),
        Check("images", "labels_known", "values",
              f"label lies in {labels[0]}..{labels[-1]}" if classes else "label is -1",
              gxe.ExpectColumnValuesToBeInSet(column="label", value_set=labels)),
        Check("images", "classes_known", "values",
              "class is one of dataset.json" if classes else "class is empty",
              gxe.ExpectColumnValuesToBeInSet(column="class", value_set=classes or [""])),
        Check("images", "widths", "values", f"files are at least {side} px wide",
              gxe.ExpectColumnValuesToBeBetween(column="width", min_value=side)),
        Check("images", "heights", "values", f"files are at least {side} px high",
              gxe.ExpectColumnValuesToBeBetween(column="height", min_value=side)),
    ]  # fmt: skip
    for name, bins in frames.store.info["attributes"].items():
        expectation = gxe.ExpectColumnValuesToBeInSet(column=name, value_set=bins)
        found.append(Check("images", f"{name}_known", "values", f"{name} is {', '.join(bins)}", expectation))
    return found


def _leak_checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    share = config.max_near_duplicates
    found = [
        Check("images", "files_distinct", "leaks", "no file occurs twice",
              gxe.ExpectColumnValuesToBeUnique(column="sha256")),
        Check("images", "pictures_distinct", "leaks", "no two images have the same pixels",
              ours.ExpectPicturesToBeDistinct()),
        Check("images", "splits_disjoint", "leaks", "no picture lies in two splits",
              ours.ExpectToStayInOneSplit(column=SPLITS_OF_PICTURE)),
        Check("images", "near_splits", "leaks", "no near duplicate lies in another split than its partner",
              ours.ExpectNearDuplicatesToShareTheirSplit()),
        Check("images", "near_duplicates", "leaks",
              f"at most {share:.4g} of the images are near duplicates of another (validate.max_near_duplicates)",
              ours.ExpectFewNearDuplicates(max_value=share),
              pick=lambda frames: np.flatnonzero(frames.images[NEAR] > 0)),
    ]  # fmt: skip
    if frames.store.info.get("grouped"):
        rule, expectation = "no group lies in two splits", ours.ExpectToStayInOneSplit(column=SPLITS_OF_GROUP)
        found.append(Check("images", "groups_disjoint", "leaks", rule, expectation))
    return found


def _picture_checks(config: ValidateConfig) -> list[Check]:
    low, high = config.min_mean_level, config.max_mean_level
    found = [
        Check("images", "not_constant", "pictures",
              f"brightest less darkest pixel is at least {config.min_level_range} levels (validate.min_level_range)",
              ours.ExpectImagesNotToBeConstant(min_value=config.min_level_range)),
        Check("images", "exposure", "pictures",
              f"the mean level of all images is {low:g} to {high:g} (validate.min_mean_level, max_mean_level)",
              gxe.ExpectColumnMeanToBeBetween(column=MEASURED + "brightness", min_value=low, max_value=high),
              pick=lambda frames: _extremes(frames, MEASURED + "brightness")),
    ]  # fmt: skip
    return found + [_limit_check(limit) for limit in config.limits]


def _limit_check(limit: Limits) -> Check:
    column = limit.measure if limit.measure in _SOURCE else MEASURED + limit.measure
    words = {
        (True, False): f"at least {limit.min:g}" if limit.min is not None else "",
        (False, True): f"at most {limit.max:g}" if limit.max is not None else "",
        (True, True): f"{limit.min} to {limit.max}",
    }[limit.min is not None, limit.max is not None]
    share = "every image" if limit.mostly == 1 else f"{100 * limit.mostly:g} % of the images"
    rule = f"{limit.measure} is {words} for {share} (validate.limits)"
    expectation = ours.ExpectImagesToLieWithinLimits(
        column=column, min_value=limit.min, max_value=limit.max, mostly=limit.mostly
    )
    return Check("images", limit.measure, "pictures", rule, expectation)


def _balance_checks(config: ValidateConfig, frames: Frames) -> list[Check]:
    least, balance = config.min_images_per_class, config.min_class_balance
    return [
        Check("splits", "split_shares", "balance",
              f"shares lie within {config.max_split_deviation:g} standard deviations of ingest.splits, what ingest "
              "took out as copies or near duplicates counted in (validate.max_split_deviation)",
              gxe.ExpectColumnValuesToBeBetween(column="deviation", max_value=config.max_split_deviation)),
        Check("classes", "class_counts", "balance",
              f"each {'class' if frames.store.classes else 'split'} has at least {least} images"
              f"{' in each split' if frames.store.classes else ''} (validate.min_images_per_class){_groups(frames)}",
              gxe.ExpectColumnValuesToBeBetween(column="images", min_value=least)),
        Check("classes", "class_balance", "balance",
              f"each class has at least {balance:g} times the images of the largest (validate.min_class_balance)",
              gxe.ExpectColumnValuesToBeBetween(column="of_largest", min_value=balance)),
    ]  # fmt: skip


def _groups(frames: Frames) -> str:
    """How many groups each split has, if there are groups: with few of them a split may be empty by chance."""
    if "group" not in frames.images:
        return ""
    counts = frames.images.groupby(STORED_SPLIT)["group"].nunique()
    return "; groups: " + ", ".join(f"{counts.get(name, 0)} in {name}" for name in SPLITS)


def _declared_checks(frames: Frames) -> list[Check]:
    """What the datasheet declares: number of images, classes, sizes of the files, values of attributes."""
    declares, found = frames.declares, []
    if "images" in declares:
        low, high = _ends(declares["images"])
        rule, expectation = f"there are {_span(low, high)} images", gxe.ExpectTableRowCountToBeBetween
        found.append(_declared("images", rule, expectation(min_value=low, max_value=high)))
    if "classes" in declares:
        names = [str(name) for name in declares["classes"]]
        rule = f"the classes are {', '.join(names)}, all of them and no others"
        expectation = gxe.ExpectColumnDistinctValuesToEqualSet(column="class", value_set=names)
        found.append(_declared("classes", rule, expectation, found=_classes_found(frames, set(names))))
    for name in ("width", "height"):
        if name in declares:
            low, high = _ends(declares[name])
            rule = f"the {name} of files is {_span(low, high)} px"
            between = gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
            found.append(_declared(name, rule, between))
    for name, allowed in (declares.get("attributes") or {}).items():
        words = ", ".join(allowed["values"]) if "values" in allowed else _span(*_ends(allowed))
        expectation = ours.ExpectNothingUndeclared(column=f"{UNDECLARED}{name}")
        rule = f"{name} is {words} (datasheet)"
        found.append(Check("images", f"{name}_declared", "declared", rule, expectation))
    return found


def _classes_found(frames: Frames, declared: set[str]) -> str | None:
    """What Great Expectations does not say: which classes are missing, and which nobody declared."""
    if "class" not in frames.images:
        return None
    present = set(frames.images["class"].dropna().unique()) - {""}
    return differences({"missing": declared - present, "not declared": present - declared})


def _declared(name: str, rule: str, expectation: Any, found: str | None = None) -> Check:
    return Check("images", f"declared_{name}", "declared", f"{rule} (datasheet)", expectation, found=found)


def differences(kinds: dict[str, set[str]]) -> str:
    """Names by what is wrong with them, in words; the first ten of each kind."""
    parts = []
    for words, names in kinds.items():
        if names:
            more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
            parts.append(f"{words}: {', '.join(sorted(names)[:10])}{more}")
    return "; ".join(parts) or "all agree"


def _ends(span: dict[str, str]) -> tuple[float | None, float | None]:
    low, high = span.get("min"), span.get("max")
    return (None if low is None else float(low), None if high is None else float(high))


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at most {high:,.10g}" if low is None else f"at least {low:,.10g}"
    return f"{low:,.10g}" if low == high else f"{low:,.10g} to {high:,.10g}"


def _extremes(frames: Frames, column: str) -> Rows:
    """The five lowest and the five highest images."""
    order = np.argsort(frames.images[column].to_numpy(np.float64), kind="stable")
    return np.concatenate([order[:5], order[5:][-5:]])
