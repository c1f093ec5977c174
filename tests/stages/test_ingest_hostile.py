"""Hostile input: no crash, no traceback, no file outside the output, no runaway memory, everything accounted for."""

import gzip
import io
import os
import random
import resource
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stages.common.files import tree_digests
from stages.ingest.sources import arrays, cifar, folder, idx, manifest, parquet, webdataset
from tests.stages import hostile
from tests.stages.ingesting import SHEET, encoded, from_scratch, ingest, noise, png, settings_file

NONE = folder.Config(name="folder", labels="none", groups="none")
_PEAK = 2**30  # bytes; a decoding process may take 2 GiB more than it starts with, and these files need none of it
# A child's peak counts what its parent held when it was started: measure from a small parent, not from this process.
_MEASURED = """
import pathlib, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "zz good.png").write_bytes(png(1, 16))
    return tmp_path / "raw"


def torture(raw: Path, count: int, seed: int) -> None:
    """Run the command on damaged files, and look at everything that it may have done."""
    for name, content in hostile.corpus(count, seed):
        (raw / name).write_bytes(content)
    (raw.parent / "sheet.yaml").write_text(SHEET)
    settings_file(raw.parent / "params.yaml", source=NONE, channels=3, processes=2, max_pixels=2_000_000)
    before = tree_digests(raw)
    command = [sys.executable, "-m", "stages.ingest", "--raw", str(raw), "--datasheet", str(raw.parent / "sheet.yaml"),
               "--params", str(raw.parent / "params.yaml"), "--out", str(raw.parent / "out")]  # fmt: skip
    environment = os.environ | {"GANOPS_STATE": str(raw.parent / "state"), "TMPDIR": str(raw.parent / "tmp")}
    (raw.parent / "tmp").mkdir()
    measured = [sys.executable, "-S", "-c", _MEASURED, str(raw.parent / "tmp" / "peak"), *command]
    answer = subprocess.run(measured, env=environment, capture_output=True, text=True, check=False)
    peak = int((raw.parent / "tmp" / "peak").read_text()) * 1024
    (raw.parent / "tmp" / "peak").unlink()
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "Traceback" not in answer.stderr and "Warning" not in answer.stderr, answer.stderr[-2000:]
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr[-2000:]
    assert {path.name for path in raw.parent.iterdir()} == {"raw", "sheet.yaml", "params.yaml", "out", "state", "tmp"}
    assert tree_digests(raw) == before and not any((raw.parent / "tmp").iterdir())
    assert peak < _PEAK
    listed = ingest(raw, "out again", source=NONE, channels=3, max_pixels=2_000_000)  # the same, read back
    assert listed.counts["read"] == count + 1
    named = (
        {row["source"] for row in listed.rows} | listed.refused.keys() | {a for a, *_ in listed.table("duplicates.csv")}
    )
    assert named == {path.name for path in raw.iterdir()}
    assert all(
        reason.split(":")[0] and reason.isprintable() and "0x" not in reason for reason in listed.refused.values()
    )
    hashes = {source: sha for source, _, sha, _ in listed.table("quarantine.csv")}
    assert all(len(sha) == 64 for sha in hashes.values()), "each refused file was read, and its hash is there"


def test_hundreds_of_damaged_files(raw: Path) -> None:
    torture(raw, 400, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_thousands_of_damaged_files(raw: Path, seed: int) -> None:
    torture(raw, 1500, seed)


@pytest.mark.parametrize("name", sorted(hostile.seeds()))
def test_the_corpus_starts_from_files_that_are_sound_or_refused_for_what_they_are(raw: Path, name: str) -> None:
    (raw / name).write_bytes(hostile.seeds()[name])
    refused = ingest(raw, source=NONE, channels=3).refused
    assert {reason.split(":")[0] for reason in refused.values()} <= {"animated", "profile"}
    assert (name in refused) == (name in ("moving.png", "profile.jpg"))


SOURCES: dict[str, Any] = {
    "a-images-idx3-ubyte": idx.Config(name="idx", labels=False, classes=(), transposed=False),
    "a-images-idx3-ubyte.gz": idx.Config(name="idx", labels=False, classes=(), transposed=False),
    "data_batch_1.bin": cifar.Config(name="cifar", labels="none"),
    "x.npy": arrays.Config(name="arrays", images="x", labels=None, classes=()),
    "all.npz": arrays.Config(name="arrays", images="x", labels="y", classes=()),
    "cells.parquet": parquet.Config(name="parquet", image="image", label="label", group=None, attributes=()),
    "shard.tar": webdataset.Config(
        name="webdataset", label="cls", group=None, attributes=("k",), classes=("a", "b"), image=()
    ),
    "list.csv": manifest.Config(
        name="manifest", file="list.csv", images=".", path="file", label="kind", group=None, attributes=(),
        unlisted="ignore",
    ),
    "a.zip": NONE,
    "a.tar": NONE,
    "a.tar.gz": NONE,
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_files_of_every_other_source(tmp_path: Path, name: str) -> None:
    """A store whose counts add up, or one sentence; nothing else, thirty times."""
    dice, sound = random.Random(name), (hostile.tables() | hostile.archives())[name]
    ends = {"store": 0, "sentence": 0}
    for number in range(30):
        raw = tmp_path / str(number) / "raw"
        raw.mkdir(parents=True)
        if name == "list.csv":
            for at in range(6):
                (raw / f"{at}.png").write_bytes(png(at))
        (raw / name).write_bytes(hostile.mutated(sound, dice) if number else sound)
        try:
            ingest(raw, source=SOURCES[name], channels=3)
            ends["store"] += 1
        except ValueError as refusal:
            assert len(str(refusal).splitlines()) == 1 and " at 0x" not in str(refusal)
            ends["sentence"] += 1
        assert {path.name for path in raw.parent.iterdir()} <= {"raw", "sheet.yaml", "store"}
        assert {path.name for path in raw.iterdir()} <= {name, *(f"{at}.png" for at in range(6))}
    assert ends["store"] >= 1 and sum(ends.values()) == 30


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_file_that_lies(raw: Path, tmp_path: Path, packed: bool) -> None:
    content = hostile.lying_tar(random.Random(packed))
    name = "a.tar.gz" if packed else "a.tar"
    (raw / name).write_bytes(gzip.compress(content) if packed else content)
    result = ingest(raw, source=NONE)
    reasons = {source.removeprefix(f"{name}/"): reason.split(":")[0] for source, reason in result.refused.items()}
    assert reasons == {
        "../out.png": "name", "/abs.png": "name", "a/../../up.png": "name", "C:\\x.png": "name", "twice.png": "twice",
        "sym.png": "link", "hard.png": "link", "pipe.png": "not a file", "disk.png": "not a file",
        "tty.png": "not a file",
    }  # fmt: skip
    assert result.counts["refused"] == 11 and result.counts["kept"] == 2 and result.counts["duplicates"] == 3
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "sheet.yaml", "store"}


def test_a_zip_file_that_lies(raw: Path, tmp_path: Path) -> None:
    (raw / "a.zip").write_bytes(hostile.lying_zip())
    result = ingest(raw, source=NONE)
    reasons = {source.removeprefix("a.zip/"): reason.split(":")[0] for source, reason in result.refused.items()}
    assert reasons == {
        "../out.png": "name", "/abs.png": "name", "a/../../up.png": "name", "C:\\x.png": "name", "twice.png": "twice",
        "sym.png": "link", "squeezed.png": "compression",
    }  # fmt: skip
    assert result.counts["kept"] == 2 and {path.name for path in tmp_path.iterdir()} == {"raw", "sheet.yaml", "store"}


def zip_of(content: bytes, name: str = "x.png") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(size: int, name: str = "x.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(size) + bytes(1024 + -size % 512)


def pax_bomb(claim: int) -> bytes:
    """A tar file whose extended header claims to be huge."""
    info = tarfile.TarInfo("x.png")
    info.type, info.size = tarfile.XHDTYPE, min(claim, 8**11 - 1)
    return info.tobuf(tarfile.USTAR_FORMAT) + b"12 path=abc\n" + bytes(10**6)


BOMBS = {
    "ratio.zip": (lambda: zip_of(bytes(10**8)), "bomb"),
    "nested.zip": (lambda: zip_of(zip_of(bytes(10**6), "inner.png"), "y.zip"), "wrong type"),
    "ratio.tar.gz": (lambda: gzip.compress(tar_of(10**8), 9), "bomb"),
    "ratio.tgz": (lambda: gzip.compress(b"".join(tar_of(512) for _ in range(100)) + bytes(10**8), 9), ""),
    "headers.tar": (lambda: pax_bomb(10**12), "damaged"),
    "headers.tar.gz": (lambda: gzip.compress(pax_bomb(2**33)), "damaged"),
    "crowd.zip": (lambda: hostile.crowded_zip(20_000), "empty"),
    "list.zip": (lambda: hostile.crowded_zip(600_000), "too large: the list of its members"),
    "not.zip": (lambda: b"no archive", "wrong type"),
    "not.tar": (lambda: b"no archive" * 1000, "damaged"),
    "not.tgz": (lambda: b"no archive", "damaged"),
    "empty.zip": (lambda: b"", "wrong type"),
    "empty.tar": (lambda: b"", "damaged"),
    "cut.tar": (lambda: tar_of(5000)[:3000], "damaged"),
    "cut.tar.gz": (lambda: gzip.compress(noise(20_000).tobytes())[:5000], "damaged"),
    "cut.zip": (lambda: zip_of(noise(20_000).tobytes())[:5000], "wrong type"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_archives_that_would_exhaust_or_mislead(raw: Path, name: str) -> None:
    make, reason = BOMBS[name]
    (raw / name).write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = ingest(raw, source=NONE, max_refused_share=0.999999)
    assert result.counts["kept"] == 1
    assert not reason or {text.startswith(reason) for text in result.refused.values()} == {True}
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300 * 2**20


def test_metadata_bombs_and_garbage(raw: Path) -> None:
    """Compressed text and profiles that unpack to a gigabyte, and EXIF that is none."""
    import struct

    big = zlib.compress(bytes(2**27), 9)

    def with_chunk(kind: bytes, body: bytes) -> bytes:
        content = encoded(noise(16, 16, 3))
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        return content[:33] + chunk + content[33:]

    (raw / "text.png").write_bytes(with_chunk(b"zTXt", b"key\0\0" + big))
    (raw / "profile.png").write_bytes(with_chunk(b"iCCP", b"key\0\0" + big))
    (raw / "exif.png").write_bytes(with_chunk(b"eXIf", b"MM\0*" + b"\xff" * 200))
    (raw / "exif.jpg").write_bytes(encoded(noise(16, 16, 3), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = ingest(raw, source=NONE, channels=3)
    assert result.counts["read"] == 5 and "zz good.png" not in result.refused
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300 * 2**20


def test_arrays_that_promise_more_than_they_hold(raw: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**4, 10**4)}
    )
    for name in ("x.npy", "x.npz"):
        content = buffer.getvalue() if name == "x.npy" else zip_of(buffer.getvalue() + bytes(10**6), "x.npy")
        (raw / name).write_bytes(content)
        with pytest.raises(ValueError, match="must hold a whole array"):
            ingest(raw, source=arrays.Config(name="arrays", images="x", labels=None, classes=()))
        (raw / name).unlink()


def npz(path: Path, **arrays_: tuple[tuple[int, ...], bytes]) -> None:
    """An archive of uint8 arrays of these shapes, and of these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, content) in arrays_.items():
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", head.getvalue() + content)


def test_more_labels_than_images_are_not_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a megabyte took two gigabytes: its billion labels were read before they were counted."""
    (raw / "zz good.png").unlink()
    npz(raw / "a.npz", x=((4, 8, 8), noise(4, 8, 8).tobytes()), y=((10**7,), bytes(10**7)))
    (raw / "a-images-idx3-ubyte").write_bytes(b"\0\0\x08\3" + struct.pack(">3I", 4, 8, 8) + bytes(256))
    packed = gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 10**7) + bytes(10**7))
    (raw / "a-labels-idx1-ubyte.gz").write_bytes(packed)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds 10000000 labels of uint8 for 4 images"):
            ingest(raw, source=arrays.Config(name="arrays", images="x", labels="y", classes=()))
        with pytest.raises(ValueError, match="holds 10000000 labels for 4 images"):
            ingest(raw, source=idx.Config(name="idx", labels=True, classes=(), transposed=False))
        assert tracemalloc.get_traced_memory()[1] < 5 * 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["arrays", "idx", "parquet"])
def test_more_images_than_bytes_are_not_listed(raw: Path, kind: str) -> None:
    """A file of 20 KB that claimed millions of images kept the main process for minutes."""
    (raw / "zz good.png").unlink()
    count = 1_000_001
    if kind == "arrays":
        npz(raw / "a.npz", x=((count, 1, 1), bytes(count)))
        source: Any = arrays.Config(name="arrays", images="x", labels=None, classes=())
    elif kind == "idx":
        content = gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", count, 1, 1) + bytes(count))
        (raw / "a-images-idx3-ubyte.gz").write_bytes(content)
        source = idx.Config(name="idx", labels=False, classes=(), transposed=False)
    else:
        pq.write_table(pa.table({"image": pa.nulls(count, pa.binary())}), raw / "a.parquet")
        source = parquet.Config(name="parquet", image="image", label=None, group=None, attributes=())
    with pytest.raises(ValueError, match="claims to hold 1,000,001 images, more than it has bytes"):
        ingest(raw, source=source)


def test_a_disk_that_is_full_in_the_middle_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for at in range(200):
        (raw / f"{at:03d}.png").write_bytes(png(at, 32))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    changes = {"source": NONE, "resolution": 32, "shard_images": 200, "processes": 1}
    settings_file(tmp_path / "params.yaml", **changes)
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d)); runpy.run_module('stages.ingest', run_name='__main__', alter_sys=True)"  # noqa: E501
    inputs = ["--raw", str(raw), "--datasheet", str(tmp_path / "sheet.yaml")]
    options = [*inputs, "--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "out")]
    environment = os.environ | {"GANOPS_STATE": str(tmp_path / "state")}
    for size in (1000, 100_000, 180_000):  # of one file, in bytes
        program = [sys.executable, "-c", limited % (size, size), *options]
        answer = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 1 and "File too large" in answer.stderr, answer.stderr
        assert "Traceback" not in answer.stderr and not (tmp_path / "out").exists()
    program = [sys.executable, "-m", "stages.ingest", *options]
    assert subprocess.run(program, env=environment, check=False, capture_output=True).returncode == 0
    assert tree_digests(tmp_path / "out") == from_scratch(raw, monkeypatch, **changes)
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["ingest"]["processes"] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_folder_stops_with_its_name(raw: Path) -> None:
    (raw / "closed").mkdir()
    (raw / "closed").chmod(0)
    with pytest.raises(PermissionError, match="closed"):
        ingest(raw, source=NONE)


def test_folders_deeper_than_python_goes_and_than_a_path_may_be(raw: Path) -> None:
    good, handle, depth = png(1), os.open(raw, os.O_RDONLY), 3000
    for level in range(depth):
        if level in (0, 1500):  # the second below a path of 3,000 bytes and more
            with open("x.png", "wb", opener=lambda name, flags, at=handle: os.open(name, flags, dir_fd=at)) as file:
                file.write(good if level else png(2))
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    try:
        result = ingest(raw)
        assert sorted(row["source"].count("/") for row in result.rows) == [0, 0, 1500]
        ((source, reason),) = result.refused.items()
        assert 1900 < source.count("/") < 2048 and reason.startswith("name: the whole path is longer")
    finally:
        subprocess.run(["rm", "-rf", str(raw)], check=True)  # Python's own removal goes no deeper either
