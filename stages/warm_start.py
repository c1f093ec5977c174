"""`python -m stages.warm_start`: copy published networks to data/init and print the digest that pins them.

A training that begins with them names that digest as `train.init.sha256` and the folder as `train.init_from`, so that
it depends on these bytes and on nothing that may move. With `--onnx` the copy is refused unless that file was exported
from these very networks. `python -m flows.warm_start` does all of this for a version in the registry.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from consumer._wire import read_metadata
from stages.common.files import digest, output_folder, read_json, write_json
from stages.generator_folder import DESCRIPTION, FILES, input_digest


def copy(source: Path, out: Path, onnx: Path | None = None, *, version: str | None = None) -> str:
    """Copy the networks in `source` to `out`; returns the digest of `out`. `version` is what a registry calls them; it
    is added to their description. Raises ValueError if they are not whole, are not those that `onnx` was exported from,
    or `out` holds other files."""
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise ValueError(f"{source} lacks {', '.join(missing)}; name the folder `generator` of a training's output")
    about = read_json(source / DESCRIPTION, needs=("architecture", "ancestry"))
    for name in FILES[1:]:
        try:
            with safe_open(source / name, "np"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{source / name} holds no whole networks ({error}); copy it again") from None
    if onnx is not None:
        found = input_digest(source)
        stated = read_metadata(onnx.read_bytes()).get("input_digest")
        if stated != found:
            raise ValueError(f"{onnx} was exported from networks of digest {stated}; those in {source} have {found}")
    if out.is_file() or (out.is_dir() and {path.name for path in out.iterdir()} - set(FILES)):
        raise ValueError(f"--out {out} holds other files, which would be lost; name a new or an empty folder")
    with output_folder(out) as work:
        for name in FILES:
            shutil.copyfile(source / name, work / name)
        if version is not None:
            write_json(work / DESCRIPTION, about | {"model_version": version})
    return digest(out)


def settings(sha256: str, out: Path) -> str:
    """The two settings of section `train` that begin with the networks in `out`, as JSON, which is also YAML."""
    return json.dumps({"init": {"name": "weights", "sha256": sha256}, "init_from": str(out)})


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m stages.warm_start", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder, such as data/train/generator")
    parser.add_argument("--onnx", type=Path, help="file that must have been exported from it, such as the champion's")
    parser.add_argument("--out", type=Path, default=Path("data/init"), help="folder to write")
    options = parser.parse_args(argv)
    try:
        sha256 = copy(options.source, options.out, options.onnx)
    except (ValueError, OSError) as error:
        print(f"warm_start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(settings(sha256, options.out))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
