"""Folders of images, and zip, tar and tar.gz archives of such; labels from the class subfolders, or none."""

import os
from collections.abc import Iterator, Sequence
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


def listing(config: Config, root: Path) -> Listing:
    """All visible files. Raises ValueError where there is nothing to read or the class folders make no labels."""
    builder, inside = ListingBuilder(), set()
    labelled = config.labels == "folders"
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
        elif labelled and len(found.parts) == 1:
            builder.refuse(found.source, "no class: lies beside the class folders, not in one")
        else:
            builder.add(
                found.source, found.unit, found.stamp, place=found.place, chain=found.chain,
                class_name=as_text(found.parts[0]) if labelled else None,
            )  # fmt: skip
            inside.add(found.parts[0])
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
    if {name.lower() for name in classes} <= _SPLITS:
        raise ValueError(
            f"the class folders of {root} are called {', '.join(classes)}, which are splits and no classes; ingest "
            "makes its own by content: move the class folders inside them together, or name the images in a manifest"
        )
