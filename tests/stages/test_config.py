"""Settings are refused with the setting, the rule, the value, and the near miss."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest

from stages.config import Range, build, load_section, read_section

pytestmark = pytest.mark.fast


@dataclasses.dataclass(frozen=True, kw_only=True)
class Red:
    name: Literal["red"]
    depth: Annotated[int, Range(ge=1, le=3)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blue:
    name: Literal["blue"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint:
    coats: int
    share: Annotated[float, Range(gt=0, lt=1)]
    colour: Red | Blue
    under: tuple[Red | Blue, ...]
    note: str | None
    dry: bool

    def __post_init__(self) -> None:
        if self.coats == 7:
            raise ValueError("coats must not be 7")


GOOD = {
    "coats": 2,
    "share": 0.5,
    "colour": {"name": "red", "depth": 2},
    "under": [{"name": "blue"}, {"name": "red", "depth": 1}],
    "note": None,
    "dry": True,
}


def test_a_good_section_becomes_frozen_dataclasses() -> None:
    paint = build(Paint, GOOD, "paint")
    assert paint == Paint(
        coats=2, share=0.5, colour=Red(name="red", depth=2), under=(Blue(name="blue"), Red(name="red", depth=1)),
        note=None, dry=True,
    )  # fmt: skip
    assert dataclasses.asdict(paint)["colour"] == {"name": "red", "depth": 2}
    with pytest.raises(dataclasses.FrozenInstanceError):
        paint.coats = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coat": 2}, "paint.coat is not a setting (did you mean `coats`?); the settings are coats, share"),
        ({"coats": None}, "paint.coats must be a whole number; received None"),
        ({"coats": "2"}, "paint.coats must be a whole number; received '2'"),
        ({"coats": 2.0}, "paint.coats must be a whole number; received 2.0"),
        ({"coats": True}, "paint.coats must be a whole number; received True"),
        ({"coats": 7}, "paint: coats must not be 7"),
        ({"share": 1}, "paint.share must be a number > 0 and < 1; received 1"),
        ({"share": float("nan")}, "paint.share must be a finite number; received nan"),
        ({"share": "1e-3"}, "received '1e-3'; YAML reads 1e-3 as text, write 1.0e-3 or 0.001"),
        (
            {"colour": {"name": "rad"}},
            "paint.colour.name must be one of red, blue; received 'rad' (did you mean `red`?)",
        ),
        ({"colour": {"name": ["red"]}}, "paint.colour.name must be one of red, blue; received ['red']"),
        ({"colour": "red"}, "paint.colour.name must be one of red, blue; received 'red'"),
        ({"colour": {"name": "red", "depth": 9}}, "paint.colour.depth must be a number >= 1 and <= 3; received 9"),
        ({"colour": {"name": "blue", "depth": 1}}, "paint.colour.depth is not a setting"),
        ({"colour": {"name": "red"}}, "paint.colour.depth is missing"),
        ({"under": {"name": "red"}}, "paint.under must be a list; received"),
        ({"under": [{"name": "blue"}, {"name": "grey"}]}, "paint.under[1].name must be one of red, blue"),
        ({"dry": "yes"}, "paint.dry must be true or false; received 'yes'"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(Paint, GOOD | change, "paint")


def test_a_missing_setting_is_refused() -> None:
    for name in GOOD:
        with pytest.raises(ValueError, match=re.escape(f"paint.{name} is missing")):
            build(Paint, {key: value for key, value in GOOD.items() if key != name}, "paint")


def test_a_missing_section_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("pain: {}\n")
    with pytest.raises(ValueError, match=r"must hold a section `paint` \(did you mean `pain`\?\)"):
        load_section(Paint, params, "paint")
    params.write_text("paint: [1, 2\n")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_section(Paint, params, "paint")
    params.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not a text file in UTF-8"):
        load_section(Paint, params, "paint")
    params.write_text("5")
    with pytest.raises(ValueError, match="must hold a section `paint`"):
        load_section(Paint, params, "paint")
    params.write_text("")
    with pytest.raises(ValueError, match="must hold a section `paint`"):
        load_section(Paint, params, "paint")


@pytest.mark.parametrize("text", ["a: {x: 1, y: 2, x: 3}\n", "a:\n  x: 1\n  y: {z: 1}\n  x: 1\n", "a: 1\nb: 2\na: 1\n"])
def test_a_setting_that_stands_there_twice_is_refused(tmp_path: Path, text: str) -> None:
    """YAML lets the last one win, so that what was written first would count for nothing without a word."""
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"is not valid YAML: `[ax]` is given twice in .* line \d") as raised:
        read_section(tmp_path / "params.yaml", "a")
    assert "\n" not in str(raised.value)


def test_what_yaml_merges_is_no_repetition(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("base: &base {x: 1, y: 2}\na: {<<: *base, x: 3}\n")
    assert read_section(tmp_path / "params.yaml", "a") == {"x": 3, "y": 2}
    again = "base: &base {x: 1, y: 2}\na: {inside: &inside {<<: *base, x: 3}}\nb: {<<: [*inside, *base], y: 5}\n"
    (tmp_path / "params.yaml").write_text(again)  # what was merged into is merged itself, before it is a mapping
    assert read_section(tmp_path / "params.yaml", "b") == {"x": 3, "y": 5}
    assert read_section(tmp_path / "params.yaml", "a") == {"inside": {"x": 3, "y": 2}}
