"""torchvision's data sets by name: files in their published form, torchvision's own words, and a real local server."""

import functools
import gzip
import hashlib
import http.server
import inspect
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.ingest.sources import torchvision as source
from tests.stages.ingesting import encoded, ingest, labels, noise, same, tarred, zipped

SHAPE = (28, 28)


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


def jpegs(*names: str) -> dict[str, bytes]:
    return {name: encoded(noise(*SHAPE, 3, seed=at), "JPEG") for at, name in enumerate(names)}


def cifar(count: int, seed: int, heads: int, classes: int) -> bytes:
    rows = noise(count, heads + 3072, seed=seed)
    rows[:, :heads] %= classes
    return rows.tobytes()


def published(name: str) -> dict[str, bytes]:
    """Small files in the form of the real ones."""
    if name in ("MNIST", "FashionMNIST", "KMNIST"):
        digits = np.arange(20, dtype=np.uint8) % 10
        contents = [idx(noise(20, *SHAPE, seed=1)), idx(digits), idx(noise(10, *SHAPE, seed=2)), idx(digits[:10])]
    elif name == "CIFAR10":
        files = {f"cifar-10-batches-bin/data_batch_{at}.bin": cifar(6, at, 1, 10) for at in range(1, 6)}
        files |= {"cifar-10-batches-bin/batches.meta.txt": "\n".join("abcdefghij").encode() + b"\n\n"}
        contents = [tarred(files | {"cifar-10-batches-bin/test_batch.bin": cifar(4, 9, 1, 10)}, "w:gz")]
    elif name == "CIFAR100":
        names = "\n".join(f"fine {at}".replace(" ", "_") for at in range(100)).encode()
        files = {"cifar-100-binary/fine_label_names.txt": names, "cifar-100-binary/coarse_label_names.txt": names[:20]}
        files |= {"cifar-100-binary/train.bin": cifar(400, 1, 2, 100), "cifar-100-binary/test.bin": cifar(4, 2, 2, 100)}
        contents = [tarred(files, "w:gz")]
    elif name == "EuroSAT":
        contents = [zipped(jpegs(*(f"2750/{kind}/{kind}_{at}.jpg" for kind in ("Forest", "River") for at in range(3))))]
    else:
        top = source.DATASETS[name].files[0][0].partition(".")[0]
        kinds = ("n01440764", "n03888257") if name.startswith("Imagenette") else ("apple_pie", "waffles")
        files = jpegs(*(f"{top}/{part}/{kind}/{at}.jpg" for part in ("train", "val") for kind in kinds for at in "12"))
        contents = [tarred(files | {f"{top}/license.txt": b"text"}, "w:gz")]
    return {file: content for (file, _), content in zip(source.DATASETS[name].files, contents, strict=True)}


@pytest.fixture
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a data set, whose digests the table then states."""
    contents = published(request.param)
    digests = tuple((name, hashlib.md5(content).hexdigest()) for name, content in contents.items())
    monkeypatch.setitem(source.DATASETS, request.param, replace(source.DATASETS[request.param], files=digests))
    return contents


def settings(dataset: str, **changes: Any) -> dict[str, Any]:
    return {"source": source.Config(name="torchvision", dataset=dataset), "channels": 3, "resolution": 16} | changes


def place(raw: Path, files: dict[str, bytes]) -> Path:
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


@pytest.mark.parametrize(("files", "name"), [(name, name) for name in ("MNIST", "KMNIST")], indirect=["files"])
def test_idx_by_name(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    raw = place(tmp_path / "raw" / name / "raw", files).parents[1]  # as torchvision lays them out
    (raw / name / "raw" / "train-images-idx3-ubyte").write_bytes(b"unpacked")
    result = ingest(raw, **settings(name, resolution=28, channels=1))
    assert result.counts["kept"] == 30 and list(result.refused.values()) == [f"unlisted: not a file that {name} needs"]
    pixels = noise(20, *SHAPE, seed=1)
    first = f"{name}/raw/train-images-idx3-ubyte.gz/000013"
    assert same(result, first, pixels[13]) and labels(result)[first] == source.DATASETS[name].classes[3]
    assert result.info["classes"] == list(source.DATASETS[name].classes)


@pytest.mark.parametrize("files", ["MNIST"], indirect=True)
def test_the_name_of_a_folder_says_nothing_about_the_files_in_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    raw = place(tmp_path / "raw" / "my-images-set", files).parent
    result = ingest(raw, **settings("MNIST", resolution=28, channels=1))
    assert result.counts["kept"] == 30 and not result.refused


@pytest.mark.parametrize(("files", "name"), [(name, name) for name in ("CIFAR10", "CIFAR100")], indirect=["files"])
def test_cifar_by_name_from_the_archive_as_it_is(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    raw = place(tmp_path / "raw", files)
    result = ingest(raw, **settings(name, resolution=32, processes=1))
    heads, member, seed = (1, "cifar-10-batches-bin/data_batch_3.bin", 3) if name == "CIFAR10" else (
        2, "cifar-100-binary/train.bin", 1)  # fmt: skip
    rows = np.frombuffer(cifar(6 if heads == 1 else 400, seed, heads, 10 if heads == 1 else 100), np.uint8)
    row = rows.reshape(-1, heads + 3072)[5]
    key = f"{next(iter(files))}/{member}/000005"
    assert same(result, key, row[heads:].reshape(3, 32, 32).transpose(1, 2, 0))
    assert labels(result)[key] == ("abcdefghij"[row[0]] if heads == 1 else f"fine_{row[1]}")
    assert result.counts["kept"] == (34 if heads == 1 else 404) and not result.refused


@pytest.mark.parametrize(
    ("files", "name", "classes"),
    [
        ("Imagenette-160px", "Imagenette-160px", ["parachute", "tench"]),
        ("Food101", "Food101", ["apple_pie", "waffles"]),
        ("EuroSAT", "EuroSAT", ["Forest", "River"]),
    ],
    indirect=["files"],
)
def test_archives_of_class_folders(tmp_path: Path, files: dict[str, bytes], name: str, classes: list[str]) -> None:
    raw = place(tmp_path / "raw", files)
    result = ingest(raw, **settings(name))
    assert result.info["classes"] == classes and result.counts["kept"] == (6 if name == "EuroSAT" else 8)
    assert all("license" in refused for refused in result.refused)


@pytest.mark.parametrize("files", ["MNIST"], indirect=True)
def test_what_is_missing_or_another_file_is_named_with_its_address_and_digest(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    raw = place(tmp_path / "raw", files)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    digest = hashlib.md5(files["t10k-labels-idx1-ubyte.gz"]).hexdigest()
    lacks = r"raw lacks t10k-labels-idx1-ubyte.gz, which MNIST needs; `python -m .*torchvision MNIST --raw "
    with pytest.raises(ValueError, match=rf"{lacks}.*from https://ossci.*labels-idx1-ubyte.gz, its MD5 is {digest}"):
        ingest(raw, **settings("MNIST"))
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(files["train-labels-idx1-ubyte.gz"])
    with pytest.raises(ValueError, match=rf"has MD5 \w+ and is not the published file; .*its MD5 is {digest}"):
        ingest(raw, **settings("MNIST"))


@pytest.mark.parametrize("files", ["CIFAR10"], indirect=True)
def test_an_archive_cut_short_is_named(tmp_path: Path, files: dict[str, bytes]) -> None:
    raw = place(tmp_path / "raw", {name: content[:-2000] for name, content in files.items()})
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz in .* is damaged: .*; `python -m"):
        ingest(raw, **settings("CIFAR10"))


def test_a_file_that_ends_after_it_was_listed_loses_the_images_behind_its_end(tmp_path: Path) -> None:
    part = source.DATASETS["MNIST"].parts[0]
    content, path = idx(noise(20, *SHAPE)), tmp_path / part.file
    for length, whole in ((len(content), 20), (len(content) // 2, 8)):
        path.write_bytes(content[:length])
        answers = list(source._pixels(part, path, [0, 7, 12, 19]))
        assert [isinstance(answer, tuple) for answer in answers] == [at < whole for at in (0, 7, 12, 19)]
    assert "damaged" in str(answers[-1])


@pytest.mark.parametrize(
    ("dataset", "hint"),
    [("CIFAR-10", "did you mean CIFAR10"), ("EMNIST", "one of EMNIST-byclass"), ("CelebA", "source manifest"),
     ("PCAM", "source arrays"), ("SVHN-ekstra", "did you mean SVHN-extra"), ("cifar10", "did you mean CIFAR10"),
     ("Nothing", "other sources read plain files")],
)  # fmt: skip
def test_other_data_sets_are_refused_with_what_reads_them(dataset: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        source.Config(name="torchvision", dataset=dataset)


def test_the_table_says_what_torchvision_says() -> None:
    from torchvision import datasets

    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        theirs, ours = getattr(datasets, name), source.DATASETS[name]
        assert ours.files == tuple(theirs.resources) and ours.url in theirs.mirrors
        words = [text.partition(" - ")[0] for text in theirs.classes]
        assert list(ours.classes) == words
    ours = source.DATASETS["QMNIST"]
    for part in ("train", "test"):
        assert set(datasets.QMNIST.resources[part]) <= {(ours.url + f, md5) for f, md5 in ours.files}
    for split in datasets.EMNIST.splits:
        theirs, ours = datasets.EMNIST, source.DATASETS[f"EMNIST-{split}"]
        assert (theirs.url, theirs.md5) == (ours.url + ours.files[0][0], ours.files[0][1])
        assert [word for word in theirs.classes_split_dict[split] if word != "N/A"] == list(ours.classes)
    ours = source.DATASETS["SVHN-extra"]
    assert {tuple(one) for one in datasets.SVHN.split_list.values()} == {(ours.url + f, f, m) for f, m in ours.files}
    assert set(source.DATASETS["SVHN"].files) < set(ours.files)
    for name in ("STL10", "STL10-unlabeled"):
        theirs, ours = datasets.STL10, source.DATASETS[name]
        assert (theirs.url, theirs.tgz_md5) == (ours.url + ours.files[0][0], ours.files[0][1])
    theirs, ours = datasets.Flowers102, source.DATASETS["Flowers102"]
    assert ours.files == (theirs._file_dict["image"], theirs._file_dict["label"])
    assert (ours.url, list(ours.classes)) == (theirs._download_url_prefix, theirs.classes)
    ours = source.DATASETS["OxfordIIITPet"]
    assert tuple((ours.url + file, md5) for file, md5 in ours.files) == datasets.OxfordIIITPet._RESOURCES
    for size, name in (("full", "Imagenette"), ("320px", "Imagenette-320px"), ("160px", "Imagenette-160px")):
        ours = source.DATASETS[name]
        assert datasets.Imagenette._ARCHIVES[size] == (ours.url + ours.files[0][0], ours.files[0][1])
        assert ours.named == tuple((key, names[0]) for key, names in datasets.Imagenette._WNID_TO_CLASS.items())
    for name in ("Food101", "Country211", "DTD"):
        theirs, ours = getattr(datasets, name), source.DATASETS[name]
        assert (ours.url + ours.files[0][0], ours.files[0][1]) == (theirs._URL, theirs._MD5)
    text, ours = inspect.getsource(datasets.EuroSAT), source.DATASETS["EuroSAT"]
    assert ours.url + ours.files[0][0] in text and ours.files[0][1] in text
    for name in ("CIFAR10", "CIFAR100"):  # the python version lies beside the binary one
        theirs, ours = getattr(datasets, name), source.DATASETS[name]
        assert theirs.url == ours.url + theirs.filename and ours.files[0][0] == theirs.filename.replace(
            "python", "binary"
        )


# ---- the command


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server of this machine hands out."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("files", ["FashionMNIST"], indirect=True)
def test_what_is_fetched_is_verified_and_read(
    tmp_path: Path, files: dict[str, bytes], mirror: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address = mirror
    raw = tmp_path / "raw"
    arguments = ["FashionMNIST", "--raw", str(raw), "--mirror", address]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"another file")
    assert source.main(arguments) == 1
    assert "a damaged or another file; nothing was kept" in capsys.readouterr().err
    assert {path.name for path in raw.iterdir()} == files.keys() - {"t10k-labels-idx1-ubyte.gz"}
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(files["t10k-labels-idx1-ubyte.gz"])
    (folder / "train-images-idx3-ubyte.gz").unlink()  # it is there already, and not asked for again
    assert source.main(arguments) == 0
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == files
    result = ingest(raw, **settings("FashionMNIST", channels=1))
    assert result.counts["kept"] == 30 and "T-shirt/top" in result.info["classes"]


@pytest.mark.parametrize("files", ["CIFAR10"], indirect=True)
def test_without_a_network_it_says_what_to_bring(
    tmp_path: Path, files: dict[str, bytes], mirror: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for address, reason in (
        (mirror[1], "(File not found)"),
        ("http://data.invalid/", "could not be fetched"),
        ("/x", "http"),
    ):
        assert source.main(["CIFAR10", "--raw", str(tmp_path / "raw"), "--mirror", address]) == 1
        assert reason in capsys.readouterr().err
    assert not list((tmp_path / "raw").iterdir())


def test_the_command_and_the_source_load_no_torch() -> None:
    program = "import sys, stages.ingest.sources.torchvision; assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
