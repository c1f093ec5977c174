"""What generator and reference must share before the one is judged by the other."""

from pathlib import Path

from consumer import Generator
from stages.reference_folder import Reference
from stages.scoring import SET_METRICS


def check_pair(generator: Generator, onnx: Path, reference: Reference) -> None:
    """Raises ValueError for a generator that this reference cannot judge."""
    about = reference.info["extractor"]
    mine = (generator.metadata.get("data_hash"), generator.resolution, generator.channels)
    theirs = (reference.info["data_hash"], about["resolution"], about["channels"])
    for name, found, wanted in zip(("data hash", "resolution", "channels"), mine, theirs, strict=True):
        if found != wanted:
            raise ValueError(
                f"{onnx} and {reference.path} do not belong together: {name} {found} against {wanted}; give the files "
                "of one run"
            )
    if generator.classes and reference.classes and generator.classes != reference.classes:
        raise ValueError(
            f"{onnx} and {reference.path} differ in classes: {', '.join(generator.classes[:20])} against "
            f"{', '.join(reference.classes[:20])}; give the files of one run"
        )


def check_floors(reference: Reference) -> None:
    """Raises ValueError for a reference that was made before some of today's metrics, or of what they need."""
    missing = [f"floors of {name}" for name in SET_METRICS if name not in reference.info["floors"]]
    if not (reference.path / "labels-train.npy").is_file():
        missing.append("labels-train.npy")
    if missing:
        raise ValueError(
            f"{reference.path} has no {', '.join(missing)}; it was made before there were any: run `python -m "
            "stages.reference` again"
        )
