"""The default images: fixed bytes, and never at the cost of a user's files."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from infra.digits import COVERS, PARTIAL, OtherImages, encode_png, main, write_digits
from stages.common.files import sha256_file
from stages.ingest._datasheet import content_hash

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "raw"
    assert write_digits(folder) == 1797
    return folder


def test_bytes_are_the_ones_that_the_shipped_datasheet_covers(raw: Path, request: pytest.FixtureRequest) -> None:
    paths = sorted(raw.rglob("*.png"))
    found = content_hash((sha256_file(path), path.relative_to(raw).as_posix()) for path in paths)
    with (request.config.rootpath / "data" / "datasheet.yaml").open() as file:
        assert found == yaml.safe_load(file)["covers"] == COVERS


def test_levels_and_labels_are_those_of_scikit_learn(raw: Path) -> None:
    digits = load_digits()
    assert len(list(raw.iterdir())) == 10
    for index in range(0, 1797, 100):
        with Image.open(raw / str(digits.target[index]) / f"digit-{index:04d}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), np.round(digits.images[index] * 255 / 16))


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert write_digits(tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_hidden_files_do_not_count_and_stay(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    assert write_digits(tmp_path) == 1797
    assert (tmp_path / ".gitkeep").exists()
    assert not (tmp_path / PARTIAL).exists()


def test_a_killed_run_is_completed_and_overwrites_nothing(tmp_path: Path, raw: Path) -> None:
    (tmp_path / PARTIAL / "0").mkdir(parents=True)
    (tmp_path / PARTIAL / "0" / "digit-0000.png").write_bytes(b"half")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "digit-0000.png").write_bytes(b"mine")
    write_digits(tmp_path)
    assert (tmp_path / "0" / "digit-0000.png").read_bytes() == b"mine"
    assert len(list(tmp_path.rglob("*.png"))) == 1797
    assert (tmp_path / "9" / "digit-0009.png").read_bytes() == (raw / "9" / "digit-0009.png").read_bytes()
    assert write_digits(tmp_path) == 0


def test_encoded_pictures_survive_a_strict_decoder() -> None:
    levels = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    content = encode_png(levels.tobytes(), 20, 12)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(image), levels)


def test_other_people_s_data_are_not_made_up(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An empty raw folder may be a disk that is not mounted, or data that were not pulled yet."""
    raw, theirs = tmp_path / "raw", request.config.rootpath / "data" / "datasheet.yaml"
    (tmp_path / "mine.yaml").write_text("name: circles\nlicence: own data\n")
    for sheet in ("mine.yaml", "absent.yaml"):
        with pytest.raises(
            OtherImages, match=f"raw is empty, and .*{sheet} describes other images than the default digits"
        ):
            write_digits(raw, tmp_path / sheet)
    (tmp_path / "raw.dvc").write_text("outs: []\n")
    with pytest.raises(OtherImages, match=r"raw\.dvc says what belongs there; fetch it: `dvc pull .*raw\.dvc`"):
        write_digits(raw, theirs)
    assert not raw.exists()
    (tmp_path / "raw.dvc").unlink()
    assert write_digits(raw, theirs) == 1797


def test_the_command_says_whose_images_belong_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["digits", "--out", str(tmp_path), "--datasheet", str(tmp_path / "none.yaml")])
    assert main() == 3
    assert capsys.readouterr().err.startswith(f"digits: {tmp_path} is empty, and ")
