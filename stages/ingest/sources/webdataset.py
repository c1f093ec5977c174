"""WebDataset shards: tar files in which the members of one sample share their name up to the first dot.

`000017.jpg`, `000017.cls` and `000017.json` are one sample: its image, its class as text, and anything else about it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.ingest import _tree
from stages.ingest._cells import name_of, text_of
from stages.ingest._sample import Listing, ListingBuilder, Refused

_IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"}
_MOST_TEXT = 2**20  # bytes of a .cls or .json member


@dataclass(frozen=True, kw_only=True)
class Config:
    """WebDataset shards below the raw folder."""

    name: Literal["webdataset"]
    label: str | None
    """Where the class is given: `cls` is the member with that ending, anything else a field of the .json member; null
    for none."""
    group: str | None
    """Field of the .json member with the person, patient or product; null for none."""
    attributes: tuple[str, ...]
    """Fields of the .json member that go into the store's manifest as text."""
    classes: tuple[str, ...]
    """Names of the labels from 0 on; [] takes the labels as they are."""
    image: tuple[str, ...]
    """Endings of the member that is the image, such as `input.png`; [] takes those that images usually have."""


def listing(config: Config, root: Path) -> Listing:
    """All samples of all shards, in path order of their images."""
    builder = ListingBuilder(config.attributes, config.group is not None)
    texts = _Texts(root, builder)
    endings = {ending.lower().removeprefix(".") for ending in config.image} or _IMAGES
    for members in _samples(root, builder, texts):
        images = [one for end, one in members.items() if end in endings]
        if len(images) != 1:
            word = "no image" if not images else "several images"
            builder.refuse(
                next(iter(members.values())).source, f"{word}: a sample has one member of a kind that is read"
            )
            continue
        try:
            label, group, attributes = _said(config, texts, members)
        except Refused as reason:
            builder.refuse(images[0].source, reason)
            continue
        image = images[0]
        builder.add(
            image.source, image.unit, image.stamp, place=image.place, chain=image.chain, class_name=label,
            classes=config.classes, group=group, attributes=attributes,
        )  # fmt: skip
    return builder.finish(config.classes or None)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | Refused]:
    """See `stages.ingest.sources`."""
    return _tree.read(root, unit, places, most)


class _Texts:
    """The text members of a shard; those of a compressed one are read in one pass, not each from the start."""

    def __init__(self, root: Path, builder: ListingBuilder) -> None:
        self._root, self._builder = root, builder
        self._read: dict[str, tuple[str, bytes] | Refused] = {}

    def shard(self, entries: Sequence[_tree.Entry]) -> None:
        """Turn to the next shard, whose members are `entries`."""
        self._read = {}
        wanted = [one for one in entries if one.chain >= 0 and one.source.lower().endswith((".cls", ".json"))]
        if wanted:
            places = sorted((one.place for one in wanted), key=lambda place: int(place.split()[0]))
            answers = _tree.read(self._root, wanted[0].unit, places, _MOST_TEXT)
            self._read = dict(zip(places, answers, strict=True))

    def of(self, entry: _tree.Entry) -> tuple[str, bytes] | Refused:
        """Name and content of a member, which is recorded as saying something about a sample."""
        answer = self._read.get(entry.place)
        if answer is None:
            (answer,) = _tree.read(self._root, entry.unit, [entry.place], _MOST_TEXT)
        if not isinstance(answer, Refused):
            self._builder.paper_of(hashlib.sha256(answer[1]).hexdigest(), entry.source)
        return answer


def _samples(root: Path, builder: ListingBuilder, texts: _Texts) -> Iterator[dict[str, _tree.Entry]]:
    """Members of each sample by their ending, shard by shard."""
    for _, found in itertools.groupby(_members(root, builder), key=lambda entry: entry.unit):
        entries = list(found)
        texts.shard(entries)
        yield from _of_shard(entries, builder)


def _members(root: Path, builder: ListingBuilder) -> Iterator[_tree.Entry]:
    """All members of all shards."""
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
            continue
        if not found.place:
            builder.refuse(found.source, "wrong type: its name is not that of a tar file")
            continue
        yield found


def _of_shard(entries: Sequence[_tree.Entry], builder: ListingBuilder) -> Iterator[dict[str, _tree.Entry]]:
    key, members = "", dict[str, _tree.Entry]()
    for found in entries:
        folder, _, name = found.source.rpartition("/")
        stem, _, ending = name.partition(".")
        if f"{folder}/{stem}" != key:
            if members:
                yield members
            key, members = f"{folder}/{stem}", {}
        if ending.lower() in members:
            builder.refuse(found.source, f"twice: the sample has another .{ending.lower()} member")
        else:
            members[ending.lower()] = found
    if members:
        yield members


def _said(config: Config, texts: _Texts, members: dict[str, _tree.Entry]) -> tuple[str | None, str, tuple[str, ...]]:
    fields: dict[str, Any] = {}
    if any((config.attributes, config.group, config.label not in (None, "cls"))):
        try:
            fields = json.loads(_text(texts, members, "json"))
        except (ValueError, RecursionError):
            raise Refused("label: the .json member is not JSON") from None
        if not isinstance(fields, dict):
            raise Refused("label: the .json member is not a JSON object")
    label = None
    if config.label is not None:
        label = name_of(_text(texts, members, "cls")) if config.label == "cls" else _field(fields, config.label)
    group = _field(fields, config.group) if config.group else ""
    return label, group, tuple(text_of(fields.get(name)) for name in config.attributes)


def _field(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    said = "" if isinstance(value, dict | list) else name_of(value)
    if not said:
        raise Refused(f"no {name}: the .json member does not give it")
    return said


def _text(texts: _Texts, members: dict[str, _tree.Entry], ending: str) -> str:
    if ending not in members:
        what = "label" if ending == "cls" else "fields"
        raise Refused(f"no {what}: the sample has no .{ending} member")
    answer = texts.of(members[ending])
    if isinstance(answer, Refused):
        raise answer
    try:
        return answer[1].decode()
    except UnicodeDecodeError:
        raise Refused(f"label: the .{ending} member is not text") from None
