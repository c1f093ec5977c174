"""Images in folders per person are traced and erased like others, and each person stays in one split."""

import hashlib
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.erase import erase
from flows.state import settle
from flows.trace import trace
from stages.common.files import sha256_file
from stages.ingest import run
from tests.stages.ingesting import config, ingest, png
from tests.stages.test_ingest_groups import GROUPED, laid, people, sides

pytestmark = pytest.mark.fast


def test_an_image_in_the_folder_of_a_person_is_traced_and_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, state = tmp_path / "project", tmp_path / "state"
    monkeypatch.setenv("GANOPS_STATE", str(state))
    settle()
    stored = ingest(laid(project / "data" / "raw", people(4)), "ingest", source=GROUPED)
    Repo.init(str(project), no_scm=True).close()
    (project / "params.yaml").write_text("export: {name: digits}\n")
    victim = project / "data" / "raw" / "ill" / "p02" / "1.png"
    sha256 = sha256_file(victim)
    ((side,),) = (sides(stored)["p02"],)
    assert [(one["source"], one["split"]) for one in trace(project, state, sha256)["data_versions"]] == [
        ("ill/p02/1.png", side)
    ]
    erase(project, state, sha256, "asked for", remove=True)
    assert not victim.exists()
    laid(project / "data" / "raw", {"healthy/p02/again.png": png(2013)})
    assert hashlib.sha256(png(2013)).hexdigest() == sha256
    erased = project / "data" / "erased.json"
    run(config(source=GROUPED), raw=project / "data" / "raw", datasheet=project / "data" / "sheet.yaml", erased=erased,
        out=stored.path)  # fmt: skip
    assert stored.counts["kept"] == 39 and stored.refused["healthy/p02/again.png"].startswith("erased: ")
    assert sides(stored)["p02"] == {side}
