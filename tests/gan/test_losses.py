"""Each loss: its value in closed form, its gradient against finite differences, its settings."""

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gan.losses

pytestmark = pytest.mark.fast
NAMES = sorted(path.stem for path in Path(str(gan.losses.__file__)).parent.glob("[!_]*.py"))
L = math.log1p(math.exp(2)), math.log1p(math.exp(-2))  # softplus of 2 and of -2
# For a real logit of 2 and a generated one of 0: the discriminator's loss, then the generator's.
VALUES = {
    "relativistic": (L[1], L[0]),
    "non_saturating": (L[1] + math.log(2), math.log(2)),
    "minimax": (L[1] + math.log(2), -math.log(2)),
    "hinge": (1.0, 0.0),
    "least_squares": (0.5, 0.5),
    "wasserstein": (-2.0, 0.0),
}


def loss(name: str, **settings: Any) -> Any:
    return importlib.import_module(f"gan.losses.{name}").Config(**settings)


@pytest.mark.parametrize("name", NAMES)
def test_values_in_closed_form(name: str) -> None:
    real, fake = torch.tensor([2.0, 2.0]), torch.tensor([0.0, 0.0])
    found = loss(name).discriminator_loss(real, fake).item(), loss(name).generator_loss(real, fake).item()
    assert found == pytest.approx(VALUES[name])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    real, fake = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.3, -2.0, 3.0], [1.2, -0.4, -5.0])
    )
    for function in (loss(name).discriminator_loss, loss(name).generator_loss):
        assert torch.autograd.gradcheck(function, (real, fake), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_down_raises_what_it_should(name: str) -> None:
    real, fake = (torch.full((4,), 0.25, requires_grad=True) for _ in range(2))
    loss(name).discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # real logits up, generated ones down
    fake = torch.full((4,), 0.25, requires_grad=True)
    loss(name).generator_loss(real.detach(), fake).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", ["non_saturating", "minimax", "least_squares"])
def test_smoothed_targets_move_the_best_answer(name: str) -> None:
    smooth = loss(name, real_target=0.9, fake_target=0.1)
    for side, target in (("real", 0.9), ("fake", 0.1)):
        logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        found = target if name == "least_squares" else math.log(target / (1 - target))
        with torch.no_grad():
            logit.fill_(found)
        other = torch.zeros(1, dtype=torch.float64)
        smooth.discriminator_loss(*((logit, other) if side == "real" else (other, logit))).backward()
        assert abs(logit.grad.item()) < 1e-12
    with pytest.raises(ValueError, match=r"real_target must be a share >= 0 and <= 1; received 1.1"):
        loss(name, real_target=1.1)


def test_where_the_discriminator_is_sure_minimax_fades_and_non_saturating_does_not() -> None:
    slopes = {}
    for name in ("minimax", "non_saturating"):
        fake = torch.full((1,), -10.0, requires_grad=True)
        loss(name).generator_loss(None, fake).backward()
        slopes[name] = -fake.grad.item()
    assert slopes["minimax"] < 1e-4 and slopes["non_saturating"] > 0.99
