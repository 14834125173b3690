"""A weight that is learned: what it ends at, and that it stays out of half precision."""

import pytest
import torch

from onestep.methods.core.flow_map import Domain
from onestep.methods.core.learned_weighting import LearnedWeighting, LogWeight
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap

WEIGHTING = LearnedWeighting(waves=8)


def fresh() -> LogWeight:
    made = WEIGHTING.companion(GaussianMap(mean=[0.0], std=1.0, domain=Domain()))
    assert isinstance(made, LogWeight)
    return made.double()


def test_it_starts_at_weight_one() -> None:
    s, error = torch.linspace(0.0, 1.0, 5).double(), torch.arange(5).double()
    assert torch.equal(WEIGHTING(fresh(), error, s), error)


def test_trained_on_errors_it_makes_all_times_weigh_alike() -> None:
    """Errors exp(2 cos(pi s)) times noise of mean 1; 4 000 samples."""
    rng = Rng.seeded(1)
    s = rng.uniform(4000, dtype=torch.float64)
    noise = 2.0 * rng.uniform(4000, dtype=torch.float64)
    error = torch.exp(2.0 * torch.cos(torch.pi * s)) * noise
    log_weight = fresh()
    optimizer = torch.optim.LBFGS(log_weight.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = WEIGHTING(log_weight, error, s).mean()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    at = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    with torch.no_grad():
        weighted = log_weight(at).exp() * torch.exp(2.0 * torch.cos(torch.pi * at))
    torch.testing.assert_close(weighted, torch.ones_like(at), atol=0.15, rtol=0.0)
    assert log_weight.heights[1].item() == pytest.approx(-2.0, abs=0.1)


def test_its_gradient_by_the_error_is_the_weight() -> None:
    log_weight = fresh()
    torch.nn.init.constant_(log_weight.heights, 0.3)
    s = torch.tensor([0.2, 0.8], dtype=torch.float64)
    error = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(WEIGHTING(log_weight, error, s).sum(), error)
    torch.testing.assert_close(gradient, log_weight(s).exp().detach())


def test_half_precision_of_the_networks_does_not_round_it() -> None:
    log_weight = fresh().float()
    torch.nn.init.constant_(log_weight.heights, 0.3)
    s = torch.linspace(0.0, 1.0, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_weight(s)
    assert torch.equal(found, log_weight(s))


def test_a_weight_without_waves_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 wave, got 0"):
        LearnedWeighting(waves=0)
