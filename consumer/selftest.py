"""`python -m consumer.selftest`: measures a generator file where it will be served; JSON on stdout.

With `--record FOLDER` the images of a fixed seed are kept there; with `--expect FOLDER` they are drawn again and
compared, so that another machine, or another version of onnxruntime, can tell whether it serves the same generator.
Needs numpy and onnxruntime alone. Exit codes: 0 measured, 1 refused, 2 wrong usage, 3 something is not installed.
"""

import argparse
import hashlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED, COUNT = 4_000_037, 8  # of the self-test images, drawn from the serving prior
CALLS = 20  # of one image each; their median is the latency
IMAGES, ABOUT = "images.npy", "selftest.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; every refusal is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m consumer.selftest", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="generator.onnx")
    parser.add_argument("--record", type=Path, help="folder to write the self-test images to")
    parser.add_argument("--expect", type=Path, help="folder with self-test images to compare with")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    options = parser.parse_args(argv)
    try:
        found = measure(options.model, record=options.record, expect=options.expect, threads=options.threads)
    except (ValueError, OSError, ImportError) as error:
        print(f"selftest: {error}", file=sys.stderr)  # noqa: T201
        return 3 if isinstance(error, ImportError) else 1
    print(json.dumps(found, sort_keys=True))  # noqa: T201
    return 0


def measure(model: Path, *, record: Path | None = None, expect: Path | None = None, threads: int = 1) -> dict[str, Any]:
    """Load the file, time it, and draw its self-test images.

    `load_seconds`: from the file to a session that can draw, including the import of onnxruntime. `latency_ms`: median
    of CALLS calls for one image on the CPU. `max_levels`: greatest difference from the expected images, in 8-bit
    levels, or None without `expect`. Raises ValueError if the file cannot be used or the images are another file's.
    """
    began = time.perf_counter()
    from consumer import Generator

    generator = Generator(model, providers=["CPUExecutionProvider"], threads=threads)
    loaded = time.perf_counter() - began
    images = generator.generate(COUNT, SEED)
    if record is not None:
        _record(record, images, generator.sha256)
    import numpy
    import onnxruntime

    return {
        "format": 1,
        "name": generator.name,
        "sha256": generator.sha256,
        "size_bytes": model.stat().st_size,
        "load_seconds": round(loaded, 4),
        "latency_ms": round(_latency(generator) * 1000, 4),
        "max_levels": _levels(expect, images, generator.sha256) if expect is not None else None,
        "provider": generator.provider,
        "versions": {
            "python": platform.python_version(), "numpy": numpy.__version__, "onnxruntime": onnxruntime.__version__
        },
    }  # fmt: skip


def _latency(generator: Any) -> float:
    """Median seconds of a call for one image."""
    seconds = []
    for call in range(CALLS + 1):
        began = time.perf_counter()
        generator.generate(1, SEED, start=call)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])  # the first call warms up


def _record(folder: Path, images: "NDArray[np.uint8]", sha256: str) -> None:
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / IMAGES, images)
    about = {"format": 1, "onnx_sha256": sha256, "seed": SEED, "count": COUNT, "images_sha256": _digest(images)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _levels(folder: Path, images: "NDArray[np.uint8]", sha256: str) -> int:
    import numpy as np

    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    expected: NDArray[np.uint8] = np.load(folder / IMAGES, allow_pickle=False)
    wanted = {"format": 1, "onnx_sha256": sha256, "seed": SEED, "count": COUNT}
    if not isinstance(about, dict) or {key: about.get(key) for key in wanted} != wanted:
        raise ValueError(
            f"{folder} holds self-test images of another ONNX file or format; record this file's with --record"
        )
    if about.get("images_sha256") != _digest(expected):
        raise ValueError(f"{folder / IMAGES} was changed after it was recorded; record it again")
    if expected.shape != images.shape:
        raise ValueError(f"the self-test images have shape {images.shape}; expected {expected.shape}")
    return int(np.abs(images.astype(np.int16) - expected).max(initial=0))


def _digest(images: "NDArray[np.uint8]") -> str:
    return hashlib.sha256(f"{images.dtype}{images.shape}".encode() + images.tobytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
