"""A weight that is learned: where it begins, what it ends at, and that it is never rounded."""

import math

import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain
from onestep.methods.core.learned_weighting import LearnedWeighting, LogError
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap

WEIGHTING = LearnedWeighting(waves=8, offset=0.01)


def fresh() -> LogError:
    made = WEIGHTING.companion(GaussianMap(mean=[0.0], std=1.0, domain=Domain()))
    assert isinstance(made, LogError)
    return made.double()


def usual(s: Tensor, t: Tensor) -> Tensor:
    """The mean error of these tests."""
    return torch.exp(2.0 * torch.cos(torch.pi * s) - 3.0 * (t - s))


def test_it_starts_at_weight_one() -> None:
    s, error = torch.linspace(0.0, 1.0, 5).double(), torch.arange(5).double()
    assert torch.equal(LearnedWeighting()(fresh(), error, s, torch.ones_like(s)), error)
    assert torch.equal(WEIGHTING(fresh(), error, s, torch.ones_like(s)), error + 0.01)


def test_trained_on_errors_it_makes_all_times_weigh_alike() -> None:
    """Errors of the usual mean times noise of mean 1; 8 000 samples."""
    rng, log_error = Rng.seeded(1), fresh()
    s, t = rng.uniform(2 * 8000, dtype=torch.float64).reshape(2, 8000).sort(0).values
    error = usual(s, t) * 2.0 * rng.uniform(8000, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(log_error.parameters(), max_iter=200)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = WEIGHTING(log_error, error, s, t).mean()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        off = log_error(s, t) - (usual(s, t) + 0.01).log()
    assert off.square().mean().sqrt() <= 0.06
    assert usual(s, t).log().std() >= 1.0  # a weight that has learned nothing is far off
    assert log_error.heights[0, 0].item() == pytest.approx(2.0, abs=0.1)


def test_its_gradient_by_the_error_is_the_weight() -> None:
    log_error = fresh()
    torch.nn.init.constant_(log_error.constant, math.log(2.0))
    torch.nn.init.constant_(log_error.heights, 0.3)
    s, t = torch.tensor([[0.2, 0.8], [0.7, 0.9]], dtype=torch.float64)
    error = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(WEIGHTING(log_error, error, s, t).sum(), error)
    torch.testing.assert_close(gradient, (-log_error(s, t)).exp().detach())
    assert gradient[0] != gradient[1]


def test_half_precision_of_the_networks_does_not_round_it() -> None:
    log_error = fresh().float()
    torch.nn.init.constant_(log_error.heights, 0.3)
    s = torch.linspace(0.0, 1.0, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_error(s, torch.ones_like(s))
    assert torch.equal(found, log_error(s, torch.ones_like(s)))


@pytest.mark.parametrize(("waves", "offset"), [(0, 0.0), (1, -0.5)])
def test_senseless_numbers_are_refused(waves: int, offset: float) -> None:
    with pytest.raises(ValueError, match=f">= 0, got {waves} and {offset}"):
        LearnedWeighting(waves=waves, offset=offset)
