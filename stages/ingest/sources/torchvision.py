"""torchvision's data sets by name, from the files that their publishers hand out: no torch, and no pickle, is loaded.

Names, addresses, digests and class names are torchvision's (a test compares them); its division into train and test is
left aside, because splits follow content here. Of CIFAR, whose usual archive holds pickles, the binary version is read.

    python -m stages.ingest.sources.torchvision CIFAR10 --raw data/raw

fetches the files that a data set needs. Ingest itself never asks the network.
"""

import argparse
import difflib
import gzip
import hashlib
import itertools
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.config import RuleBroken
from stages.ingest import _tree
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text, stamp_of


@dataclass(frozen=True)
class Published:
    """Files as (name, MD5) below the address `url`; `depth` counts the folders above the class folder in an archive."""

    form: Literal["idx", "cifar", "tree"]
    url: str
    files: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] = ()  # names of the labels from 0 on
    named: tuple[tuple[str, str], ...] = ()  # (folder, class) where they differ
    depth: int = 0


_TRAIN, _TEST = "train-{}-ubyte.gz", "t10k-{}-ubyte.gz"
_IDX = tuple(pattern.format(kind) for pattern in (_TRAIN, _TEST) for kind in ("images-idx3", "labels-idx1"))
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IMAGENETTE = (
    ("n01440764", "tench"), ("n02102040", "English springer"), ("n02979186", "cassette player"),
    ("n03000684", "chain saw"), ("n03028079", "church"), ("n03394916", "French horn"),
    ("n03417042", "garbage truck"), ("n03425413", "gas pump"), ("n03445777", "golf ball"), ("n03888257", "parachute"),
)  # fmt: skip


def _idx(url: str, digests: Sequence[str], classes: Sequence[str]) -> Published:
    return Published("idx", url, tuple(zip(_IDX, digests, strict=True)), tuple(classes))


def _imagenette(name: str, md5: str) -> Published:
    url = "https://s3.amazonaws.com/fast-ai-imageclas/"
    return Published("tree", url, ((f"{name}.tgz", md5),), named=_IMAGENETTE, depth=2)


DATASETS = {
    "MNIST": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432", "9fb629c4189551a2d022fa330f9573f3",
         "ec29112dd5afa0611ce80d1b7f02629c"),
        [str(digit) for digit in range(10)],
    ),
    "FashionMNIST": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe", "bef4ecab320f06d8554ea6380940ec79",
         "bb300cfdad3c16e7a12a480ee83cd310"),
        _FASHION,
    ),
    "KMNIST": _idx(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344", "5c965bf0a639b31b8f53240b1b52f4d7",
         "7320c461ea6c1c855c0b718fb2a4b134"),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "CIFAR10": Published(
        "cifar", "https://www.cs.toronto.edu/~kriz/", (("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),)
    ),
    "CIFAR100": Published(
        "cifar", "https://www.cs.toronto.edu/~kriz/", (("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),)
    ),
    "Imagenette": _imagenette("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "Imagenette-320px": _imagenette("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    "Imagenette-160px": _imagenette("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
    "EuroSAT": Published(
        "tree", "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/",
        (("EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387"),), depth=1,
    ),
    "Food101": Published(
        "tree", "http://data.vision.ee.ethz.ch/cvl/",
        (("food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),), depth=2,
    ),
    "Country211": Published(
        "tree", "https://openaipublic.azureedge.net/clip/data/",
        (("country211.tgz", "84988d7644798601126c29e9877aab6a"),), depth=2,
    ),
}  # fmt: skip
_INSTEAD = {
    "EMNIST": "unpack its gzip.zip and read the files of one division by source idx with transposed: true",
    "CelebA": "source manifest reads list_attr_celeba.txt beside img_align_celeba.zip",
    "ImageFolder": "source folder reads it",
    "SVHN": "its MATLAB files are not read; save them as numpy arrays for source arrays",
    "Flowers102": "its labels are a MATLAB file; write them as a table for source manifest",
}
_NAMES = {"cifar-10-binary.tar.gz": b"batches.meta.txt", "cifar-100-binary.tar.gz": b"fine_label_names.txt"}
_PIXELS = 3 * 32 * 32
_LARGEST = 2**28  # bytes of the largest file in CIFAR's archives: 154 MB
_IMAGES = (b".jpg", b".jpeg", b".png")
_SECONDS, _PIECE = 60, 2**20  # without a byte before a download is given up; bytes
_BROKEN = (OSError, EOFError, zlib.error, ValueError, struct.error)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The files of a data set below the raw folder, under their published names."""

    name: Literal["torchvision"]
    dataset: str
    """torchvision's name for it."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            near = difflib.get_close_matches(self.dataset, [*DATASETS], n=1)
            hint = _INSTEAD.get(self.dataset) or (
                f"did you mean {near[0]}?" if near else "other sources read plain files"
            )
            raise RuleBroken(f"dataset must be one of {', '.join(DATASETS)}; received {self.dataset!r} ({hint})")


def listing(config: Config, root: Path) -> Listing:
    """All images of all divisions. Raises ValueError where a file is missing or is not the published one."""
    builder, published = ListingBuilder(), DATASETS[config.dataset]
    units: dict[bytes, list[_tree.Entry]] = {}
    for found in _tree.walk(root):
        if isinstance(found, _tree.Entry):
            units.setdefault(found.unit, []).append(found)
        else:
            builder.refuse(*found)
    damaged = {source.rpartition("/")[2]: reason for source, reason in builder.refused}
    chosen = {_choose(config.dataset, root, name, md5, units, damaged): name for name, md5 in published.files}
    for unit, entries in units.items():
        if unit not in chosen:
            builder.refuse(as_text(unit), f"unlisted: no file that {config.dataset} needs")
        elif published.form == "tree":
            _add_tree(published, entries, builder)
        elif published.form == "cifar":
            _add_cifar(root, chosen[unit], entries, builder)
        elif "-images-" in chosen[unit]:
            labels = next(other for other, name in chosen.items() if name == _labels_of(chosen[unit]))
            _add_idx(published, root, entries[0], labels, builder)
    return builder.finish(published.classes or None)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | tuple[str, NDArray[np.uint8]] | Refused]:
    """See `stages.ingest.sources`; files of archives, or arrays [28, 28] and [32, 32, 3]."""
    form = DATASETS[config.dataset].form
    if form == "tree":
        return _tree.read(root, unit, places, most)
    return _idx_contents(root, unit, places) if form == "idx" else _cifar_contents(root, unit, places)


# ---- files


def _choose(
    dataset: str, root: Path, name: str, md5: str, units: dict[bytes, list[_tree.Entry]], damaged: dict[str, str]
) -> bytes:
    """The file of this name and digest; MNIST's and KMNIST's have the same names and may lie side by side."""
    found = {unit: _md5(root / os.fsdecode(unit)) for unit in units if os.fsdecode(unit).rpartition("/")[2] == name}
    right = [unit for unit, digest in found.items() if digest == md5]
    if right:
        return right[0]
    where = f"it comes from {DATASETS[dataset].url}{name}, its MD5 is {md5}"
    fetch = f"`python -m stages.ingest.sources.torchvision {dataset} --raw {root}` fetches it"
    if found:
        unit, digest = next(iter(found.items()))
        raise ValueError(
            f"{root / os.fsdecode(unit)} has MD5 {digest} and is not the published file; {where}; {fetch} anew"
        )
    lacks = f"{name} in {root} is {damaged[name]}" if name in damaged else f"{root} lacks {name}, which {dataset} needs"
    raise ValueError(f"{lacks}; {fetch}, or place it there: {where}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# ---- the three forms


def _add_tree(published: Published, entries: list[_tree.Entry], builder: ListingBuilder) -> None:
    named, above = dict(published.named), entries[0].unit.count(b"/")
    for entry in entries:
        inside = entry.parts[above:]
        if len(inside) != published.depth + 2 or not inside[-1].lower().endswith(_IMAGES):
            builder.refuse(entry.source, "wrong type: no image in a class folder")
            continue
        folder = as_text(inside[published.depth])
        builder.add(
            entry.source, entry.unit, entry.stamp, place=entry.place, chain=entry.chain,
            class_name=named.get(folder, folder),
        )  # fmt: skip


def _labels_of(name: str) -> str:
    return name.replace("-images-idx3", "-labels-idx1")


def _add_idx(published: Published, root: Path, found: _tree.Entry, labels: bytes, builder: ListingBuilder) -> None:
    path = root / os.fsdecode(found.unit)
    status = path.stat()
    with gzip.open(root / os.fsdecode(labels)) as file:
        values = file.read()[8:]  # after the magic number and the count
    for number, label in enumerate(values):
        builder.add(
            f"{found.source}/{number:06d}", found.unit, stamp_of(status, str(number)), place=str(number),
            chain=status.st_ino, class_name=published.classes[label],
        )  # fmt: skip


def _idx_contents(root: Path, unit: bytes, places: Sequence[str]) -> Iterator[tuple[str, NDArray[np.uint8]] | Refused]:
    try:
        with gzip.open(root / os.fsdecode(unit)) as file:
            count, height, width = struct.unpack(">4x3I", file.read(16))
            images = np.frombuffer(file.read(), np.uint8).reshape(count, height, width)
    except _BROKEN:
        yield from (Refused("damaged: the file cannot be read to its end") for _ in places)
        return
    yield from (("", images[int(place)]) for place in places)


def _add_cifar(root: Path, archive: str, entries: list[_tree.Entry], builder: ListingBuilder) -> None:
    members = {entry.parts[-1]: entry for entry in entries}
    path = root / os.fsdecode(entries[0].unit)
    names = _member(root, members[_NAMES[archive]]).decode().split()
    record, status = _PIXELS + (2 if len(names) > 10 else 1), path.stat()
    for entry in (entry for name, entry in members.items() if name.endswith(b".bin")):
        labels = np.frombuffer(_member(root, entry), np.uint8).reshape(-1, record)[:, record - _PIXELS - 1]
        for number, label in enumerate(labels.tolist()):
            place = f"{entry.place} {number * record + record - _PIXELS}"
            builder.add(
                f"{entry.source}/{number:06d}", entry.unit, stamp_of(status, place), place=place, chain=entry.chain,
                class_name=names[label],
            )  # fmt: skip


def _member(root: Path, entry: _tree.Entry) -> bytes:
    (content,) = _tree.read(root, entry.unit, [entry.place], _LARGEST)
    if isinstance(content, Refused):
        raise ValueError(f"{root / os.fsdecode(entry.unit)}: {content}")
    return content[1]


def _cifar_contents(
    root: Path, unit: bytes, places: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.uint8]] | Refused]:
    members = [
        (member, list(rows)) for member, rows in itertools.groupby(places, lambda place: place.rpartition(" ")[0])
    ]
    answers = _tree.read(root, unit, [member for member, _ in members], _LARGEST)
    for (_, rows), answer in zip(members, answers, strict=True):
        for row in rows:
            if isinstance(answer, Refused):
                yield answer
                continue
            values = np.frombuffer(answer[1], np.uint8, _PIXELS, int(row.rpartition(" ")[2]))
            yield "", values.reshape(3, 32, 32).transpose(1, 2, 0)


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what is not there yet, verify, place; exit code 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.ingest.sources.torchvision", description="Fetch the published files of a data set."
    )
    parser.add_argument("dataset", choices=[*DATASETS], help="torchvision's name for it")
    parser.add_argument("--raw", type=Path, required=True, help="folder of raw data; made where it is missing")
    parser.add_argument("--mirror", help="http(s) address of a folder that holds the same files; default: official")
    options = parser.parse_args(argv)
    published = DATASETS[options.dataset]
    try:
        for name, md5 in published.files:
            _fetch(f"{(options.mirror or published.url).rstrip('/')}/{name}", options.raw / name, md5)
    except (ValueError, OSError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted; run it again to go on", 130)
    return _say(f"{options.raw} holds {options.dataset}; set ingest.source to {{name: torchvision, dataset: ...}}", 0)


def _fetch(address: str, target: Path, md5: str) -> None:
    import http.client
    import urllib.error
    import urllib.request

    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--mirror must be an http(s) address; received {address!r}")
    if target.is_file() and _md5(target) == md5:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer, partial.open("wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
        found = _md5(partial)
        if found != md5:
            raise ValueError(
                f"{address} has MD5 {found}, torchvision states {md5}: damaged or another; nothing was kept"
            )
        partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"{address} could not be fetched ({reason}); without a network bring it from another machine to {target}, "
            f"its MD5 is {md5}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _say(text: str, code: int) -> int:
    print(f"ingest.torchvision: {text}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
