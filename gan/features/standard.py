"""The scaling of pixels that networks trained on ImageNet share."""

from torch import Tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as shares of full scale; R, G, B


def standardized(x: Tensor) -> Tensor:
    """Levels 0 ... 255 [N, 3, H, W] minus ImageNet's mean, divided by its deviation, per channel."""
    mean, deviation = (x.new_tensor([255 * v for v in values]).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (x - mean) / deviation
