"""How a method's exactness is measured: its mean gradient in random smooth directions at a map."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap

SAMPLES: Final = 200_000
CHUNK: Final = 5_000
FEW: Final = 40_000
"""Samples that are enough where a gradient is large."""
DIRECTIONS: Final = 8
ORACLE: Final = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
WRONG: Final = GaussianMap(mean=[0.4, 0.1], std=[0.5, 0.4])
"""Another Gaussian's map: the default negative control."""


@final
class Perturbed(FlowMap):
    """A map plus smooth functions of (x, s, t) whose coefficients are parameters at zero.

    u(x, s, t) + sum_j theta_j a_j cos(w_j . (x, s, t) + b_j)

    Along the oracle's own parameters a test is blind to wrong signs; along these it is not.
    """

    def __init__(self, flow_map: FlowMap, *, size: int, domain: Domain | None = None) -> None:
        super().__init__(domain=flow_map.domain if domain is None else domain)
        rng = Rng.seeded(20)
        self.flow_map = flow_map
        self.theta = torch.nn.Parameter(torch.zeros(DIRECTIONS, dtype=torch.float64))
        self.amplitude = rng.normal(DIRECTIONS, size, dtype=torch.float64)
        self.frequency = rng.normal(DIRECTIONS, size + 2, dtype=torch.float64)
        self.phase = 6.0 * rng.uniform(DIRECTIONS, dtype=torch.float64)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        at = torch.cat([x.flatten(1), s[:, None], t[:, None]], dim=1)
        waves = torch.cos(at @ self.frequency.T + self.phase)
        bump = (waves * self.theta) @ self.amplitude
        u: Tensor = self.flow_map(x, s, t, condition)
        return u + bump.reshape(x.shape)


@final
@dataclass(frozen=True, kw_only=True)
class OneTerm(AbstractMethod):
    """A method without its other terms.

    Attributes:
        method: The method.
        term: The term that is left.
    """

    method: AbstractMethod
    term: str

    @property
    def coupling(self) -> AbstractCoupling:
        return self.method.coupling

    @property
    def domain(self) -> Domain:
        return self.method.domain

    @property
    def needs(self) -> Needs:
        return self.method.needs

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        return Loss(terms={self.term: self.method.loss(nets, batch, now).terms[self.term]})


class Gradient(NamedTuple):
    """Mean gradient in each direction and its standard error over independent chunks."""

    mean: Tensor
    error: Tensor

    @property
    def z(self) -> float:
        """Largest gradient in standard errors; a gradient of rounding size counts as none."""
        return (self.mean.abs() / (self.error + 1e-9 / 4.0)).max().item()


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a gradient is taken.

    Attributes:
        data: Gaussian that the pairs are drawn from, with its correlation.
        frozen: Frozen maps by role, and the target under ``target``.
        progress: Share of training done at the moment.
        batch: Draws a batch of n rows; None for unlabelled pairs of ``data``.
    """

    data: GaussianMap = ORACLE
    frozen: Mapping[str, FlowMap] = dataclasses.field(default_factory=dict)
    progress: float = 0.5
    batch: Callable[[int, Rng], Batch] | None = None

    def draw(self, n: int, rng: Rng) -> Batch:
        if self.batch is not None:
            return self.batch(n, rng)
        x0, x1 = self.data.draw(n, rng=rng)
        return Batch(x1=x1, x0=x0, index=torch.arange(n))


def chunk_gradients(
    method: AbstractMethod, flow_map: FlowMap, setting: Setting, *, samples: int = SAMPLES
) -> Float[Tensor, "chunks directions"]:
    """Mean gradient over each chunk of samples; the same random numbers for every method."""
    online = Perturbed(flow_map, size=setting.data.mean.numel(), domain=method.domain)
    gradients = []
    for chunk in range(samples // CHUNK):
        mean = _loss(method, online, setting, chunk=chunk).total.mean()
        gradients.append(torch.autograd.grad(mean, online.theta)[0])
    return torch.stack(gradients)


def _loss(method: AbstractMethod, online: Perturbed, setting: Setting, *, chunk: int) -> Loss:
    """Losses of a chunk of samples."""
    frozen = {name: m for name, m in setting.frozen.items() if name != "target"}
    target = setting.frozen.get("target", online.flow_map) if method.needs.target else None
    companions = {name: build(online).double() for name, build in method.needs.companions.items()}
    nets = Nets(online=online, target=target, frozen=frozen, companions=companions)
    batch = setting.draw(CHUNK, Rng.seeded(1, step=chunk))
    step = round(setting.progress * 10_000)
    now = Moment(step=step, total=10_000, rng=Rng.seeded(2, step=chunk), batch_size=CHUNK)
    state = method.coupling.initial(CHUNK, tuple(batch.x1.shape[1:]))
    batch, _ = method.coupling.pair(batch, state, now)
    return method.loss(nets, batch, now)


def mean_gradient(
    method: AbstractMethod, flow_map: FlowMap, setting: Setting, *, samples: int = SAMPLES
) -> Gradient:
    """Mean gradient of a method at a map, in eight directions."""
    return _mean(chunk_gradients(method, flow_map, setting, samples=samples))


def _mean(gradients: Float[Tensor, "chunks directions"]) -> Gradient:
    return Gradient(mean=gradients.mean(0), error=gradients.std(0) / len(gradients) ** 0.5)


@final
@dataclass(frozen=True, kw_only=True)
class Exact:
    """The method's mean gradient vanishes at the oracle.

    Attributes:
        setting: The data, the frozen maps and the moment.
        at: Map at which it vanishes; None for the data's own oracle.
        control: A wrong variant whose gradient does not vanish there, or another map at which the
            method's own does not; None for another Gaussian's map, which each term of the method
            by itself must notice.
    """

    setting: Setting = Setting()
    at: FlowMap | None = None
    control: AbstractMethod | FlowMap | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Order:
    """The method's bias at the oracle falls with a power of a gap.

    The methods at the gaps are measured in place of the one under test. Where they differ from it
    in more than the gap, as in the weight, their declaration says why.

    Attributes:
        order: The power.
        gaps: Two gaps, the wider first.
        methods: The method at each gap, wide enough that its bias stands out.
        control: A wrong variant at each gap, whose bias falls with another power or not at all.
        reference: An exact method with the same random numbers; its gradient, whose mean must be
            zero, is subtracted to remove the noise. None if the loss has no noise at the oracle.
        setting: The data, the frozen maps and the moment.
    """

    order: float
    gaps: tuple[float, float]
    methods: tuple[AbstractMethod, AbstractMethod]
    control: tuple[AbstractMethod, AbstractMethod]
    reference: AbstractMethod | None = None
    setting: Setting = Setting()


@final
@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """The method's minimum is another map than the oracle, known in closed form.

    Attributes:
        minimiser: The map at which the mean gradient vanishes; it does not at the oracle.
        setting: The data, the frozen maps and the moment.
    """

    minimiser: FlowMap
    setting: Setting = Setting()


def assert_exactness(exactness: Exact | Order | Elsewhere, method: AbstractMethod) -> None:
    """The gradient does at the oracle what is declared, and a negative control does not."""
    match exactness:
        case Exact():
            setting = _with_teachers(method, exactness.setting)
            at = setting.data if exactness.at is None else exactness.at
            assert_stationary(method, at, setting)
            match exactness.control:
                case None:
                    for term in _terms(method, setting):
                        assert_not_stationary(OneTerm(method=method, term=term), WRONG, setting)
                case AbstractMethod() as wrong:
                    assert_not_stationary(wrong, at, setting)
                case another:
                    assert_not_stationary(method, another, setting)
        case Elsewhere():
            setting = _with_teachers(method, exactness.setting)
            assert_stationary(method, exactness.minimiser, setting)
            assert_not_stationary(method, setting.data, setting)
        case Order():
            assert_order(exactness)


def _with_teachers(method: AbstractMethod, setting: Setting) -> Setting:
    """The data's oracle in every role that the setting leaves open."""
    roles = {*method.needs.frozen, "target"}
    return replace(setting, frozen={role: setting.data for role in roles} | dict(setting.frozen))


def _terms(method: AbstractMethod, setting: Setting) -> tuple[str, ...]:
    """The terms of a method's loss."""
    online = Perturbed(setting.data, size=setting.data.mean.numel(), domain=method.domain)
    return tuple(_loss(method, online, setting, chunk=0).terms)


def assert_stationary(method: AbstractMethod, flow_map: FlowMap, setting: Setting) -> None:
    """The mean gradient is at most 4 standard errors; 200 000 samples, 8 directions."""
    found = mean_gradient(method, flow_map, setting)
    assert (found.mean.abs() <= 4.0 * found.error + 1e-9).all(), f"z = {found.z:.1f}"


def assert_not_stationary(method: AbstractMethod, flow_map: FlowMap, setting: Setting) -> None:
    """The mean gradient of at most 200 000 samples exceeds 20 standard errors somewhere."""
    few = mean_gradient(method, flow_map, setting, samples=FEW)
    if few.z < 40.0:  # the error of so few chunks is itself uncertain
        found = mean_gradient(method, flow_map, setting)
        assert found.z >= 20.0, f"the negative control has z = {found.z:.1f} only"


def assert_order(order: Order) -> None:
    """The bias falls with the declared power of the gap, within 0.2; the control's does not."""
    slope = _slope(order, order.methods)
    assert abs(slope - order.order) <= 0.2, f"slope {slope:.2f}"
    slope = _slope(order, order.control)
    assert abs(slope - order.order) >= 0.5, f"the negative control has slope {slope:.2f}"


def _slope(order: Order, methods: tuple[AbstractMethod, AbstractMethod]) -> float:
    """The power of the gap that the bias of the method at each gap falls with."""

    def gradients(method: AbstractMethod, samples: int) -> Tensor:
        setting = _with_teachers(method, order.setting)
        return chunk_gradients(method, setting.data, setting, samples=samples)

    sizes = list[float]()
    for samples, least in ((FEW, 30.0), (SAMPLES, 10.0)):  # as many as tell bias from noise
        noise = torch.zeros(())
        if order.reference is not None:
            noise = gradients(order.reference, samples)
            z = _mean(noise).z
            assert z <= 6.0, f"the reference has a bias of its own, z = {z:.1f}"
        found = [gradients(method, samples) - noise for method in methods]
        sizes = [each.mean(0).norm().item() for each in found]
        errors = [(each.std(0).norm() / len(each) ** 0.5).item() for each in found]
        if all(size > least * error for size, error in zip(sizes, errors, strict=True)):
            break
    else:
        raise AssertionError(f"the biases {sizes} drown in their noise {errors}")
    return math.log(sizes[0] / sizes[1]) / math.log(order.gaps[0] / order.gaps[1])
