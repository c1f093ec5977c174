"""All eight stages at 128 pixels, through `dvc repro`, on a budget of minutes: nothing in the house ends at 64."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from consumer import Generator
from infra.smoke import clone_working_copy, cut, environment, overlay
from stages.common.files import read_json
from stages.store import open_store
from tests.test_pipeline import PROJECT, call

SIDE = 128  # pixels
KEPT = 60  # images a class; all of them would only take longer
CHANGES = {
    "ingest": {"resolution": SIDE, "upscale": True, "shard_images": 256},
    "validate": {"min_images": 500, "min_images_per_class": 2, "limits": []},  # enlarged digits are not sharp
    # So many steps that the classifier is better than guessing, or nothing on its features is assessed.
    "reference": {"extractor": {"width": 8}, "training": {"steps": 150, "batch": 16}, "floor_draws": 2},
    "train": {
        "network": {"widths": [16, 16, 8, 8, 8, 8], "blocks": [0] * 6},
        "batch": 16, "total_kimg": 0.128, "burn_in_kimg": 0.064, "lr_kimg": 0.128, "ema_halflife_start_kimg": 0.032,
        "ema_halflife_kimg": 0.032, "snapshot_kimg": 0.064, "checkpoint_kimg": 0.064,
    },
    # Of a million values of a network that is hardly trained.
    "export": {
        "parity_images": 32, "parity_max_levels": 8, "parity_mean_levels": 0.1, "parity_share_changed": 0.1,
    },
    "evaluate": {"sets": 3, "smallest_set": 50},
    "audit": {"samples": 100, "controls": 100},
}  # fmt: skip


@pytest.mark.slow
def test_the_pipeline_at_128_pixels(tmp_path: Path) -> None:
    project = tmp_path / "project"
    clone_working_copy(PROJECT, project)
    cut(project)
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    overlay(params, CHANGES)
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    assert call(project, "python", "-m", "infra.digits", "--out", "data/raw").returncode == 0
    for folder in (project / "data" / "raw").iterdir():
        for path in sorted(folder.glob("*.png"))[KEPT:]:
            path.unlink()
    sheet = project / "data" / "datasheet.yaml"
    sheet.write_text(sheet.read_text(encoding="utf-8").partition("# These images")[0], encoding="utf-8")
    finished = call(project, "dvc", "repro", env=environment(project / ".ganops"))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    data = project / "data"
    store = open_store(data / "ingest")
    assert store.splits["train"].shape[1:] == (SIDE, SIDE, 1)
    drawn = Generator(data / "export" / "generator.onnx").generate(2, seed=0, label="7")
    assert drawn.shape == (2, SIDE, SIDE, 1) and drawn.dtype == np.uint8
    verdict = read_json(data / "card" / "verdict.json")
    measured = [check for check in verdict["checks"] if check["source"] in ("evaluate", "export")]
    assert measured and all(check["status"] != "not_assessed" for check in measured)
    for page in ("validate/report.html", "evaluate/index.html", "audit/index.html"):
        assert (data / page).stat().st_size < 20e6, page  # bytes: a page that a browser opens at once
