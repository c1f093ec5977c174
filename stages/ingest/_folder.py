"""Which files a raw folder holds, in which order, and which class each lies in."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


class Refused(Exception):
    """A file that cannot be used; the text is the reason, `category: detail`."""


@dataclass(frozen=True)
class File:
    """One file below the raw folder: where it is, its name as text, and its class folder ("" without labels)."""

    path: Path
    source: str
    class_name: str


@dataclass(frozen=True)
class Listing:
    """What a raw folder holds: files to read in path order, (source, reason) of what is refused by its place or kind
    alone, and the class names in label order (none without labels)."""

    files: list[File]
    refused: list[tuple[str, str]]
    classes: list[str]


def list_files(raw: Path, labels: str) -> Listing:
    """All visible files below the folder `raw`.

    Path order compares folder by folder, by the bytes of the names. Hidden files and folders are ignored. `labels` is
    `folders` or `none`. Raises ValueError where there is nothing to read or the class folders make no labels.
    """
    if not raw.is_dir():
        raise ValueError(f"{raw} is not a folder; --raw takes a folder of PNG and JPEG files")
    root = raw.resolve()
    files, refused = [], []
    for parts in sorted(_walk(root)):
        path, source = root.joinpath(*map(os.fsdecode, parts)), as_text(b"/".join(parts))
        try:
            _check_kind(path, root)
            if labels == "folders" and len(parts) == 1:
                raise Refused("no class: lies beside the class folders, not in one")
        except Refused as reason:
            refused.append((source, str(reason)))
        else:
            files.append(File(path, source, as_text(parts[0]) if labels == "folders" else ""))
    if not files and not refused:
        raise ValueError(f"{raw} holds no files; put PNG or JPEG images there, or run `make data` for the digits")
    classes = _class_folders(root) if labels == "folders" else []
    if labels == "folders":
        _check_classes(raw, classes)
    return Listing(files, refused, classes)


def as_text(name: bytes) -> str:
    r"""A file name as UTF-8 text; bytes that are not UTF-8 are written \xNN."""
    return name.decode("utf-8", "backslashreplace")


def _walk(root: Path) -> list[tuple[bytes, ...]]:
    """Path parts, as bytes, of every visible entry below `root` that is not a folder; links are not followed."""
    found = []
    base = os.fsencode(root)
    for folder, folders, names in os.walk(base, onerror=_stop):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        folders[:] = [name for name in folders if not name.startswith(b".")]
        above = () if folder == base else tuple(folder[len(base) :].strip(b"/").split(b"/"))
        found += [(*above, name) for name in names + links if not name.startswith(b".")]
    return found


def _stop(error: OSError) -> NoReturn:
    raise error  # os.walk would leave out a folder that it cannot read


def _check_kind(path: Path, root: Path) -> None:
    """Raise Refused unless `path` is a file, or a link to one that lies below `root`."""
    if path.is_symlink():
        target = Path(os.path.realpath(path))  # Path.resolve raises on a link that leads to itself
        if not target.is_relative_to(root):
            raise Refused("link: leads out of the folder; copy the image instead")
        if not target.is_file():
            raise Refused("link: leads to a folder or to nothing; copy the images instead")
    elif not stat.S_ISREG(path.stat().st_mode):
        raise Refused("not a file: a pipe, socket or device")


def _class_folders(root: Path) -> list[str]:
    """Names of the visible folders right below `root`, empty ones too, by the bytes of the names."""
    with os.scandir(os.fsencode(root)) as entries:
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(b".")]
    return [as_text(name) for name in sorted(names)]


def _check_classes(raw: Path, classes: list[str]) -> None:
    if not classes:
        raise ValueError(
            f"{raw} holds no class folders, which ingest.labels: folders needs; "
            "put each class into a subfolder, or set ingest.labels: none"
        )
    if len(classes) == 1:
        raise ValueError(
            f"{raw} holds the single class folder {classes[0]!r}, and labels need two or more; set ingest.labels: none"
        )
