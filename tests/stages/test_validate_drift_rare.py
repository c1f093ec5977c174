"""Drift of columns whose values are rare: many classes, many places, readings of an instrument."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.config.validate import Drift
from stages.validate._baseline import read_baseline
from stages.validate._drift import Moved, compare
from stages.validate._drift_checks import drift_checks, not_compared

DRIFT = Drift(false_alarms=0.01, min_moved=0.05)


def profiled(**columns: list[str]) -> dict[str, Any]:
    """A profile of columns of texts, all of as many images."""
    counted = {name: {"counts": dict(Counter(values))} for name, values in columns.items()}
    return {"images": len(next(iter(columns.values()))), "resolution": 8, "channels": 1, "columns": counted}


def moved(before: list[str], now: list[str]) -> Moved:
    (found,), other = compare(profiled(x=before), profiled(x=now), DRIFT)
    assert not other
    return found


def readings(mean: float, count: int, seed: int) -> list[str]:
    return [f"{value:.6f}" for value in np.random.default_rng(seed).normal(mean, 3.0, count)]


@pytest.mark.fast
def test_rare_words_that_others_took_the_place_of_alarm() -> None:
    """One bin of all rare ones held as many images as before, so that nothing seemed to have moved."""
    before, now = ([f"{age}{place:03d}" for place in range(120) for _ in range(5)] for age in ("old", "new"))
    found = moved(before, now)
    assert found.alarm and not moved(before, list(reversed(before))).alarm
    assert "rare values, such as new" in found.labels[found.grown]
    back = moved(now, before)
    assert "rare values, such as old" in back.labels[back.grown]
    assert sorted(name for group in found.groups for name in group) == sorted({*before, *now})


@pytest.mark.fast
def test_words_of_one_or_two_images_alarm_when_none_of_them_is_left() -> None:
    """Each bin of the joined ones holds as many of the new as of the old."""
    dice = np.random.default_rng(5)
    before, same, now = ([f"{age}{place}" for place in dice.integers(0, 300, 600)] for age in ("s", "s", "t"))
    assert moved(before, now).alarm and moved(before, now).p < 1e-50 and not moved(before, same).alarm


@pytest.mark.fast
def test_numbers_are_joined_with_their_neighbours() -> None:
    found = moved(readings(20, 600, 0), readings(35, 600, 1))
    assert found.alarm and found.moved > 0.9 and 8 <= len(found.labels) <= 16
    ends = [group[end] for group in found.groups for end in (0, -1)]
    assert ends == sorted(ends, key=float) and found.labels[0].endswith(f"rare values, {ends[0]} to {ends[1]}")
    assert not moved(readings(20, 600, 0), readings(20, 600, 1)).alarm
    assert moved([*readings(20, 500, 0), *[""] * 100], readings(20, 600, 1)).labels[0] == "", "common ones stay alone"


def test_false_alarms_stay_at_the_stated_rate() -> None:
    """200 comparisons of 20 unchanged columns of rare values at the level 0.05."""
    dice = np.random.default_rng(3)
    few, many = 1 / np.arange(1.0, 201), np.ones(300)
    alarms = 0
    for _ in range(200):
        sides = [
            {
                f"{begins}{n}": {
                    "counts": {
                        f"{begins}{place}": count
                        for place, count in enumerate(dice.multinomial(size, shares / shares.sum()).tolist())
                        if count
                    }
                }
                for n in range(5)
                for begins, shares in (("", few), ("a", few), ("1", many), ("b", many))
            }
            for size in (400, 900)
        ]
        before, now = (
            {"images": size, "resolution": 8, "channels": 1, "columns": columns}
            for size, columns in zip((400, 900), sides, strict=True)
        )
        alarms += any(one.alarm for one in compare(before, now, Drift(false_alarms=0.05, min_moved=0.0))[0])
    assert 0 < alarms / 200 < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.fast
def test_too_few_images_to_tell_are_not_compared() -> None:
    blind, same = moved(["a"] * 4, ["b"] * 4), moved(["a"] * 4, ["a"] * 4)
    assert blind.blind and not same.blind, "one value on both sides is as it was"
    assert not_compared([], [], [blind, same]) == {"drift_x": "not compared: too few images to tell"}
    nearly = moved([*["a"] * 1000, "b"], ["a"] * 1000)
    assert len(nearly.groups) == 1 and not nearly.blind, "no more can have moved than is allowed"


@pytest.mark.parametrize(
    "changed",
    [
        {"columns": []}, {"images": "5"}, {"columns": {"class": {}}}, {"columns": {"class": {"counts": {"a": "1"}}}},
        {"columns": {"width": {"grid": [1, 2, 3, "log"], "counts": [1, 2]}}},
        {"columns": {"width": {"grid": [1, 2, 3, "log"], "counts": {"a": 1}}}},
        {"columns": {"age": {"edges": [1.0, 2.0], "counts": [1, 2]}}},
        {"columns": {"age": {"edges": [2.0, 1.0], "counts": [1, 2, 3]}}},
        {"columns": {"age": {"edges": ["a"], "counts": [1, 2]}}}, {"columns": {"age": {"edges": [1], "counts": {}}}},
    ],
)  # fmt: skip
@pytest.mark.fast
def test_a_baseline_that_is_no_profile_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "baseline.json"
    whole = {"format": 2, "data_hash": "ab", **profiled(x=["a", "b"])}
    for read in (whole, whole | {"format": 1}):
        path.write_text(json.dumps(read))
        assert read_baseline(path) == read
    path.write_text(json.dumps(whole | changed))
    with pytest.raises(ValueError, match=r"baseline\.json is not a profile of data"):
        read_baseline(path)


@pytest.mark.fast
def test_other_classes_than_in_the_baseline_are_named() -> None:
    before, now = profiled(**{"class": ["a", "b", "c"] * 50}), profiled(**{"class": ["a", "b", "d"] * 50})
    checks, table = drift_checks(*compare(before, now, DRIFT), before, now, DRIFT)
    check = {check.name: check for check in checks}["same_classes"]
    assert check.found == "gone: c; new: d" and table["same_classes"].tolist() == [2]
    assert check.pick is not None

    class Seen:
        images = pd.DataFrame({"class": ["a", "d", "b", "d"]})

    assert check.pick(Seen).tolist() == [1, 3]  # type: ignore[arg-type]
    same, table = drift_checks(*compare(before, before, DRIFT), before, before, DRIFT)
    assert same[-1].found == "all agree" and not table.to_numpy().any()
