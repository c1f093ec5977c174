"""torchvision's data sets by name, from the files that their publishers hand out: no torch, and no pickle, is loaded.

Names, addresses, digests and class names are torchvision's (a test compares them); its division into train and test is
left aside, because splits follow content here. Of CIFAR, whose usual archive holds pickles, the binary version is read.

    python -m stages.ingest.sources.torchvision CIFAR10 --raw data/raw

fetches the files that a data set needs. Ingest itself never asks the network.
"""

import argparse
import difflib
import math
import os
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.config import RuleBroken
from stages.ingest import _tree
from stages.ingest._records import BROKEN, forward, matlab_array, matlab_numbers, md5_of, numbers, opened
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text, stamp_of


@dataclass(frozen=True)
class Labels:
    """Numbers in rows of `columns`, of which `column` is the label, after `skip` bytes of `member` of a file."""

    file: str
    member: str = ""
    array: str = ""  # of a MATLAB file, in place of member and skip
    skip: int = 0
    kind: str = "u1"
    columns: int = 1
    column: int = 0


@dataclass(frozen=True)
class Part:
    """Images of one size, one after the other, in a file or in `member` of it.

    After `skip` bytes each record is `lead` bytes and the pixels: channels, then rows of columns, or columns of rows
    where `turned`.
    """

    file: str
    labels: Labels | None
    shape: tuple[int, int, int]  # channels, height, width
    member: str = ""
    array: str = ""  # of a MATLAB file, in place of member and skip
    skip: int = 0
    lead: int = 0
    turned: bool = False

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return self.lead + math.prod(self.shape)


@dataclass(frozen=True)
class Published:
    """Files as (name, MD5) below the address `url`, of which the first holds the images, or `parts` say where they lie.

    In an archive the class of an image is its folder, below `depth` others, or what `labels` read by its name.
    """

    url: str
    files: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] = ()  # names of the labels from `first` on, in a circle: SVHN's 10 is the digit 0
    first: int = 0
    names: str = ""  # member that names them instead
    named: tuple[tuple[str, str], ...] = ()  # (folder, class) where they differ
    depth: int = 0
    labels: Callable[[Mapping[str, Path]], dict[bytes, str]] | None = None
    parts: tuple[Part, ...] = ()


_IDX = [f"{division}-{kind}-ubyte.gz" for division in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
_DIGITS = tuple(string.digits)
_MERGED = "cijklmopsuvwxyz"  # EMNIST's letters whose cases are one class
_BALANCED = tuple(sorted({*string.digits, *string.ascii_letters} - {*_MERGED}))
_EMNIST = {
    "byclass": tuple(sorted(string.digits + string.ascii_letters)), "bymerge": _BALANCED, "balanced": _BALANCED,
    "letters": tuple(string.ascii_lowercase), "digits": _DIGITS, "mnist": _DIGITS,
}  # fmt: skip
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IMAGENETTE = (
    ("n01440764", "tench"), ("n02102040", "English springer"), ("n02979186", "cassette player"),
    ("n03000684", "chain saw"), ("n03028079", "church"), ("n03394916", "French horn"),
    ("n03417042", "garbage truck"), ("n03425413", "gas pump"), ("n03445777", "golf ball"), ("n03888257", "parachute"),
)  # fmt: skip
_FLOWERS = (  # divided by |
    "pink primrose|hard-leaved pocket orchid|canterbury bells|sweet pea|english marigold|tiger lily|moon orchid|"
    "bird of paradise|monkshood|globe thistle|snapdragon|colt's foot|king protea|spear thistle|yellow iris|"
    "globe-flower|purple coneflower|peruvian lily|balloon flower|giant white arum lily|fire lily|"
    "pincushion flower|fritillary|red ginger|grape hyacinth|corn poppy|prince of wales feathers|stemless gentian|"
    "artichoke|sweet william|carnation|garden phlox|love in the mist|mexican aster|alpine sea holly|"
    "ruby-lipped cattleya|cape flower|great masterwort|siam tulip|lenten rose|barbeton daisy|daffodil|sword lily|"
    "poinsettia|bolero deep blue|wallflower|marigold|buttercup|oxeye daisy|common dandelion|petunia|wild pansy|"
    "primula|sunflower|pelargonium|bishop of llandaff|gaura|geranium|orange dahlia|pink-yellow dahlia?|"
    "cautleya spicata|japanese anemone|black-eyed susan|silverbush|californian poppy|osteospermum|spring crocus|"
    "bearded iris|windflower|tree poppy|gazania|azalea|water lily|rose|thorn apple|morning glory|passion flower|"
    "lotus|toad lily|anthurium|frangipani|clematis|hibiscus|columbine|desert-rose|tree mallow|magnolia|cyclamen|"
    "watercress|canna lily|hippeastrum|bee balm|ball moss|foxglove|bougainvillea|camellia|mallow|mexican petunia|"
    "bromelia|blanket flower|trumpet creeper|blackberry lily"
)
_SVHN = (
    ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"), ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    ("extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7"),
)  # fmt: skip


def _idx(url: str, digests: Sequence[str], classes: Sequence[str]) -> Published:
    parts = tuple(
        Part(images, Labels(labels, skip=8), (1, 28, 28), skip=16)
        for images, labels in zip(_IDX[::2], _IDX[1::2], strict=True)
    )
    return Published(url, tuple(zip(_IDX, digests, strict=True)), tuple(classes), parts=parts)


def _emnist(split: str) -> Published:
    def part(division: str) -> Part:
        images, labels = (f"gzip/emnist-{split}-{division}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        return Part("gzip.zip", Labels("gzip.zip", labels, skip=8), (1, 28, 28), images, skip=16, turned=True)

    return Published(
        "https://biometrics.nist.gov/cs_links/EMNIST/", (("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e"),),
        _EMNIST[split], first=int(split == "letters"), parts=(part("train"), part("test")),
    )  # fmt: skip


def _cifar(archive: str, md5: str, folder: str, names: str, members: Sequence[str], heads: int) -> Published:
    columns = heads + 3 * 32 * 32
    parts = tuple(
        Part(archive, Labels(archive, member, columns=columns, column=heads - 1), (3, 32, 32), member, lead=heads)
        for member in (f"{folder}/{name}.bin" for name in members)
    )
    url = "https://www.cs.toronto.edu/~kriz/"
    return Published(url, ((archive, md5),), names=f"{folder}/{names}", parts=parts)


def _stl10(divisions: Sequence[str], *, labelled: bool) -> Published:
    archive, folder = "stl10_binary.tar.gz", "stl10_binary"
    parts = tuple(
        Part(archive, Labels(archive, f"{folder}/{division}_y.bin") if labelled else None, (3, 96, 96),
             f"{folder}/{division}_X.bin", turned=True)
        for division in divisions
    )  # fmt: skip
    return Published(
        "http://ai.stanford.edu/~acoates/stl10/", ((archive, "91f7769df0f17e558f3565bffb0c7dfb"),),
        first=1, names=f"{folder}/class_names.txt" if labelled else "", parts=parts,
    )  # fmt: skip


def _svhn(*files: tuple[str, str]) -> Published:
    parts = tuple(Part(name, Labels(name, array="y"), (3, 32, 32), array="X", turned=True) for name, _ in files)
    return Published("http://ufldl.stanford.edu/housenumbers/", files, _DIGITS, parts=parts)


def _imagenette(name: str, md5: str) -> Published:
    url = "https://s3.amazonaws.com/fast-ai-imageclas/"
    return Published(url, ((f"{name}.tgz", md5),), named=_IMAGENETTE, depth=2)


def _flowers(files: Mapping[str, Path]) -> dict[bytes, str]:
    labels = matlab_numbers(files["imagelabels.mat"], "labels").astype(int)
    names = _FLOWERS.split("|")
    return {f"jpg/image_{at:05d}.jpg".encode(): names[label - 1] for at, label in enumerate(labels.tolist(), 1)}


def _pets(files: Mapping[str, Path]) -> dict[bytes, str]:
    """Breeds by the names of the images in both lists; the archive holds some forty that no list names."""
    lists = [numbers(files["annotations.tar.gz"], f"annotations/{name}.txt") for name in ("test", "trainval")]
    names = [line.split()[0] for text in lists for line in text.tobytes().decode().splitlines()]
    breeds = (" ".join(word.title() for word in name.rpartition("_")[0].split("_")) for name in names)
    return {f"images/{name}.jpg".encode(): breed for name, breed in zip(names, breeds, strict=True)}


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
    "QMNIST": Published(
        "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
        (("qmnist-train-images-idx3-ubyte.gz", "ed72d4157d28c017586c42bc6afe6370"),
         ("qmnist-train-labels-idx2-int.gz", "0058f8dd561b90ffdd0f734c6a30e5e4"),
         ("qmnist-test-images-idx3-ubyte.gz", "1394631089c404de565df7b7aeaf9412"),
         ("qmnist-test-labels-idx2-int.gz", "5b5b05890a5e13444e108efe57b788aa")),
        _DIGITS,
        parts=tuple(Part(f"qmnist-{division}-images-idx3-ubyte.gz",
                         Labels(f"qmnist-{division}-labels-idx2-int.gz", skip=12, kind=">i4", columns=8),
                         (1, 28, 28), skip=16) for division in ("train", "test")),
    ),
    **{f"EMNIST-{split}": _emnist(split) for split in _EMNIST},
    "CIFAR10": _cifar(
        "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin", "batches.meta.txt",
        [*(f"data_batch_{at}" for at in range(1, 6)), "test_batch"], 1,
    ),
    "CIFAR100": _cifar(
        "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", "fine_label_names.txt",
        ["test", "train"], 2,
    ),
    "SVHN": _svhn(*_SVHN[:2]),
    "SVHN-extra": _svhn(*_SVHN),
    "STL10": _stl10(("test", "train"), labelled=True),
    "STL10-unlabeled": _stl10(("unlabeled",), labelled=False),
    "Flowers102": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        (("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
         ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d")), tuple(_FLOWERS.split("|")), labels=_flowers,
    ),
    "OxfordIIITPet": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
        (("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
         ("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f")), labels=_pets,
    ),
    "DTD": Published(
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
        (("dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"),), depth=2,
    ),
    "Imagenette": _imagenette("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "Imagenette-320px": _imagenette("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    "Imagenette-160px": _imagenette("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
    "EuroSAT": Published(
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/",
        (("EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387"),), depth=1,
    ),
    "Food101": Published(
        "http://data.vision.ee.ethz.ch/cvl/",
        (("food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),), depth=2,
    ),
    "Country211": Published(
        "https://openaipublic.azureedge.net/clip/data/",
        (("country211.tgz", "84988d7644798601126c29e9877aab6a"),), depth=2,
    ),
}  # fmt: skip
_INSTEAD = {
    "EMNIST": f"one of {', '.join(f'EMNIST-{split}' for split in _EMNIST)}",
    "CelebA": "source manifest reads list_attr_celeba.txt beside img_align_celeba.zip",
    "ImageFolder": "source folder reads it",
    "FGVCAircraft": "torchvision states no digest; write its lists as a table for source manifest",
    "StanfordCars": "its publisher hands it out no more; write its labels as a table for source manifest",
    "GTSRB": "its PPM images are not read; save them as PNG in class folders for source folder",
    "PCAM": "its HDF5 files are not read; save them as numpy arrays for source arrays",
    "USPS": "its numbers are text; save them as numpy arrays for source arrays",
}
_IMAGES = (b".jpg", b".jpeg", b".png")


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
    files = {name: root / os.fsdecode(unit) for unit, name in chosen.items()}
    for unit, entries in units.items():
        if unit not in chosen:
            builder.refuse(as_text(unit), f"unlisted: no file that {config.dataset} needs")
        elif published.parts:
            _add_records(published, files, chosen[unit], unit, builder)
        elif chosen[unit] == published.files[0][0]:
            _add_tree(published, files, entries, builder)
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
            f"{root / os.fsdecode(unit)} has MD5 {digest} and is not the published file; {where}; {fetch} anew"
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
            builder.refuse(entry.source, "wrong type: no image" if placed else "wrong type: no image in a class folder")
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
            place = f"{number} {index}"
            builder.add(
                f"{source}/{number:06d}", unit, stamp_of(status, place), place=place,
                chain=status.st_ino * 64 % 2**62 + index,
                class_name=None if label is None else classes[(label - published.first) % len(classes)],
            )  # fmt: skip


def _labels(files: Mapping[str, Path], part: Part) -> Sequence[int | None]:
    """One for each image."""
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
    given = at = 0
    try:
        with opened(path, part.member) as file:
            stream = matlab_array(file, part.array)[0] if part.array else file
            forward(stream, part.skip)
            for row in rows:
                forward(stream, (row - at) * part.stride)
                record, at = stream.read(part.stride), row + 1
                image = np.frombuffer(record, np.uint8)[part.lead :].reshape(part.shape)
                image = image.transpose(2, 1, 0) if part.turned else image.transpose(1, 2, 0)
                yield "", image[:, :, 0] if part.shape[0] == 1 else image
                given += 1
    except BROKEN:
        pass
    for _ in range(given, len(rows)):
        yield Refused("damaged: the file cannot be read up to this image")


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what is not there yet, verify, place; exit code 0, or 1 with one sentence on stderr."""
    from stages.ingest._fetch import fetch

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
