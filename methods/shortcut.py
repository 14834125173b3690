"""Shortcut models: a long jump must equal the shorter jumps that it is cut into."""

import math
from dataclasses import dataclass
from typing import final

import torch

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import BOTH_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Ema, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant
from .core.tiling import AbstractTiling, EqualTiles, tiled_velocity
from .core.times import AbstractTimes, DyadicTimes, require_diagonal
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class Shortcut(AbstractMethod):
    """Shortcut models: flow matching on the diagonal, self-consistency on the jumps.

        u(x, s, t) = (u(x, s, m) + u(X(s, m)(x), m, t)) / 2   with m = (s + t) / 2

    The right side comes from a moving average of the network and is held constant. The diagonal
    anchors the ladder of lengths, and errors climb it from there. Other tilings put other parts of
    the jump in place of its halves.

    Reference: Frans et al. 2024, arXiv:2410.12557v1, Eq. (5) and Alg. 1; the moving average, the
        shares and the clipping after their code.
    Convention: as theirs; their (t, d) is (s, t - s) here.
    Differs from the paper: their anchor is a token for a finest step of 1/128, at which a jump is
        taken to be straight, and that leaves a bias. Here it is the diagonal itself; the halves of
        the finest jump lie between it and that jump, where the network interpolates. Diagonal
        times are uniform instead of lying on a grid. Guidance in the target is left out. Tilings
        other than halves and jumps of continuous length are not theirs.
    Cost: one forward pass a step, and on the rows off the diagonal one of the target network for
        each tile, two by default.
    Fails by: one step converges last; without the moving average the ladder is unstable, and with
        one slower than the run the jumps stay where they began; with dyadic times only powers of
        two can be sampled; without a label only the velocity is learnt, so jumps need one.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Jumps, dyadic or of continuous length over the whole triangle (``SortedTimes``), and
            the share of diagonal rows. The paper's text teaches a quarter of the rows by jumps, its
            code an eighth.
        tiling: How a jump is cut. Dyadic jumps take dyadic tiles.
        target: The moving average that teaches.
        weighting: Weight of each sample.
        clip: Largest absolute value of the intermediate state and of the target, above 0; the data
            are in [-1, 1] or of unit variance.
        label_dropout: How often a diagonal row is seen without its label. Jumps never lose theirs,
            so that without a label the network is a velocity only.

    Raises:
        ValueError: If the clip is not positive, the path's velocity is infinite at the data, the
            times are not those of jumps of every length and of the diagonal, which alone reads the
            data, rows on the diagonal have no weight, or the tiling leaves their grid.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = DyadicTimes()
    tiling: AbstractTiling = EqualTiles(count=2)
    target: Ema = Ema(decay=Constant(value=0.999))
    weighting: AbstractWeighting = Unweighted()
    clip: float = 4.0
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        if not 0.0 < self.clip < math.inf:
            raise ValueError(f"method.clip must be finite and positive, got {self.clip}")
        if self.path.t_hi < 1.0:
            raise ValueError(
                "jumps that are cut need a path whose velocity is finite up to the data, "
                f"got {type(self.path).__name__}"
            )
        require_diagonal("the shortcut model", self.times)
        require_weighed_diagonal(self.weighting)
        require_coverage("the shortcut model", self.times, BOTH_MOVE | {DomainKind.GRID})
        if self.domain.kind is DomainKind.GRID and not self.tiling.is_dyadic:
            raise ValueError(
                f"{type(self.times).__name__} need tiles of length 2^-k at multiples of it, "
                f"got {self.tiling}; allowed with it are jumps of continuous length"
            )

    @property
    def domain(self) -> Domain:
        """What the times cover: dyadic jumps, or the whole triangle."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

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
            tiles = self.tiling.draw(len(rows), now, dtype=s.dtype)
            with torch.no_grad(), dropout_rows(rows):
                whole = tiled_velocity(
                    nets.target, x[rows], s[rows], t[rows], some, tiles=tiles, limit=self.clip
                )
            target[rows] = whole.clamp(-self.clip, self.clip)

        error = SquaredL2()(nets.online(x, s, t, condition), target)
        return Loss(terms={"shortcut": self.weighting(error, s, t)}, times=s)
