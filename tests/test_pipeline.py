"""The whole pipeline, through `dvc repro`, in a clone of the working copy in a folder with a space in its name."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from infra.smoke import clone_working_copy, cut, environment
from stages.common.files import read_json, sha256_file
from stages.common.summary import read_summary
from tests.tracing import declared_by_stage, loaded_by_stage, tracing

PROJECT = Path(__file__).parents[1]
STAGES = ["ingest", "validate", "reference", "train", "export", "evaluate", "audit", "card"]

# Networks of published extractors: an entry of reference.published makes a stage load one, the default has none.
ON_DEMAND = {f"gan/features/{name}.py" for name in ("inception_tf", "vgg16", "dinov2", "standard")}
ON_DEMAND |= {"stages/ingest/_cells.py", "stages/ingest/_published.py", "stages/ingest/_records.py"}  # by other sources


def call(project: Path, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = env or environment(project / ".ganops")
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the cut pipeline has run once, traced."""
    clone = tmp_path_factory.mktemp("a folder") / "with spaces"
    clone_working_copy(PROJECT, clone)
    cut(clone)
    env = tracing(environment(clone / ".ganops"), clone.parent / "trace")
    assert call(clone, "python", "-m", "infra.digits", "--out", "data/raw").returncode == 0
    finished = call(clone, "dvc", "repro", env=env)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return clone


def test_every_stage_finished_and_its_digests_are_true(project: Path) -> None:
    for stage in STAGES:
        summary = read_summary(project / "data" / stage)
        for name, digest in summary.outputs.items():
            assert sha256_file(project / "data" / stage / name) == digest, f"{stage}: {name}"
        text = (project / "data" / stage / "summary.json").read_text()
        assert str(project) not in text, f"{stage} tells where it ran"


def test_nothing_is_stale_afterwards_and_a_second_run_does_nothing(project: Path) -> None:
    assert json.loads(call(project, "dvc", "status", "--json").stdout) == {}
    before = (project / "dvc.lock").read_bytes()
    again = call(project, "dvc", "repro")
    assert again.returncode == 0 and "Running stage" not in again.stdout
    assert (project / "dvc.lock").read_bytes() == before


def test_the_verdict_cannot_be_registered_and_points_at_what_ships(project: Path) -> None:
    verdict = read_json(project / "data" / "card" / "verdict.json")
    assert verdict["registrable"] is False
    assert verdict["onnx_sha256"] == sha256_file(project / "data" / "export" / "generator.onnx")
    assert verdict["data_hash"] == read_json(project / "data" / "ingest" / "dataset.json")["data_hash"]
    assert {check["status"] for check in verdict["checks"]} <= {"passed", "failed"}
    assert verdict["passed"] == all(check["status"] == "passed" for check in verdict["checks"] if check["required"])


def test_dependencies_are_the_modules_that_each_stage_loads(project: Path) -> None:
    loaded = loaded_by_stage(project, project.parent / "trace")
    declared = declared_by_stage(project)
    assert list(declared) == STAGES and set(loaded) == set(STAGES)
    for stage in STAGES:
        python = {name for name in declared[stage] if name.endswith(".py")}
        assert loaded[stage] <= python, f"{stage}: dvc.yaml must name all modules that it loads"
        assert python - loaded[stage] <= ON_DEMAND, f"{stage}: dvc.yaml must name no module that it does not load"


def test_editing_a_module_makes_exactly_its_stages_stale(project: Path) -> None:
    declared = declared_by_stage(project)
    for name in ("gan/metrics/frechet.py", "gan/training.py", "stages/card/verdict.py", "gan/latents.py"):
        path = project / name
        content = path.read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        status = json.loads(call(project, "dvc", "status", "--json").stdout)
        path.write_bytes(content)
        stale = {stage for stage, reasons in status.items() if name in json.dumps(reasons) or _inside(name, reasons)}
        assert stale == {stage for stage in STAGES if name in declared[stage]}, name


def test_a_new_network_and_a_new_loss_make_no_stage_stale(project: Path) -> None:
    added = [project / "gan" / folder / "of_tomorrow.py" for folder in ("networks", "losses")]
    for path in added:
        path.write_text('"""Nobody chose it yet."""\n')
    status = json.loads(call(project, "dvc", "status", "--json").stdout)
    for path in added:
        path.unlink()
    assert status == {}


def _inside(name: str, reasons: list[object]) -> bool:
    """True where a changed dependency of `dvc status` is a folder that holds the file `name`."""
    paths = re.findall(r'"([a-z_/]+)": "modified"', json.dumps(reasons))
    return any(name.startswith(f"{path}/") for path in paths)


def test_dvc_answers_what_a_user_asks(project: Path) -> None:
    metrics = json.loads(call(project, "dvc", "metrics", "show", "--json").stdout)
    assert "fid_domain" in json.dumps(metrics)
    assert "train" in call(project, "dvc", "dag").stdout
    assert call(project, "dvc", "params", "diff").returncode == 0
    shown = call(project, "dvc", "plots", "show", "--json")
    assert shown.returncode == 0 and "loss_d" in shown.stdout


def test_the_consumer_draws_from_the_exported_file(project: Path) -> None:
    command = ["python", "-m", "consumer", "--model", "data/export/generator.onnx", "--count", "20", "--seed", "1"]
    drawn = call(project, *command, "--out", "grid.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (project / "grid.png").stat().st_size > 1000
    program = (
        "from consumer import Generator; g = Generator('data/export/generator.onnx');"
        "x = g.generate(count=5, seed=3); print(x.shape, x.dtype, (x == g.generate(count=5, seed=3, batch=2)).mean())"
    )
    answer = call(project, "python", "-c", program)
    assert answer.stdout.split() == ["(5,", "8,", "8,", "1)", "uint8", "1.0"], answer.stderr


def test_pages_open_without_a_network_and_carry_no_script_from_elsewhere(project: Path) -> None:
    pages = sorted((project / "data").rglob("*.html"))
    assert {page.parent.name for page in pages} >= {"validate", "evaluate", "audit"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text), page
        assert "@import" not in text and "url(http" not in text, page


def test_the_flow_runs_what_is_stale_and_a_red_candidate_gets_no_alias(project: Path) -> None:
    env = environment(project / ".ganops")
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        env.pop(name, None)
    refused = call(project, "python", "-m", "flows.retrain", env=env)
    assert refused.returncode == 1 and "registrable" in refused.stdout + refused.stderr

    params = project / "params.yaml"
    params.write_text(params.read_text().replace("registrable: false", "registrable: true"))
    ran = call(project, "python", "-m", "flows.retrain", env=env)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    stages = dict(re.findall(r"^  ([a-z]+) +(ran|cached)", ran.stdout, re.MULTILINE))
    assert stages == dict.fromkeys(STAGES, "cached") | {"card": "ran"}, ran.stdout[-3000:] + ran.stderr[-3000:]
    verdict = read_json(project / "data" / "card" / "verdict.json")
    assert verdict["registrable"] and not verdict["passed"]
    said = ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "digits registered as version 1" in ran.stdout and "no champion" in ran.stdout, said

    again = call(project, "python", "-m", "flows.retrain", env=env)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    status = json.loads(call(project, "python", "-m", "flows.status", "--json", env=env).stdout)
    assert status["champion"] is None and len(status["versions"]) == 1
    drawn = call(
        project, "python", "-m", "consumer", "--model", "models:/digits/1", "--count", "4", "--out", "four.png"
    )
    assert drawn.returncode == 0, drawn.stderr


@pytest.mark.slow
def test_two_fresh_clones_give_the_same_hashes(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "second"
    clone_working_copy(PROJECT, clone)
    cut(clone)
    shutil.copy(project / "params.yaml", clone)  # another test may have changed it
    assert call(clone, "python", "-m", "infra.digits", "--out", "data/raw").returncode == 0
    assert call(clone, "dvc", "repro").returncode == 0
    locks = [yaml.safe_load((root / "dvc.lock").read_text())["stages"] for root in (project, clone)]
    for stage in STAGES:
        assert locks[0][stage]["outs"] == locks[1][stage]["outs"], stage


@pytest.mark.slow
def test_an_experiment_with_another_seed_changes_the_generator(project: Path) -> None:
    before = sha256_file(project / "data" / "export" / "generator.onnx")
    call(project, "git", "add", "-A")
    call(project, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "cut")
    experiment = call(project, "dvc", "exp", "run", "-S", "train.seed=1")
    assert experiment.returncode == 0, experiment.stderr
    assert sha256_file(project / "data" / "export" / "generator.onnx") != before


def test_images_follow_their_labels_even_after_a_short_training(project: Path) -> None:
    results = read_summary(project / "data" / "evaluate").results["measures"]
    assert results["label_agreement"]["value"] > 0.5  # chance is 0.1; a permuted or ignored label cannot reach it
    assert np.isfinite(results["fid_domain"]["value"]) and results["fid_domain"]["reference"]["mean"] > 0
