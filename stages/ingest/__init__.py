"""Ingest: a folder of images in, the image store out."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.ingest import IngestConfig

__all__ = ["run"]


def run(config: IngestConfig, *, raw: Path, datasheet: Path, erased: Path | None = None, out: Path) -> Summary:
    """Read raw images under their datasheet and write the image store.

    Exact duplicates are removed, what cannot be used is listed in quarantine.csv with a reason, and every image's
    split follows from the SHA-256 of its own content. `erased` lists images that must never come back. Raises
    ValueError where the datasheet is not whole, describes other images or does not allow the declared use, where too
    much is refused, and where nothing is kept.
    """
    from stages.ingest._again import ingested

    return ingested(config, raw, datasheet, erased, out)
