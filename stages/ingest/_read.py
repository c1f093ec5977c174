"""All files of a raw folder to rows and pixels, and which of them are kept."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from tqdm import tqdm

from stages.config.ingest import Splits
from stages.ingest._decode import Rules, decode
from stages.ingest._folder import File, Refused
from stages.store import SPLITS


@dataclass(frozen=True)
class Row:
    """One decoded file; hashes are hex SHA-256, sizes are those of the file in pixels."""

    source: str
    class_name: str
    sha256: str  # of the file's bytes
    pixels: str  # of the stored pixels
    split: int  # place in SPLITS
    width: int
    height: int
    place: int  # of its pixels in the scratch file, counted in images


def read_images(
    files: Sequence[File], scratch: BinaryIO, rules: Rules, splits: Splits
) -> tuple[list[Row], list[tuple[str, str]], list[tuple[str, str]]]:
    """Rows of all usable files in order, (source, reason) of the others, and (sha256, source) of all that were read.

    The pixels of the rows go to `scratch`, uint8 images of one size, one after the other.
    """
    rows: list[Row] = []
    refused, read = [], []
    for file in tqdm(files, desc="ingest", unit="image", disable=None):
        try:
            content = read_bytes(file, rules.max_bytes)
            sha = hashlib.sha256(content).hexdigest()
            read.append((sha, file.source))
            image, width, height = decode(content, file.path.name, rules)
        except Refused as reason:
            refused.append((file.source, str(reason)))
            continue
        pixels = image.tobytes()
        scratch.write(pixels)
        rows.append(
            Row(file.source, file.class_name, sha, hashlib.sha256(pixels).hexdigest(), split_of(sha, splits), width,
                height, len(rows))
        )  # fmt: skip
    return rows, refused, read


def read_bytes(file: File, most: int) -> bytes:
    """A file's bytes, of which there are at most `most`. Raises Refused where it is larger or cannot be read."""
    try:
        size = file.path.stat().st_size
        if size > most:
            raise Refused(f"too large: {size:,} bytes, more than ingest.max_pixels of honest pixels take")
        return file.path.read_bytes()
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror}") from None


def split_of(sha256: str, splits: Splits) -> int:
    """Place in SPLITS that the first 64 bits of a content hash, as a fraction of 2**64, fall into.

    It depends on nothing else, so an image never changes sides when others come or go.
    """
    fraction = int(sha256[:16], 16) / 2**64
    if fraction < splits.train:
        return SPLITS.index("train")
    return SPLITS.index("fit" if fraction < splits.train + splits.fit else "heldout")


def without_copies(rows: Iterable[Row]) -> tuple[list[Row], list[tuple[str, str]], list[tuple[str, str]]]:
    """Rows with distinct pixels, (copy, kept) of the exact duplicates, and (source, reason) of contradictions.

    Of equal pictures in files that fall on different sides, the one furthest from training is kept; the same picture
    in two classes has no label that could be believed, so that all of its copies are refused.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.pixels].append(row)
    kept, copies, refused = [], [], []
    for group in groups.values():
        first, last = group[0], next((row for row in group if row.class_name != group[0].class_name), None)
        if last is not None:
            for row in group:
                other = last if row.class_name == first.class_name else first
                refused.append((row.source, f"contradiction: the same picture lies in another class, {other.source}"))
            continue
        chosen = max(group, key=lambda row: (row.split, -row.place))
        kept.append(chosen)
        copies += [(row.source, chosen.source) for row in group if row is not chosen]
    return sorted(kept, key=lambda row: row.place), copies, refused
