"""Train a GAN on the train split and keep the moving average of its generator."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.train import TrainConfig

__all__ = ["run"]


def run(config: TrainConfig, *, images: Path, passed: Path, out: Path) -> Summary:
    """Train a GAN on the train split of the image store `images` and write the generator, curves and sample grids.

    `passed` is validate's verdict on the same images. A run that was stopped, in whatever way, goes on from its last
    checkpoint in the state folder and ends with the same bytes on a CPU. Raises ValueError where the images were not
    validated, FloatingPointError where training diverged.
    """
    from stages.train._work import train

    return train(config, images=images, passed=passed, out=out)
