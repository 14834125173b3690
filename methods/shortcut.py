"""Shortcut models: a long jump must equal two jumps of half its length."""

from dataclasses import dataclass
from typing import final

import torch

from .core.condition import Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Ema, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant
from .core.shape import rows_like
from .core.times import DyadicTimes
from .core.weighting import AbstractWeighting, Unweighted


@final
@dataclass(frozen=True, kw_only=True)
class Shortcut(AbstractMethod):
    """Shortcut models: flow matching on the diagonal, self-consistency on dyadic jumps.

        u(x, s, t) = (u(x, s, m) + u(X(s, m)(x), m, t)) / 2   with m = (s + t) / 2

    The right side comes from a moving average of the network and is held constant. The diagonal
    anchors the ladder of lengths, and errors climb it from there.

    Reference: Frans et al. 2024, arXiv:2410.12557v1, Eq. (5) and Alg. 1; the moving average, the
        shares and the clipping after their code.
    Convention: as theirs; their (t, d) is (s, t - s) here.
    Differs from the paper: their anchor is a token for a finest step of 1/128, at which a jump is
        taken to be straight, and that leaves a bias. Here it is the diagonal itself; the halves of
        the finest jump lie between it and that jump, where the network interpolates. Diagonal
        times are uniform instead of lying on a grid. Guidance in the target is left out.
    Cost: one forward pass a step, and two of the target network on the rows off the diagonal.
    Fails by: one step converges last; without the moving average the ladder is unstable, and with
        one slower than the run the jumps stay where they began; only powers of two can be sampled;
        without a label only the velocity is learnt, so jumps need one.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Dyadic jumps and the share of diagonal rows. The paper's text teaches a quarter of
            the rows by jumps, its code an eighth.
        target: The moving average that teaches.
        weighting: Weight of each sample.
        clip: Largest absolute value of the intermediate state and of the target, above 0; the data
            are in [-1, 1] or of unit variance.
        label_dropout: How often a diagonal row is seen without its label. Jumps never lose theirs,
            so that without a label the network is a velocity only.

    Raises:
        ValueError: If the clip is not positive, or the path's velocity is infinite at the data.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: DyadicTimes = DyadicTimes()
    target: Ema = Ema(decay=Constant(value=0.999))
    weighting: AbstractWeighting = Unweighted()
    clip: float = 4.0
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        if self.clip <= 0.0:
            raise ValueError(f"method.clip must be positive, got {self.clip}")
        if self.path.t_hi < 1.0:
            raise ValueError(
                "dyadic jumps need a path whose velocity is finite up to the data, "
                f"got {type(self.path).__name__}"
            )

    @property
    def domain(self) -> Domain:
        """Dyadic jumps."""
        return Domain(kind=DomainKind.GRID, steps=self.times.steps)

    @property
    def needs(self) -> Needs:
        """A target network."""
        return Needs(target=self.target)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        assert nets.target is not None, "the platform builds what needs declares"
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, rows = times.s, times.t, times.off_rows
        x, v = self.path.at(batch.noise, batch.x1, s)

        condition = batch.condition
        if condition is not None:
            dropped = self.label_dropout.draw(len(batch), now, device=s.device)
            condition = condition.drop(dropped & (s == t))

        target = v.clone()
        if len(rows):
            some = None if condition is None else condition[rows]
            with torch.no_grad(), dropout_rows(rows):
                halves = self.two_halves(nets.target, x[rows], s[rows], t[rows], some)
                target[rows] = halves.to(target.dtype)

        error = SquaredL2()(nets.online(x, s, t, condition), target)
        return Loss(terms={"shortcut": self.weighting(error, s, t)}, times=s)

    def two_halves(
        self,
        teacher: FlowMap,
        x: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        condition: Condition | None,
    ) -> torch.Tensor:
        """Average velocity of two jumps of half the length, the second from where the first ends.

        Args:
            teacher: Map that takes the jumps.
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row.

        Returns:
            The velocity that one jump of the whole length should have.
        """
        middle = 0.5 * (s + t)
        first = teacher(x, s, middle, condition)
        reached = (x + rows_like(middle - s, x) * first).clamp(-self.clip, self.clip)
        second = teacher(reached, middle, t, condition)
        return (0.5 * (first + second)).clamp(-self.clip, self.clip)
