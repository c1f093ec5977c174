"""`python -m stages.config`: what the last stage would refuse is told before the first one runs."""

import shutil
from pathlib import Path

import pytest

from stages.config.__main__ import main

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "data/datasheet.yaml", "data/erased.json", "data/baseline.json"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def said(project: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    return main(["--project", str(project)]), capsys.readouterr().err


def test_what_ships_is_right(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(project, capsys) == (0, "")


@pytest.mark.parametrize(
    ("written", "instead", "sentence"),
    [
        ("threshold: 1.3,", "treshold: 1.3,", r"card.checks[0].treshold is not a setting (did you mean `threshold`?)"),
        ("compare_minutes:", "compare_minuts:", "promote.compare_minuts is not a setting"),
        ("name: r3gan ", "name: r3gn ", "train.network.name must be one of dcgan, r3gan, r3gan_paper, resnet"),
        ("\naudit:", "\naudti:", "must hold a section `audit` (did you mean `audti`?)"),
        ("\naudit:", "\nmore: {}\naudit:", "has a section `more` that no stage reads"),
        (
            "  resolution: 8 ",
            "  resolution: 32 ",
            "train: network.widths and network.blocks must have one entry per stage",
        ),
    ],
)
def test_a_slip_in_any_section_is_told_at_once(
    project: Path, capsys: pytest.CaptureFixture[str], written: str, instead: str, sentence: str
) -> None:
    params = (project / "params.yaml").read_text()
    assert params.count(written) == 1
    (project / "params.yaml").write_text(params.replace(written, instead))
    code, told = said(project, capsys)
    assert code == 1 and told.startswith("config: ") and sentence in told and told.count("\n") == 1


@pytest.mark.parametrize("name", ["data/datasheet.yaml", "data/erased.json", "data/baseline.json"])
def test_a_file_that_is_missing_is_told_with_what_brings_it_back(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (project / name).unlink()
    assert said(project, capsys) == (1, f"config: {project / name} is missing; restore it with `git checkout {name}`\n")
