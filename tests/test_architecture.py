"""The house as it is drawn: arrows point one way, heavy things load late, and the same words name the same rooms."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stages.config import load_section
from tests.tracing import declared_by_stage

pytestmark = pytest.mark.fast
PROJECT = Path(__file__).parents[1]
STAGES = ["ingest", "validate", "reference", "train", "export", "evaluate", "audit", "card"]
ROOMS = [*STAGES, "compare"]
ORCHESTRATORS = {"prefect", "mlflow", "dvc"}
SHARED = {
    "common", "config", "drawn", "extraction", "generator_folder", "pictures", "processor", "reference_folder",
    "scoring", "state", "store",
}  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


# What published networks are made of; each file of them loads when its network is asked for.
NETWORKS = {"resize": {"PIL"}, "inception_tf": {"torchvision"}, "vgg16": {"torchvision"}, "dinov2": {"timm"}}


@pytest.mark.parametrize("path", modules("gan"), ids=str)
def test_the_library_knows_nobody(path: Path) -> None:
    foreign = tops(path) - set(sys.stdlib_module_names) - {"gan", "numpy", "torch", "safetensors"}
    assert foreign == (NETWORKS.get(path.stem, set()) if path.parent.name == "features" else set())


@pytest.mark.parametrize("path", modules("stages"), ids=str)
def test_rooms_know_the_library_and_no_other_room(path: Path) -> None:
    assert not tops(path) & (ORCHESTRATORS | {"flows", "infra", "benchmarks", "tests"})
    own = path.relative_to(PROJECT / "stages").parts[0].removesuffix(".py")
    named = {name.split(".")[1] for name in imported(path) if name.startswith("stages.")}
    assert named - SHARED <= {own}, "stages meet in files, they never import each other"


@pytest.mark.parametrize("path", modules("consumer"), ids=str)
def test_the_consumer_is_light(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"consumer", "gan", "numpy", "onnxruntime", "PIL"}
    if path.name == "registry.py":
        allowed |= {"mlflow"}
    assert tops(path) <= allowed
    assert {name for name in imported(path) if name.startswith("gan.")} <= {
        "gan.latents", "gan.pixels", "gan.latents.labels", "gan.latents.latents", "gan.pixels.at_once",
        "gan.pixels.to_uint8",
    }  # fmt: skip


@pytest.mark.parametrize("package", ["gan", "stages", "consumer", "infra", "benchmarks"])
def test_orchestrators_stay_at_the_edge(package: str) -> None:
    for path in modules(package):
        if path != PROJECT / "consumer" / "registry.py":
            assert not tops(path) & ORCHESTRATORS, path


@pytest.mark.parametrize("package", ["work", "tracking", "promotion", "upkeep"])
def test_what_stands_behind_knows_no_command(package: str) -> None:
    """Of what stands in front the packages of `flows` know the state folder alone."""
    behind = {"work", "tracking", "promotion", "upkeep", "state"}
    for path in modules(f"flows/{package}"):
        assert {name.split(".")[1] for name in imported(path) if name.startswith("flows.")} <= behind, path


def loaded_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nimport json\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    return set(json.loads(answer.stdout))


HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "pandas", "great_expectations", "sklearn"} | ORCHESTRATORS


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import gan, stages", HEAVY | {"numpy", "yaml"}),
        ("import stages.config", HEAVY | {"numpy"}),
        *((f"import stages.{room}, stages.config.{room}", HEAVY) for room in ROOMS),
        ("import gan.latents, gan.pixels, gan.metrics", HEAVY),
        ("from consumer import Generator", {"torch", "pandas", "mlflow", "onnx", "yaml", "scipy", "sklearn"}),
    ],
)
def test_imports_stay_cheap(statement: str, absent: set[str]) -> None:
    assert not loaded_after(statement) & absent


def test_train_needs_only_what_a_gpu_node_has() -> None:
    loaded = {name.split(".")[0] for name in loaded_after("import stages.train._work")}
    allowed = {"torch", "numpy", "safetensors", "yaml", "PIL", "tqdm", "gan", "stages"}
    needs = (PROJECT / "requirements" / "train.lock").read_text()
    third_party = {name for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names)
    for path in modules("stages/train"):
        assert tops(path) <= allowed | set(sys.stdlib_module_names)
    assert not third_party & {"pandas", "sklearn", "pyarrow", "onnx", "onnxruntime", "jinja2", "great_expectations"}
    assert all(f"\n{name}==" in f"\n{needs}" for name in ("torch", "numpy", "safetensors", "pyyaml", "pillow", "tqdm"))


def test_the_same_words_name_stage_room_folder_and_section() -> None:
    dag = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(dag) == STAGES
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    assert list(params) == [*STAGES, "compare", "promote", "retrain"]
    for name, stage in dag.items():
        assert stage["cmd"].startswith(f"python -m stages.{name} ") and f"--out data/{name}" in stage["cmd"]
        assert stage["desc"] and stage["params"] == [name]
        outputs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
        assert all(out == f"data/{name}" or out.startswith(f"data/{name}/") for out in outputs)
        assert "\n" not in stage["cmd"] and ";" not in stage["cmd"]
    folders = {path.name for path in (PROJECT / "stages").iterdir() if (path / "__main__.py").is_file()}
    assert folders == {*ROOMS, "config"}  # which checks the settings of all


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_one_front_door(room: str) -> None:
    assert importlib.import_module(f"stages.{room}").__all__ == ["run"]


@pytest.mark.parametrize("section", [*ROOMS, "promote", "retrain"])
def test_every_section_of_params_is_sound(section: str) -> None:
    module = importlib.import_module(f"stages.config.{section}")
    load_section(getattr(module, f"{section.capitalize()}Config"), PROJECT / "params.yaml", section)


def test_locks_name_no_index_and_carry_hashes() -> None:
    for path in (PROJECT / "requirements").glob("*.lock"):
        text = path.read_text()
        assert "://" not in text and "--index" not in text, path
        pins = re.split(r"\n(?=[a-z0-9])", text)
        assert pins and all("==" in pin and "--hash=sha256:" in pin for pin in pins), path
    pinned = {}
    for path in sorted((PROJECT / "requirements").glob("*.lock")):
        for line in path.read_text().splitlines():
            if "==" in line and not line.startswith((" ", "#")):
                name, version = line.split(" ")[0].split("==")
                assert pinned.setdefault(name, version) == version, f"{path}: one resolution, one version of {name}"


DISTRIBUTIONS = {
    "PIL": "pillow", "google": "protobuf", "great_expectations": "great-expectations",
    "onnxruntime": "onnxruntime-gpu", "yaml": "pyyaml",
}  # fmt: skip


@pytest.mark.parametrize(("stage", "files"), declared_by_stage(PROJECT).items(), ids=STAGES)
def test_a_stage_depends_on_the_lock_that_pins_what_it_imports(stage: str, files: set[str]) -> None:
    deps = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    (lock,) = (PROJECT / dep for dep in deps if dep.startswith("requirements/"))
    pinned = {line.split("==")[0] for line in lock.read_text().splitlines() if "==" in line}
    used = {name for file in files if file.endswith(".py") for name in tops(PROJECT / file)}
    foreign = used - set(sys.stdlib_module_names) - {"gan", "stages", "consumer", "timm"}  # timm: the extra `dinov2`
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= pinned


def test_both_runtimes_are_never_locked_together() -> None:
    for path in (PROJECT / "requirements").glob("*.lock"):
        names = {line.split("==")[0] for line in path.read_text().splitlines() if "==" in line}
        assert not {"onnxruntime", "onnxruntime-gpu"} <= names, path
