"""Diffusion networks of every kind and clock are one velocity on the linear path."""

from functools import partial
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.diffusion_clock import (
    AbstractDiffusionClock,
    CosineClock,
    DiscreteClock,
    LinearRateClock,
)
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.prediction import (
    AbstractPrediction,
    AngularPrediction,
    DataPrediction,
    NoisePrediction,
)
from onestep.methods.core.shape import rows_like
from onestep.methods.nets.diffusion import DiffusionVelocity
from onestep.methods.nets.mlp import MLP
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureVelocity
from onestep.tests.methods.nets.contract import NetContract

MEANS = torch.tensor([[0.9, -0.4], [-0.8, 0.1], [0.2, 1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
STDS = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64)
INSIDE = Domain(kind=DomainKind.DIAGONAL, t_lo=0.0154, t_hi=0.99)
PREDICTIONS = (NoisePrediction(), DataPrediction(), AngularPrediction())


class TestNoisePredictingMLP(NetContract):
    shape = (2,)

    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        return DiffusionVelocity(
            shape=self.shape,
            classes=classes,
            domain=Domain(t_lo=0.1),
            net=partial(MLP, guided=guided, width=32),
            prediction=NoisePrediction(),
            clock=LinearRateClock(tau_min=0.0),
        )


@final
class BestDiffusion(FlowMap):
    """The best network of a kind for a mixture, in the diffusion's own state and clock."""

    def __init__(self, prediction: AbstractPrediction, clock: AbstractDiffusionClock) -> None:
        super().__init__(domain=Domain())
        self.prediction, self.clock = prediction, clock

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del t, condition
        level = self.clock.level(1.0 - s)
        a = (1.0 / (1.0 + level.square()).sqrt())[:, None, None]
        g = level[:, None, None] * a
        variance = g**2 + (a * STDS[:, None]) ** 2
        away = x[:, None, :] - a * MEANS
        share = (WEIGHTS.log() - 0.5 * (away**2 / variance + variance.log()).sum(2)).softmax(1)
        noise = (share[:, :, None] * g / variance * away).sum(1)
        data = (share[:, :, None] * (MEANS + a * STDS[:, None] ** 2 / variance * away)).sum(1)
        match self.prediction:
            case NoisePrediction():
                return noise
            case DataPrediction():
                return data
            case _:
                return a[:, 0] * noise - g[:, 0] * data


def wrapped(prediction: AbstractPrediction, clock: AbstractDiffusionClock) -> DiffusionVelocity:
    trained = BestDiffusion(prediction, clock)
    return DiffusionVelocity(
        shape=(2,), domain=INSIDE, net=lambda **_: trained, prediction=prediction, clock=clock
    )


def points(n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(INSIDE.t_lo, INSIDE.t_hi, n, dtype=torch.float64)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64), t


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=repr)
@pytest.mark.parametrize("clock", [LinearRateClock(), CosineClock(), DiscreteClock()], ids=repr)
def test_a_trained_diffusion_is_the_velocity_of_its_data(
    prediction: AbstractPrediction, clock: AbstractDiffusionClock
) -> None:
    data = MixtureVelocity(weights=WEIGHTS, means=MEANS, stds=STDS)
    x, t = points()
    found = wrapped(prediction, clock).velocity(x, t)
    torch.testing.assert_close(found, data.velocity(x, t), atol=1e-8, rtol=1e-8)


def test_another_clock_or_kind_than_the_network_was_trained_with_is_another_velocity() -> None:
    x, t = points()
    data = MixtureVelocity(weights=WEIGHTS, means=MEANS, stds=STDS)
    trained = BestDiffusion(NoisePrediction(), LinearRateClock())
    for prediction, clock in (
        (NoisePrediction(), CosineClock()),
        (AngularPrediction(), LinearRateClock()),
    ):
        net = DiffusionVelocity(
            shape=(2,), domain=INSIDE, net=lambda **_: trained, prediction=prediction, clock=clock
        )
        assert (net.velocity(x, t) - data.velocity(x, t)).abs().max() > 0.1


def test_it_is_the_probability_flow_of_the_diffusion_in_other_coordinates() -> None:
    """The slope of z along the velocity is that of the variance-preserving path's own oracle."""
    path, clock = VariancePreservingPath(), LinearRateClock()
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
    diffusion = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], path=path)
    r = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    z = points(19)[0]

    def scaled(reading: Tensor) -> tuple[Tensor, Tensor]:
        at = path.coefficients(reading)
        return clock.time(1.0 - reading), (at.alpha + at.beta)

    t, n = scaled(r)
    x, gap = z / n[:, None], 1e-6
    (late, wide), (early, narrow) = scaled(r + gap), scaled(r - gap)
    dt, dn = (late - early) / (2.0 * gap), (wide - narrow) / (2.0 * gap)
    slope = rows_like(dn, x) * x + rows_like(n * dt, x) * data.velocity(x, t)
    torch.testing.assert_close(slope, diffusion.velocity(z, r), atol=1e-7, rtol=1e-7)


def test_the_network_sees_a_state_of_constant_variance() -> None:
    """x / sqrt(t^2 + (1 - t)^2) has variance 1 where the data have; 20 000 pairs, 4 errors."""
    seen: list[Tensor] = []

    @final
    class Listening(FlowMap):
        def forward(
            self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
        ) -> Tensor:
            seen.append(x)
            return x

    net = DiffusionVelocity(
        shape=(1,),
        domain=INSIDE,
        net=lambda **_: Listening(domain=INSIDE),
        prediction=NoisePrediction(),
        clock=CosineClock(),
    )
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 20_000, 1, generator=generator, dtype=torch.float64)
    for time in (0.05, 0.5, 0.9):
        t = torch.full((20_000,), time, dtype=torch.float64)
        net.velocity((1.0 - time) * x0 + time * x1, t)
        assert abs(seen[-1].var().item() - 1.0) <= 4.0 * (2.0 / 20_000) ** 0.5


def test_a_predicted_noise_is_refused_where_the_range_begins_at_pure_noise() -> None:
    with pytest.raises(ValueError, match="times must begin above t = 0, got 0"):
        DiffusionVelocity(
            shape=(2,),
            domain=Domain(),
            net=partial(MLP, width=8),
            prediction=NoisePrediction(),
            clock=LinearRateClock(),
        )


def test_a_diffusion_network_is_of_the_linear_path() -> None:
    with pytest.raises(ValueError, match="a diffusion network needs a map of the linear path, got"):
        DiffusionVelocity(
            shape=(2,),
            domain=Domain(t_lo=0.1, path=VariancePreservingPath().name),
            net=partial(MLP, width=8),
            prediction=NoisePrediction(),
            clock=LinearRateClock(),
        )
