"""torchvision's data sets by name, from the files that their publishers distribute, without loading torch or a pickle.

`stages.ingest._published` lists them.

    python -m stages.ingest.sources.torchvision CIFAR10 --raw data/raw

fetches the files that a data set needs. Ingest itself never uses the network.
"""

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.interrupt import interruptible
from stages.ingest import _tree
from stages.ingest._published import DATASETS, INSTEAD, Part, Published
from stages.ingest._records import BROKEN, LOST, forward, matlab_array, matlab_numbers, md5_of, numbers, opened, records
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text, refusal, stamp_of

_IMAGES = (b".jpg", b".jpeg", b".png")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The files of a data set below the raw folder, under their published names."""

    name: Literal["torchvision"]
    dataset: str
    """torchvision's name for it."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            names = {name.lower(): name for name in DATASETS}
            near = difflib.get_close_matches(self.dataset.lower(), names, n=1)
            hint = INSTEAD.get(self.dataset) or (
                f"did you mean {names[near[0]]}?" if near else "other sources read plain files"
            )
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; received {self.dataset!r} ({hint})")


def listing(config: Config, root: Path) -> Listing:
    """All images of all divisions. Raises ValueError if a file is missing or is not the published one."""
    builder, published = ListingBuilder(), DATASETS[config.dataset]
    units: dict[bytes, list[_tree.Entry]] = {}
    for found in _tree.walk(root):
        if isinstance(found, _tree.Entry):
            units.setdefault(found.unit, []).append(found)
        else:
            builder.refuse(*found)
    damaged = {source.rpartition("/")[2]: reason for source, reason in builder.refused}
    chosen = {_choose(config.dataset, root, name, md5, units, damaged): name for name, md5 in published.files}
    files = {name: root / os.fsdecode(unit) for unit, name in chosen.items()}
    for unit, entries in units.items():
        if unit not in chosen:
            builder.refuse(as_text(unit), f"unlisted: not a file that {config.dataset} needs")
        elif any(part.file == chosen[unit] for part in published.parts):
            _add_records(published, files, chosen[unit], unit, builder)
        elif chosen[unit] == published.files[0][0]:
            _add_tree(published, files, entries, builder)
        else:
            builder.paper(files[chosen[unit]], as_text(unit))
    return builder.finish(published.classes or None)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | tuple[str, NDArray[np.uint8]] | Refused]:
    """See `stages.ingest.sources`; files of archives, or arrays [H, W] and [H, W, 3]."""
    parts = DATASETS[config.dataset].parts
    if not parts:
        return _tree.read(root, unit, places, most)
    return _pixels(parts[int(places[0].split()[1])], root / os.fsdecode(unit), [int(at.split()[0]) for at in places])


# ---- files


def _choose(
    dataset: str, root: Path, name: str, md5: str, units: dict[bytes, list[_tree.Entry]], damaged: dict[str, str]
) -> bytes:
    """The file of this name and digest; MNIST's and KMNIST's have the same names and may lie side by side."""
    found = {unit: md5_of(root / os.fsdecode(unit)) for unit in units if os.fsdecode(unit).rpartition("/")[2] == name}
    right = [unit for unit, digest in found.items() if digest == md5]
    if right:
        return right[0]
    where = f"it comes from {DATASETS[dataset].url}{name}, its MD5 is {md5}"
    fetch = f"`python -m stages.ingest.sources.torchvision {dataset} --raw {root}` fetches it"
    if found:
        unit, digest = next(iter(found.items()))
        raise ValueError(
            f"{root / os.fsdecode(unit)} has MD5 {digest} and is not the published file; {where}; {fetch} again"
        )
    lacks = f"{name} in {root} is {damaged[name]}" if name in damaged else f"{root} lacks {name}, which {dataset} needs"
    raise ValueError(f"{lacks}; {fetch}, or place it there: {where}")


# ---- the two forms


def _add_tree(
    published: Published, files: Mapping[str, Path], entries: list[_tree.Entry], builder: ListingBuilder
) -> None:
    named, above = dict(published.named), entries[0].unit.count(b"/")
    labels = published.labels(files) if published.labels else None
    for entry in entries:
        inside = entry.parts[above:]
        placed = labels is not None or len(inside) == published.depth + 2
        if not placed or not inside[-1].lower().endswith(_IMAGES):
            builder.refuse(
                entry.source, "wrong type: not an image" if placed else "wrong type: not an image in a class folder"
            )
            continue
        if labels is None:
            folder = as_text(inside[published.depth])
            name: str | None = named.get(folder, folder)
        else:
            name = labels.get(b"/".join(inside))
        if name is None:
            builder.refuse(entry.source, "unlisted: the publisher's labels do not name it")
            continue
        builder.add(entry.source, entry.unit, entry.stamp, place=entry.place, chain=entry.chain, class_name=name)


def _add_records(
    published: Published, files: Mapping[str, Path], name: str, unit: bytes, builder: ListingBuilder
) -> None:
    status, classes = files[name].stat(), published.classes
    if published.names:
        classes = tuple(numbers(files[name], published.names).tobytes().decode().split())
    for index, part in enumerate(published.parts):
        source = as_text(unit) + (f"/{part.member}" if part.member else "")
        for number, label in enumerate(_labels(files, part) if part.file == name else ()):
            place = f"{number} {index} {part.member or part.file}"  # other data sets have other parts of the same file
            builder.add(
                f"{source}/{number:06d}", unit, stamp_of(status, place), place=place,
                chain=status.st_ino * 64 % 2**62 + index,
                class_name=None if label is None else classes[(label - published.first) % len(classes)],
            )  # fmt: skip


def _labels(files: Mapping[str, Path], part: Part) -> Sequence[int | None]:
    """The label of each image, None without labels."""
    labels = part.labels
    if labels is None:
        with opened(files[part.file], part.member) as file:
            return [None] * ((file.seek(0, os.SEEK_END) - part.skip) // part.stride)
    if labels.array:
        found = matlab_numbers(files[labels.file], labels.array)
    else:
        found = numbers(files[labels.file], labels.member, skip=labels.skip, kind=labels.kind)
    return found.reshape(-1, labels.columns)[:, labels.column].astype(int).tolist()


def _pixels(part: Part, path: Path, rows: Sequence[int]) -> Iterator[tuple[str, NDArray[np.uint8]] | Refused]:
    try:
        with opened(path, part.member) as file:
            stream = matlab_array(file, part.array)[0] if part.array else file
            forward(stream, part.skip)
            for record in records(stream, part.stride, rows):
                if isinstance(record, Refused):
                    yield record
                    continue
                image = np.frombuffer(record, np.uint8)[part.lead :].reshape(part.shape)
                image = image.transpose(2, 1, 0) if part.turned else image.transpose(1, 2, 0)
                yield "", image[:, :, 0] if part.shape[0] == 1 else image
    except BROKEN as error:
        lost = str(refusal(error, LOST))
        yield from (Refused(lost) for _ in rows)


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch, verify and place what is not there yet; exit code 0, 1, or 130 if interrupted; a sentence on stderr."""
    from stages.ingest._fetch import fetch

    parser = argparse.ArgumentParser(
        prog="python -m stages.ingest.sources.torchvision", description="Fetch the published files of a data set."
    )
    parser.add_argument("dataset", choices=[*DATASETS], help="torchvision's name for it")
    parser.add_argument("--raw", type=Path, required=True, help="folder of raw data; made if it is missing")
    parser.add_argument("--mirror", help="http(s) address of a folder that holds the same files; default: official")
    options = parser.parse_args(argv)
    published = DATASETS[options.dataset]
    interruptible(signal.SIGINT)
    try:
        for name, md5 in published.files:
            fetch(f"{(options.mirror or published.url).rstrip('/')}/{name}", options.raw / name, md5)
    except (ValueError, OSError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted; run it again to go on", 130)
    return _say(f"{options.raw} holds {options.dataset}; set ingest.source to {{name: torchvision, dataset: ...}}", 0)


def _say(text: str, code: int) -> int:
    print(f"ingest.torchvision: {text}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
