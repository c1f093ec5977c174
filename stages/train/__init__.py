"""Train a GAN on the train split and keep the moving average of its generator."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.train import TrainConfig

__all__ = ["run"]


def run(
    config: TrainConfig,
    *,
    images: Path,
    passed: Path,
    out: Path,
    selection: Path | None = None,
    init: Path | None = None,
    adopt: str | None = None,
) -> Summary:
    """Train a GAN on the train split of the image store `images` and write the generator, curves and sample grids.

    `passed` is validate's verdict on the same images; `selection` the folder of that name which reference wrote, for a
    run that is measured while it trains (`train.selection`); `init` the networks that it begins with (`train.init`);
    left out, the two are `train.selection_inputs` and `train.init_from`. `adopt` names other work in the state folder
    that it goes on with under these settings. A run that was stopped, in whatever way, goes on from its last checkpoint
    in the state folder and ends with the same bytes on a CPU. With several processes (`train.processes`, or torchrun's)
    each computes a share of every batch. Raises ValueError where the images were not validated, FloatingPointError
    where training diverged or collapsed, going back did not help, and there is no best moment to publish.
    """
    from stages.train._launch import launched
    from stages.train._stopper import saved_so_far
    from stages.train._work import train

    inputs = {"images": images, "passed": passed, "selection": selection, "init": init, "adopt": adopt}
    with saved_so_far():
        return launched(config, inputs, out=out) or train(
            config,
            images=images,
            passed=passed,
            out=out,
            selection=selection or Path(config.selection_inputs),
            init=init or Path(config.init_from),
            adopt=adopt,
        )
