"""What generator and reference must share before one is judged by the other."""

from pathlib import Path

from consumer import Generator
from stages.reference_folder import Reference
from stages.scoring import SET_METRICS


def check_pair(generator: Generator, onnx: Path, reference: Reference) -> None:
    """Raise ValueError for a generator that this reference cannot judge.

    One that was trained on older data can be judged: held-out images stay held out. It is the card that checks that a
    verdict rests on the data of one run.
    """
    about = reference.info["extractor"]
    for name, found in (("resolution", generator.resolution), ("channels", generator.channels)):
        if found != about[name]:
            raise ValueError(
                f"{onnx} and {reference.path} do not belong together: {name} {found} against {about[name]}; run "
                "`python -m stages.reference` on images like those that the generator draws"
            )
    if generator.classes and reference.classes and generator.classes != reference.classes:
        raise ValueError(
            f"{onnx} and {reference.path} differ in classes: {', '.join(generator.classes[:20])} against "
            f"{', '.join(reference.classes[:20])}; run `python -m stages.reference` on images of its classes"
        )


def check_floors(reference: Reference) -> None:
    """Raise ValueError for a reference that was made before some of today's metrics existed."""
    missing = [name for name in SET_METRICS if name not in reference.info["floors"]]
    if missing:
        raise ValueError(
            f"{reference.path} has no floors of {', '.join(missing)}; it was made by a version without them: run "
            "`python -m stages.reference` again"
        )
