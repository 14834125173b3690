"""The Gaussian oracle against closed forms, golden numbers and the identities of a flow map."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.path import (
    LinearPath,
    LinearVariancePreservingPath,
    LipmanPath,
    PolynomialPath,
    TrigonometricPath,
    VariancePreservingPath,
)
from onestep.methods.core.rng import Rng
from onestep.methods.core.shape import rows_like
from onestep.methods.oracle import GaussianMap


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scalar_map(std: float = 0.5, *, rho: float = 0.0) -> GaussianMap:
    return GaussianMap(mean=[0.7], std=[std], rho=rho)


def start_derivative(flow_map: FlowMap, x: Tensor, s: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """D_s u: the derivative of u in the start time, with x moving at v."""
    tangent = (v, torch.ones_like(s), torch.zeros_like(t))
    return derivative_along(flow_map, (x, s, t), tangent)[1]


def end_derivative(flow_map: FlowMap, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    tangent = (torch.zeros_like(x), torch.zeros_like(s), torch.ones_like(t))
    return derivative_along(flow_map, (x, s, t), tangent)[1]


# The golden numbers: s, t, x, velocity at s, u, X, D_s u, d_t u for mean .7 and std .5.
GOLDEN = [
    (0.0, 1.0, 1.2, -0.5, 0.1, 1.3, 0.6, 1.2),
    (0.25, 0.75, -0.4, 1.3837837838, 1.1683386749, 0.1841693374, -0.4308902178, -0.7269354036),
    (0.5, 0.5, 0.9, 0.04, 0.04, 0.9, 0.704, 0.704),
    (0.8, 0.2, 0.3, 0.7, 1.0478694430, -0.3287216658, -0.5797824050, -0.3216054138),
]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"{g[0]}-{g[1]}")
def test_the_golden_numbers_of_the_gaussian_map_hold(golden: tuple[float, ...]) -> None:
    oracle = scalar_map()
    s, t, x = row(golden[0]), row(golden[1]), row(golden[2])[:, None]
    v = oracle.velocity(x, s)
    got = torch.cat(
        [
            v,
            oracle(x, s, t),
            oracle.jump(x, s, t),
            start_derivative(oracle, x, s, t, v),
            end_derivative(oracle, x, s, t),
        ]
    )
    torch.testing.assert_close(got[:, 0], row(*golden[3:]), atol=1e-10, rtol=0)


def test_the_anchors_of_the_consistency_function_hold() -> None:
    oracle, x, t, one = scalar_map(), row(1.0)[:, None], row(0.3), row(1.0)
    v = oracle.velocity(x, t)
    data, noise = x + 0.7 * v, x - 0.3 * v
    got = torch.cat(
        [
            data,
            noise,
            v,
            -noise / 0.7,
            oracle.jump(x, t, one),
            oracle.jump(x, t, row(0.8)),
            oracle(x, t, row(0.8)),
        ]
    )
    want = row(
        0.815609756, 1.079024390, -0.263414634, -1.541463415, 1.251759934, 1.053509088, 0.107018175
    )
    torch.testing.assert_close(got[:, 0], want, atol=1e-9, rtol=0)


ROTATED = [[0.5, 0.3], [0.3, 0.4]]
ORACLES = {
    "linear": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4]),
    "correlated": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], rho=0.6),
    "optimal": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], rho=1.0),
    "covariance": GaussianMap(mean=[0.7, -0.2], covariance=ROTATED),
    "correlated covariance": GaussianMap(mean=[0.7, -0.2], covariance=ROTATED, rho=-0.4),
    "trigonometric": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], path=TrigonometricPath()),
    "trigonometric, correlated": GaussianMap(
        mean=[0.7, -0.2], std=[0.5, 1.4], path=TrigonometricPath(), rho=0.6
    ),
    "polynomial": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], path=PolynomialPath(power=3.0)),
    "Lipman": GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], path=LipmanPath(sigma_min=0.1)),
    "linear variance preserving": GaussianMap(
        mean=[0.7, -0.2], std=[0.5, 1.4], path=LinearVariancePreservingPath()
    ),
    "variance preserving": GaussianMap(
        mean=[0.7, -0.2], std=[0.5, 1.4], path=VariancePreservingPath()
    ),
}


@pytest.fixture(params=list(ORACLES.values()), ids=list(ORACLES))
def oracle(request: pytest.FixtureRequest) -> GaussianMap:
    found = request.param
    assert isinstance(found, GaussianMap)
    return found


def points(n: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """States and ordered times: far apart, close together and equal."""
    rng = Rng.seeded(7)
    x = rng.normal(n, 2, dtype=torch.float64)
    s = 0.02 + 0.9 * rng.uniform(n, dtype=torch.float64)
    gap = (0.98 - s) * rng.uniform(n, dtype=torch.float64)
    gap[: n // 4] *= 1e-4
    gap[n // 4 : n // 3] = 0.0
    return x, s, s + gap


def assert_same(got: Tensor, want: Tensor) -> None:
    """Equal to 1e-12 of the larger of 1 and the values."""
    scale = max(1.0, want.abs().max().item())
    assert (got - want).abs().max().item() <= 1e-12 * scale


def test_a_map_to_the_same_time_is_the_identity(oracle: GaussianMap) -> None:
    x, s, _ = points()
    assert torch.equal(oracle.jump(x, s, s), x)


def test_the_jump_ends_where_the_velocity_leads(oracle: GaussianMap) -> None:
    """T2: 160 Runge-Kutta steps, whose own error is larger on paths that are faster at an end."""
    x, s, t = points(16)
    steps, end = 160, oracle.jump(x, s, t)
    h = (t - s) / steps

    def slope(x: Tensor, time: Tensor) -> Tensor:
        return oracle.velocity(x, time)

    for k in range(steps):
        at, half, step = s + k * h, h / 2.0, h[:, None]
        first = slope(x, at)
        second = slope(x + step / 2.0 * first, at + half)
        third = slope(x + step / 2.0 * second, at + half)
        last = slope(x + step * third, at + h)
        x = x + step / 6.0 * (first + 2.0 * second + 2.0 * third + last)
    limits = {LinearPath: 1e-10, LinearVariancePreservingPath: 1e-5, VariancePreservingPath: 1e-5}
    limit = limits.get(type(oracle.path), 1e-7)
    torch.testing.assert_close(x, end, atol=limit, rtol=limit)


def test_two_jumps_equal_one(oracle: GaussianMap) -> None:
    x, s, t = points()
    middle = 0.3 * s + 0.7 * t
    there = oracle.jump(oracle.jump(x, s, middle), middle, t)
    assert_same(there, oracle.jump(x, s, t))


def test_the_map_back_is_the_inverse(oracle: GaussianMap) -> None:
    x, s, t = points()
    assert_same(oracle.jump(oracle.jump(x, s, t), t, s), x)


def test_the_lagrangian_identity_holds(oracle: GaussianMap) -> None:
    x, s, t = points()
    left = oracle(x, s, t) + (t - s)[:, None] * end_derivative(oracle, x, s, t)
    assert_same(left, oracle.velocity(oracle.jump(x, s, t), t))


def test_the_eulerian_identity_holds(oracle: GaussianMap) -> None:
    x, s, t = points()
    tangent = (oracle.velocity(x, s), torch.ones_like(s), torch.zeros_like(t))
    _, change = derivative_along(oracle.jump, (x, s, t), tangent)
    assert_same(change, torch.zeros_like(x))


def test_the_mean_flow_identity_holds(oracle: GaussianMap) -> None:
    x, s, t = points()
    v = oracle.velocity(x, s)
    right = v + (t - s)[:, None] * start_derivative(oracle, x, s, t, v)
    assert_same(right, oracle(x, s, t))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_split_identity_holds_at_every_split(oracle: GaussianMap, share: float) -> None:
    x, s, t = points()
    middle = share * s + (1.0 - share) * t
    first = oracle(x, s, middle)
    second = oracle(oracle.jump(x, s, middle), middle, t)
    assert_same((1.0 - share) * first + share * second, oracle(x, s, t))


def test_tiles_weighted_by_their_lengths_make_the_whole(oracle: GaussianMap) -> None:
    x, s, t = points()
    total = torch.zeros_like(x)
    for start, length in ((0.0, 0.2), (0.2, 0.5), (0.7, 0.3)):
        a, b = s + start * (t - s), s + (start + length) * (t - s)
        total = total + length * oracle(oracle.jump(x, s, a), a, b)
    assert_same(total, oracle(x, s, t))


def test_the_velocity_is_the_conditional_mean_of_the_pairs(oracle: GaussianMap) -> None:
    """The mean of (v - velocity) times any function of x is zero, within 4 standard errors."""
    x0, x1 = oracle.draw(60_000, rng=Rng.seeded(3))
    t = torch.full((len(x0),), 0.35, dtype=torch.float64)
    at = oracle.path.at(x0, x1, t)
    rest = at.v - oracle.velocity(at.x, t)
    for probe in (torch.ones_like(at.x), at.x, at.x.flip(1)):
        product = rest * probe
        error = product.std(0) / math.sqrt(len(x0))
        assert (product.mean(0).abs() <= 4.0 * error + 1e-9).all()
        control = (rest + probe) * probe
        assert (control.mean(0).abs() >= 20.0 * control.std(0) / math.sqrt(len(x0))).all()


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "Lipman",
        "trigonometric",
        "polynomial",
        "linear variance preserving",
        "variance preserving",
    ],
)
def test_the_velocity_of_independent_pairs_follows_from_their_score(name: str) -> None:
    """T11: v = (b' / b) x + (a / b) (b' a - a' b) score, with a and b the path's coefficients."""
    oracle, (x, t, _) = ORACLES[name], points()
    a, b, d_a, d_b = oracle.path.coefficients(t[:, None])
    mean, std = row(0.7, -0.2), row(0.5, 1.4)
    score = -(x - b * mean) / (a**2 + (b * std) ** 2)
    assert_same(oracle.velocity(x, t), d_b / b * x + a / b * (d_b * a - d_a * b) * score)


def test_the_quadrature_agrees_with_the_closed_form_of_the_linear_path() -> None:
    x, s, t = points()
    by_quadrature = GaussianMap(
        mean=[0.7, -0.2], std=[0.5, 1.4], rho=0.6, path=PolynomialPath(power=1.0)
    )
    assert_same(by_quadrature(x, s, t), ORACLES["correlated"](x, s, t))


def test_second_derivatives_on_the_diagonal_are_finite() -> None:
    oracle, x = scalar_map(), row(0.4, 0.9)[:, None]
    s = row(0.3, 0.6).requires_grad_()

    def slope(times: Tensor) -> Tensor:
        tangent = (torch.zeros_like(x), torch.ones_like(times), torch.zeros_like(times))
        return derivative_along(oracle, (x, times, times), tangent)[1]

    (second,) = torch.autograd.grad(slope(s).sum(), s)
    h = 1e-5
    with torch.no_grad():
        difference = (slope(s + h) - slope(s - h))[:, 0] / (2.0 * h)
    torch.testing.assert_close(second, difference, atol=1e-7, rtol=1e-7)


# Negative controls: each plausible mistake leaves a residual of order one at the exact map.


def mean_flow_residual(tangent_of_x: Tensor, ds: float, dt: float, *, sign: float = 1.0) -> float:
    oracle, x = scalar_map(), torch.full((1, 1), -0.4, dtype=torch.float64)
    s, t = row(0.25), row(0.75)
    tangent = (tangent_of_x, torch.full_like(s, ds), torch.full_like(t, dt))
    _, derivative = derivative_along(oracle, (x, s, t), tangent)
    target = oracle.velocity(x, s) + sign * (t - s)[:, None] * derivative
    return float((target - oracle(x, s, t)).abs())


def test_the_right_tangent_leaves_nothing_and_the_wrong_ones_leave_much() -> None:
    v = row(GOLDEN[1][3])[:, None]
    assert mean_flow_residual(v, 1.0, 0.0) < 1e-9
    assert mean_flow_residual(v, 0.0, 0.0) > 0.1
    assert mean_flow_residual(v, 1.0, 0.0, sign=-1.0) > 0.1


def test_a_map_of_the_interval_needs_its_own_tangent() -> None:
    oracle, x, s, h = scalar_map(), row(-0.4)[:, None], row(0.25), row(0.5)
    v = oracle.velocity(x, s)

    def by_interval(x: Tensor, s: Tensor, h: Tensor) -> Tensor:
        u: Tensor = oracle(x, s, s + h)
        return u

    def residual(dh: float) -> float:
        tangent = (v, torch.ones_like(s), torch.full_like(h, dh))
        _, derivative = derivative_along(by_interval, (x, s, h), tangent)
        return float((v + h[:, None] * derivative - by_interval(x, s, h)).abs())

    assert residual(-1.0) < 1e-12
    assert residual(0.0) > 0.1


def test_tiles_with_the_wrong_weights_leave_much() -> None:
    oracle, x, s, t = scalar_map(), row(-0.4)[:, None], row(0.0), row(1.0)
    middle = row(2.0 / 3.0)
    long, short = oracle(x, s, middle), oracle(oracle.jump(x, s, middle), middle, t)
    assert (2.0 / 3.0 * long + 1.0 / 3.0 * short - oracle(x, s, t)).abs().item() < 1e-12
    assert (1.0 / 3.0 * long + 2.0 / 3.0 * short - oracle(x, s, t)).abs().item() > 0.1


def test_the_consistency_function_of_centred_data_has_its_closed_form() -> None:
    oracle = GaussianMap(mean=[0.0], std=[0.5])
    x, s = row(1.3, -0.2)[:, None], row(0.2, 0.9)
    want = 0.5 * x / ((1.0 - s) ** 2 + 0.25 * s**2).sqrt()[:, None]
    assert_same(oracle.jump(x, s, torch.ones_like(s)), want)


# Couplings.


def quadrature(n: int = 64) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.as_tensor((nodes + 1.0) / 2.0), torch.as_tensor(weights / 2.0)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.7, 1.0])
def test_one_step_gives_the_same_sample_for_every_correlation(rho: float) -> None:
    oracle, x0 = scalar_map(rho=rho), row(-1.5, 0.0, 2.0)[:, None]
    s, t = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert_same(oracle.jump(x0, s, t), 0.7 + 0.5 * x0)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_the_field_of_a_correlated_pair_has_its_closed_form(rho: float) -> None:
    std, t, x = 0.5, row(0.1, 0.5, 0.95), row(0.3, -1.0, 2.0)
    variance = (1.0 - t) ** 2 + t**2 * std**2 + 2.0 * t * (1.0 - t) * rho * std
    half = t * std**2 - (1.0 - t) + rho * std * (1.0 - 2.0 * t)
    want = 0.7 + half / variance * (x - 0.7 * t)
    assert_same(scalar_map(rho=rho).velocity(x[:, None], t)[:, 0], want)


@pytest.mark.parametrize(
    ("std", "rho", "golden"),
    [
        (0.5, 0.0, 0.214602),
        (0.6, 0.0, 0.257522),
        (1.0, 0.0, 0.429204),
        (2.0, 0.0, 0.858407),
        (0.5, 0.8, None),
        (0.5, 1.0, 0.0),
    ],
)
def test_straightness_has_its_closed_form(std: float, rho: float, golden: float | None) -> None:
    """The spread of the velocity along a trajectory; x0 = +-1 has the second moment of noise."""
    oracle = GaussianMap(mean=[0.0], std=[std], rho=rho)
    t, weights = quadrature()
    x0 = torch.ones(len(t), 1, dtype=torch.float64)
    v = oracle.velocity(oracle.jump(x0, torch.zeros_like(t), t), t)[:, 0]
    got = (weights * (v - (std - 1.0)) ** 2).sum().item()
    want = 2 * std * (1 - rho) - std * math.sqrt(1 - rho**2) * math.acos(rho)
    assert got == pytest.approx(want, abs=1e-10)
    if golden is not None:
        assert got == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize(
    ("std", "rho", "golden"),
    [(0.5, 0.0, 0.785398), (0.6, 0.0, 0.942478), (1.0, 0.0, 1.570796), (0.6, 0.4, None)],
)
def test_the_least_flow_matching_loss_over_uniform_times_has_its_closed_form(
    std: float, rho: float, golden: float | None
) -> None:
    t, weights = quadrature()
    got = (weights * GaussianMap(mean=[0.0], std=[std], rho=rho).floor(t)).sum().item()
    assert got == pytest.approx(std * math.sqrt(1 - rho**2) * math.acos(rho), abs=1e-10)
    if golden is not None:
        assert got == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize(("std", "rho"), [(0.5, 0.0), (0.5, 0.8), (1.4, 0.3), (2.0, 1.0)])
def test_rectification_saves_straightness_and_what_is_left_of_the_loss(
    std: float, rho: float
) -> None:
    """T4: E|x1 - x0|^2 = E|X(0, 1)(x0) - x0|^2 + S + L*, for pairs of any correlation."""
    mean = 0.7
    oracle = GaussianMap(mean=[mean], std=[std], rho=rho)
    t, weights = quadrature()
    x0 = torch.ones(len(t), 1, dtype=torch.float64)
    start = torch.zeros_like(t)
    v = oracle.velocity(oracle.jump(x0, start, t), t)[:, 0]
    # The velocity along a trajectory is mean + rate x0, and x0 has variance 1.
    straightness = (weights * (v - mean - (std - 1.0)) ** 2).sum().item()
    left = (weights * oracle.floor(t)).sum().item()
    moved = mean**2 + (std - 1.0) ** 2
    paired = mean**2 + 1.0 + std**2 - 2.0 * rho * std
    assert moved + straightness + left == pytest.approx(paired, abs=1e-10)
    assert (straightness + left > 0.1) == (rho < 1.0)


def test_the_floor_runs_from_the_variance_of_the_data_to_that_of_the_noise() -> None:
    floor = scalar_map(rho=0.6).floor(row(0.0, 1.0))
    assert_same(floor, row(0.25 * 0.64, 0.64))


def test_the_coupled_map_is_a_straight_line_that_one_euler_step_follows() -> None:
    oracle, x0 = scalar_map(rho=1.0), row(-1.0, 0.4)[:, None]
    zero = torch.zeros(2, dtype=torch.float64)
    assert_same(x0 + oracle.velocity(x0, zero), 0.7 + 0.5 * x0)
    t, x = row(0.2, 0.7), row(0.3, 1.1)[:, None]
    want = 0.7 + (-0.5 / (1.0 - 0.5 * t))[:, None] * (x - 0.7 * t[:, None])
    assert_same(oracle.velocity(x, t), want)


def test_reflow_pairs_of_the_exact_map_are_the_coupled_oracle() -> None:
    """Pairs made by the independent map have the velocity of rho = 1, without any residual."""
    teacher, student = scalar_map(), scalar_map(rho=1.0)
    x0 = Rng.seeded(1).normal(256, 1, dtype=torch.float64)
    t = Rng.seeded(2).uniform(256, dtype=torch.float64)
    x1 = teacher.jump(x0, torch.zeros_like(t), torch.ones_like(t))
    at = student.path.at(x0, x1, t)
    assert_same(student.velocity(at.x, t), at.v)


def test_guidance_of_gaussians_moves_the_mean() -> None:
    conditional, unconditional, scale = scalar_map(), GaussianMap(mean=[-0.3], std=[0.5]), 2.5
    x, t = row(0.2, -1.0, 0.9)[:, None], row(0.1, 0.5, 0.9)
    mixed = scale * conditional.velocity(x, t) + (1.0 - scale) * unconditional.velocity(x, t)
    guided = GaussianMap(mean=[scale * 0.7 + (1.0 - scale) * -0.3], std=[0.5])
    assert_same(mixed, guided.velocity(x, t))


# Loss floors with the sample's own velocity, by Monte Carlo: n = 2e5, 4 standard errors.


@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_the_flow_matching_loss_of_the_oracle_is_its_floor(std: float) -> None:
    oracle, n = GaussianMap(mean=[0.7, -0.2], std=std, shape=(2,)), 200_000
    x0, x1 = oracle.draw(n, rng=Rng.seeded(5))
    t = Rng.seeded(6).uniform(n, dtype=torch.float64)
    at = oracle.path.at(x0, x1, t)
    loss = (oracle.velocity(at.x, t) - at.v).square().sum(1)
    error = loss.std().item() / math.sqrt(n)
    assert abs(loss.mean().item() - math.pi * std) <= 4.0 * error
    perturbed = (oracle.velocity(at.x, t) + 0.1 * at.x - at.v).square().sum(1)
    gain = perturbed - loss
    assert gain.mean().item() >= 4.0 * gain.std().item() / math.sqrt(n)


@pytest.mark.parametrize(("s", "t"), [(0.0, 1.0), (0.3, 0.8)])
def test_the_mean_flow_residual_of_the_oracle_is_its_floor(s: float, t: float) -> None:
    std, n = 0.5, 200_000
    oracle = scalar_map(std)
    x0, x1 = oracle.draw(n, rng=Rng.seeded(8))
    start, end = (torch.full((n,), time, dtype=torch.float64) for time in (s, t))
    at = oracle.path.at(x0, x1, start)
    target = at.v + rows_like(end - start, at.x) * start_derivative(oracle, at.x, start, end, at.v)
    loss = (oracle(at.x, start, end) - target).square().sum(1)

    def variance(time: float) -> float:
        return (1.0 - time) ** 2 + time**2 * std**2

    want = std**2 * variance(t) / variance(s) ** 2
    assert abs(loss.mean().item() - want) <= 4.0 * loss.std().item() / math.sqrt(n)


# Construction.


def test_the_full_covariance_of_independent_coordinates_is_the_diagonal_map() -> None:
    x, s, t = points()
    diagonal = GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4])
    full = GaussianMap(mean=[0.7, -0.2], covariance=[[0.25, 0.0], [0.0, 1.96]])
    assert_same(full(x, s, t), diagonal(x, s, t))


def test_the_full_covariance_map_sends_noise_to_that_covariance() -> None:
    oracle = ORACLES["covariance"]
    axes = torch.cat([torch.eye(2), torch.zeros(1, 2)]).double()
    ends = oracle.jump(axes, torch.zeros(3).double(), torch.ones(3).double())
    slope = ends[:2] - ends[2]
    assert_same(slope.T @ slope, torch.tensor(ROTATED, dtype=torch.float64))
    assert_same(slope, slope.T)


def test_images_share_a_mean_and_a_std_by_shape() -> None:
    oracle = GaussianMap(mean=0.1, std=0.5, shape=(1, 8, 8), classes=10)
    x0, x1 = oracle.draw(4, rng=Rng.seeded(0), dtype=torch.float32)
    assert x0.shape == x1.shape == (4, 1, 8, 8)
    got = oracle.jump(x0, torch.zeros(4), torch.ones(4))
    torch.testing.assert_close(got, 0.1 + 0.5 * x0)


def test_the_weights_of_the_oracle_are_a_state_dict() -> None:
    other = GaussianMap(mean=[0.0, 0.0], std=1.0)
    other.load_state_dict(ORACLES["linear"].state_dict())
    x, s, t = points(16)
    assert torch.equal(other(x, s, t), ORACLES["linear"](x, s, t))


def test_a_gaussian_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="either std or covariance"):
        GaussianMap(mean=[0.0])
    with pytest.raises(ValueError, match=r"rho must be in \(-1, 1\], got -1"):
        GaussianMap(mean=[0.0], std=1.0, rho=-1.0)
    with pytest.raises(ValueError, match=r"std must be positive, got 0"):
        GaussianMap(mean=[0.0, 0.0], std=[1.0, 0.0])
    with pytest.raises(ValueError, match="symmetric matrix of size 2"):
        GaussianMap(mean=[0.0, 0.0], covariance=[[1.0]])
    with pytest.raises(ValueError, match="positive definite"):
        GaussianMap(mean=[0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]])
