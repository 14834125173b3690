"""Guidance in the target, and the share of samples that lose their label."""

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.guidance import Guidance, GuidanceScales, LabelDropout
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.core.contract import moment
from onestep.tests.methods.observed import ObservedMap, TwoMaps

CONDITIONAL = GaussianMap(mean=[0.7], std=[0.5])
UNCONDITIONAL = GaussianMap(mean=[-0.3], std=[0.5])
GAUSSIANS = TwoMaps(CONDITIONAL, UNCONDITIONAL)


X = torch.tensor([[0.2], [-0.4], [1.0]], dtype=torch.float64)
S = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
LABELS = Condition(label=torch.zeros(3, dtype=torch.long))
NONE = torch.zeros(3, dtype=torch.bool)


def gaussian_velocity(mean: float) -> Tensor:
    return GaussianMap(mean=[mean], std=[0.5]).velocity(X, S)


@pytest.mark.parametrize(("omega", "kappa"), [(2.0, 0.0), (1.0, 0.5), (0.0, 0.0)])
def test_the_fixed_point_is_guidance_of_the_declared_scale(omega: float, kappa: float) -> None:
    """With the guided field as the conditional network, the target is that field again."""
    guidance = Guidance(omega=omega, kappa=kappa)
    mean = guidance.scale * 0.7 + (1.0 - guidance.scale) * -0.3
    fixed = TwoMaps(GaussianMap(mean=[mean], std=[0.5]), UNCONDITIONAL)
    v = CONDITIONAL.velocity(X, S)
    got = guidance.target(v, fixed, X, S, LABELS, plain=NONE)
    torch.testing.assert_close(got, gaussian_velocity(mean), atol=1e-12, rtol=0)


def test_only_times_in_the_interval_and_labelled_rows_are_guided() -> None:
    v = CONDITIONAL.velocity(X, S)
    guidance = Guidance(omega=2.0, s_lo=0.3, s_hi=1.0)
    plain = torch.tensor([False, False, True])
    got = guidance.target(v, GAUSSIANS, X, S, LABELS, plain=plain)
    assert torch.equal(got[[0, 2]], v[[0, 2]])
    assert (got[1] - v[1]).abs() > 0.1


def test_the_target_carries_no_gradient_and_calls_the_network_once_without_kappa() -> None:
    flow_map, v = ObservedMap(GAUSSIANS), CONDITIONAL.velocity(X, S)
    got = Guidance(omega=2.0).target(v, flow_map, X.requires_grad_(), S, LABELS, plain=NONE)
    X.requires_grad_(False)
    assert len(flow_map.calls) == 1
    assert not got.requires_grad


def test_guidance_of_scale_one_is_off() -> None:
    assert not Guidance().is_on
    assert Guidance(omega=1.0, kappa=0.5).is_on
    assert Guidance(omega=1.0, kappa=0.5).scale == 2.0


def test_labels_are_dropped_at_their_rate() -> None:
    n = 20_000
    dropped = LabelDropout(probability=0.1).draw(n, moment(), device=torch.device("cpu"))
    share = dropped.double().mean().item()
    assert abs(share - 0.1) <= 4.0 * (0.1 * 0.9 / n) ** 0.5
    for probability in (0.0, 1.0):
        drop = LabelDropout(probability=probability)
        assert drop.draw(64, moment(), device=torch.device("cpu")).double().mean() == probability


@pytest.mark.parametrize(
    "values", [{"omega": -1.0}, {"kappa": 1.0}, {"s_lo": 0.6, "s_hi": 0.5}, {"s_hi": 1.5}], ids=str
)
def test_guidance_that_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="guidance needs"):
        Guidance(**values)


def test_a_rate_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probability in \[0, 1\], got 1.5"):
        LabelDropout(probability=1.5)


# Scales that the network takes as an input.


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_scales_follow_their_power_law(power: float) -> None:
    """Kolmogorov-Smirnov at n = 20 000 against the integral of w^-power; 1e-3 level."""
    n, high = 20_000, 8.0
    scale = GuidanceScales(highest=high, power=power).draw(n, moment(n), like=X)
    assert scale.dtype == X.dtype
    assert 1.0 <= scale.min() <= scale.max() <= high

    def mass(w: Tensor) -> Tensor:
        return w.log() if power == 1.0 else (w ** (1.0 - power) - 1.0) / (1.0 - power)

    cdf = mass(scale.sort().values) / mass(torch.tensor(high, dtype=X.dtype))
    steps = torch.arange(1, n + 1, dtype=X.dtype) / n
    assert (cdf - steps).abs().max() <= 1.95 / n**0.5 + 1.0 / n


@pytest.mark.parametrize("scale", [1.0, 2.0, 8.0])
def test_the_fixed_point_of_a_scale_is_guidance_of_that_scale(scale: float) -> None:
    v, null = gaussian_velocity(0.7), gaussian_velocity(-0.3)
    own = gaussian_velocity(scale * 0.7 + (1.0 - scale) * -0.3)
    scales = torch.full_like(S, scale)
    got = GuidanceScales(highest=8.0).target(v, S, scales, own=own, null=null)
    torch.testing.assert_close(got, own, atol=1e-12, rtol=0)


def test_scale_one_and_times_outside_the_interval_leave_the_velocity_bit_for_bit() -> None:
    v, scales = gaussian_velocity(0.7), torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64)
    guidance = GuidanceScales(highest=8.0, s_lo=0.3)
    got = guidance.target(v, S, scales, own=v + 1.0, null=v - 1.0)
    assert torch.equal(got[[0, 2]], v[[0, 2]])
    torch.testing.assert_close(got[1], v[1] + 2.0 * (1.0 - 1.0 / 3.0))


def test_scales_up_to_one_are_off() -> None:
    assert not GuidanceScales().is_on
    assert GuidanceScales(highest=1.5).is_on


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"highest": 0.5}, "highest >= 1 and power >= 0, got 0.5 and 1.0"),
        ({"power": -1.0}, "highest >= 1 and power >= 0, got 1.0 and -1.0"),
        ({"s_lo": 0.7, "s_hi": 0.3}, "0 <= s_lo <= s_hi <= 1, got 0.7 and 0.3"),
    ],
)
def test_scales_out_of_range_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GuidanceScales(**values)
