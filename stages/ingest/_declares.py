"""What a datasheet may declare about its images under `declares`; validate checks the store against it."""

import math
from typing import Any

_SPANS = ("images", "width", "height")


def check_declares(declares: Any, where: str) -> None:
    """Raise ValueError, its message beginning with `where`, for a bad declaration. Values are texts, as in the YAML."""
    if not isinstance(declares, dict):
        raise ValueError(f"{where}` must hold some of images, classes, width, height and attributes; see docs/data.md")
    for name, value in declares.items():
        if name in _SPANS:
            _check_span(value, f"{where}.{name}`")
        elif name == "classes":
            if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
                raise ValueError(f"{where}.classes` must list all classes by name; received {value!r}")
        elif name == "attributes":
            _check_attributes(value, f"{where}.attributes")
        else:
            raise ValueError(f"{where}.{name}` cannot be declared; see docs/data.md")


def _check_attributes(attributes: Any, where: str) -> None:
    if not isinstance(attributes, dict):
        raise ValueError(f"{where}` must map columns to their values; received {attributes!r}")
    for name, rule in attributes.items():
        if isinstance(rule, dict) and list(rule) == ["values"]:
            values = rule["values"]
            if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{where}.{name}.values` must be a list of values; received {values!r}")
        else:
            _check_span(rule, f"{where}.{name}`")


def _check_span(span: Any, where: str) -> None:
    if not isinstance(span, dict) or not span or not set(span) <= {"min", "max"}:
        raise ValueError(f"{where} must hold min, max or both; received {span!r}")
    ends = {name: _number(text) for name, text in span.items()}
    for name, value in ends.items():
        if value is None:
            raise ValueError(f"{where} must hold numbers; {name} is {span[name]!r}")
    if len(ends) == 2 and ends["min"] > ends["max"]:  # type: ignore[operator]
        raise ValueError(f"{where} must hold a min that is at most max; received {span!r}")


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
