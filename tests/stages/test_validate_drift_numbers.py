"""Drift of numbers of more than 1,000 different values whose range nobody declares."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.config.validate import Drift
from stages.validate._baseline import in_same_bins
from stages.validate._drift import Moved, compare
from stages.validate._drift_checks import drift_checks, not_compared
from stages.validate._profile import profile, uncounted

DRIFT = Drift(false_alarms=0.01, min_moved=0.05)


def framed(declares: dict[str, Any] | None = None, **columns: Any) -> Any:
    """The tables of a store, as far as profiles ask them."""
    info = {"data_hash": "ab", "resolution": 8, "channels": 1, "classes": [], "attributes": {}}
    images = pd.DataFrame(columns)
    declared = {"attributes": declares} if declares else {}
    return SimpleNamespace(
        store=SimpleNamespace(info=info | {"declared": dict.fromkeys(columns)}), images=images, declares=declared
    )


def said(values: Any) -> list[str]:
    return [f"{value:.9f}" for value in values]


def readings(mean: float, count: int, seed: int) -> list[str]:
    return said(np.random.default_rng(seed).normal(mean, 3.0, count))


def compared(before: Any, now: Any, config: Drift = DRIFT) -> tuple[list[Moved], list[str]]:
    old, new, unknown = in_same_bins(profile(before), profile(now), now)
    assert not unknown
    return compare(old, new, config)


def moved(before: Any, now: Any) -> Moved:
    (found,), other = compared(before, now)
    assert not other
    return found


@pytest.mark.fast
def test_numbers_that_moved_alarm_and_others_do_not() -> None:
    before = framed(x=readings(20, 3000, 0))
    same = moved(before, framed(x=readings(20, 3000, 1)))
    assert not same.alarm and 8 <= len(same.labels) <= 16 and same.moved < 0.05
    assert same.labels[0].startswith("below ") and same.labels[-1].endswith(" or more") and " to " in same.labels[1]
    warmer = moved(before, framed(x=readings(22, 3000, 1)))
    assert warmer.alarm and warmer.moved == pytest.approx(0.26, abs=0.04), "two thirds of a standard deviation"
    beyond = moved(before, framed(x=readings(200, 3000, 1)))
    assert beyond.alarm and beyond.moved > 0.85 and beyond.labels[beyond.grown].endswith(" or more")


@pytest.mark.fast
def test_a_profile_holds_a_bounded_part_of_them() -> None:
    found = profile(framed(x=readings(20, 50_000, 0)))
    (column,) = found["columns"].values()
    assert len(column["edges"]) == 63 and sum(column["counts"]) == 50_000
    assert max(column["counts"]) - min(column["counts"]) <= 1
    assert len(json.dumps(column)) < 3000 and json.loads(json.dumps(column)) == column
    half = profile(framed(x=said([*np.zeros(3000), *np.random.default_rng(0).normal(size=3000)])))["columns"]["x"]
    assert 0.0 in half["edges"] and len(half["edges"]) < 40, "one value is more than a part"


@pytest.mark.fast
def test_texts_stay_out_and_one_text_among_numbers_makes_texts() -> None:
    numbers = readings(20, 2000, 0)
    for texts in ([f"scan-{at}" for at in range(2000)], ["n/a", *numbers[1:]], ["inf", *numbers[1:]]):
        frames = framed(x=texts)
        assert not profile(frames)["columns"] and uncounted(frames, profile(frames)) == ["x"]
    assert "edges" in profile(framed(x=["", *numbers[1:]]))["columns"]["x"]
    few = profile(framed(x=[str(at % 1000) for at in range(2000)]))["columns"]["x"]
    assert isinstance(few["counts"], dict), "as many as can be counted one by one are"


@pytest.mark.fast
def test_what_has_no_value_any_more_is_a_bin_of_its_own() -> None:
    numbers = readings(20, 3000, 0)
    for nothing in ("", "n/a"):
        found = moved(framed(x=numbers), framed(x=[nothing if at % 3 else one for at, one in enumerate(numbers)]))
        assert found.alarm and found.labels[found.grown] == "(no value)" and found.moved == pytest.approx(2 / 3)


@pytest.mark.fast
@pytest.mark.parametrize("few_before", [True, False])
def test_values_that_were_few_and_are_many_are_compared(few_before: bool) -> None:
    few, many = framed(x=readings(20, 400, 0)), framed(x=readings(20, 4000, 1))
    assert isinstance(profile(few)["columns"]["x"]["counts"], dict)
    same = moved(few, many) if few_before else moved(many, few)
    assert not same.alarm and len(same.labels) > 4
    shifted = framed(x=readings(23, 4000 if few_before else 400, 2))
    other = moved(few, shifted) if few_before else moved(many, shifted)
    assert other.alarm and other.moved > 0.25
    words = framed(x=[f"n{at % 9}" for at in range(400)])
    assert compared(words, many) == ([], ["x"]), "words then, numbers now: another column"


@pytest.mark.fast
def test_a_range_that_is_declared_later_or_no_more_keeps_the_bins_of_the_baseline() -> None:
    ranged: Any = {"x": {"min": "0", "max": "40"}}
    plain, declared = framed(x=readings(20, 3000, 0)), framed(ranged, x=readings(20, 3000, 1))
    assert "grid" in profile(declared)["columns"]["x"]
    for before, now in ((plain, declared), (declared, plain)):
        assert not moved(before, now).alarm
    assert moved(plain, framed(ranged, x=readings(23, 3000, 1))).alarm


@pytest.mark.fast
def test_a_column_that_is_new_or_gone_is_named() -> None:
    one, two = framed(x=readings(20, 2000, 0), y=readings(5, 2000, 1)), framed(x=readings(20, 2000, 2))
    for before, now in ((one, two), (two, one)):
        found, other = compared(before, now)
        assert [column.name for column in found] == ["x"] and other == ["y"]


@pytest.mark.fast
def test_under_a_baseline_written_before_there_were_such_columns_that_is_said() -> None:
    now = framed(x=readings(20, 2000, 0), place=["here", "there"] * 1000)
    old = profile(framed(place=["here", "there"] * 1000)) | {"format": 1}
    before, present, unknown = in_same_bins(old, profile(now), now)
    assert unknown == ["x"] and uncounted(now, present) == ["x"]
    found, other = compare(before, present, DRIFT)
    assert [column.name for column in found] == ["place"] and other == []
    assert not_compared(uncounted(now, present), unknown, found)["drift_x"] == (
        "not compared: the baseline is of format 1, which leaves out numbers of more than 1,000 different values; the "
        "next promotion writes it anew"
    )


@pytest.mark.fast
def test_the_images_that_lie_where_more_lie_now_are_shown() -> None:
    before, now = framed(x=readings(20, 3000, 0)), framed(x=[*readings(20, 2000, 1), *readings(60, 1000, 2)])
    old, new, _ = in_same_bins(profile(before), profile(now), now)
    checks, table = drift_checks(*compare(old, new, DRIFT), old, new, DRIFT)
    assert checks[0].pick is not None and table["drift_x"].tolist() == [1]
    rows = checks[0].pick(now)
    assert set(range(2000, 3000)) <= set(np.asarray(rows).tolist()) and len(rows) < 1300


@pytest.mark.fast
def test_ends_of_bins_are_told_apart() -> None:
    """Seconds since 1970 of one day agree in their first digits."""
    times = 1.78e9 + np.random.default_rng(0).uniform(0, 86_400, 6000)
    labels = moved(framed(x=said(times[:3000])), framed(x=said(times[3000:]))).labels
    assert len(set(labels)) == len(labels)
    assert all(len(set(label.split(" to "))) == 2 for label in labels[1:-1])


@pytest.mark.parametrize("sizes", [(1797, 1797), (1200, 9000), (9000, 300), (300, 9000)])
def test_false_alarms_stay_at_the_stated_rate(sizes: tuple[int, int]) -> None:
    """300 comparisons of an unchanged column at the level 0.05, in half of them with a value that many images share."""
    dice, alarms = np.random.default_rng(11), 0
    for at in range(300):
        one, two = (dice.lognormal(size=size) * (dice.random(size) > 0.4 * (at % 2)) for size in sizes)
        alarms += moved(framed(x=one), framed(x=two)).p <= 0.05
    # Three standard deviations of a binomial share of 300 around the level; benchmarks/validation.py counts more.
    assert abs(alarms / 300 - 0.05) < 3 * (0.05 * 0.95 / 300) ** 0.5
