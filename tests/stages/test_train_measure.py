"""Measures while training: a pass takes fewer of large images, so that its memory does not grow with the pixels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.train._measure import _separation, drawn

pytestmark = pytest.mark.fast


class Counting(nn.Module):
    """A network of either side that remembers how many it was shown at once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.seen = shape, list[int]()

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append(len(x))
        return torch.zeros(len(x), *self.shape)


class Real:
    """A split of the images [N, H, W, C]."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, places: np.ndarray) -> np.ndarray:
        return self.images[places]


@pytest.mark.parametrize(("resolution", "group", "most"), [(64, 1, 256), (128, 1, 64), (256, 1, 16), (256, 12, 12)])
def test_a_pass_holds_fewer_images_of_more_pixels(resolution: int, group: int, most: int) -> None:
    """The store says how large images are; those of the test are small, and nothing looks at them."""
    fake = np.zeros((600, 4, 4, 1), np.uint8)
    store = SimpleNamespace(info={"resolution": resolution}, splits={"train": Real(fake)})
    discriminator = Counting(())
    assert _separation(discriminator, fake, None, store, "cpu", group) == 0.5  # type: ignore[arg-type]
    assert max(discriminator.seen) == most and sum(discriminator.seen) == 2 * (600 // group * group)
    generator = Counting((1, 4, 4))
    assert len(drawn(generator, np.zeros((600, 3), np.float32), None, "cpu", most)) == 600
    assert max(generator.seen) == most
