"""torchvision's own classes read the same files: images and classes are the same, image by image."""

import gzip
import hashlib
import io
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from torchvision import datasets
from torchvision.datasets.utils import extract_archive

from stages.ingest.sources import torchvision as source
from tests.stages.ingesting import encoded, ingest, labels, noise, tarred, zipped

COUNT = 24


def idx(values: np.ndarray) -> bytes:
    kind = 8 if values.dtype == np.uint8 else 12
    head = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


def counted(first: int, classes: int, count: int = COUNT) -> np.ndarray:
    return (np.arange(count) % classes + first).astype(np.uint8)


def mat(compressed: bool, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"before": np.arange(7.0), **arrays}, do_compression=compressed)
    return buffer.getvalue()


def jpegs(names: Sequence[str]) -> dict[str, bytes]:
    return {name: encoded(noise(16, 16, 3, seed=at), "JPEG") for at, name in enumerate(names)}


def qmnist() -> list[bytes]:
    said = [(noise(COUNT, 8, seed=at).astype(int) * 1000).astype(">i4") for at in (1, 2)]
    for rows in said:
        rows[:, 0] = counted(0, 10)
    images = [noise(COUNT, 28, 28, seed=at) for at in (3, 4)]
    return [idx(images[0]), idx(said[0]), idx(images[1]), idx(said[1])]


def emnist(split: str, first: int, classes: int) -> list[bytes]:
    files = {}
    for at, part in enumerate(("train", "test")):
        files[f"gzip/emnist-{split}-{part}-images-idx3-ubyte.gz"] = idx(noise(2 * COUNT, 28, 28, seed=at))
        files[f"gzip/emnist-{split}-{part}-labels-idx1-ubyte.gz"] = idx(counted(first, classes, 2 * COUNT))
        files[f"gzip/emnist-{split}-mapping.txt"] = b"0 48\n"
    return [zipped(files)]


def svhn(*seeds: int) -> list[bytes]:
    """As published: column by column, the digit 0 is 10, and compressed."""
    return [mat(seed % 2 == 0, X=noise(32, 32, 3, COUNT, seed=seed), y=counted(1, 10)[:, None]) for seed in seeds]


def stl10() -> list[bytes]:
    names = "airplane bird car cat deer dog horse monkey ship truck"
    files = {"class_names.txt": names.replace(" ", "\n").encode() + b"\n", "fold_indices.txt": b"0 1\n" * 10}
    for at, part in enumerate(("test", "train", "unlabeled")):
        files[f"{part}_X.bin"] = noise(COUNT, 3, 96, 96, seed=at).tobytes()
        files |= {f"{part}_y.bin": counted(1, 10).tobytes()} if part != "unlabeled" else {}
    return [tarred({f"stl10_binary/{name}": content for name, content in files.items()}, "w:gz")]


def flowers() -> list[bytes]:
    images = jpegs([f"jpg/image_{at:05d}.jpg" for at in range(1, 103)])
    return [tarred(images, "w:gz"), mat(True, labels=np.random.default_rng(0).permutation(102)[None].astype("u1") + 1)]


def pets() -> list[bytes]:
    breeds = ["Abyssinian", "american_bulldog", "Egyptian_Mau", "wheaten_terrier"]
    names = [f"{breed}_{at}" for breed in breeds for at in range(1, 7)]
    lines = [f"{name} {at // 6 + 1} {1 + (at // 6) % 2} 1" for at, name in enumerate(names)]
    images = jpegs([f"images/{name}.jpg" for name in [*names, "Abyssinian_999"]]) | {"images/Abyssinian_1.mat": b"mat"}
    lists = {"trainval": lines[::2], "test": lines[1::2], "list": ["#Image CLASS-ID SPECIES BREED ID", *lines]}
    about = {f"annotations/{name}.txt": "\n".join(said).encode() + b"\n" for name, said in lists.items()}
    about |= {"annotations/trimaps/Abyssinian_1.png": encoded(noise(16, 16))}
    return [tarred(images, "w:gz"), tarred(about, "w:gz")]


def textures() -> list[bytes]:
    names = [f"{kind}/{kind}_{at:04d}.jpg" for kind in ("banded", "zigzagged") for at in range(9)]
    lists = {f"dtd/labels/{part}1.txt": "\n".join(names[at::3]).encode() for at, part in enumerate(SPLITS)}
    return [tarred(jpegs([f"dtd/images/{name}" for name in names]) | lists, "w:gz")]


SPLITS = ("train", "val", "test")
BOTH = ({"train": True}, {"train": False})


def theirs(classes: Sequence[str], parts: Sequence[Any], turned: bool) -> list[tuple[str, bytes]]:
    """(class, pixels) of all images of a data set's parts, in order."""
    found = [(np.asarray(image), int(label)) for part in parts for image, label in part]
    return sorted(
        (classes[label] if label >= 0 else "", (image.T if turned else image).tobytes()) for image, label in found
    )


CASES: dict[str, tuple[list[bytes], str, str, tuple[dict[str, Any], ...], int, int]] = {
    # files, torchvision's class, folder of its files, its parts, resolution, channels
    "QMNIST": (qmnist(), "QMNIST", "QMNIST/raw", BOTH, 28, 1),
    "EMNIST-letters": (emnist("letters", 1, 26), "EMNIST", "EMNIST/raw", BOTH, 28, 1),
    "EMNIST-balanced": (emnist("balanced", 0, 47), "EMNIST", "EMNIST/raw", BOTH, 28, 1),
    "SVHN": (svhn(1, 2), "SVHN", ".", ({"split": "train"}, {"split": "test"}), 32, 3),
    "SVHN-extra": (svhn(1, 2, 3), "SVHN", ".", tuple({"split": s} for s in ("train", "test", "extra")), 32, 3),
    "STL10": (stl10(), "STL10", ".", ({"split": "train"}, {"split": "test"}), 96, 3),
    "STL10-unlabeled": (stl10(), "STL10", ".", ({"split": "unlabeled"},), 96, 3),
    "Flowers102": (flowers(), "Flowers102", "flowers-102", tuple({"split": split} for split in SPLITS), 16, 3),
    "OxfordIIITPet": (pets(), "OxfordIIITPet", "oxford-iiit-pet", ({"split": "trainval"}, {"split": "test"}), 16, 3),
    "DTD": (textures(), "DTD", "dtd", tuple({"split": split} for split in SPLITS), 16, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_images_and_classes_are_those_of_torchvision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, kind, folder, parts, resolution, channels = CASES[name]
    raw, root = tmp_path / "raw", tmp_path / "torchvision"
    raw.mkdir()
    (root / folder).mkdir(parents=True)
    published = source.DATASETS[name].files
    digests = tuple(
        (file, hashlib.md5(content).hexdigest()) for (file, _), content in zip(published, contents, strict=True)
    )
    monkeypatch.setitem(source.DATASETS, name, replace(source.DATASETS[name], files=digests))
    for (file, _), content in zip(published, contents, strict=True):
        (raw / file).write_bytes(content)
        (root / folder / file).write_bytes(content)
        if not file.endswith(".mat"):
            extract_archive(str(root / folder / file), str(root / folder))
    for packed in (root / folder).glob("gzip/*.gz"):  # as torchvision's download does
        extract_archive(str(packed), str(root / folder))
    if name == "Flowers102":
        ids = {part: np.arange(102)[at::3] + 1 for at, part in enumerate(("trnid", "valid", "tstid"))}
        (root / folder / "setid.mat").write_bytes(mat(False, **ids))
    module = __import__(f"torchvision.datasets.{getattr(datasets, kind).__module__.rpartition('.')[2]}", fromlist=["x"])
    if hasattr(module, "check_integrity"):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())

    chosen = {"split": name.partition("-")[2]} if kind == "EMNIST" else {}
    sets = [getattr(datasets, kind)(root, **chosen, **part, download=False) for part in parts]
    classes = getattr(sets[0], "classes", [str(digit) for digit in range(10)])
    words = [word.partition(" - ")[0] for word in classes]
    result = ingest(
        raw, source=source.Config(name="torchvision", dataset=name), resolution=resolution, channels=channels
    )
    said, images = labels(result), result.images
    # torchvision leaves EMNIST's images as they lie, on their side.
    ours = sorted((said[at] or "", images[at].tobytes()) for at in images)
    assert ours == theirs(words, sets, kind == "EMNIST") and len(ours) == len({pixels for _, pixels in ours}) >= 18
    assert result.info["classes"] == [word for word in words if word != "N/A"] or name == "STL10-unlabeled"
    not_images = {f"images.tar.gz/images/{file}" for file in ("Abyssinian_1.mat", "Abyssinian_999.jpg")}
    lists = {f"dtd-r1.0.1.tar.gz/dtd/labels/{split}1.txt" for split in SPLITS}
    assert result.refused.keys() == {"OxfordIIITPet": not_images, "DTD": lists}.get(name, set())


def test_two_data_sets_of_one_file_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was read before from the same archive, images and labels are those of the one that is asked for."""
    (content,), file = stl10(), source.DATASETS["STL10"].files[0][0]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / file).write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    time.sleep(0.2)  # a file that has just changed is not found again by its time

    def read(name: str) -> dict[str, bytes]:
        monkeypatch.setitem(source.DATASETS, name, replace(source.DATASETS[name], files=((file, digest),)))
        chosen = source.Config(name="torchvision", dataset=name)
        return {at: image.tobytes() for at, image in
                ingest(tmp_path / "raw", source=chosen, resolution=96, channels=3).images.items()}  # fmt: skip

    read("STL10-unlabeled")
    after = read("STL10")
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "another state"))
    assert read("STL10") == after
