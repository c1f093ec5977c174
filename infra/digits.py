"""`python -m infra.digits --out data/raw`: the default images, as PNG files with fixed bytes.

They are the 1,797 UCI handwritten digits that ship inside scikit-learn (8x8, levels 0 to 16; E. Alpaydin and
C. Kaynak, doi:10.24432/C50P49). Level v becomes round(v * 255 / 16). The files hold stored (uncompressed) blocks and
are written here byte by byte, because Pillow's compressed bytes differ between builds of zlib.
"""

import argparse
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml

PARTIAL = ".digits.partial"  # hidden, so that no reader takes a half-written set for the images
COVERS = "a050e20994f0981b8d69bf1772125e02ea77cf5e64fa6eaa90fe670519553ea9"  # the key `covers` of the digits' datasheet
OTHERS = 3  # exit code if other images belong there


class OtherImages(Exception):
    """Other images belong in the folder; the message says which and what to do."""


def check_theirs(raw: Path, datasheet: Path) -> None:
    """Raise OtherImages unless `datasheet` is that of the digits and DVC tracks nothing else as `raw`."""
    pointer = raw.with_name(f"{raw.name}.dvc")
    if pointer.exists():
        raise OtherImages(f"{raw} is empty, and {pointer} says what belongs there; fetch it: `dvc pull {pointer}`")
    try:
        sheet = yaml.safe_load(datasheet.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        sheet = None
    if not isinstance(sheet, dict) or sheet.get("covers") != COVERS:
        raise OtherImages(
            f"{raw} is empty, and {datasheet} describes other images than the default digits; put your images there"
        )


def write_digits(raw: Path, datasheet: Path | None = None) -> int:
    """Write 0/digit-0000.png ... below `raw` and return how many, or 0 if `raw` already holds files.

    Hidden files do not count as files. A run that was killed is completed by the next one; nothing is overwritten. With
    `datasheet`, raises OtherImages unless it is that of the digits.
    """
    partial = raw / PARTIAL
    if raw.is_dir() and not partial.exists() and any(not path.name.startswith(".") for path in raw.iterdir()):
        return 0
    if datasheet is not None:
        check_theirs(raw, datasheet)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    written = 0
    for name, content in _files():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_bytes(content)
        written += 1
    for path in sorted(partial.glob("*/*.png")):
        target = raw / path.relative_to(partial)
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            path.replace(target)
    shutil.rmtree(partial)
    return written


def encode_png(levels: bytes, width: int, height: int) -> bytes:
    """An 8-bit greyscale PNG of `levels` (width * height bytes, row by row; at most 65,535 with a byte per row)."""
    rows = b"".join(b"\0" + levels[start : start + width] for start in range(0, width * height, width))
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", stored + struct.pack(">I", zlib.adler32(rows))), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _files() -> Iterator[tuple[str, bytes]]:
    """Path below the raw folder, and content, of every digit, in scikit-learn's order."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for index, (image, label) in enumerate(zip(levels, digits.target, strict=True)):
        yield f"{label}/digit-{index:04d}.png", encode_png(image.tobytes(), *image.shape[::-1])


def main() -> int:
    """Parse the command line, write, and say on stderr what happened.

    Exit code 0 done, 1 failed, 3 (OTHERS) other images belong in the folder."""
    parser = argparse.ArgumentParser(prog="python -m infra.digits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the class folders 0 to 9")
    parser.add_argument("--datasheet", type=Path, help="write only if this datasheet is that of the digits")
    options = parser.parse_args()
    out: Path = options.out
    try:
        count = write_digits(out, options.datasheet)
    except OtherImages as error:
        print(f"digits: {error}", file=sys.stderr)  # noqa: T201
        return OTHERS
    except OSError as error:
        print(f"digits: {error.filename or out}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    said = f"wrote {count:,} images to {out}" if count else f"{out} already holds files and was left as it is"
    print(f"digits: {said}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
