"""Raw data as others hand them out: names, folders and members that are not those of the format's own description."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from stages.ingest.sources import arrays, cifar, idx, parquet, webdataset
from tests.stages.ingesting import encoded, ingest, labels, noise, png, same, tarred, zipped

pytestmark = pytest.mark.fast


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# ---- the MNIST family


IDX = idx.Config(name="idx", labels=True, classes=(), transposed=False)


def idx_file(values: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def idx_pair(raw: Path, images: str, digits: str) -> None:
    for name, values in ((images, noise(4, 8, 8)), (digits, np.arange(4, dtype=np.uint8) % 2)):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(idx_file(values))


@pytest.mark.parametrize("end", ["images-idx3-ubyte", "images.idx3-ubyte"])
@pytest.mark.parametrize("other", ["labels-idx1-ubyte", "labels.idx1-ubyte"])
@pytest.mark.parametrize("folder", ["", "own/"])
def test_idx_files_as_kaggle_names_them(raw: Path, end: str, other: str, folder: str) -> None:
    """A dot stands for a dash, and each file lies in a folder of its own name."""
    above = {name: f"train-{name}/" if folder else "" for name in (end, other)}
    idx_pair(raw, f"{above[end]}train-{end}", f"{above[other]}train-{other}")
    result = ingest(raw, source=IDX)
    assert list(labels(result).values()) == ["0", "1", "0", "1"] and not result.refused


def test_the_name_of_a_folder_makes_no_idx_file(raw: Path) -> None:
    """A text in a folder of that name stopped the run, and labels in an archive were passed over."""
    idx_pair(raw, "a-images-idx3-ubyte", "a-labels-idx1-ubyte")
    (raw / "x-images-idx3-ubyte").mkdir()
    (raw / "x-images-idx3-ubyte" / "README.txt").write_text("hello")
    (raw / "b.zip").write_bytes(zipped({"b-labels-idx1-ubyte": idx_file(np.zeros(4, np.uint8))}))
    wrong = "wrong type: its name is not that of an IDX file"
    refused: dict[str, Any] = ingest(raw, source=IDX).refused
    assert refused == {"x-images-idx3-ubyte/README.txt": wrong, "b.zip/b-labels-idx1-ubyte": wrong}


def test_labels_beside_the_raw_folder_are_not_taken(tmp_path: Path) -> None:
    idx_pair(tmp_path, "a-images-idx3-ubyte/a-images-idx3-ubyte", "a-labels-idx1-ubyte/a-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="a-labels-idx1-ubyte does not exist; put it beside the images"):
        ingest(tmp_path / "a-images-idx3-ubyte", source=IDX)


# ---- CIFAR, Parquet, arrays


def test_an_archive_of_cifar_is_refused_with_the_source_that_reads_it(raw: Path) -> None:
    (raw / "cifar-10-binary.tar.gz").write_bytes(tarred({"data_batch_1.bin": bytes(3073)}, "w:gz"))
    with pytest.raises(ValueError, match=r"lies in an archive; unpack it, or use source torchvision"):
        ingest(raw, source=cifar.Config(name="cifar", labels="fine"), channels=3, resolution=32)


def test_names_of_cifar_that_are_no_text_are_named(raw: Path) -> None:
    (raw / "data_batch_1.bin").write_bytes(bytes(3073))
    (raw / "batches.meta.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"batches\.meta\.txt is not UTF-8 text"):
        ingest(raw, source=cifar.Config(name="cifar", labels="fine"), channels=3, resolution=32)


def test_the_ending_of_a_parquet_file_in_capitals(raw: Path) -> None:
    pq.write_table(pa.table({"image": [png(1), png(2)]}), raw / "A.PARQUET")
    source = parquet.Config(name="parquet", image="image", label=None, group=None, attributes=())
    assert ingest(raw, source=source).counts["kept"] == 2


@pytest.mark.parametrize("kind", [">u2", "<u2"])
def test_arrays_of_16_bits_in_either_byte_order(raw: Path, kind: str) -> None:
    """Those of the other order than the machine's were refused as no uint16."""
    pixels = noise(3, 8, 8)
    np.save(raw / "x.npy", (pixels.astype(np.uint16) * 257).astype(kind))
    result = ingest(raw, source=arrays.Config(name="arrays", images="x", labels=None, classes=()))
    assert all(same(result, f"x.npy/{at:06d}", pixels[at]) for at in range(3))


# ---- kinds of files


@pytest.mark.parametrize(
    "pixels",
    [noise(8, 8, 3), noise(8, 8), (noise(8, 8).astype(int) * 257).astype("<u2")],
    ids=["RGB", "grey", "16 bits"],
)
def test_bigtiff_is_read_as_tiff_is(raw: Path, pixels: NDArray[Any]) -> None:
    big = encoded(pixels, "TIFF", big_tiff=True)
    assert big.startswith(b"II+\0")
    (raw / "a.tif").write_bytes(big)
    expected = (pixels // 257 if pixels.itemsize == 2 else pixels).astype(np.uint8)
    assert same(ingest(raw, channels=3 if pixels.ndim == 3 else 1), "a.tif", expected)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0 ftypavif" + bytes(40), "AVIF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
        (encoded((noise(8, 8).astype(int) * 257).astype(">u2"), "TIFF", big_tiff=True), "big-endian BigTIFF"),
    ],
    ids=["AVIF", "HEIC", "JP2", "J2K", "BigTIFF"],
)
def test_kinds_of_images_that_are_not_read_are_named(raw: Path, content: bytes, kind: str) -> None:
    (raw / "good.png").write_bytes(png(1))
    (raw / "photo.jpg").write_bytes(content)
    reason = f"wrong type: the content is {kind}, not PNG, JPEG, WEBP, GIF, BMP or TIFF; convert it to PNG"
    assert ingest(raw).refused == {"photo.jpg": reason}


# ---- WebDataset


@pytest.mark.parametrize(("image", "taken"), [(("png",), "a.png"), ((".INPUT.PNG",), "a.input.png")])
def test_the_image_of_a_webdataset_sample_is_chosen_by_its_ending(
    raw: Path, image: tuple[str, ...], taken: str
) -> None:
    """A mask or a second picture beside it refused the sample, and `input.png` was no image."""
    files = {"a.jpg": b"x", "a.png": png(1), "a.input.png": png(2), "a.txt": b"a caption", "b.jpg": b"x"}
    (raw / "s.tar").write_bytes(tarred(files))
    settings = {"name": "webdataset", "label": None, "group": None, "attributes": (), "classes": ()}
    result = ingest(raw, source=webdataset.Config(**settings, image=image))
    assert [row["source"] for row in result.rows] == [f"s.tar/{taken}"]
    assert result.refused == {"s.tar/b.jpg": "no image: a sample has one member of a kind that is read"}
    with pytest.raises(ValueError, match="several images"):
        ingest(raw, source=webdataset.Config(**settings, image=()))
