"""Matchings: losses whose only minimum is the flow map of a teacher, or of the path itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from .coverage import ANY, BOTH_MOVE, ENDS_MOVE, STARTS_MOVE
from .distance import SquaredL2
from .flow_map import Domain, DomainKind
from .method import View
from .motion import end_motion, start_motion
from .path import AbstractPath
from .record import Batch, Moment, Nets
from .schedule import Constant, Schedule, require_range
from .tiling import EqualTiles, tiled_velocity


class Jumps(NamedTuple):
    """Rows off the diagonal: what a matching is given of a batch.

    Attributes:
        batch: Data with paired noise.
        path: Interpolant between them.
        s: Start times.
        t: End times.
    """

    batch: Batch
    path: AbstractPath
    s: Float[Tensor, " b"]
    t: Float[Tensor, " b"]

    @property
    def start(self) -> Float[Tensor, " b *d"]:
        """States at s."""
        return self.path.at(self.batch.noise, self.batch.x1, self.s).x


class AbstractMatching(ABC):
    """A loss whose only minimum is the flow map."""

    @property
    @abstractmethod
    def frozen(self) -> Mapping[str, View]:
        """The teacher and how it is looked at, if there is one."""

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Kinds of domain that it can train; those of both times unless a matching says more."""
        return BOTH_MOVE

    def asked(self, domain: Domain) -> Domain:
        """Where it asks its teacher: at all times, as a velocity, unless a matching says otherwise.

        Args:
            domain: What the jumps of the student cover.
        """
        return Domain(kind=DomainKind.DIAGONAL, t_lo=domain.t_lo, t_hi=domain.t_hi)

    @abstractmethod
    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, " b"]:
        """Error of each jump, zero for an exact map but for the noise of the data.

        Args:
            nets: The map in training and its teacher.
            jumps: What is matched.
            now: The moment.
        """


@final
@dataclass(frozen=True, kw_only=True)
class LagrangianMatching(AbstractMatching):
    """LMD: the end of a jump moves with the teacher's velocity there.

    |u + (t - s) d_t u - b(X(s, t)(x), t)|^2

    The gradient passes through the teacher into the end of the jump.
    """

    @property
    def frozen(self) -> Mapping[str, View]:
        """A velocity."""
        return {"teacher": View.VELOCITY}

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Those in which the end of a jump may move."""
        return ENDS_MOVE

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, " b"]:
        """Error of each jump, zero for an exact map but for the noise of the data."""
        del now
        condition = jumps.batch.condition
        end, rate = end_motion(nets.online, jumps.start, jumps.s, jumps.t, condition)
        return SquaredL2()(rate, nets.frozen["teacher"].velocity(end, jumps.t, condition))


@final
@dataclass(frozen=True, kw_only=True)
class EulerianMatching(AbstractMatching):
    """EMD: the end of a jump stays where it is while its start moves with the teacher's velocity.

    |b(x, s) + (t - s) (b . grad_x u + d_s u) - u|^2

    The gradient passes through the derivative, the Jacobian in it included.
    """

    @property
    def frozen(self) -> Mapping[str, View]:
        """A velocity."""
        return {"teacher": View.VELOCITY}

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Those in which the start of a jump may move."""
        return STARTS_MOVE

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, " b"]:
        """Error of each jump, zero for an exact map but for the noise of the data."""
        del now
        x, condition = jumps.start, jumps.batch.condition
        with torch.no_grad():
            velocity = nets.frozen["teacher"].velocity(x, jumps.s, condition).to(x.dtype)
        rate = start_motion(nets.online, x, jumps.s, jumps.t, condition, velocity=velocity).rate
        return SquaredL2()(rate, torch.zeros_like(rate))


@final
@dataclass(frozen=True, kw_only=True)
class DirectMatching(AbstractMatching):
    """FMM: a jump back from the path and forth again moves with the path. It needs no teacher.

    |d_t X(s, t)(y) - v|^2 + cycle |X(s, t)(y) - x|^2   at y = X(t, s)(x), x on the path at t

    Half of the rows jump the other way, from t to s, so that the map learns both directions.

    Attributes:
        cycle: Weight of the way back to x, at least 0. Without it the map is not determined.

    Raises:
        ValueError: If the weight is negative anywhere.
    """

    cycle: Schedule = Constant(value=1.0)

    def __post_init__(self) -> None:
        require_range("method.matching.cycle", self.cycle, 0.0, float("inf"))

    @property
    def frozen(self) -> Mapping[str, View]:
        """No teacher."""
        return {}

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, " b"]:
        """Error of each jump, zero for an exact map but for the noise of the data."""
        batch, online = jumps.batch, nets.online
        is_turned = now.rng.uniform(len(batch)).to(jumps.s.device) < 0.5
        s = torch.where(is_turned, jumps.t, jumps.s)
        t = torch.where(is_turned, jumps.s, jumps.t)
        x, v = jumps.path.at(batch.noise, batch.x1, t)
        back = online.jump(x, t, s, batch.condition)
        end, rate = end_motion(online, back, s, t, batch.condition)
        return SquaredL2()(rate, v) + self.cycle(now) * SquaredL2()(end, x)


@final
@dataclass(frozen=True, kw_only=True)
class ProgressiveMatching(AbstractMatching):
    """PFMM: a jump is worth several jumps of a teacher that knows short ones.

    |u - mean of the teacher's u over the jumps|^2

    Attributes:
        count: Jumps of the teacher for one, at least 2.

    Raises:
        ValueError: If there are fewer than two.
    """

    count: int = 2

    def __post_init__(self) -> None:
        EqualTiles(count=self.count)  # refuses fewer than two

    @property
    def frozen(self) -> Mapping[str, View]:
        """A flow map."""
        return {"teacher": View.JUMP}

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """All: the jumps of the teacher are what they are."""
        return ANY

    def asked(self, domain: Domain) -> Domain:
        """On the parts of the student's jumps."""
        steps, is_dyadic = domain.steps * self.count, self.count & (self.count - 1) == 0
        if domain.kind is DomainKind.TILING or (domain.kind is DomainKind.GRID and is_dyadic):
            return replace(domain, steps=steps)
        return Domain(t_lo=domain.t_lo, t_hi=domain.t_hi)

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, " b"]:
        """Error of each jump, zero for an exact map but for the noise of the data."""
        x, s, t, condition = jumps.start, jumps.s, jumps.t, jumps.batch.condition
        tiles = EqualTiles(count=self.count).draw(len(x), now, dtype=s.dtype)
        with torch.no_grad():
            target = tiled_velocity(nets.frozen["teacher"], x, s, t, condition, tiles=tiles)
        return SquaredL2()(nets.online(x, s, t, condition), target)
