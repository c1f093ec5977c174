"""Raw data as files of images: in folders, in archives of folders, and named by a table."""

import csv
import gzip
import hashlib
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.ingest import _work
from stages.ingest.sources import folder, manifest
from stages.validate._frames import read_frames
from tests.stages.ingesting import FOLDERS, encoded, ingest, labels, noise, png, same, tarred, zipped

pytestmark = pytest.mark.fast


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# ---- archives of folders


FILES = {
    f"{kind}/{number}.png": png(100 * at + number) for at, kind in enumerate(("cat", "dog")) for number in range(3)
}
ARCHIVES = {
    "all.zip": zipped(FILES),
    "stored.zip": zipped(FILES, zipfile.ZIP_STORED),
    "all.tar": tarred(FILES),
    "old.tar": tarred(FILES, format=tarfile.USTAR_FORMAT),
    "all.tar.gz": tarred(FILES, "w:gz"),
    "all.tgz": tarred({f"./{name}": content for name, content in FILES.items()}, "w:gz", format=tarfile.PAX_FORMAT),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_stands_for_the_folder_that_holds_it(raw: Path, name: str) -> None:
    (raw / name).write_bytes(ARCHIVES[name])
    result = ingest(raw, source=FOLDERS)
    assert labels(result) == {f"{name}/{member}": member.split("/")[0] for member in FILES}
    assert {row["sha256"] for row in result.rows} == {hashlib.sha256(content).hexdigest() for content in FILES.values()}
    assert result.counts == result.counts | {"read": 6, "kept": 6}


def test_an_archive_inside_a_class_folder_is_of_that_class(raw: Path) -> None:
    for kind in ("cat", "dog"):
        (raw / kind).mkdir()
        (raw / kind / "more.zip").write_bytes(zipped({"x/y.png": png(len(kind) + ord(kind[0]))}))
    assert labels(ingest(raw, source=FOLDERS)) == {"cat/more.zip/x/y.png": "cat", "dog/more.zip/x/y.png": "dog"}


def test_the_store_is_the_same_from_files_and_from_any_archive(tmp_path: Path) -> None:
    pixels = set()
    for name, content in ARCHIVES.items():
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        (raw / name).write_bytes(content)
        pixels.add((ingest(raw, source=FOLDERS).path / "images-00000.npy").read_bytes())
    raw = tmp_path / "plain" / "raw"
    for name, content in FILES.items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)
    pixels.add((ingest(raw, source=FOLDERS).path / "images-00000.npy").read_bytes())
    assert len(pixels) == 1


# ---- manifests


def a_manifest(**changes: Any) -> manifest.Config:
    settings = {"name": "manifest", "file": "list.csv", "images": "pictures", "path": "file", "label": "kind",
                "group": None, "attributes": (), "unlisted": "refuse"}  # fmt: skip
    return manifest.Config(**(settings | changes))


def pictures(raw: Path, count: int = 8) -> list[str]:
    (raw / "pictures").mkdir()
    names = [f"{number:03d}.png" for number in range(count)]
    for number, name in enumerate(names):
        (raw / "pictures" / name).write_bytes(png(number))
    return names


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_a_csv_manifest_with_labels_attributes_and_groups(raw: Path) -> None:
    names = pictures(raw, 40)
    rows = [
        [name, "odd" if at % 2 else "even", f"person {at // 8}", "a, b" if at % 3 else ""]
        for at, name in enumerate(names)
    ]
    write_csv(raw / "list.csv", ["file", "kind", "who", "note"], rows[::-1])
    result = ingest(raw, source=a_manifest(group="who", attributes=("note",)))
    assert result.info["declared"] == {"note": ["", "a, b"]} and result.info["grouped"] is True
    assert result.info["classes"] == ["even", "odd"]
    assert [(row["source"], row["class"], row["group"], row["note"]) for row in result.rows] == [
        (f"pictures/{name}", kind, who, note) for name, kind, who, note in rows
    ]
    sides = {(row["group"], row["split"]) for row in result.rows}
    assert len(sides) == 5, "a group lies on one side"
    assert len({side for _, side in sides}) > 1


@pytest.mark.parametrize("suffix", [".parquet", ".tsv"])
def test_other_tables(raw: Path, suffix: str) -> None:
    names = pictures(raw)
    path = raw / f"list{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"file": names, "kind": [at // 4 for at in range(8)], "age": [None, *range(7)]}), path)
    else:
        path.write_text("file\tkind\tage\n" + "".join(f"{n}\t{at // 4}\t{at}\n" for at, n in enumerate(names)))
    result = ingest(raw, source=a_manifest(file=path.name, attributes=("age",)))
    assert [row["class"] for row in result.rows] == ["0"] * 4 + ["1"] * 4
    assert result.rows[-1]["age"] == ("6" if suffix == ".parquet" else "7")


def test_celeba_as_it_is_distributed(raw: Path) -> None:
    (raw / "img_align_celeba").mkdir()
    lines = ["202599", "5_o_Clock_Shadow Male Smiling Young "]
    for number in range(1, 9):
        (raw / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(encoded(noise(20, 16, 3, seed=number), "JPEG"))
        lines.append(f"{number:06d}.jpg -1 {1 if number % 2 else -1:2d}  1 {-1:2d}")
    (raw / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    source = a_manifest(
        file="list_attr_celeba.txt", images="img_align_celeba", label="Male", attributes=("Smiling", "Young")
    )
    result = ingest(raw, source=source, channels=3)
    assert result.info["classes"] == ["-1", "1"]
    assert [row["class"] for row in result.rows] == ["1", "-1"] * 4
    assert {(row["Smiling"], row["Young"]) for row in result.rows} == {("1", "-1")}


def test_images_of_a_manifest_may_lie_in_an_archive(raw: Path) -> None:
    (raw / "img.zip").write_bytes(zipped({f"img/{at}.png": png(at) for at in range(4)}))
    write_csv(raw / "list.csv", ["file", "kind"], [[f"{at}.png", "ab"[at % 2]] for at in range(4)])
    result = ingest(raw, source=a_manifest(images="img"))
    assert labels(result) == {f"img.zip/img/{at}.png": "ab"[at % 2] for at in range(4)}


def test_what_a_manifest_gets_wrong_is_refused_row_by_row(raw: Path) -> None:
    pictures(raw)
    rows = [["000.png", "a", "p"], ["001.png", "b", "p"], ["./002.png", "a", "p"], ["gone.png", "a", "p"],
            ["../../etc/passwd", "a", "p"], ["003.png", "a", "p"], ["003.png", "a", "p"], ["004.png", "a", "p"],
            ["004.png", "b", "p"], ["005.png", "", "p"], ["006.png", "b", ""], ["", "a", "p"],
            ["/abs.png", "a", "p"]]  # fmt: skip
    write_csv(raw / "list.csv", ["file", "kind", "who"], rows)
    result = ingest(raw, source=a_manifest(group="who"))
    assert [row["source"] for row in result.rows] == [f"pictures/00{at}.png" for at in (0, 1, 2, 3)]
    reasons = {name: reason.split(":")[0] for name, reason in result.refused.items()}
    assert reasons == {
        "gone.png": "missing", "../../etc/passwd": "missing", "/abs.png": "missing", "003.png": "repeated",
        "004.png": "contradiction", "pictures/004.png": "contradiction", "pictures/005.png": "no label",
        "pictures/006.png": "no group", "list.csv": "no name", "pictures/007.png": "unlisted",
    }  # fmt: skip
    assert ingest(raw, "ignoring", source=a_manifest(group="who", unlisted="ignore")).counts["refused"] == 9


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        ("file,kind\n0.png,1\n1.png,cat\n", {}, "mixes numbers such as '1' and words such as 'cat'"),
        ("name,kind\n", {}, "has no column 'file'.*it has 'name', 'kind'"),
        ("file,kind\n", {"file": "other.csv"}, "other.csv does not exist"),
        ("file,kind\n", {"file": "../sheet.yaml"}, "sheet.yaml leads out of .*put the manifest"),
        ('file,kind\n"0.png,1\n', {}, "cannot be read as a table"),
        ("", {}, "has no column 'file'.*it has none"),
        ("file,kind,kind\n0.png,a,b\n1.png,b,a\n", {}, "has several columns 'kind'"),
        ("file,kind\n0.png,a,,\n1.png,b,c\n", {}, "has 3 fields in line 3, but 2 columns"),
        ("file,kind\n\xff\xfe", {}, "cannot be read as a table"),
    ],
)
def test_manifests_that_are_none(raw: Path, text: str, changes: dict[str, Any], sentence: str) -> None:
    (raw / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=sentence):
        ingest(raw, source=a_manifest(**changes))


@pytest.mark.parametrize(
    ("file", "written", "way"),
    [
        ("sub/ü.png", "sub\\ü.png", "/ in place of each backslash"),
        ("sub/ü.png", "sub/u\N{COMBINING DIAERESIS}.png", "its accents in Unicode's form NFC"),
        ("sub/u\N{COMBINING DIAERESIS}.png", "sub/ü.png", "its accents in Unicode's form NFD"),
    ],
)
def test_names_that_are_only_written_otherwise_are_told(raw: Path, file: str, written: str, way: str) -> None:
    """All files were unlisted and all rows missing, and nothing said why."""
    (raw / "sub").mkdir()
    names = [file, "a.png", "b.png"]
    for at, name in enumerate(names):
        (raw / name).write_bytes(png(at))
    rows = [[name, "xy"[at % 2]] for at, name in enumerate([written, *names[1:]])]
    odd = ["..\\sheet.yaml", "ü" * 300]
    write_csv(raw / "list.csv", ["file", "kind"], [*rows, *([name, "x"] for name in odd)])
    refused = ingest(raw, source=a_manifest(images=".")).refused
    missing = "missing: list.csv names it, and there is no such file"
    assert refused == {
        file: "unlisted: list.csv does not name it", **dict.fromkeys(odd, missing),
        written: f"{missing}, but there is one with {way}; write its name so in the manifest",
    }  # fmt: skip


def test_labels_follow_the_manifest_without_decoding_anew(raw: Path) -> None:
    names = pictures(raw)
    write_csv(raw / "list.csv", ["file", "kind"], [[name, "ab"[at % 2]] for at, name in enumerate(names)])
    first = ingest(raw, source=a_manifest())
    write_csv(raw / "list.csv", ["file", "kind"], [[name, "ba"[at % 2]] for at, name in enumerate(names)])
    second = ingest(raw, source=a_manifest())
    assert [row["class"] for row in second.rows] == ["ba"[at % 2] for at in range(8)]
    assert first.summary.inputs["raw"] != second.summary.inputs["raw"], "the manifest is an input too"


def test_validate_knows_declared_attributes_and_groups(raw: Path) -> None:
    names = pictures(raw)
    rows = [[name, "ab"[at % 2], f"p{at}", "x"] for at, name in enumerate(names)]
    write_csv(raw / "list.csv", ["file", "kind", "who", "note"], rows)
    frames = read_frames(ingest(raw, source=a_manifest(group="who", attributes=("note",))).path)
    assert frames.columns == list(frames.manifest.columns)
    assert (frames.images["measured_missing_fields"] == 0).all()


@pytest.mark.parametrize("name", ["split", "source", "ink", "measured_brightness"])
def test_an_attribute_does_not_take_the_place_of_a_column_of_the_manifest(raw: Path, name: str) -> None:
    names = pictures(raw)
    lines = [f"file,kind,{name}", *(f"{one},a,mine" for one in names[:4]), *(f"{one},b,mine" for one in names[4:])]
    (raw / "list.csv").write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=rf"attributes must not have the names of the manifest's own .* received '{name}'"
    ):
        ingest(raw, source=a_manifest(attributes=(name,)))


def test_a_name_that_several_files_have_is_none_of_them(raw: Path) -> None:
    """An archive that came later sorted first and took all labels."""
    pictures(raw, 2)
    rows = [["000.png", "x"], ["001.png", "y"], ["a.png", "x"], ["b.png", "y"], ["c.png", "x"]]
    write_csv(raw / "list.csv", ["file", "kind", "note"], [[*row, row[0]] for row in rows])
    (raw / "pictures" / "photos.zip").write_bytes(zipped({"a.png": png(11), "b.png": png(12), "c.png": png(13)}))
    source = a_manifest(unlisted="ignore", attributes=("note",))
    assert not ingest(raw, source=source).refused
    write_csv(raw / "list.csv", ["file", "kind", "note"], [*([*row, row[0]] for row in rows), ["other.png", "", ""]])
    for name in ("another.zip", "more.zip"):
        (raw / "pictures" / name).write_bytes(zipped({"a.png": png(21), "000.png": png(22), "other.png": png(23)}))
    result = ingest(raw, source=source)
    places = ("000.png", "another.zip/000.png", "more.zip/000.png", "another.zip/a.png", "more.zip/a.png")
    assert result.refused == {
        f"pictures/{place}": "twice: several files have the name that the manifest gives"
        for place in (*places, "photos.zip/a.png")
    } | {f"pictures/{name}/other.png": "no label: column kind is empty" for name in ("another.zip", "more.zip")}
    assert [(row["source"], row["class"], row["note"]) for row in result.rows] == [
        ("pictures/001.png", "y", "001.png"), ("pictures/photos.zip/b.png", "y", "b.png"),
        ("pictures/photos.zip/c.png", "x", "c.png"),
    ]  # fmt: skip
    assert same(result, "pictures/photos.zip/c.png", noise(8, 8, seed=13))


def test_values_of_an_attribute_are_listed_while_they_are_few(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "_MOST_VALUES", 3)
    names = pictures(raw, 8)
    rows = [[name, "xy"[at % 2], str(at), str(at % 3)] for at, name in enumerate(names)]
    write_csv(raw / "list.csv", ["file", "kind", "many", "few"], rows)
    result = ingest(raw, source=a_manifest(attributes=("many", "few")))
    assert result.info["declared"] == {"many": None, "few": ["0", "1", "2"]}
    assert [row["many"] for row in result.rows] == [str(at) for at in range(8)]


def test_names_that_no_path_can_have_are_shown_in_part(raw: Path) -> None:
    """A hundred and fifty names of 900,000 bytes in an archive of 1.5 MB stayed in memory, in several copies."""
    names = {f"{'a' * 900_000}{number}": b"" for number in range(20)}
    noisy = {"picture.png": png(1), "z.png": noise(600, 600, seed=2).tobytes()}
    (raw / "a.tgz").write_bytes(tarred({**names, **noisy}, "w:gz", format=tarfile.PAX_FORMAT))
    refused = folder.listing(folder.Config(name="folder", labels="none", groups="none"), raw).refused
    assert len(refused) == 20 and all(len(source) < 300 for source, _ in refused)
    assert {reason for _, reason in refused} >= {"name: 900,001 bytes, and no path is longer than 4,096"}


@pytest.mark.parametrize(("limit", "stops"), [(0.05, True), (0.4, True), (0.6, False)])
def test_a_damaged_archive_weighs_what_it_holds(raw: Path, limit: float, stops: bool) -> None:
    """Half of the data vanished as one refusal of a hundred and one."""
    (raw / "a.tar").write_bytes(tarred({f"{at}.png": png(at) for at in range(60)}))
    whole = tarred({f"{at}.png": encoded(noise(32, 32, seed=at)) for at in range(60, 120)}, "w:gz")
    (raw / "b.tar.gz").write_bytes(whole[:-100])
    lost, total = len(whole) - 100, len(whole) - 100 + (raw / "a.tar").stat().st_size
    assert 0.4 < lost / total < 0.6
    if stops:
        sentence = f"b.tar.gz is refused as a whole .damaged.*hold {lost:,} of {total:,} bytes .*{limit:g}; repair"
        with pytest.raises(ValueError, match=sentence):
            ingest(raw, max_refused_share=limit)
    else:
        assert ingest(raw, max_refused_share=limit).counts["refused"] == 1


def test_names_with_carriage_returns_stay_one_field(raw: Path) -> None:
    (raw / "a.png").write_bytes(png(1))
    (raw / "b\r.png").write_bytes(png(1))
    (raw / "Icon\r").write_bytes(b"")
    (raw / 'plain, "quoted"\n.txt').write_bytes(b"text")
    result = ingest(raw)
    assert result.table("duplicates.csv") == [["b\r.png", "a.png", hashlib.sha256(png(1)).hexdigest()]]
    assert result.refused.keys() == {"Icon\r", 'plain, "quoted"\n.txt'}


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
def test_tar_files_that_hide_members_are_refused(raw: Path, packed: bool) -> None:
    one, two = tarred({"a.png": png(1), "b.png": png(2)}), tarred({"c.png": png(3)})
    first = one.index(b"b.png")  # where its header begins
    for name, content in {"joined": one + two, "cut": one[:first], "whole": two}.items():
        path = raw / (f"{name}.tar.gz" if packed else f"{name}.tar")
        path.write_bytes(gzip.compress(content) if packed else content)
    result = ingest(raw)
    reasons = {source.partition(".")[0]: reason.partition(":")[0] for source, reason in result.refused.items()}
    assert reasons == {"joined": "damaged", "cut": "truncated"}
    assert [row["source"].rpartition("/")[2] for row in result.rows] == ["c.png"]
