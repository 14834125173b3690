"""The mixture oracle against golden numbers, SciPy's quantiles and the identities of a flow map."""

import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.flow_map import DomainKind, FlowMap
from onestep.methods.core.path import TrigonometricPath
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureMap, MixtureMap1d, MixtureVelocity

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.5, 1.0), (0.3, 0.6)
QUANTILE = MixtureMap1d(weights=WEIGHTS, means=MEANS, stds=STDS)
INTEGRATED = MixtureMap(
    velocity_field=MixtureVelocity(weights=WEIGHTS, means=[[-1.5], [1.0]], stds=STDS), steps=400
)


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("flow_map", [QUANTILE, INTEGRATED], ids=["quantile", "integrated"])
def test_the_golden_numbers_of_the_mixture_map_hold(flow_map: FlowMap) -> None:
    s, t, x = row(0.0, 0.0, 0.2), row(1.0, 1.0, 0.9), row(0.3, -1.0, 0.1)[:, None]
    velocity = row(-0.05, 1.25, 0.2509743414)
    jump = row(0.9309040349, -1.4783173860, 0.6406389124)
    torch.testing.assert_close(flow_map.velocity(x, s)[:, 0], velocity, atol=1e-10, rtol=0)
    torch.testing.assert_close(flow_map.jump(x, s, t)[:, 0], jump, atol=1e-10, rtol=0)


def test_the_end_of_a_trajectory_is_the_quantile_of_its_noise() -> None:
    """The map of one dimension keeps ranks, into the tails."""
    x0 = torch.linspace(-7.0, 7.0, 15, dtype=torch.float64)
    got = QUANTILE.jump(x0[:, None], torch.zeros_like(x0), torch.ones_like(x0))[:, 0]

    def rank(x: float, noise: float) -> float:
        sign = 1.0 if noise < 0.0 else -1.0
        tail = sum(
            w * norm.cdf(sign * (x - m) / c) for w, m, c in zip(WEIGHTS, MEANS, STDS, strict=True)
        )
        return float(math.log(tail) - norm.logcdf(sign * noise))

    want = [brentq(rank, -7.0, 7.0, args=(noise,), xtol=1e-13) for noise in x0.tolist()]
    torch.testing.assert_close(got, row(*want), atol=1e-10, rtol=0)


def points(n: int, *d: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = Rng.seeded(11)
    x = rng.normal(n, *d, dtype=torch.float64)
    s = 0.9 * rng.uniform(n, dtype=torch.float64)
    gap = (1.0 - s) * rng.uniform(n, dtype=torch.float64)
    gap[: n // 4] *= 0.01
    gap[n // 4 : n // 3] = 0.0
    return x, s, s + gap


TURNED = MixtureMap1d(weights=WEIGHTS, means=MEANS, stds=STDS, path=TrigonometricPath())
PLANE = MixtureMap(
    velocity_field=MixtureVelocity(
        weights=[1.0, 2.0, 1.0], means=[[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], stds=0.5
    ),
    steps=20,
)


@pytest.mark.parametrize(
    ("flow_map", "d", "bound"),
    [(QUANTILE, 1, 1e-9), (TURNED, 2, 1e-9), (PLANE, 2, 1e-5)],
    ids=["quantile", "quantile on the circle", "integrated plane"],
)
def test_the_identities_of_a_flow_map_hold(flow_map: FlowMap, d: int, bound: float) -> None:
    x, s, t = points(48, d)
    u, v = flow_map(x, s, t), flow_map.velocity(x, s)
    zero, one, gap = torch.zeros_like(s), torch.ones_like(s), (t - s)[:, None]
    _, start = derivative_along(flow_map, (x, s, t), (v, one, zero))
    assert (v + gap * start - u).abs().max() <= bound
    _, end = derivative_along(flow_map, (x, s, t), (torch.zeros_like(x), zero, one))
    assert (u + gap * end - flow_map.velocity(flow_map.jump(x, s, t), t)).abs().max() <= bound
    middle = 0.4 * s + 0.6 * t
    two = flow_map.jump(flow_map.jump(x, s, middle), middle, t)
    assert (two - flow_map.jump(x, s, t)).abs().max() <= bound


def test_reverse_mode_agrees_with_forward_mode() -> None:
    x, s, t = points(16, 1)
    x.requires_grad_()
    (reverse,) = torch.autograd.grad(QUANTILE.jump(x, s, t).sum(), x)
    tangent = (torch.ones_like(x), torch.zeros_like(s), torch.zeros_like(t))
    _, forward = derivative_along(QUANTILE.jump, (x.detach(), s, t), tangent)
    torch.testing.assert_close(reverse, forward)


def test_one_component_is_the_gaussian() -> None:
    x, s, t = points(32, 1)
    gaussian = GaussianMap(mean=[0.7], std=[0.5])
    mixture = MixtureMap1d(weights=[1.0], means=[0.7], stds=0.5)
    torch.testing.assert_close(mixture(x, s, t), gaussian(x, s, t), atol=1e-10, rtol=0)
    field = MixtureVelocity(weights=[1.0], means=[[0.7]], stds=0.5)
    torch.testing.assert_close(field.velocity(x, s), gaussian.velocity(x, s))


def test_one_euler_step_collapses_to_the_mean_of_the_data() -> None:
    field = PLANE.velocity_field
    x0, zero = Rng.seeded(1).normal(8, 2, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    torch.testing.assert_close(
        x0 + field.velocity(x0, zero), row(-0.25, 0.0).expand(8, 2), atol=1e-12, rtol=0
    )


def test_the_velocity_at_the_data_points_away_from_the_mean_of_the_noise() -> None:
    """T5: v(x, 1) = x - E[x0]."""
    x, one = Rng.seeded(1).normal(8, 2, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    torch.testing.assert_close(PLANE.velocity_field.velocity(x, one), x, atol=1e-12, rtol=0)


def test_two_points_have_the_velocity_of_a_hyperbolic_tangent() -> None:
    """T6: (tanh(t x / (1 - t)^2) - x) / (1 - t) for data at -1 and 1, whose map keeps the side."""
    field = MixtureVelocity(weights=[0.5, 0.5], means=[[-1.0], [1.0]], stds=1e-9)
    x = torch.linspace(-2.0, 2.0, 40, dtype=torch.float64)
    t = torch.linspace(0.0, 0.9, 40, dtype=torch.float64).flip(0)
    want = ((t * x / (1.0 - t) ** 2).tanh() - x) / (1.0 - t)
    torch.testing.assert_close(field.velocity(x[:, None], t)[:, 0], want, atol=1e-9, rtol=1e-9)
    ends = MixtureMap1d(weights=[0.5, 0.5], means=[-1.0, 1.0], stds=1e-4)
    got = ends.jump(x[:, None], torch.zeros_like(t), torch.ones_like(t))[:, 0]
    torch.testing.assert_close(got, x.sign(), atol=1e-3, rtol=0)


def test_the_velocity_is_the_conditional_mean_of_independent_pairs() -> None:
    field, n = PLANE.velocity_field, 100_000
    x1 = field.draw(n, rng=Rng.seeded(4))
    x0 = Rng.seeded(5).normal(n, 2, dtype=torch.float64)
    t = torch.full((n,), 0.6, dtype=torch.float64)
    at = field.path.at(x0, x1, t)
    rest = at.v - field.velocity(at.x, t)
    for probe in (torch.ones_like(at.x), at.x, (2.0 * at.x).sin()):
        product = rest * probe
        assert (product.mean(0).abs() <= 4.0 * product.std(0) / math.sqrt(n)).all()
        control = (rest + 0.5 * probe) * probe
        assert (control.mean(0).abs() >= 20.0 * control.std(0) / math.sqrt(n)).all()


def test_the_draws_have_the_weights_of_the_mixture() -> None:
    n = 40_000
    x1 = QUANTILE.velocity_field.draw(n, rng=Rng.seeded(9))
    share = (x1 < -0.6).double().mean().item()
    want = 0.3 * norm.cdf(3.0) + 0.7 * norm.cdf(-1.6 / 0.6)
    assert abs(share - want) <= 4.0 * math.sqrt(want * (1.0 - want) / n)


def test_a_mixture_velocity_declares_the_diagonal_alone() -> None:
    assert PLANE.velocity_field.domain.kind is DomainKind.DIAGONAL
    assert PLANE.domain.kind is DomainKind.TRIANGLE


def test_a_mixture_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="one mean for each weight, got 1 and 2"):
        MixtureVelocity(weights=[0.5, 0.5], means=[[0.0]], stds=1.0)
    with pytest.raises(ValueError, match="must be positive, got at least 0"):
        MixtureVelocity(weights=[0.5, 0.5], means=[[0.0], [1.0]], stds=0.0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        MixtureMap(velocity_field=PLANE.velocity_field, steps=0)
