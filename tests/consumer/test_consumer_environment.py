"""What the consumer needs: the standard library, numpy, onnxruntime, and Pillow to write PNG files."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import consumer

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("fixtures") / "generator-format-1.onnx"

# Every other package is made absent, stages and flows too, which a service does not install.
ALONE = """
import sys
import zipfile

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {allowed}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def alone(code: str, *allowed: str) -> "subprocess.CompletedProcess[str]":
    """Run `code` where only the packages `allowed` can be imported."""
    program = ALONE.format(allowed=set(allowed)) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)


def command(*arguments: str) -> str:
    return f"from consumer.__main__ import main\nsys.exit(main({list(arguments)!r}))"


@pytest.mark.fast
def test_exports_are_exactly_these() -> None:
    assert consumer.__all__ == ["Generator"]
    with pytest.raises(AttributeError, match="'consumer' has no attribute 'Generater'"):
        consumer.Generater  # noqa: B018


@pytest.mark.fast
def test_drawing_needs_numpy_and_onnxruntime_alone() -> None:
    code = f"from consumer import Generator; print(Generator({str(FILE)!r}).generate(3).sum())"
    done = alone(code, "consumer", "gan", "numpy", "onnxruntime")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == consumer.Generator(FILE).generate(3).sum(dtype=int)


@pytest.mark.fast
def test_the_command_needs_pillow_for_pictures_only(tmp_path: Path) -> None:
    request = ["--model", str(FILE), "--count", "3", "--out"]
    for name, *more in (("images.npy",), ("grid.png", "PIL")):
        done = alone(command(*request, str(tmp_path / name)), "consumer", "gan", "numpy", "onnxruntime", *more)
        assert done.returncode == 0 and json.loads(done.stdout)["count"] == 3
    done = alone(command(*request, str(tmp_path / "other.png")), "consumer", "gan", "numpy", "onnxruntime")
    assert done.returncode == 1 and done.stderr.endswith('python -m pip install "onnxruntime>=1.31" "pillow>=12"\n')
    assert not (tmp_path / "other.png").exists()


@pytest.mark.fast
def test_what_is_absent_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    out = str(tmp_path / "grid.png")
    done = alone(command("--model", str(FILE), "--out", out), "consumer", "gan", "numpy")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No module named 'onnxruntime'; install what is missing: python -m pip install" in done.stderr
    code = f"import os; os.environ['MLFLOW_TRACKING_URI'] = 'sqlite:///{tmp_path}/mlflow.db'\n"
    done = alone(code + command("--model", "models:/digits@champion", "--out", out), "consumer", "gan", "numpy")
    assert done.returncode == 1 and 'need mlflow: python -m pip install "mlflow>=3.17,<3.18"' in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv makes the environment")
def test_an_environment_from_the_lock_file_draws_the_same_images(tmp_path: Path) -> None:
    """A real environment with what requirements/serve-cpu.lock holds, and the two packages of ours beside it."""
    uv, environment = str(shutil.which("uv")), tmp_path / "venv"
    python = environment / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    lock = ROOT / "requirements" / "serve-cpu.lock"
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(lock)]
    subprocess.run(install, check=True)
    for package in ("consumer", "gan"):
        shutil.copytree(ROOT / package, tmp_path / "service" / package)
    request = ["-m", "consumer", "--model", str(FILE), "--count", "7", "--out", str(tmp_path / "images.npy")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run([python, *request], check=True, cwd=tmp_path / "service", env=clean)
    images = np.load(tmp_path / "images.npy", allow_pickle=False)
    assert np.abs(images.astype(int) - consumer.Generator(FILE).generate(7)).max() <= 1


def test_a_service_installs_the_consumer_and_its_library_and_no_more(tmp_path: Path) -> None:
    """Names such as `stages` or `flows` would be in the way of other people's."""
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if name.endswith((".py", ".toml", ".md", "LICENSE")) and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"consumer", "gan"}
