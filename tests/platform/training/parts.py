"""Parts that only tests train with: a coupling with state, a method of two terms, a game."""

from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from onestep.methods.core.balance import AbstractBalance, FixedBalance, GradientRatio
from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import AbstractCoupling, CouplingState, IndependentCoupling
from onestep.methods.core.distance import SquaredL2
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import AbstractSource, Dataset, Examples

JUDGE = "judge"


@final
@dataclass(frozen=True, kw_only=True)
class KeptNoise(AbstractCoupling):
    """Each datum keeps its noise and takes a little fresh noise in at every visit."""

    fresh: float = 0.6

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        return {"noise": torch.zeros(num_data, *shape, dtype=torch.float64)}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        fresh = now.rng.normal(*batch.x1.shape, dtype=torch.float64)
        noise = 0.8 * state["noise"][batch.index] + self.fresh * fresh
        after = {"noise": state["noise"].index_copy(0, batch.index, noise)}
        return batch.with_noise(noise.to(batch.x1.dtype)), after


@dataclass(frozen=True, kw_only=True)
class AbstractPart(AbstractMethod):
    """A method of all jumps that needs nothing but data."""

    coupling: AbstractCoupling = IndependentCoupling()

    @property
    def domain(self) -> Domain:
        return Domain()

    @property
    def needs(self) -> Needs:
        return Needs()


@final
@dataclass(frozen=True, kw_only=True)
class TwoTerms(AbstractPart):
    """Two regressions of very different size, balanced by their gradients at the last layer."""

    @property
    def balance(self) -> AbstractBalance:
        return GradientRatio(at="head.weight", reference="data")

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        u = nets.online(x, t, t, batch.condition)
        return Loss(
            terms={"data": SquaredL2()(u, v), "large": 1e3 * SquaredL2()(u.sin(), batch.x1)}
        )


@final
@dataclass(frozen=True, kw_only=True)
class Torn(AbstractPart):
    """A regression that each worker weighs in its own way, so that it is not one batch's."""

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        weight = 1.0 + dist.get_rank() if dist.is_initialized() else 1.0
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        return Loss(terms={"torn": weight * SquaredL2()(nets.online.velocity(x, t), v)})


@final
@dataclass(frozen=True, kw_only=True)
class Scaled(AbstractPart):
    """A regression for networks that take guidance scales, which it draws itself.

    Attributes:
        group: Rows that belong together; each shard has a multiple of them.
    """

    group: int = 1

    @property
    def needs(self) -> Needs:
        return Needs(scales=(1.0, 4.0))

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        if len(batch) % self.group:
            raise ValueError(f"rows come in groups of {self.group}, got {len(batch)}")
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        scale = 1.0 + now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        return Loss(
            terms={"scaled": SquaredL2()(nets.online(x, t, t, Condition(guidance=scale)), v)}
        )


@final
@dataclass(frozen=True, kw_only=True)
class Steep(AbstractPart):
    """A regression whose loss is as before at one step, and its gradient infinite.

    Attributes:
        at: The step.
    """

    at: int

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        u = nets.online.velocity(x, t)
        step = (u - u.detach()).sqrt().flatten(1).sum(1) if now.step == self.at else 0.0
        return Loss(terms={"data": SquaredL2()(u, v) + step})


@final
@dataclass(frozen=True, kw_only=True)
class Curious(AbstractPart):
    """A regression that asks what its data are before it computes."""

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        u = nets.online(x, t, t, batch.condition)
        return Loss(terms={"data": SquaredL2()(u, v) * float(x.abs().max())})


@final
@dataclass(frozen=True, kw_only=True)
class OneJump(AbstractPart):
    """A generator of one step, which is no velocity: the noise of a datum jumps to it."""

    @property
    def domain(self) -> Domain:
        return Domain(kind=DomainKind.FROM_NOISE)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        zero = torch.zeros(len(batch), dtype=batch.x1.dtype)
        made = nets.online.jump(batch.noise, zero, zero + 1.0, batch.condition)
        return Loss(terms={"jump": SquaredL2()(made, batch.x1)})


@final
@dataclass(frozen=True, kw_only=True)
class Halves(AbstractSource):
    """The points of eight Gaussians with a label: left or right."""

    @property
    def name(self) -> str:
        return "halves"

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("left", "right")

    def load(self) -> Dataset:
        points = EightGaussians(samples=128, held_out=64).load()
        train, held_out = (
            Examples(x=part.x, label=(part.x[:, 0] > 0).long())
            for part in (points.train, points.held_out)
        )
        return Dataset.of(self, train=train, held_out=held_out)


@final
class Judge(nn.Module):
    """Tells data from what the flow map makes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        score: Tensor = self.layers(x.flatten(1))
        return score[:, 0].to(x.dtype)


def _judge(online: FlowMap) -> nn.Module:
    del online
    return Judge(2)


@final
@dataclass(frozen=True, kw_only=True)
class Adversarial(AbstractGame):
    """A generator of points against a judge that moves at every second step.

    Attributes:
        only: The one player that ever moves, empty for both.
        refusing: A player whose loss takes no data, or empty.
        balance: How the generator's two terms combine.
    """

    only: str = ""
    refusing: str = ""
    balance: AbstractBalance = FixedBalance()
    coupling: AbstractCoupling = IndependentCoupling()

    @property
    def domain(self) -> Domain:
        return Domain()

    @property
    def needs(self) -> Needs:
        return Needs(companions={JUDGE: _judge})

    def players(self, now: Moment) -> tuple[str, ...]:
        if self.only:
            return (self.only,)
        return (JUDGE, ONLINE) if now.step % 2 == 0 else (ONLINE,)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        if player == self.refusing:
            raise ValueError(f"the {player} takes no such data")
        zero = torch.zeros(len(batch), dtype=batch.x1.dtype)
        x0 = batch.noise + 0.1 * now.rng.normal(*batch.x1.shape, dtype=batch.x1.dtype)
        made = nets.online.jump(x0, zero, zero + 1.0, batch.condition)
        judge = nets.companions[JUDGE]
        if player == ONLINE:
            near = 0.1 * SquaredL2()(made, batch.x1)
            return Loss(terms={"near": near, "fool": functional.softplus(-judge(made))})
        real, fake = judge(batch.x1), judge(made)
        return Loss(terms={"tell": functional.softplus(-real) + functional.softplus(fake)})
