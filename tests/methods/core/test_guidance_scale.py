"""A map that takes a guidance scale answers at one of them wherever nobody names another."""

import pytest
import torch

from onestep.methods.core.condition import Condition
from onestep.methods.core.guidance_scale import AtScale
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.observed import ObservedMap, ScaledMap

GOOD = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
POOR = GaussianMap(mean=[0.4, 0.1], std=[0.3, 0.6])
DOUBLED = GaussianMap(mean=[1.0, -0.5], std=[0.3, 0.6])


def test_rows_that_name_no_scale_have_that_of_the_map() -> None:
    rng = Rng.seeded(1)
    x, s = rng.normal(16, 2, dtype=torch.float64), rng.uniform(16, dtype=torch.float64) / 2.0
    t, at = s + 0.5, AtScale(ScaledMap(GOOD, POOR), scale=2.0)
    torch.testing.assert_close(at(x, s, t), DOUBLED(x, s, t), atol=1e-12, rtol=0)
    plain = at(x, s, t, Condition(guidance=torch.ones_like(s)))
    torch.testing.assert_close(plain, GOOD(x, s, t), atol=1e-12, rtol=0)
    assert at.domain == GOOD.domain


def test_labels_are_told_on() -> None:
    observed = ObservedMap(GOOD)
    x, t = torch.zeros(4, 2, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64)
    told = Condition(label=torch.arange(4))
    AtScale(observed, scale=3.0)(x, t, t, told)
    (call,) = observed.calls
    assert call.label is told.label
    assert call.scale is not None
    assert call.scale.tolist() == [3.0] * 4


@pytest.mark.parametrize("scale", [0.5, float("nan"), float("inf")])
def test_a_scale_that_means_nothing_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"must be finite and at least 1, got {scale}"):
        AtScale(GOOD, scale=scale)
