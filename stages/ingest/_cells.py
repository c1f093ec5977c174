"""Cells of tables and fields of JSON as text, whatever their type."""

import re
from pathlib import Path
from typing import Any

from stages.ingest._sample import Refused

_NOTHING = ("nan", "NaN")  # as Python and others write it
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")


def text_of(value: Any) -> str:
    """The value as text without spaces around it; None and NaN, also as a word, are empty. Raises Refused for bytes
    that are not UTF-8."""
    if value is None:
        return ""
    try:
        text = (value.decode() if isinstance(value, bytes) else str(value)).strip()
    except UnicodeDecodeError:
        raise Refused("name: a column holds bytes that are not UTF-8 text") from None
    return "" if text in _NOTHING else text


def name_of(value: Any) -> str:
    """The same for a class or a group, where 1.0 is 1: whole numbers become decimals beside missing values."""
    text = text_of(value)
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def check_columns(path: Path, names: list[str], wanted: list[str]) -> None:
    """Raise ValueError if the table at `path`, whose columns are `names`, lacks a wanted one or has it twice."""
    missing = [name for name in wanted if name not in names]
    if missing:
        known = ", ".join(map(repr, names[:60])) or "none"
        raise ValueError(f"{path} has no column {missing[0]!r}, which ingest.source names; it has {known}")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path} has several columns {twice[0]!r}, which ingest.source names; rename all but one")
