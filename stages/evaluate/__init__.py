"""Room 6: how good the images of an ONNX generator are, and how sure that is."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.evaluate import EvaluateConfig

__all__ = ["run"]


def run(config: EvaluateConfig, *, onnx: Path, reference: Path, out: Path, curves: Path | None = None) -> Summary:
    """Score an ONNX generator against held-out real images, and make a page of pictures to judge it by eye.

    Draws `evaluate.sets` independent sets of the size that the reference states, with labels from the serving prior,
    and trains a classifier on generated images alone. `evaluate.published` names further protocols on published
    networks, whose features are computed by all of torchrun's processes together. Each number carries its interval, its
    protocol, and what real images reach at the same size. `curves` is train's curves.csv, shown on the page. Writes
    `metrics.json` (flat), `evaluation.json` (everything), `index.html` (a single file) and the page's pictures as PNG.
    Raises ValueError if file and reference do not belong together, or a protocol is unknown or lacks its features.
    """
    from stages.evaluate._work import evaluate

    return evaluate(config, onnx=onnx, reference=reference, out=out, curves=curves)
