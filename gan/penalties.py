"""Zero-centred gradient penalties (Mescheder, Geiger, Nowozin 2018): R1 on real images, R2 on generated ones.

R = gamma / 2 * mean_i |grad_x D(x_i)|^2, every step, exact. Both sides share one backward pass over the joined batch.
"""

import torch
from torch import Tensor

SIDES = {"r1": "real", "r2": "fake"}


def squared_gradients(logits: Tensor, images: Tensor) -> Tensor:
    """|grad D|^2 of each image, summed over C, H, W: [N]; differentiable, so that D can be trained on it.

    `logits` [N] must come from `images` [N, C, H, W] (with requires_grad), image i alone deciding logit i.
    """
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.square().sum(dim=(1, 2, 3))


def penalty(squared: Tensor, gamma: float) -> Tensor:
    """gamma / 2 * mean of the squared gradient norms [N]: a scalar."""
    return squared.mean() * (gamma / 2)
