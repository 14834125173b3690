"""Flow map matching: a flow map is taught by a known velocity, by the path, or by a shorter map."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs, View
from .core.motion import end_motion, start_motion
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, require_range
from .core.tiling import EqualTiles, tiled_velocity
from .core.time_law import Uniform
from .core.times import AbstractTimes, SortedTimes
from .core.weighting import AbstractWeighting, Unweighted


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
    s: Float[Tensor, "b"]
    t: Float[Tensor, "b"]

    @property
    def start(self) -> Float[Tensor, "b *d"]:
        """States at s."""
        return self.path.at(self.batch.noise, self.batch.x1, self.s).x


class AbstractMatching(ABC):
    """A loss whose only minimum is the flow map."""

    @property
    @abstractmethod
    def frozen(self) -> Mapping[str, View]:
        """The teacher and how it is looked at, if there is one."""

    @abstractmethod
    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, "b"]:
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

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, "b"]:
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

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, "b"]:
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

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, "b"]:
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

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Float[Tensor, "b"]:
        """Error of each jump, zero for an exact map but for the noise of the data."""
        x, s, t, condition = jumps.start, jumps.s, jumps.t, jumps.batch.condition
        tiles = EqualTiles(count=self.count).draw(len(x), now, dtype=s.dtype)
        with torch.no_grad():
            target = tiled_velocity(nets.frozen["teacher"], x, s, t, condition, tiles=tiles)
        return SquaredL2()(nets.online(x, s, t, condition), target)


@final
@dataclass(frozen=True, kw_only=True)
class FlowMapMatching(AbstractMethod):
    """Flow map matching: the two-time map of a known velocity, or of the path itself.

    Rows off the diagonal carry the error of the matching, the others |u(x, s, s) - v|^2 with the
    velocity v of the path, which has the teacher's as its mean.

    Reference: Boffi, Albergo and Vanden-Eijnden 2024, arXiv:2406.07507v2, section 3: Lagrangian and
        Eulerian map distillation, flow map matching and progressive flow map matching.
    Convention: as theirs.
    Differs from the paper: the diagonal has rows of its own if the law of times has any, where the
        paper leaves it to the limit; progressive errors are those of the average velocity, which
        weighs a jump by 1 / (t - s)^2 beside the error of its end. The weight of (s, t) is that of
        the law of times.
    Cost: Lagrangian, a derivative with its graph and a teacher's pass with its own; Eulerian, a
        derivative with its graph and a teacher's pass; direct, a forward pass and a derivative with
        its graph; progressive, a forward pass and ``count`` of the teacher.
    Fails by: the teacher's errors are learnt too. Eulerian: slow and blurred, as the Jacobian
        enters the gradient. Direct: it has to learn the way back to noise as well. Progressive: a
        teacher that is a velocity takes Euler steps, and the student their errors.

    Attributes:
        path: Interpolant between noise and data, on which jumps start.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t), uniform on the triangle, without rows on the diagonal by default.
        matching: The loss of the jumps.
        weighting: Weight of each sample.
        label_dropout: How often a sample is seen without its label, by the teacher too.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(law=Uniform(), diagonal=Constant(value=0.0))
    matching: AbstractMatching = LagrangianMatching()
    weighting: AbstractWeighting = Unweighted()
    label_dropout: LabelDropout = LabelDropout()

    @property
    def domain(self) -> Domain:
        """The whole triangle, as far as the path's velocity is finite."""
        return Domain(kind=DomainKind.TRIANGLE, t_hi=self.path.t_hi)

    @property
    def needs(self) -> Needs:
        """The teacher of the matching, if it has one."""
        return Needs(frozen=self.matching.frozen)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t = times.s, times.t
        if batch.condition is not None:
            dropped = self.label_dropout.draw(len(batch), now, device=s.device)
            batch = replace(batch, condition=batch.condition.drop(dropped))

        error = torch.zeros_like(s)
        on, off = times.diagonal_rows, times.off_rows
        if len(on):
            rows = batch[on]
            x, v = self.path.at(rows.noise, rows.x1, s[on])
            with dropout_rows(on):
                error[on] = SquaredL2()(nets.online.velocity(x, s[on], rows.condition), v)
        if len(off):
            jumps = Jumps(batch=batch[off], path=self.path, s=s[off], t=t[off])
            with dropout_rows(off):
                error[off] = self.matching.error(nets, jumps, now)
        return Loss(terms={"flow_map_matching": self.weighting(error, s, t)}, times=s)
