"""`python -m consumer`: draw images with an exported generator. JSON on stdout, messages on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, write, report; every refusal is one sentence on stderr."""
    options = _parser().parse_args(argv)
    began = time.perf_counter()
    try:
        result = _draw(options)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except ValueError as error:
        return _complain(str(error), 1)
    except OSError as error:  # a write that is cut short names neither the file nor the reason
        reason = error.strerror or f"{error}; is the disk full?"
        return _complain(f"{error.filename or options.out[0]}: {reason}", 1)
    except MemoryError:
        return _complain(
            f"{options.count} images do not fit into memory; draw fewer at a time, with --count and --start", 1
        )
    except ImportError as error:
        return _complain(f'{error}; install what is missing: python -m pip install "onnxruntime>=1.31" "pillow>=12"', 1)
    print(json.dumps({**result, "seconds": round(time.perf_counter() - began, 3)}))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m consumer", description="Draw images with an exported generator.")
    parser.add_argument("--model", required=True, help="generator.onnx, models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--count", type=_positive, default=64, help="images to draw (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="image i of a seed never changes (default 0)")
    parser.add_argument("--start", type=int, default=0, help="index of the first image (default 0)")
    parser.add_argument("--label", help="class name, or index if no class has that name; default: the serving prior")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", required=True, type=_target, help="grid.png, images.npy, or FOLDER/ for single PNGs")
    return parser


def _draw(options: argparse.Namespace) -> dict[str, Any]:
    out, folder = options.out
    target = out if folder else out.parent
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK) or (out.is_dir() and not folder):
        raise ValueError(f"{out} cannot be written; choose another --out")
    path, model = options.model, options.model
    if model.startswith("models:"):
        from consumer.registry import fetch  # the rest of the package does not know that registries exist

        path = fetch(model)
    from consumer import Generator
    from consumer._pictures import write_images

    generator = Generator(path, threads=options.threads)
    _say(f"{generator.name} runs on {generator.provider}")
    label = None if options.label is None else _label(options.label, generator.classes)
    images = generator.generate(options.count, options.seed, label, start=options.start)
    stem = f"{generator.name}-{options.seed}"
    files = write_images(out, images, stem=stem, start=options.start, folder=folder)
    return {
        "name": generator.name,
        "model": str(model),
        "sha256": generator.sha256,
        "provider": generator.provider,
        "count": len(images),
        "out": str(out),
        "files": len(files),
    }


def _label(text: str, classes: Sequence[str]) -> str | int:
    """A class name stays as it is; a whole number that is not a class name is an index."""
    return int(text) if text not in classes and text.lstrip("-").isdecimal() else text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; received {text}")
    return value


def _target(text: str) -> tuple[Path, bool]:
    """Where to write, and whether that is a folder of single files."""
    path = Path(text)
    if text.endswith("/") or path.is_dir():
        return path, True
    if path.suffix not in (".png", ".npy"):
        raise argparse.ArgumentTypeError(f"must end with .png, .npy or /; received {text}")
    return path, False


def _say(message: str) -> None:
    print(f"consumer: {message}", file=sys.stderr)  # noqa: T201


def _complain(message: str, code: int) -> int:
    _say(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
