"""Ingest: a folder of images in, the image store out."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.ingest import IngestConfig

__all__ = ["run"]


def run(config: IngestConfig, *, raw: Path, datasheet: Path, erased: Path | None = None, out: Path) -> Summary:
    """Read the raw images that a datasheet describes and write the image store.

    Exact duplicates are removed, unusable files are listed in quarantine.csv with a reason, and each image's split
    follows from the SHA-256 of its content, or of its group if there are groups. `erased` lists images that must never
    come back. Raises ValueError if the datasheet is incomplete, describes other images or does not allow the declared
    use, if too much is refused, or if nothing is kept.
    """
    from stages.ingest._again import ingested

    return ingested(config, raw, datasheet, erased, out)
