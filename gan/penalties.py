"""Gradient penalties on the discriminator, exact and at every step.

Zero-centred (Mescheder, Geiger, Nowozin 2018): R = gamma / 2 * mean_i |grad_x D(x_i)|^2, R1 on real images, R2 on
generated ones; both sides share one backward pass over the joined batch. One-centred (Gulrajani et al. 2017, WGAN-GP):
gamma * mean_i (|grad_x D(x_i)| - 1)^2 at random points between a real image and its generated partner.
"""

import torch
from torch import Tensor

SIDES = {"r1": "real", "r2": "fake", "wgan_gp": "between"}


def squared_gradients(logits: Tensor, images: Tensor) -> Tensor:
    """|grad D|^2 of each image, summed over C, H, W: [N]; differentiable, so that D can be trained on it.

    `logits` [N] must come from `images` [N, C, H, W] (with requires_grad), and logit i from image i alone.
    """
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.square().sum(dim=(1, 2, 3))


def penalty(squared: Tensor, gamma: float) -> Tensor:
    """gamma / 2 * mean of the squared gradient norms [N]: a scalar."""
    return squared.mean() * (gamma / 2)


def one_centred(squared: Tensor, gamma: float) -> Tensor:
    """gamma * mean of (norm - 1)^2 from squared gradient norms [N]: a scalar."""
    norms = (squared + 1e-12).sqrt()  # the root's own slope is infinite at 0
    return (norms - 1).square().mean() * gamma
