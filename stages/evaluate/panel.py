"""A blind test for people: which of these images are real? Makes the page that asks, and reads the answers back.

    python -m stages.evaluate.panel make --onnx FILE --reference DIR --out DIR [--images 100] [--seed N]
    python -m stages.evaluate.panel read --key key.json ANSWERS.json...

Exit codes as in all rooms: 0 done, 1 refused, 2 wrong usage. Results go to stdout as JSON, talk to stderr.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.common.command import pin_threads


def main(argv: Sequence[str] | None = None) -> int:
    """Parse options, make or read, and return the exit code."""
    options = _parser().parse_args(argv)
    pin_threads(1)
    try:
        if options.verb == "make":
            from stages.evaluate._panel_make import make

            seed = secrets.randbits(63) if options.seed is None else options.seed
            made = make(options.onnx, options.reference, out=options.out, images=options.images, seed=seed)
            print(f"hand out {made['page']} only, and keep {made['key']}, which says what is real", file=sys.stderr)  # noqa: T201
        else:
            from stages.evaluate._panel_read import read

            made = read(options.key, options.answers)
            print(made["reading"], file=sys.stderr)  # noqa: T201
    except (ValueError, OSError) as error:
        print(f"panel: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(made, indent=2, allow_nan=False))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    described = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate.panel", description=described[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser(
        "make", help="write panel.html, which shows the images, and key.json, which says what is real"
    )
    make.add_argument("--onnx", type=Path, required=True, help="ONNX file of the generator, as export writes it")
    make.add_argument("--reference", type=Path, required=True, help="folder of the stage reference")
    make.add_argument("--out", type=Path, required=True, help="folder to write; it must not hold another panel")
    make.add_argument("--images", type=int, default=100, help="images shown, an even number; half of them are real")
    make.add_argument("--seed", type=int, help="seed of choice and order; drawn at random if left out")
    read = verbs.add_parser("read", help="error rate of the answers, with its interval")
    read.add_argument("--key", type=Path, required=True, help="key.json that `make` wrote")
    read.add_argument("answers", type=Path, nargs="+", help="files that the page gave its raters, one per rater")
    return parser


if __name__ == "__main__":
    sys.exit(main())
