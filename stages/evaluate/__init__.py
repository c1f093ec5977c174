"""Room 6: how good the images of an ONNX generator are, and how sure that is."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.evaluate import EvaluateConfig

__all__ = ["run"]


def run(config: EvaluateConfig, *, onnx: Path, reference: Path, out: Path) -> Summary:
    """Score an ONNX generator against held-out real images, and make a page of pictures to judge it by eye.

    Draws `evaluate.sets` independent sets of as many images as are held out, with labels from the serving prior, and
    trains a classifier on generated images alone. Each number carries its interval, its protocol, and what real images
    reach at the same size. Writes `metrics.json` (flat), `evaluation.json` (everything), `index.html` (opens alone)
    and the picture grids.
    Raises ValueError where file and reference do not belong together.
    """
    from stages.evaluate._work import evaluate

    return evaluate(config, onnx=onnx, reference=reference, out=out)
