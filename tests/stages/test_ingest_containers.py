"""Raw data in files of many images each, in their real formats: MNIST, CIFAR, numpy; and what labels beside them do."""

import errno
import gzip
import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.config import load_section
from stages.config.ingest import IngestConfig
from stages.ingest.sources import arrays, cifar, idx, webdataset
from tests.stages.ingesting import a_webdataset, ingest, labels, noise, png, same, tarred

pytestmark = pytest.mark.fast


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# ---- the MNIST family


def idx_file(values: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_idx(raw: Path, packed: bool) -> None:
    images, digits = noise(30, 28, 28), np.arange(30, dtype=np.uint8) % 10
    for name, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        for kind, values in (("images-idx3", images[part]), ("labels-idx1", digits[part])):
            content = idx_file(values)
            path = raw / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    names = tuple(f"digit {digit}" for digit in range(10))
    settings = {"name": "idx", "labels": True, "classes": names, "transposed": False}
    result = ingest(raw, source=idx.Config(**settings), fit="stretch", resolution=16)
    assert (result.counts["kept"], result.info["classes"]) == (30, list(names))
    by_source = labels(result)
    end = "-images-idx3-ubyte.gz" if packed else "-images-idx3-ubyte"
    assert all(by_source[f"train{end}/{at:06d}"] == f"digit {at % 10}" for at in range(20))
    head = f"|u1 {[28, 28]}\n".encode()
    sha = {row["source"]: row["sha256"] for row in result.rows}
    assert sha[f"t10k{end}/000003"] == hashlib.sha256(head + images[23].tobytes()).hexdigest()
    turned = ingest(raw, "turned", source=idx.Config(**(settings | {"transposed": True})), fit="stretch", resolution=16)
    source = f"train{end}/000000"
    difference = turned.images[source][..., 0].astype(int) - result.images[source][..., 0].T
    assert abs(difference).max() <= 1, "scaling rounds rows before columns"


@pytest.mark.parametrize(
    ("images", "numbers", "sentence"),
    [
        (idx_file(noise(4, 8, 8))[:-1], idx_file(np.zeros(4, np.uint8)), "does not hold them"),
        (idx_file(noise(4, 8, 8)), idx_file(np.zeros(3, np.uint8)), "holds 3 labels for 4 images"),
        (idx_file(noise(4, 8, 8)), None, "does not exist"),
        (b"\0\0\x0d\3" + bytes(12), idx_file(np.zeros(4, np.uint8)), "is not an IDX file of unsigned bytes"),
        (b"\0\0", idx_file(np.zeros(4, np.uint8)), "is not an IDX file of unsigned bytes"),
        (idx_file(noise(4, 8, 8)), idx_file(np.full(4, 9, np.uint8)), "holds label 9, but .* names 2 classes"),
    ],
)
def test_idx_files_that_are_none(raw: Path, images: bytes, numbers: bytes | None, sentence: str) -> None:
    (raw / "a-images-idx3-ubyte").write_bytes(images)
    if numbers is not None:
        (raw / "a-labels-idx1-ubyte").write_bytes(numbers)
    with pytest.raises(ValueError, match=sentence):
        ingest(raw, source=idx.Config(name="idx", labels=True, classes=("a", "b"), transposed=False))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def test_a_flipped_bit_in_a_packed_idx_file_never_changes_an_image_or_a_label(raw: Path) -> None:
    """A label or an image was taken for another one, because nobody read on to the checksum."""
    images, digits = noise(12, 160, 160), np.arange(12, dtype=np.uint8) % 3
    images[:, 8:] = 0
    settings = idx.Config(name="idx", labels=True, classes=(), transposed=False)
    sound = {"a-images-idx3-ubyte.gz": gzip.compress(idx_file(images), 1),
             "a-labels-idx1-ubyte.gz": gzip.compress(idx_file(digits), 0)}  # fmt: skip
    for name, content in sound.items():
        (raw / name).write_bytes(content)
    places, unit = [f"{at} False" for at in range(12)], b"a-images-idx3-ubyte.gz"
    assert all(isinstance(answer, tuple) for answer in idx.contents(settings, raw, unit, places, 10**6))
    for at in range(9000, len(sound["a-images-idx3-ubyte.gz"]), 499):
        (raw / "a-images-idx3-ubyte.gz").write_bytes(flipped(sound["a-images-idx3-ubyte.gz"], at))
        answers = list(idx.contents(settings, raw, unit, places, 10**6))
        assert [str(answer).split(":")[0] for answer in answers] == ["damaged"] * 12
    (raw / "a-images-idx3-ubyte.gz").write_bytes(sound["a-images-idx3-ubyte.gz"])
    labelling = sound["a-labels-idx1-ubyte.gz"]
    for spoilt in (flipped(labelling, len(labelling) - 12), gzip.compress(idx_file(digits) + b"\1")):
        (raw / "a-labels-idx1-ubyte.gz").write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"a-labels-idx1-ubyte.gz (is damaged|holds 13 labels for 12 images)"):
            ingest(raw, source=settings)
    for kept in (-4, -12):
        (raw / "a-labels-idx1-ubyte.gz").write_bytes(labelling[:kept])
        with pytest.raises(ValueError, match=r"a-labels-idx1-ubyte.gz is truncated"):
            ingest(raw, source=settings)


@pytest.mark.parametrize("reads", [0, 1], ids=["header", "labels"])
def test_a_disk_that_fails_damages_no_labels(raw: Path, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    """Its error was told as that of a checksum, or as that of a file of another kind."""
    (raw / "a-images-idx3-ubyte").write_bytes(idx_file(noise(4, 8, 8)))
    (raw / "a-labels-idx1-ubyte").write_bytes(idx_file(np.arange(4, dtype=np.uint8) % 2))

    class Failing(io.BytesIO):
        left = reads

        def read(self, size: int | None = -1) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    opened = idx._open
    monkeypatch.setattr(
        idx, "_open", lambda path: Failing(path.read_bytes()) if "labels" in path.name else opened(path)
    )
    with pytest.raises(OSError, match=r"Input/output error.*a-labels-idx1-ubyte"):
        ingest(raw, source=idx.Config(name="idx", labels=True, classes=(), transposed=False))


# ---- CIFAR


def test_cifar_10(raw: Path) -> None:
    folder_ = raw / "cifar-10-batches-bin"
    folder_.mkdir()
    (folder_ / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    images = noise(12, 32, 32, 3)
    for number in range(2):
        records = b"".join(
            bytes([at % 3]) + images[at].transpose(2, 0, 1).tobytes() for at in range(6 * number, 6 * number + 6)
        )
        (folder_ / f"data_batch_{number + 1}.bin").write_bytes(records)
    result = ingest(raw, source=cifar.Config(name="cifar", labels="fine"), resolution=32, channels=3)
    assert result.info["classes"] == ["airplane", "automobile", "bird"]
    assert same(result, "cifar-10-batches-bin/data_batch_2.bin/000001", images[7])
    assert labels(result)["cifar-10-batches-bin/data_batch_2.bin/000001"] == "automobile"
    with pytest.raises(ValueError, match="is CIFAR-10, which has no coarse labels"):
        ingest(raw, source=cifar.Config(name="cifar", labels="coarse"))
    (folder_ / "data_batch_2.bin").write_bytes(records[:-1])
    with pytest.raises(ValueError, match="must hold whole records of"):
        ingest(raw, source=cifar.Config(name="cifar", labels="fine"))


@pytest.mark.parametrize("kind", ["fine", "coarse", "none"])
def test_cifar_100(raw: Path, kind: Any) -> None:
    (raw / "fine_label_names.txt").write_text("apple\nbeaver\nclock\n")
    (raw / "coarse_label_names.txt").write_text("fruit\nother\n")
    images = noise(6, 32, 32, 3)
    records = b"".join(bytes([at % 2, at % 3]) + image.transpose(2, 0, 1).tobytes() for at, image in enumerate(images))
    (raw / "train.bin").write_bytes(records)
    result = ingest(raw, source=cifar.Config(name="cifar", labels=kind), resolution=32, channels=3)
    names = {"fine": ["apple", "beaver", "clock"], "coarse": ["fruit", "other"], "none": [""]}[kind]
    assert [row["class"] for row in result.rows] == [names[at % len(names)] for at in range(6)]
    assert same(result, "train.bin/000004", images[4])


# ---- numpy arrays


def an_array(**changes: Any) -> arrays.Config:
    return arrays.Config(**({"name": "arrays", "images": "x", "labels": "y", "classes": ()} | changes))


@pytest.mark.parametrize("form", ["npy", "npz", "compressed"])
def test_arrays(raw: Path, form: str) -> None:
    x, y = noise(20, 8, 8), np.arange(20) % 4
    if form == "npy":
        np.save(raw / "x.npy", x)
        np.save(raw / "y.npy", y)
    else:
        {"npz": np.savez, "compressed": np.savez_compressed}[form](raw / "all.npz", x=x, y=y)
    result = ingest(raw, source=an_array(classes=("a", "b", "c", "d")))
    name = "x.npy" if form == "npy" else "all.npz"
    assert labels(result) == {f"{name}/{at:06d}": "abcd"[at % 4] for at in range(20)}
    assert same(result, f"{name}/000017", x[17])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 257 * 7, 65535, 128], np.uint16), [0, 7, 255, 0]),
        (np.array([False, True, True, False]), [0, 255, 255, 0]),
        (np.array([0, 0.5, 1, 0.25], np.float32), [0, 128, 255, 64]),
        (np.array([0, 0.5, 1, 0.25], ">f8"), [0, 128, 255, 64]),
    ],
)
def test_levels_of_other_types_become_8_bit(raw: Path, values: NDArray[Any], expected: list[int]) -> None:
    picture = np.zeros((1, 8, 8), values.dtype)
    picture[0, 0, :4] = values
    np.save(raw / "x.npy", picture)
    image = ingest(raw, source=an_array(labels=None)).images["x.npy/000000"]
    assert image[0, :4, 0].tolist() == expected


def test_images_of_an_array_that_cannot_be_used(raw: Path) -> None:
    x = np.random.default_rng(0).random((5, 8, 8)).astype(np.float32)
    x[1, 0, 0], x[2, 0, 0], x[3, 0, 0] = np.nan, 2, -np.inf
    np.savez(raw / "all.npz", x=x, y=np.array(["a", "b", "a", "b", "b"]))
    result = ingest(raw, source=an_array())
    assert {name: reason.split(":")[0] for name, reason in result.refused.items()} == {
        "all.npz/000001": "not finite", "all.npz/000002": "range", "all.npz/000003": "not finite",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (np.array([{"a": 1}] * 3, object), np.zeros(3, int), "pickles.* are never loaded"),
        (noise(3, 8, 8), np.array([1, "a", None], object), "pickles.* are never loaded"),
        (noise(3, 8), np.zeros(3, int), "whole array .n, H, W. or"),
        (noise(3, 8, 8), np.zeros(2, int), "holds 2 labels of int64 for 3 images"),
        (noise(3, 8, 8), np.zeros(3), "a whole number or text per image"),
        (np.asfortranarray(noise(3, 8, 8)), np.zeros(3, int), "Fortran order"),
    ],
)
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_arrays_that_are_none(raw: Path, x: NDArray[Any], y: NDArray[Any], sentence: str, form: str) -> None:
    if form == "npy":
        np.save(raw / "x.npy", x)
        np.save(raw / "y.npy", y)
    else:
        np.savez(raw / "all.npz", x=x, y=y)
    with pytest.raises(ValueError, match=sentence):
        ingest(raw, source=an_array())


@pytest.mark.parametrize("form", ["npz", "compressed"])
def test_a_flipped_bit_in_an_archive_of_arrays_refuses_all_of_its_images(raw: Path, form: str) -> None:
    """One image was kept with another pixel, and others that had nothing were refused."""
    x, y = noise(20, 64, 64), np.arange(20) % 2
    {"npz": np.savez, "compressed": np.savez_compressed}[form](raw / "all.npz", x=x, y=y)
    content = (raw / "all.npz").read_bytes()
    (raw / "all.npz").write_bytes(flipped(content, content.index(x[3].tobytes()) + 5 if form == "npz" else 60_000))
    with pytest.raises(ValueError, match=r"20 of 20 files .* 20 x damaged"):
        ingest(raw, source=an_array())
    at = content.index(np.ascontiguousarray(y).tobytes()) if form == "npz" else content.rindex(b"PK\3\4") + 60
    (raw / "all.npz").write_bytes(flipped(content, at))
    with pytest.raises(ValueError, match=r"all.npz (cannot be read|is not a complete numpy file)"):
        ingest(raw, source=an_array())


def test_arrays_that_hold_more_than_they_say_are_refused(raw: Path) -> None:
    np.save(raw / "x.npy", noise(3, 8, 8))
    np.save(raw / "y.npy", np.arange(3) % 2)
    for name, sentence in (("x.npy", "must hold a whole array"), ("y.npy", "its header promises")):
        content = (raw / name).read_bytes()
        (raw / name).write_bytes(content + b"\0")
        with pytest.raises(ValueError, match=f"{name} .*{sentence}"):
            ingest(raw, source=an_array())
        (raw / name).write_bytes(content)


# ---- all of them


def test_settings_of_the_documented_sources_are_sound(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every source in docs/data.md is one that params.yaml may hold, and every source is documented."""
    root = request.config.rootpath
    text = (root / "docs" / "data.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:] if part.startswith("source:")]
    base = (root / "params.yaml").read_text()
    start, end = base.index("  source:"), base.index("  use:")
    names = set()
    for block in blocks:
        indented = "".join(f"  {line}\n" for line in block.splitlines())
        (tmp_path / "params.yaml").write_text(base[:start] + indented + base[end:])
        names.add(load_section(IngestConfig, tmp_path / "params.yaml", "ingest").source.name)
    assert names == {path.stem for path in (root / "stages" / "ingest" / "sources").glob("[!_]*.py")}


def idx_with(raw: Path, digits: NDArray[np.uint8]) -> idx.Config:
    (raw / "a-images-idx3-ubyte").write_bytes(idx_file(noise(8, 8, 8)))
    (raw / "a-labels-idx1-ubyte").write_bytes(idx_file(digits))
    return idx.Config(name="idx", labels=True, classes=(), transposed=False)


def arrays_with(raw: Path, digits: NDArray[np.uint8]) -> arrays.Config:
    np.save(raw / "x.npy", noise(8, 8, 8))
    np.save(raw / "y.npy", digits)
    return an_array()


def cifar_with(raw: Path, digits: NDArray[np.uint8]) -> cifar.Config:
    records = np.concatenate([np.zeros((8, 1), np.uint8), noise(8, 3072)], axis=1)
    records[:2, 0] = 0, 1
    (raw / "data_batch_1.bin").write_bytes(records.tobytes())
    (raw / "batches.meta.txt").write_text("zero\none\n" if digits[0] else "one\nzero\n")
    return cifar.Config(name="cifar", labels="fine")


def shards_with(raw: Path, digits: NDArray[np.uint8], label: str = "cls") -> webdataset.Config:
    files = {}
    for at, digit in enumerate(digits):
        files |= {f"{at}.png": png(at), f"{at}.cls": str(digit).encode(), f"{at}.json": b'{"kind": %d}' % digit}
    (raw / "s.tar").write_bytes(tarred(files))
    return a_webdataset(label=label)


def fields_with(raw: Path, digits: NDArray[np.uint8]) -> webdataset.Config:
    return shards_with(raw, digits, "kind")


@pytest.mark.parametrize("made", [idx_with, arrays_with, cifar_with, shards_with, fields_with])
def test_files_of_labels_are_inputs_too(raw: Path, made: Any) -> None:
    """A datasheet that covered the images covered them under any labels."""
    digits = np.arange(8, dtype=np.uint8) % 2
    settings = {"channels": 3} if made is cifar_with else {}
    before = ingest(raw, source=made(raw, digits), **settings)
    after = ingest(raw, source=made(raw, 1 - digits), **settings)
    assert [row["sha256"] for row in before.rows] == [row["sha256"] for row in after.rows]
    assert before.summary.inputs["raw"] != after.summary.inputs["raw"]
    assert before.summary.inputs["raw"] == ingest(raw, source=made(raw, digits), **settings).summary.inputs["raw"]


def test_labels_that_cannot_be_read_are_named(raw: Path) -> None:
    np.savez(raw / "all.npz", x=noise(3, 8, 8), y=np.array(["a", "", "b"]))
    result = ingest(raw, source=an_array())
    assert result.refused == {"all.npz/000001": "no label: an empty text"}
    content = bytearray((raw / "all.npz").read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the last member of either list: the labels
        content[content.rindex(mark) + flags] |= 1
    (raw / "all.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"all\.npz cannot be read: .*encrypted"):
        ingest(raw, source=an_array())


def test_idx_labels_without_images_are_refused_by_name(raw: Path) -> None:
    (raw / "a-images-idx3-ubyte").write_bytes(idx_file(noise(6, 28, 28)))
    (raw / "a-labels-idx1-ubyte").write_bytes(idx_file(np.arange(6, dtype=np.uint8)))
    (raw / "b-labels-idx1-ubyte").write_bytes(b"junk")
    result = ingest(raw, source=idx.Config(name="idx", labels=True, classes=(), transposed=False), resolution=8)
    assert result.refused == {"b-labels-idx1-ubyte": "no images: labels without a file of images beside them"}
