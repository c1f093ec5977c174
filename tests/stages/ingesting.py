"""What the tests of ingest share: settings, pictures, and one call that reads back what was written."""

import csv
import dataclasses
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from stages.common.files import read_json, tree_digests
from stages.common.summary import Summary
from stages.config.ingest import IngestConfig, Splits
from stages.ingest import run
from stages.ingest._decode import Rules, decode
from stages.ingest.sources import folder, webdataset
from stages.store import open_store

CONFIG = IngestConfig(
    source=folder.Config(name="folder", labels="none", groups="none"), use=("publication",), licences=("CC0",),
    resolution=8, channels=1, fit="crop", upscale=False,
    background=(255, 255, 255), splits=Splits(train=0.5, fit=0.3, heldout=0.2), near_duplicates=None,
    max_refused_share=0.99, max_pixels=10_000_000, shard_images=16, processes=0,
)  # fmt: skip
SHEET = (
    "name: test pictures\nsource: drawn by the tests\nlicence: CC0\nspdx: CC0-1.0\n"
    "legal_basis: made by us\nintended_use: tests\nmotivation: tests need pictures\ncomposition: small pictures\n"
    "collection: drawn\nconsent: nobody is shown\npersonal_data: none\nsensitive_attributes: none\n"
    "allowed_use: [internal, research, commercial, publication]\nretention: as long as the tests run\n"
    "contact: the tests\n"
)
FOLDERS = folder.Config(name="folder", labels="folders", groups="none")


def config(**changes: Any) -> IngestConfig:
    return dataclasses.replace(CONFIG, **changes)


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int, side: int = 8) -> bytes:
    return encoded(noise(side, side, seed=seed))


@dataclasses.dataclass
class Result:
    """One finished run."""

    summary: Summary
    path: Path

    @property
    def info(self) -> dict[str, Any]:
        return read_json(self.path / "dataset.json")

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.info["counts"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.path / "manifest.parquet").to_pylist()

    @property
    def refused(self) -> dict[str, str]:
        return {source: reason for source, reason, *_ in self.table("quarantine.csv")}

    def table(self, name: str) -> list[list[str]]:
        with (self.path / name).open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]

    @property
    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Stored pixels by source."""
        store = open_store(self.path)
        found = {
            row: split.take(np.array([at]))[0] for split in store.splits.values() for at, row in enumerate(split.rows)
        }
        return {row["source"]: found[place] for place, row in enumerate(self.rows)}


def ingest(raw: Path, out: str = "store", **changes: Any) -> Result:
    sheet = raw.parent / "sheet.yaml"
    if not sheet.exists():
        sheet.write_text(SHEET)
    target = raw.parent / out
    result = Result(run(config(**changes), raw=raw, datasheet=sheet, out=target), target)
    counts = result.counts
    assert counts["read"] == counts["kept"] + counts["duplicates"] + counts["refused"]
    assert len(result.table("quarantine.csv")) == counts["refused"]
    assert len(result.table("duplicates.csv")) == counts["duplicates"]
    return result


def from_scratch(raw: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, str]:
    """Digests of a store made with an empty state folder."""
    with monkeypatch.context() as patched:
        patched.setenv("GANOPS_STATE", str(raw.parent / "another state"))
        digests = tree_digests(ingest(raw, "scratch", **changes).path)
    shutil.rmtree(raw.parent / "another state")
    return digests


def settings_file(path: Path, **changes: Any) -> None:
    """A params.yaml with these settings of ingest."""
    plain = json.loads(json.dumps(dataclasses.asdict(config(**changes))))
    path.write_text(yaml.safe_dump({"ingest": plain}))


def labels(result: Result) -> dict[str, str]:
    return {row["source"]: row["class"] for row in result.rows}


def same(result: Result, source: str, pixels: NDArray[Any]) -> bool:
    return np.array_equal(result.images[source], pixels.reshape(result.images[source].shape))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def rules(**changes: Any) -> Rules:
    settings = {
        "resolution": 8,
        "channels": 3,
        "fit": "crop",
        "upscale": False,
        "background": (255, 255, 255),
        "max_pixels": 10**6,
    }
    return Rules(**(settings | changes))


def stored(content: bytes | NDArray[Any], name: str = "", **changes: Any) -> NDArray[np.int64]:
    return decode(content, name, rules(**changes))[0].astype(np.int64)


def a_webdataset(**changes: Any) -> webdataset.Config:
    settings = {"name": "webdataset", "label": "cls", "group": None, "attributes": (), "classes": (), "image": ()}
    return webdataset.Config(**(settings | changes))
