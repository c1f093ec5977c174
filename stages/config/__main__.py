"""`python -m stages.config`: all that params.yaml says, checked before any work begins.

A typing error in the last stage's section is reported now and not after a training. What only the data can show, such
as a batch larger than the training split, is reported by the stage itself.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.common.interrupt import Interrupted, interruptible
from stages.common.yaml_files import read_yaml
from stages.config import load_section
from stages.config.ingest import IngestConfig
from stages.config.train import TrainConfig

_KEPT_IN_GIT = ("data/datasheet.yaml", "data/erased.json", "data/baseline.json")


def check(project: Path) -> None:
    """Raise ValueError for the first fault in params.yaml of the folder `project`, for sections that nobody reads, and
    if a file that the pipeline starts from is missing."""
    params = project / "params.yaml"
    known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    sections = {}
    for name in known:
        module = importlib.import_module(f"stages.config.{name}")
        sections[name] = load_section(getattr(module, f"{name.title()}Config"), params, name)
    for name in read_yaml(params):
        if name not in known:
            raise ValueError(
                f"{params} has a section `{name}` that no stage reads; remove it, the sections are {', '.join(known)}"
            )
    _check_sizes(sections["ingest"], sections["train"])
    for name in _KEPT_IN_GIT:
        if not (project / name).is_file():
            raise ValueError(f"{project / name} is missing; restore it with `git checkout {name}`")


def _check_sizes(ingest: IngestConfig, train: TrainConfig) -> None:
    """Raise ValueError if the network of `train` cannot draw what `ingest` stores. Nothing is allocated."""
    import torch

    from gan import networks

    shape = {"resolution": ingest.resolution, "channels": ingest.channels, "classes": 0}
    architecture = networks.describe(train.network)
    try:
        with torch.device("meta"):
            networks.build_generator(architecture, z_dim=train.z_dim, **shape)
            networks.build_discriminator(architecture, **shape)
    except ValueError as error:
        raise ValueError(f"train: {error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 with a sentence, or 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m stages.config", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), help="folder that holds params.yaml")
    options = parser.parse_args(argv)
    interruptible(signal.SIGINT)
    try:
        check(options.project)
    except (ValueError, OSError) as error:
        print(f"config: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except Interrupted:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
