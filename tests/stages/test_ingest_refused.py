"""What ingest refuses: single files with a reason in the quarantine list, whole inputs with one sentence."""

import csv
import dataclasses
import os
import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.common.command import main
from stages.common.files import read_json
from stages.config.ingest import IngestConfig
from stages.ingest import run
from stages.ingest.sources import folder
from tests.stages.ingesting import SHEET, config, encoded, noise

pytestmark = pytest.mark.fast


def grey(side: int = 8, kind: str = "PNG", **options: Any) -> bytes:
    return encoded(noise(side, side), kind, **options)


def bomb(width: int, height: int) -> bytes:
    """A small PNG file whose header promises a giant picture; the pixels are honest zeros, deflated."""
    body = zlib.compress(b"\0" * 100_000, 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


JPEG = grey(64, "JPEG", quality=90)
PNG = grey(32)
ANIMATION = encoded(
    Image.fromarray(noise(8, 8)), save_all=True, append_images=[Image.fromarray(noise(8, 8, seed=1))], duration=50
)
FILES = {
    "text.png": (b"this is text, not a picture\n", "wrong type: the content is text or unknown"),
    "empty.png": (b"", "empty"),
    "gif.png": (grey(8, "GIF"), "wrong type: the content is GIF, the name says PNG"),
    "lies.png": (grey(8, "JPEG"), "wrong type: the content is JPEG, the name says PNG"),
    "lies.JPG": (grey(8), "wrong type: the content is PNG, the name says JPEG"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated.png": (PNG[: len(PNG) // 2], "truncated"),
    "endless.png": (PNG[:-12], "truncated"),
    "header.png": (PNG[:20], "truncated"),
    "header.jpg": (JPEG[:30], "truncated"),
    "flipped.png": (flipped(PNG, len(PNG) // 2), "damaged"),
    "animated.png": (ANIMATION, "animated"),
    "one.png": (grey(1), "too small: 1 x 1 px, ingest.resolution is 8"),
    "low.png": (encoded(noise(7, 30)), "too small: 30 x 7 px"),
    "large.png": (bomb(20_000, 20_000), "too large"),
    "wide.png": (bomb(5_000, 5_000), "too large: 5000 x 5000 px, more than ingest.max_pixels 10,000,000"),
    "promise.png": (bomb(3_000, 3_000), "truncated"),
    "colour.png": (encoded(noise(8, 8, 3)), "colour: this store is grey; set ingest.channels: 3"),
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder that holds one good picture."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "good.png").write_bytes(grey())
    (tmp_path / "sheet.yaml").write_text(SHEET)
    return tmp_path / "raw"


def ingest(raw: Path, **changes: Any) -> dict[str, str]:
    run(config(**changes), raw=raw, datasheet=raw.parent / "sheet.yaml", out=raw.parent / "out")
    with (raw.parent / "out" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return {source: reason for source, reason, *_ in list(csv.reader(file))[1:]}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_quarantined_with_its_reason(raw: Path, name: str) -> None:
    content, reason = FILES[name]
    (raw / name).write_bytes(content)
    refused = ingest(raw)
    assert list(refused) == [name]
    assert refused[name].startswith(reason)


def test_all_of_them_together_leave_the_good_picture_and_add_up(raw: Path) -> None:
    for name, (content, _) in FILES.items():
        (raw / name).write_bytes(content)
    refused = ingest(raw)
    assert refused.keys() == FILES.keys()
    counts = read_json(raw.parent / "out" / "dataset.json")["counts"]
    assert counts["read"] == counts["kept"] + counts["duplicates"] + counts["refused"] == len(FILES) + 1


def test_reasons_hold_no_memory_addresses(raw: Path) -> None:
    for name, (content, _) in FILES.items():
        (raw / name).write_bytes(content)
    assert not [reason for reason in ingest(raw).values() if " at 0x" in reason]


@pytest.mark.parametrize(
    "content",
    [
        grey(8, "JPEG", progressive=True),
        encoded(Image.fromarray(noise(8, 8) > 128)),
        encoded(Image.fromarray(np.repeat(noise(8, 8, 1, seed=2), 3, axis=2))),
        encoded(Image.fromarray(np.repeat(noise(16, 16, 1), 3, axis=2)), "JPEG"),
    ],
    ids=["progressive", "one bit", "grey as RGB", "grey as RGB in JPEG"],
)
def test_unusual_but_honest_files_are_kept(raw: Path, content: bytes) -> None:
    (raw / "file").write_bytes(content)
    assert ingest(raw) == {}
    assert read_json(raw.parent / "out" / "dataset.json")["counts"]["kept"] == 2


def test_links_and_pipes(raw: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(grey())
    (tmp_path / "elsewhere").mkdir()
    (raw / "leaves.png").symlink_to(outside)
    (raw / "nothing.png").symlink_to(raw / "missing.png")
    (raw / "folder").symlink_to(tmp_path / "elsewhere")
    (raw / "loop").symlink_to(raw)
    (raw / "itself.png").symlink_to("itself.png")
    (raw / "inside.png").symlink_to(raw / "good.png")
    os.mkfifo(raw / "pipe.png")
    refused = ingest(raw)
    assert refused.keys() == {"leaves.png", "nothing.png", "folder", "loop", "itself.png", "pipe.png"}
    assert refused["leaves.png"].startswith("link: leads out of the folder")
    assert refused["folder"].startswith("link: leads out of the folder")
    for name in ("nothing.png", "itself.png"):
        assert refused[name].startswith("link: leads to a folder or to nothing")
    assert refused["pipe.png"].startswith("not a file")
    assert read_json(raw.parent / "out" / "dataset.json")["counts"]["duplicates"] == 1  # inside.png


def test_a_file_too_large_to_be_honest_is_not_read(raw: Path) -> None:
    with (raw / "huge.png").open("wb") as file:
        file.write(PNG[:8])
        file.truncate(10**12)  # sparse: no disk is used
    assert ingest(raw)["huge.png"].startswith("too large: 1,000,000,000,000 bytes")


@pytest.mark.parametrize(
    ("folders", "changes", "sentence"),
    [
        ([], {}, "holds no files"),
        (
            ["a"],
            {"source": folder.Config(name="folder", labels="folders", groups="none")},
            "all images are of one class, 'a', but labels need two or more; set ingest.source.labels",
        ),
        (
            ["."],
            {"source": folder.Config(name="folder", labels="folders", groups="none")},
            "holds no class folders.* set ingest.source.labels: none",
        ),
        (
            ["train", "Val"],
            {"source": folder.Config(name="folder", labels="folders", groups="none")},
            "are called Val, train, which are splits; .*move the class folders inside",
        ),
    ],
    ids=["empty", "one class", "no class", "splits"],
)
def test_folders_that_make_no_data_set(
    tmp_path: Path, folders: list[str], changes: dict[str, Any], sentence: str
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "sheet.yaml").write_text(SHEET)
    for name in folders:
        (raw / name).mkdir(exist_ok=True)
        (raw / name / "x.png").write_bytes(grey())
    with pytest.raises(ValueError, match=sentence):
        ingest(raw, **changes)
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_usable_image_is_named(raw: Path) -> None:
    for name in ("a", "b"):
        (raw / name).mkdir()
        (raw / name / "x.png").write_bytes(grey(8 + len(name)))
    (raw / "a" / "y.png").write_bytes(encoded(noise(8, 8, seed=5)))
    (raw / "b" / "x.png").write_text("text")
    with pytest.raises(ValueError, match="no image of class 'b' could be kept"):
        ingest(raw, source=folder.Config(name="folder", labels="folders", groups="none"))


def test_an_empty_class_folder_is_named(raw: Path) -> None:
    (raw / "good.png").unlink()
    for place, name in enumerate(("a", "b", "c")):
        (raw / name).mkdir()
        (raw / name / "x.png").write_bytes(encoded(noise(8, 8, seed=place)))
    (raw / "b" / "x.png").unlink()
    with pytest.raises(ValueError, match=r"no image of class 'b' could be kept; add images to .*raw/b, or remove it"):
        ingest(raw, source=folder.Config(name="folder", labels="folders", groups="none"))


def test_when_nothing_is_left_the_commonest_reasons_are_named(raw: Path) -> None:
    (raw / "good.png").write_bytes(FILES["colour.png"][0])
    with pytest.raises(ValueError, match=r"1 of 1 files .* none is left: 1 x colour, such as 'good.png'"):
        ingest(raw)


@pytest.mark.parametrize("field", ["name", "source", "licence", "legal_basis"])
@pytest.mark.parametrize("value", [None, "", "TODO", "unknown", "~"])
def test_a_datasheet_must_say_what_matters(raw: Path, field: str, value: str | None) -> None:
    sheet = {key: text for key, text in yaml.safe_load(SHEET).items() if key != field}
    text = yaml.safe_dump(sheet) + ("" if value is None else f"{field}: {value}\n")
    (raw.parent / "sheet.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"`{field}` must say"):
        ingest(raw)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "not valid YAML"),
        ("just words", "must hold fields"),
        (SHEET.replace("licence", "license"), "missing.*is `license` a misspelling of it"),
    ],
)
def test_a_datasheet_that_is_none(raw: Path, text: str, sentence: str) -> None:
    (raw.parent / "sheet.yaml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        ingest(raw)


def test_the_shipped_datasheet_covers_no_other_images(
    raw: Path, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"ingest": dataclasses.asdict(config(licences=("CC BY 4.0",)))}))
    shipped = request.config.rootpath / "data" / "datasheet.yaml"
    arguments = [
        "--raw",
        str(raw),
        "--datasheet",
        str(shipped),
        "--params",
        str(params),
        "--out",
        str(tmp_path / "out"),
    ]
    code = main("ingest", IngestConfig, run, inputs={"raw": "", "datasheet": ""}, argv=arguments)
    said = capsys.readouterr().err.strip().splitlines()
    assert (code, len(said)) == (1, 1)
    assert "describes UCI handwritten digits alone" in said[0] and "docs/data.md" in said[0]
    assert not (tmp_path / "out").exists()


def test_covers_is_what_the_documented_shell_line_computes(raw: Path) -> None:
    for place, name in enumerate(("a", "a-b", "a b", "größe")):
        (raw / name).mkdir()
        (raw / name / "x.png").write_bytes(encoded(noise(8, 8, seed=place + 1)))
    documented = r"find . -type f | sed 's#^\./##' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    found = subprocess.run(documented, shell=True, cwd=raw, check=True, capture_output=True, text=True).stdout[:64]  # noqa: S602
    (raw.parent / "sheet.yaml").write_text(SHEET + f"covers: {found}\n")
    assert ingest(raw) == {}
    (raw / "a" / "y.png").write_bytes(grey(9))
    with pytest.raises(ValueError, match="describes test pictures alone"):
        ingest(raw)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"resolution": 12}, "ingest.resolution must be one of 8, 16, 32, 64, 128, 256; received 12"),
        ({"resolution": 8.0}, "ingest.resolution must be one of"),
        ({"channels": True}, "ingest.channels must be one of 1, 3; received True"),
        ({"source": {"name": "folder", "labels": "folder", "groups": "none"}}, "did you mean `folders`"),
        ({"source": {"name": "folders", "labels": "none"}}, "ingest.source.name must be one of .*folder.*did you mean"),
        ({"source": "folder"}, "ingest.source.name must be one of"),
        ({"background": [0, 0]}, "background must be three levels"),
        ({"splits": {"train": 0.5, "fit": 0.3, "heldout": 0.3}}, "ingest.splits: .* must sum to 1; received 1.1"),
        ({"max_pixels": 10**9}, "ingest.max_pixels must be a number"),
    ],
)
def test_settings_out_of_range(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"ingest": dataclasses.asdict(config()) | changes}))
    arguments = ["--raw", str(raw), "--datasheet", "x", "--params", str(params), "--out", str(tmp_path / "out")]
    assert main("ingest", IngestConfig, run, inputs={"raw": "", "datasheet": ""}, argv=arguments) == 1
    assert re.search(sentence, capsys.readouterr().err)
