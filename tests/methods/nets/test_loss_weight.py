"""The learned weight: what it is at the start, and where it settles."""

import pytest
import torch

from onestep.methods.core.flow_map import Domain
from onestep.methods.core.rng import Rng
from onestep.methods.nets.loss_weight import LearnedWeighting
from onestep.tests.methods.contract import SmallMap


def net() -> torch.nn.Module:
    online = SmallMap(shape=(2,), domain=Domain())
    return LearnedWeighting().companion(online).double()


def test_at_the_start_the_error_counts_as_it_is() -> None:
    error = torch.tensor([0.0, 2.0], dtype=torch.float64)
    s, t = torch.tensor([0.1, 0.2], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    found = LearnedWeighting(offset=0.5)(net(), error, s, t)
    assert torch.equal(found, error + 0.5)


def test_the_weight_settles_at_the_mean_error_of_its_times() -> None:
    """Errors exp(2 s - 3 (t - s)) times noise of mean 1: exp(w) becomes their mean plus offset."""
    weighting, weight = LearnedWeighting(offset=0.01), net()
    optimizer = torch.optim.Adam(weight.parameters(), lr=0.02)
    rng = Rng.seeded(1)
    for _ in range(600):
        s, t = rng.uniform(2 * 256, dtype=torch.float64).reshape(2, 256).sort(0).values
        error = torch.exp(2.0 * s - 3.0 * (t - s)) * rng.normal(256, dtype=torch.float64).square()
        optimizer.zero_grad()
        torch.autograd.backward(weighting(weight, error, s, t).mean())
        optimizer.step()
    s, t = rng.uniform(2 * 256, dtype=torch.float64).reshape(2, 256).sort(0).values
    with torch.no_grad():
        w = weight(s, t)
    expected = (torch.exp(2.0 * s - 3.0 * (t - s)) + 0.01).log()
    assert (w - expected).square().mean().sqrt() <= 0.2
    assert w.std() >= 0.5


@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_an_offset_that_is_not_positive_is_refused(offset: float) -> None:
    with pytest.raises(ValueError, match="offset above 0"):
        LearnedWeighting(offset=offset)
