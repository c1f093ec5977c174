"""Write an entry of `reference.published` into params.yaml as a person would: one line, all other text left alone."""

import copy
import re
from pathlib import Path

import yaml

from stages.common.files import write_atomically

Entry = dict[str, str]


def record(params: Path, entry: Entry) -> str:
    """Add `entry` to `reference.published` of the file, or replace the entry with the same name and resize.

    Returns what was done, in a sentence. Raises ValueError, and leaves the file alone, if the list is written in a way
    that this cannot edit; the message then holds the line to add by hand.
    """
    line = f"- {{{', '.join(f'{key}: {value}' for key, value in entry.items())}}}"
    by_hand = f"add this to reference.published of {params} by hand: {line}"
    try:
        text = params.read_text(encoding="utf-8")
        before = yaml.safe_load(text)
        entries = list(before["reference"]["published"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        raise ValueError(f"{params} cannot be read or holds no list reference.published; {by_hand}") from None
    if entry in entries:
        return f"{params} names this file already; nothing was changed"
    places = [index for index, each in enumerate(entries) if _same(each, entry)]
    after = copy.deepcopy(before)
    after["reference"]["published"] = [entry if i in places else each for i, each in enumerate(entries)]
    after["reference"]["published"] += [] if places else [entry]
    lines = _edited(text.splitlines(keepends=True), line, len(entries), places)
    changed = "".join(lines or [])
    try:
        sound = lines is not None and yaml.safe_load(changed) == after
    except yaml.YAMLError:
        sound = False
    if not sound:
        raise ValueError(f"reference.published of {params} is not written with one entry per line; {by_hand}")
    write_atomically(params, changed)
    done = "replaced the entry" if places else "added an entry"
    return f"{done} of reference.published in {params}; its comments and layout are as they were"


def _same(each: object, entry: Entry) -> bool:
    return isinstance(each, dict) and all(each.get(key) == entry[key] for key in ("name", "resize"))


def _edited(lines: list[str], line: str, count: int, places: list[int]) -> list[str] | None:
    """The lines with the entry added; None if the list is written in a way that is not edited here."""
    start = next((i for i, each in enumerate(lines) if re.match(r"reference:\s*(#.*)?$", each)), len(lines))
    for index in range(start + 1, len(lines)):
        if re.match(r"\S", lines[index]) and not lines[index].startswith("#"):
            return None  # the next section
        found = re.match(r"(\s+published:)\s*(\[\s*\])?(\s*#.*)?\s*$", lines[index])
        if found:
            break
    else:
        return None
    key, empty, comment = found.groups()
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    if empty:
        return [*lines[:index], f"{key}{comment or ''}\n", f"{indent}{line}\n", *lines[index + 1 :]]
    items = [i for i in range(index + 1, len(lines)) if re.match(r"\s+- ", lines[i])][:count]
    if len(items) < count or not items:
        return None
    own = lines[items[0]][: len(lines[items[0]]) - len(lines[items[0]].lstrip())]
    if places:
        tail = re.search(r"\}(\s*#.*)?\s*$", lines[items[places[0]]])
        kept = (tail.group(1) or "") if tail else ""
        return [*lines[: items[places[0]]], f"{own}{line}{kept}\n", *lines[items[places[0]] + 1 :]]
    return [*lines[: items[-1] + 1], f"{own}{line}\n", *lines[items[-1] + 1 :]]
