"""Neural flow matching: mean collapse, and the couplings that avoid it."""

import math
from dataclasses import replace
from functools import partial
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import IndependentCoupling, MinibatchOTCoupling, StoredPairs
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.loom import Loom
from onestep.methods.core.method import PairMix
from onestep.methods.core.path import LinearPath, TrigonometricPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.times import FromNoiseTimes
from onestep.methods.neural_flow import NeuralFlow
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Elsewhere, Exact, LossContract, MethodContract
from onestep.tests.methods.exactness import Setting, assert_not_stationary, assert_stationary
from onestep.tests.methods.observed import ObservedMap

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
COLLAPSE = "ignore:method.coupling is independent:UserWarning"
MIX = PairMix(generated=Constant(value=1.0))
TAUGHT = NeuralFlow(coupling=StoredPairs(), pairs=MIX)


def data(rho: float) -> GaussianMap:
    return GaussianMap(mean=MEAN, std=STD, rho=rho)


@final
class MeanOfTheData(FlowMap):
    """alpha x0 + beta E[x1 | x0] in one jump, with E[x1 | x0] = m + rho c x0."""

    def __init__(self, rho: float) -> None:
        super().__init__(domain=Domain(kind=DomainKind.FROM_NOISE))
        self.rho = rho

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        mean, std = (torch.tensor(row, dtype=x.dtype) for row in (MEAN, STD))
        return mean + self.rho * std * x - x


class TestNeuralFlow(MethodContract):
    """On the pairs of a teacher, which no noise leaves open."""

    exactness = Exact(setting=Setting(data=data(rho=1.0)))

    @pytest.fixture
    def method(self) -> NeuralFlow:
        return TAUGHT


class TestOneStepOfANeuralFlow(MethodContract):
    exactness = Exact(setting=Setting(data=data(rho=1.0)))

    @pytest.fixture
    def method(self) -> NeuralFlow:
        return replace(TAUGHT, times=FromNoiseTimes())


class TestNeuralFlowWithKeptNoise(LossContract):
    """No closed form: the noise of a datum depends on all that it has met."""

    @pytest.fixture
    def method(self) -> NeuralFlow:
        return NeuralFlow()


@pytest.mark.filterwarnings(COLLAPSE)
class TestNeuralFlowOnIndependentPairs(MethodContract):
    """Mean collapse: every noise leads to the mean of the data."""

    exactness = Elsewhere(minimiser=MeanOfTheData(rho=0.0), setting=Setting(data=data(rho=0.0)))

    @pytest.fixture
    def method(self) -> NeuralFlow:
        return NeuralFlow(coupling=IndependentCoupling())


@pytest.mark.filterwarnings(COLLAPSE)
class TestNeuralFlowOnCorrelatedPairs(MethodContract):
    """Half a collapse: samples have rho times the width of the data."""

    exactness = Elsewhere(minimiser=MeanOfTheData(rho=0.5), setting=Setting(data=data(rho=0.5)))

    @pytest.fixture
    def method(self) -> NeuralFlow:
        return NeuralFlow(coupling=IndependentCoupling())


def moment(n: int, step: int = 0, shards: int = 1) -> Moment:
    rng = Rng.seeded(5, step=step, shards=range(shards))
    return Moment(step=step, total=10, rng=rng, batch_size=n)


def pairs(n: int, rho: float) -> Batch:
    x0, x1 = data(rho).draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def losses(method: NeuralFlow, online: FlowMap, batch: Batch) -> Tensor:
    return method.loss(Nets(online=online), batch, moment(len(batch))).total


def times(method: NeuralFlow, n: int) -> Tensor:
    return method.times.draw(n, moment(n), dtype=torch.float64).t


@pytest.mark.filterwarnings(COLLAPSE)
@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_what_is_left_of_the_loss_is_the_variance_of_the_data_of_a_noise(rho: float) -> None:
    """A third of (1 - rho^2) c^2 for each coordinate; n = 200 000, 4 standard errors."""
    method = NeuralFlow(coupling=IndependentCoupling())
    found = losses(method, MeanOfTheData(rho), pairs(200_000, rho))
    expected = (1.0 - rho**2) * sum(c**2 for c in STD) / 3.0
    error = (found.std() / len(found) ** 0.5).item()
    assert abs(found.mean().item() - expected) <= 4.0 * error


def test_the_pairs_of_a_teacher_leave_no_loss() -> None:
    assert losses(TAUGHT, data(rho=1.0), pairs(256, 1.0)).max() <= 1e-24
    assert losses(TAUGHT, MeanOfTheData(0.0), pairs(256, 1.0)).mean() >= 0.01


def test_the_loss_is_that_of_distillation_weighted_by_the_square_of_the_time() -> None:
    """t^2 |u(x0, 0, t) - (x1 - x0)|^2: the target of the velocity is the same at every time."""
    batch, online = pairs(64, 1.0), data(rho=0.0)
    t = times(TAUGHT, 64)
    u = online(batch.noise, torch.zeros_like(t), t)
    expected = t.square() * (u - (batch.x1 - batch.noise)).square().sum(1)
    torch.testing.assert_close(losses(TAUGHT, online, batch), expected, atol=1e-12, rtol=1e-12)


def test_on_another_path_the_point_is_that_paths() -> None:
    method = replace(TAUGHT, path=TrigonometricPath())
    batch = pairs(64, 1.0)
    straight = GaussianMap(mean=MEAN, std=STD, rho=1.0, path=TrigonometricPath())
    assert losses(method, straight, batch).max() <= 1e-24
    assert losses(method, data(rho=1.0), batch).mean() >= 1e-3


def test_the_network_sees_the_noise_and_nothing_on_the_path() -> None:
    online, batch = ObservedMap(data(rho=1.0)), pairs(64, 1.0)
    losses(TAUGHT, online, batch)
    (call,) = online.calls
    assert torch.equal(call.x, batch.noise)
    assert not call.s.any()
    assert torch.equal(call.t, times(TAUGHT, 64))
    losses(replace(TAUGHT, times=FromNoiseTimes()), online, batch)
    assert bool((online.calls[1].t == 1.0).all())


# Transport within a batch.


@final
class MeanOfSorted(FlowMap):
    """E[x1 | x0] - x0 where some data of N(m, c^2) on a line are sorted like as many noises.

    A noise x0 has rank k among B with the chance Binomial(B - 1, Phi(x0)) gives to k - 1, and the
    datum of that rank is m + c e_k in the mean, e_k that of the k-th of B normal numbers.
    """

    def __init__(self, size: int) -> None:
        super().__init__(domain=Domain(kind=DomainKind.FROM_NOISE))
        self.size = size
        x = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)
        self.x, self.weight = x, (x[1] - x[0]) * (-0.5 * x**2).exp() / math.sqrt(2.0 * math.pi)
        self.means = size * (self.chances(x) * (self.weight * x)[:, None]).sum(0)

    def chances(self, x: Tensor) -> Tensor:
        """The chance of each rank, for each noise."""
        below = torch.arange(self.size, dtype=torch.float64)
        above = self.size - 1 - below
        ways = torch.lgamma(below.new_tensor(float(self.size))) - (
            torch.lgamma(below + 1.0) + torch.lgamma(above + 1.0)
        )
        left, right = torch.special.log_ndtr(x)[:, None], torch.special.log_ndtr(-x)[:, None]
        return (ways + below * left + above * right).exp()

    def data(self, x: Tensor) -> Tensor:
        """E[x1 | x0] for data of mean 0 and standard deviation 1."""
        return self.chances(x) @ self.means

    @property
    def width(self) -> float:
        """Standard deviation of the samples over that of the data."""
        return (self.weight * self.data(self.x).square()).sum().sqrt().item()

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        return 0.7 + 0.3 * self.data(x[:, 0])[:, None] - x


LINE = GaussianMap(mean=[0.7], std=[0.3])


def sorted_pairs(n: int, rng: Rng, *, size: int) -> Batch:
    """Transport within batches of this size."""
    x0, x1 = (x.reshape(-1, size).sort(1).values.reshape(n, 1) for x in LINE.draw(n, rng=rng))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


@pytest.mark.filterwarnings(COLLAPSE)
@pytest.mark.parametrize("size", [2, 8])
def test_transport_within_a_batch_learns_the_mean_of_each_rank(size: int) -> None:
    """n = 200 000."""
    method = NeuralFlow(coupling=IndependentCoupling())
    setting = Setting(data=LINE, batch=partial(sorted_pairs, size=size))
    assert_stationary(method, MeanOfSorted(size), setting)
    assert_not_stationary(method, LINE, setting)


@pytest.mark.parametrize(
    ("size", "width"),
    [
        (1, 0.0),
        (2, 0.3257),
        (4, 0.586),
        (8, 0.761),
        (16, 0.867),
        (32, 0.927),
        (64, 0.961),
        (128, 0.979),
        (256, 0.989),
    ],
)
def test_transport_within_a_batch_keeps_the_width_of_the_card(size: int, width: float) -> None:
    """T14; 1 / sqrt(3 pi) of it for batches of two."""
    assert MeanOfSorted(size).width == pytest.approx(width, abs=6e-4)
    assert MeanOfSorted(2).width == pytest.approx((3.0 * math.pi) ** -0.5, abs=1e-9)


@pytest.mark.parametrize("size", [2, 8])
def test_the_coupling_sorts_each_batch(size: int) -> None:
    batch = sorted_pairs(4 * size, Rng.seeded(1), size=size)
    mixed = batch.with_noise(batch.noise.reshape(4, size).flip(1).reshape(-1, 1))
    paired, _ = MinibatchOTCoupling().pair(mixed, {}, moment(4 * size, shards=4))
    assert torch.equal(paired.noise, batch.noise)


def gains(width: Tensor, batch_size: int, batches: int) -> Tensor:
    """How much of each width of the data their regression on the noise keeps: E[x0 x1] / c."""
    total = torch.zeros_like(width)
    for step in range(batches):
        x1 = width * Rng.seeded(3, step=step).normal(batch_size, len(width), dtype=torch.float64)
        batch = Batch(x1=x1, index=torch.arange(batch_size))
        paired, _ = MinibatchOTCoupling().pair(batch, {}, moment(batch_size, step))
        total += (paired.noise * paired.x1).mean(0) / width
    return total / batches


def gain(d: int, batch_size: int, batches: int) -> float:
    return gains(torch.ones(d, dtype=torch.float64), batch_size, batches).mean().item()


def test_the_higher_the_dimension_the_less_transport_within_a_batch_keeps() -> None:
    """T14, but for batches of 64 in 2 and 16 dimensions, where the card has .95 and .49.

    These are by 400 batches of NumPy and SciPy alone.
    """
    assert gain(2, 64, 40) == pytest.approx(0.917, abs=0.03)
    assert gain(16, 64, 40) == pytest.approx(0.506, abs=0.02)
    assert gain(64, 64, 20) == pytest.approx(0.26, abs=0.02)
    assert gain(784, 64, 10) == pytest.approx(0.08, abs=0.01)
    assert gain(256, 64, 10) == pytest.approx(0.13, abs=0.01)
    assert gain(16, 256, 4) == pytest.approx(0.60, abs=0.02)
    assert gain(64, 256, 3) == pytest.approx(0.33, abs=0.01)
    assert gain(256, 256, 2) == pytest.approx(0.17, abs=0.01)
    assert gain(784, 256, 2) == pytest.approx(0.10, abs=0.01)


def test_transport_within_a_batch_keeps_the_first_components_of_images() -> None:
    """T14: variances i^-2 in 784 dimensions, batches of 256; components 1, 2, 5, 10 and 50.

    The numbers are of 60 batches of NumPy and SciPy alone; 4 standard errors of 12 are 0.08.
    """
    width = torch.arange(1, 785, dtype=torch.float64) ** -1.0
    found = gains(width, 256, 12)
    chosen = found[torch.tensor([0, 1, 4, 9, 49])].tolist()
    assert chosen == pytest.approx([0.89, 0.80, 0.57, 0.38, 0.09], abs=0.06)
    kept = (found.square() * width.square()).sum() / width.square().sum()
    assert kept.item() == pytest.approx(0.655, abs=0.04)


# What is refused.


def test_independent_pairs_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="makes the mean of the data"):
        NeuralFlow(coupling=IndependentCoupling())


def test_stored_pairs_need_their_mix_and_other_pairs_none() -> None:
    with pytest.raises(ValueError, match="got None for coupling StoredPairs"):
        NeuralFlow(coupling=StoredPairs())
    with pytest.raises(ValueError, match="for coupling Loom"):
        NeuralFlow(pairs=MIX)
    with pytest.raises(ValueError, match="share of generated pairs"):
        PairMix(generated=Linear(start=0.0, end=2.0))
    assert TAUGHT.needs.pairs == MIX
    assert NeuralFlow().needs.pairs is None
    assert NeuralFlow() == NeuralFlow(coupling=Loom(), path=LinearPath())
