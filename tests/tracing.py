"""Which of the project's files does each stage load? Asked of the stages themselves while `dvc repro` runs them."""

import json
import os
from collections import defaultdict
from pathlib import Path

import yaml

_HOOK = """
import atexit, json, os, pathlib, sys

def _write():
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    report = {"argv": sys.orig_argv, "files": sorted({str(pathlib.Path(f).resolve()) for f in files if f})}
    pathlib.Path(os.environ["TRACE_FOLDER"], f"{os.getpid()}.json").write_text(json.dumps(report))

if "TRACE_FOLDER" in os.environ:
    atexit.register(_write)
"""


def tracing(env: dict[str, str], folder: Path) -> dict[str, str]:
    """`env` changed so that every Python process started under it reports into `folder` what it loaded."""
    hook = folder / "hook"
    hook.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(_HOOK)
    return env | {"PYTHONPATH": str(hook), "TRACE_FOLDER": str(folder)}


def loaded_by_stage(project: Path, folder: Path) -> dict[str, set[str]]:
    """Project files that `python -m stages.X` loaded, relative to `project`, by stage."""
    loaded: dict[str, set[str]] = defaultdict(set)
    for report in folder.glob("*.json"):
        content = json.loads(report.read_text())
        names = [argument for argument in content["argv"] if argument.startswith("stages.")]
        if names and "-m" in content["argv"]:
            files = [Path(name) for name in content["files"]]
            inside = {
                str(path.relative_to(project)) for path in files if path.is_relative_to(project) and path.is_file()
            }
            loaded[names[0].removeprefix("stages.")] |= inside
    return dict(loaded)


def declared_by_stage(project: Path) -> dict[str, set[str]]:
    """Code files that dvc.yaml names as dependencies of each stage, folders spelt out, by stage."""
    dag = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    params = yaml.safe_load((project / "params.yaml").read_text())
    declared = {}
    for stage, content in dag.items():
        files: set[str] = set()
        for dep in content["deps"]:
            for section, setting in (("train", "network"), ("train", "loss"), ("ingest", "source")):
                dep = dep.replace(f"${{{section}.{setting}.name}}", params[section][setting]["name"])
            if dep.startswith(("data/", "requirements/")):
                continue
            path = project / dep
            found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            files |= {os.fspath(p.relative_to(project)) for p in found if "__pycache__" not in p.parts}
        declared[stage] = files
    return declared
