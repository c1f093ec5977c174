"""The datasheet: what it must say, what its licence forbids, and the Croissant file that is written from it."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import yaml
from packaging.licenses import canonicalize_license_expression

from stages.common.files import read_json
from stages.config import build
from stages.config.ingest import IngestConfig
from stages.ingest import run
from stages.ingest._datasheet import NONE_IS_AN_ANSWER, REQUIRED, read_datasheet
from stages.ingest._licences import USES
from stages.ingest._spdx import IDS
from stages.ingest.sources import manifest
from tests.stages.ingesting import CONFIG, SHEET, config, png

pytestmark = [
    pytest.mark.fast,
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]
ALL = yaml.safe_load(SHEET)


def written(tmp_path: Path, **changes: Any) -> Path:
    """A datasheet file with these fields changed; None takes one away."""
    sheet = {key: value for key, value in {**ALL, **changes}.items() if value is not None}
    path = tmp_path / "sheet.yaml"
    path.write_text(yaml.safe_dump(sheet, allow_unicode=True))
    return path


@pytest.mark.parametrize("field", [*REQUIRED, *NONE_IS_AN_ANSWER, "allowed_use"])
def test_every_field_is_needed(tmp_path: Path, field: str) -> None:
    with pytest.raises(ValueError, match=f"`{field}` must say in words.*it is missing"):
        read_datasheet(written(tmp_path, **{field: None}), ["research"])


@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize("value", ["none", "TODO", " ", 7, ["a"]])
def test_a_field_must_say_something(tmp_path: Path, field: str, value: Any) -> None:
    if value == 7:
        value = {"a": "b"}
    with pytest.raises(ValueError, match=f"`{field}` must say in words"):
        read_datasheet(written(tmp_path, **{field: value}), ["research"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"licens": "x"}, r"`licens` is not a field of a datasheet \(did you mean `licence`\?\); put it under `notes`"),
        ({"personal_data": "unknown"}, "`personal_data` must say in words"),
        ({"sensitive_attributes": {"age": "todo"}}, "`sensitive_attributes` must say in words"),
        ({"sensitive_attributes": {}}, "`sensitive_attributes` must say in words"),
        ({"allowed_use": "research"}, "`allowed_use` must be a list"),
        ({"allowed_use": ["research", "fun"]}, "must list some of internal, research.*received 'fun'"),
        ({"spdx": "NOASSERTION"}, "must be the SPDX id of the licence.*without a licence nobody may use"),
        ({"spdx": "CC BY 4.0"}, "must be the SPDX id of the licence.*received 'CC BY 4.0'"),
        ({"spdx": "CC-BY-NC4.0"}, r"received 'CC-BY-NC4\.0' \(did you mean CC-BY-NC-4\.0\?\)"),
        ({"spdx": "CC-BYNC-4.0"}, r"\(did you mean CC-BY-NC-4\.0\?\)"),
        ({"spdx": "CCBYNC-4.0"}, r"\(did you mean CC-BY-NC-4\.0\?\)"),
        ({"spdx": "BY-NC-4.0"}, r"\(did you mean CC-BY-NC-4\.0\?\)"),
        ({"spdx": "Foo-1.0"}, "or LicenseRef-<name> for terms of your own; received 'Foo-1.0'; without"),
        ({"spdx": "LicenseRef-"}, "received 'LicenseRef-'"),
        ({"url": "example.org"}, "`url` must be an address"),
        ({"published": "spring"}, "`published` must be a date"),
        ({"published": "2026-02-31"}, "`published` must be a date.*received '2026-02-31'"),
        ({"published": "0000"}, "`published` must be a date"),
        ({"citation": {"x": "y"}}, "`citation` must say in words.*or be left out; received {'x': 'y'}"),
        ({"known_limits": ["a", "b"]}, "`known_limits` must say in words.*or be left out"),
        ({"labels": "TODO"}, "`labels` must say in words.*or be left out"),
        ({"covers": "abc"}, "`covers` must be a SHA-256"),
        ({"declares": {"colour": "red"}}, r"`declares\.colour` cannot be declared"),
        ({"declares": {"images": 7}}, r"`declares\.images` must hold min, max or both"),
        ({"declares": {"images": {"min": "few"}}}, r"`declares\.images` must hold numbers; min is 'few'"),
        ({"declares": {"width": {"min": 9, "max": 8}}}, r"`declares\.width` must hold a min that is at most max"),
        ({"declares": {"classes": []}}, r"`declares\.classes` must list all classes"),
        ({"declares": {"attributes": ["age"]}}, r"`declares\.attributes` must map columns"),
        ({"declares": {"attributes": {"age": {"values": "old"}}}}, r"`declares.*age\.values` must be a list"),
        ({"declares": {"attributes": {"age": {"max": "nan"}}}}, r"`declares\.attributes\.age` must hold numbers"),
        ({"declares": ["x"]}, "`declares` must hold some of images"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        read_datasheet(written(tmp_path, **changes), ["research"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spdx", "allowed", "uses", "sentence"),
    [
        ("CC-BY-NC-4.0", ["research"], ["research", "commercial"], "licence CC-BY-NC-4.0 of .* forbids commercial use"),
        ("cc-by-nc-4.0", ["research"], ["commercial"], "licence cc-by-nc-4.0 of .* forbids commercial use"),
        ("Cc-By-Nd-4.0", ["publication"], ["research"], "names publication, which the licence Cc-By-Nd-4.0 forbids"),
        ("CC-BY-NC-SA-3.0-DE", ["commercial"], ["research"], "`allowed_use` names commercial, which the licence"),
        ("PolyForm-Noncommercial-1.0.0", ["research"], ["commercial"], "forbids commercial use"),
        ("NCGL-UK-2.0", ["research", "commercial"], ["research"], "names commercial, which the licence"),
        ("CC-BY-ND-4.0", ["research"], ["publication"], "forbids publication of what is made of them"),
        ("CC-BY-NC-ND-4.0", ["publication"], ["research"], "names publication, which the licence"),
        ("LicenseRef-plant-3", ["internal"], ["publication"], "does not allow publication of .* it allows internal:"),
        ("CC0-1.0", [], ["internal"], "does not allow internal use, .* it allows nothing:"),
    ],
)
def test_a_licence_that_forbids_the_use_stops_with_a_sentence(
    tmp_path: Path, spdx: str, allowed: list[str], uses: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        read_datasheet(written(tmp_path, spdx=spdx, allowed_use=allowed), uses)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "spdx", ["CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT", "ODbL-1.0", "LicenseRef-own", "cc-by-4.0"]
)
def test_other_licences_allow_what_the_datasheet_allows(tmp_path: Path, spdx: str) -> None:
    for count in range(1, len(USES) + 1):
        for uses in itertools.combinations(USES, count):
            read_datasheet(written(tmp_path, spdx=spdx), uses)


@pytest.mark.parametrize(
    ("written_so", "spdx"),
    [("cc-by-4.0", "CC-BY-4.0"), ("licenseref-Plant.3", "LicenseRef-Plant.3"), ("odbl-1.0", "ODbL-1.0")],
)
def test_an_id_is_carried_on_as_the_list_writes_it(tmp_path: Path, written_so: str, spdx: str) -> None:
    assert read_datasheet(written(tmp_path, spdx=written_so), ["research"])["spdx"] == spdx


def test_the_list_is_that_of_spdx() -> None:
    assert [canonicalize_license_expression(name) for name in IDS] == IDS and len(set(IDS)) > 650


def test_optional_texts_may_be_none_and_dates_years(tmp_path: Path) -> None:
    sheet = written(tmp_path, labels="none", known_limits="none", published="2024-02-29")
    assert read_datasheet(sheet, ["research"])["known_limits"] == "none"
    assert read_datasheet(written(tmp_path, published="1998"), ["research"])["published"] == "1998"


def test_a_file_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sheet.yaml").write_text("{" * 3000)
    with pytest.raises(ValueError, match=r"sheet\.yaml cannot be read: its YAML is nested too deeply"):
        read_datasheet(tmp_path / "sheet.yaml", ["research"])


def test_a_field_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(f"{path.read_text()}spdx: CC-BY-NC-4.0\n")
    with pytest.raises(ValueError, match="is not valid YAML: `spdx` is given twice"):
        read_datasheet(path, ["research"])


def test_a_licence_that_nobody_accepted_stops_before_an_image_is_read(tmp_path: Path) -> None:
    sheet = written(tmp_path, licence="internal use only")
    changes = {"use": ("internal", "research"), "licences": ("CC BY 4.0", "own data")}
    sentence = (
        r"licence 'internal use only' of .* is not among ingest\.licences in params\.yaml \(CC BY 4\.0, own data\), "
        r"those you accept for the uses in ingest\.use \(internal, research\); read it and add it there, or"
    )
    with pytest.raises(ValueError, match=sentence):
        run(config(**changes), raw=tmp_path / "none", datasheet=sheet, out=tmp_path / "out")
    with pytest.raises(ValueError, match="none"):  # what is looked at next
        run(config(licences=("Internal  use only",)), raw=tmp_path / "none", datasheet=sheet, out=tmp_path / "out")
    with pytest.raises(ValueError, match="licences must name at least one licence"):
        config(licences=())


def test_the_use_is_a_setting_that_must_say_something() -> None:
    with pytest.raises(ValueError, match="use must name at least one use"):
        dataclasses.replace(CONFIG, use=())
    values = {**dataclasses.asdict(CONFIG), "background": [0, 0, 0], "use": ["fun"]}
    with pytest.raises(ValueError, match=r"ingest\.use\[0\] must be one of internal, research"):
        build(IngestConfig, values, "ingest")


def test_the_shipped_datasheet_is_whole(request: pytest.FixtureRequest) -> None:
    root = request.config.rootpath
    uses = yaml.safe_load((root / "params.yaml").read_text())["ingest"]["use"]
    assert read_datasheet(root / "data" / "datasheet.yaml", uses)["spdx"] == "CC-BY-4.0"


def test_croissant_is_valid_and_reads_the_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = tmp_path / "raw"
    (raw / "pictures").mkdir(parents=True)
    lines = ["file,kind,who,Größe / cm"]
    for place in range(30):
        (raw / "pictures" / f"{place}.png").write_bytes(png(place))
        lines.append(f"{place}.png,{'ab'[place % 2]},p{place // 2},{place}")
    (raw / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = manifest.Config(
        name="manifest", file="table.csv", images="pictures", path="file", label="kind", group="who",
        attributes=("Größe / cm",), unlisted="refuse",
    )  # fmt: skip
    sheet = written(
        tmp_path, sensitive_attributes={"who": "by the tests"}, citation="x\ny", published="2026-11", version="2.1.0",
        url="https://example.org/data?a=b", known_limits="drawn", labels="a or b",
    )  # fmt: skip
    # Near duplicates are not looked for and splits follow groups: 15 groups lie on all sides for these hashes.
    run(dataclasses.replace(CONFIG, source=source), raw=raw, datasheet=sheet, out=tmp_path / "store")
    described = mlcroissant.Dataset(jsonld=str(tmp_path / "store" / "croissant.json"))
    assert described.metadata.issues.report() == "" and "not standard" not in caplog.text
    assert described.metadata.name == "test pictures" and described.metadata.cite_as == "x y"
    assert described.metadata.license == ["https://spdx.org/licenses/CC0-1.0.html"]
    rows = list(described.records("images"))
    assert len(rows) == read_json(tmp_path / "store" / "dataset.json")["counts"]["kept"] == 30
    assert rows[0]["images/class"] in (b"a", b"b") and len(rows[0]["images/sha256"]) == 64
    values = {row["images/Gr%C3%B6%C3%9Fe%20%2F%20cm"] for row in rows}
    assert values == {str(place).encode() for place in range(30)}


def test_terms_on_no_list_are_quoted_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.png").write_bytes(png(1))
    sheet = written(tmp_path, spdx="LicenseRef-plant", licence="internal use only", url=None)
    run(config(licences=("internal use only",)), raw=tmp_path / "raw", datasheet=sheet, out=tmp_path / "store")
    found = read_json_ld(tmp_path / "store" / "croissant.json")
    assert found["license"] == "internal use only" and found["url"].startswith("urn:sha256:")
    errors = mlcroissant.Dataset(jsonld=found).metadata.issues.errors  # date and citation are recommended, no more
    assert not errors


def read_json_ld(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))  # JSON is YAML
