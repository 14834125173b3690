"""Truncated consistency: a second stage that learns the noisy times alone."""

from dataclasses import dataclass
from typing import Final, final

import torch

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, PseudoHuber
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import TEACHER, AbstractMethod, Needs, Reading, View
from .core.noise_weighting import InverseGap
from .core.pair_times import RatioTimes
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, require_range
from .core.shape import rows_like
from .core.share import whole_rows
from .core.tail_law import LogTail
from .core.teacher import require_readings
from .core.weighting import AbstractWeighting

_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class TruncatedConsistency(AbstractMethod):
    """Truncated consistency: before a cut the network learns, behind it the first stage is right.

        f(x_s, s) = f(x_t, t)   while t is before the cut,   f(x_s, s) = f_1(x_t, t)   behind it

    A consistency model spends its capacity on denoising at all times, and one step needs the first
    of them only. The network learns s up to the cut; a consistency model f_1 of all times, frozen,
    answers behind it. A share of the rows begins exactly at the cut. Without them the network could
    agree with itself on anything.

    Reference: Lee et al. 2024, arXiv:2410.14895v1, section 3; shares, weights and law after their
        code.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t; their cut at sigma'
        is 1 / (1 + sigma') here.
    Differs from the paper: the model that is registered is the network of the second stage alone,
        which makes samples in one step from pure noise; theirs is joined with the first stage for a
        second step. Rows of both kinds may have a pair across the cut, and only those at the cut
        count as its boundary, as in their code. The gap stays as narrow as it was when the first
        stage ended, a ratio of 1 - 1 / 256 at large noise levels; theirs goes on to close, up to a
        ratio of 0.999, for which parts would rise to 1000.
    Cost: two forward passes a step, one of them without a graph, and one of the first stage.
    Fails by: the first stage's errors behind the cut are learnt too; too few rows at the cut let
        the network drift; with wider gaps than at the end of the first stage, rows at the cut end
        at the data, where the first stage has nothing to say, and what it has learnt is undone.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Law of s, which ends at the cut, and the schedule by which t follows; it goes on
            where that of the first stage ended.
        boundary: Share of the rows that begin at the cut, in [0, 1), rounded to whole rows of each
            shard.
        boundary_weight: Weight of their mean beside that of the others, at least 0.
        distance: How both jumps are compared.
        weighting: Weight of each sample, from its error and its two times.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the law of s has no end, or a value is out of range.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: RatioTimes = RatioTimes(law=LogTail(), parts=Constant(value=256.0))
    boundary: Schedule = Constant(value=0.25)
    boundary_weight: Schedule = Constant(value=0.1)
    distance: AbstractDistance = PseudoHuber(scale=1e-8)
    weighting: AbstractWeighting = InverseGap()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        if not isinstance(self.times.law, LogTail):
            raise ValueError(
                f"truncated times need a law that ends at the cut, LogTail, "
                f"got {type(self.times.law).__name__}"
            )
        require_range("method.boundary", self.boundary, 0.0, 1.0 - 1e-9)
        require_range("method.boundary_weight", self.boundary_weight, 0.0, float("inf"))

    @property
    def cut(self) -> float:
        """The last time that the network learns."""
        return self._law.t_hi

    @property
    def domain(self) -> Domain:
        """The jump from the first time of the law to the data; before it nothing is trained."""
        return Domain(
            kind=DomainKind.TILING,
            steps=1,
            t_lo=self._law.t_lo,
            has_paired_noise=self.coupling.is_paired,
        )

    @property
    def needs(self) -> Needs:
        """The first stage, seen by its jumps to the data from behind the cut."""
        on = Domain(kind=DomainKind.TO_DATA, t_lo=self.cut)
        return Needs(frozen={TEACHER: Reading(view=View.JUMP, on=on)})

    @property
    def _law(self) -> LogTail:
        assert isinstance(self.times.law, LogTail)
        return self.times.law

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        require_readings(self.needs, nets)
        first = nets.frozen[TEACHER]
        n, dtype = len(batch), batch.x1.dtype
        drawn = self.times.draw(n, now, dtype=dtype).to(batch.x1.device)
        pinned, shares = self._pinned(n, now)
        pinned, shares = pinned.to(drawn.s.device), shares.to(drawn.s)
        s = torch.where(pinned, self.cut, drawn.s)
        t = torch.where(pinned, self.times.after(s.double(), now).to(dtype), drawn.t)
        data, condition = torch.ones_like(s), self.label_dropout.keep(batch, now)

        x_s, x_t = (_PATH.at(batch.noise, batch.x1, time).x for time in (s, t))
        here = nets.online.jump(x_s, s, data, condition)
        # Both on all rows: how many lie behind the cut is left to chance, and shapes that depend on
        # values could be neither compiled nor counted before a run.
        with torch.no_grad():
            itself = nets.online.jump(x_t, t, data, condition)
            frozen = first.jump(x_t, t, data, condition)
            there = torch.where(rows_like(t >= self.cut, x_t), frozen, itself)

        error = self.distance(here, there)
        # Means over rows of one kind, as parts of a mean over all rows.
        weighted = self.weighting(error, s, t) * shares
        terms = {"consistency": weighted * ~pinned, "boundary": weighted * pinned}
        return Loss(terms=terms, logs={"error": error.detach()}, times=s)

    def _pinned(self, n: int, now: Moment) -> tuple[torch.Tensor, torch.Tensor]:
        """Which rows begin at the cut, and how much each row counts."""
        rows = now.rng.rows_per_shard(n)
        count = whole_rows("method.boundary", self.boundary(now), rows)
        is_pinned = (torch.arange(rows) < count).repeat(now.rng.shards)
        rest = rows / (rows - count)  # a boundary below 1 leaves some
        share = self.boundary_weight(now) * rows / max(count, 1)
        return is_pinned, torch.where(is_pinned, share, rest)
