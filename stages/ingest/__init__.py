"""Ingest: a folder of images in, the image store out."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.ingest import IngestConfig

__all__ = ["run"]


def run(config: IngestConfig, *, raw: Path, datasheet: Path, out: Path) -> Summary:
    """Read a folder of PNG and JPEG images under its datasheet and write the image store.

    Exact duplicates are removed, what cannot be used is listed in quarantine.csv with a reason, and every image's
    split follows from the SHA-256 of its own file. Raises ValueError where the datasheet names no licence or legal
    basis or describes other images, where too much is refused, and where nothing is kept.
    """
    from stages.ingest._work import ingest

    return ingest(config, raw, datasheet, out)
