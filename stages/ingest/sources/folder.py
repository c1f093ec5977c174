"""Folders of images, and zip, tar and tar.gz archives of them; labels and groups from the subfolders, or none."""

import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.ingest import _tree
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text

_SPLITS = {"train", "val", "valid", "validation", "test", "dev"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Image files below the raw folder."""

    name: Literal["folder"]
    labels: Literal["folders", "none"]
    """`folders`: each subfolder is a class, two or more; `none`: images carry no labels."""
    groups: Literal["folders", "none"]
    """`folders`: each folder right below a class folder (below the raw folder without labels) is a person, patient or
    product, the same in all classes: images of one group are never divided between splits. `none`: no groups."""


def listing(config: Config, root: Path) -> Listing:
    """All visible files. Raises ValueError if `root` is not a folder, or its folders make no labels or groups."""
    labelled, grouped = config.labels == "folders", config.groups == "folders"
    builder, inside, groups = ListingBuilder(grouped=grouped), set[bytes](), set[str]()
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
        elif labelled and len(found.parts) == 1:
            builder.refuse(found.source, "no class: lies beside the class folders, not in one")
        elif grouped and len(found.parts) == 1 + labelled:
            builder.refuse(
                found.source,
                "no group: lies beside the group folders (ingest.source.groups), not in one",
            )
            inside.add(found.parts[0])
        else:
            group = _group(found.parts[labelled]) if grouped else ""
            builder.add(
                found.source, found.unit, found.stamp, place=found.place, chain=found.chain,
                class_name=as_text(found.parts[0]) if labelled else None, group=group,
            )  # fmt: skip
            inside.add(found.parts[0])
            groups.add(group)
    if grouped:
        _check_splits(root, groups, "group")
    if not labelled:
        return builder.finish([])
    names = [as_text(name) for name in sorted(inside | _class_folders(root))]
    if len(builder) or builder.refused:
        _check_classes(root, names)
    return builder.finish(names)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | Refused]:
    """See `stages.ingest.sources`."""
    return _tree.read(root, unit, places, most)


def _group(folder: bytes) -> str:
    """The group named by a folder, in one Unicode form: archives of other systems write accents otherwise."""
    return unicodedata.normalize("NFC", as_text(folder))


def _class_folders(root: Path) -> set[bytes]:
    """Names of the visible folders right below `root`, empty ones too."""
    with os.scandir(os.fsencode(root)) as entries:
        return {e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(b".")}


def _check_classes(root: Path, classes: list[str]) -> None:
    if not classes:
        raise ValueError(
            f"{root} holds no class folders, which ingest.source.labels: folders needs; "
            "put each class into a subfolder, or set ingest.source.labels: none"
        )
    _check_splits(root, classes, "class")


def _check_splits(root: Path, names: Collection[str], kind: str) -> None:
    if names and {name.lower() for name in names} <= _SPLITS:
        raise ValueError(
            f"the {kind} folders of {root} are called {', '.join(sorted(names))}, which are splits; ingest makes its "
            f"own by content or group: move the {kind} folders inside them together, or name the images in a manifest"
        )
