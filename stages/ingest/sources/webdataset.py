"""WebDataset shards: tar files in which the members of one sample share their name up to the first dot.

`000017.jpg`, `000017.cls` and `000017.json` are one sample: its image, its class as text, and what else is said of it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.ingest import _tree
from stages.ingest._sample import Listing, ListingBuilder, Refused

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
_MOST_TEXT = 2**20  # bytes of a .cls or .json member


@dataclass(frozen=True, kw_only=True)
class Config:
    """WebDataset shards below the raw folder."""

    name: Literal["webdataset"]
    label: str | None
    """Where the class stands: `cls` is the member of that ending, anything else a field of the .json member; null for
    none."""
    group: str | None
    """Field of the .json member with the person, patient or product; null for none."""
    attributes: tuple[str, ...]
    """Fields of the .json member that go into the store's manifest as text."""
    classes: tuple[str, ...]
    """Names of the labels from 0 on; [] takes what stands there."""


def listing(config: Config, root: Path) -> Listing:
    """All samples of all shards, in path order of their images."""
    builder = ListingBuilder(config.attributes, config.group is not None)
    for members in _samples(root, builder):
        images = [one for end, one in members.items() if end in _IMAGES]
        if len(images) != 1:
            word = "no image" if not images else "several images"
            builder.refuse(
                next(iter(members.values())).source, f"{word}: a sample has one member of a kind that is read"
            )
            continue
        try:
            label, group, attributes = _said(config, root, members)
        except Refused as reason:
            builder.refuse(images[0].source, reason)
            continue
        image = images[0]
        builder.add(
            image.source, image.unit, image.stamp, place=image.place, chain=image.chain, class_name=label, group=group,
            attributes=attributes,
        )  # fmt: skip
    return builder.finish(config.classes or None)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | Refused]:
    """See `stages.ingest.sources`."""
    return _tree.read(root, unit, places, most)


def _samples(root: Path, builder: ListingBuilder) -> Iterator[dict[str, _tree.Entry]]:
    """Members of each sample by their ending."""
    key: tuple[bytes, str] | None = None
    members: dict[str, _tree.Entry] = {}
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
            continue
        if not found.place:
            builder.refuse(found.source, "wrong type: no tar file by its name")
            continue
        folder, _, name = found.source.rpartition("/")
        stem, _, ending = name.partition(".")
        if (found.unit, f"{folder}/{stem}") != key:
            if members:
                yield members
            key, members = (found.unit, f"{folder}/{stem}"), {}
        members[ending.lower()] = found
    if members:
        yield members


def _said(config: Config, root: Path, members: dict[str, _tree.Entry]) -> tuple[str | None, str, tuple[str, ...]]:
    fields: dict[str, Any] = {}
    if any((config.attributes, config.group, config.label not in (None, "cls"))):
        try:
            fields = json.loads(_text(root, members, "json"))
        except ValueError:
            raise Refused("label: the .json member is no JSON") from None
        if not isinstance(fields, dict):
            raise Refused("label: the .json member is no object")
    label = None
    if config.label is not None:
        label = _text(root, members, "cls").strip() if config.label == "cls" else _field(fields, config.label)
        if config.classes:
            if not label.isdecimal() or int(label) >= len(config.classes):
                raise Refused(f"label: {label!r} is none of the {len(config.classes)} classes")
            label = config.classes[int(label)]
    group = _field(fields, config.group) if config.group else ""
    return label, group, tuple(str(fields.get(name, "")) for name in config.attributes)


def _field(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or value == "" or isinstance(value, dict | list):
        raise Refused(f"no {name}: the .json member says nothing of it")
    return str(value)


def _text(root: Path, members: dict[str, _tree.Entry], ending: str) -> str:
    if ending not in members:
        what = "label" if ending == "cls" else "fields"
        raise Refused(f"no {what}: the sample has no .{ending} member")
    entry = members[ending]
    (answer,) = _tree.read(root, entry.unit, [entry.place], _MOST_TEXT)
    if isinstance(answer, Refused):
        raise answer
    try:
        return answer[1].decode()
    except UnicodeDecodeError:
        raise Refused(f"label: the .{ending} member is no text") from None
