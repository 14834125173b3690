"""Improved reflow: the second rectified flow with times at both ends and a robust distance."""

import math
from dataclasses import dataclass
from typing import Final, final

from jaxtyping import Float
from torch import Tensor

from .core.coupling import AbstractCoupling, StoredPairs
from .core.distance import AbstractDistance, PseudoHuber
from .core.feature_distance import FeatureDistance
from .core.flow_map import Domain, DomainKind
from .core.method import TEACHER, AbstractMethod, Needs, PairMix, Reading
from .core.path import LINEAR, AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Piecewise, Schedule, require_range
from .core.shape import rows_like
from .core.time_law import UShaped
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal

_LAST: Final = 1.0 - 1e-5
"""Last time at which the error of the endpoint is divided by 1 - t."""


@final
@dataclass(frozen=True, kw_only=True)
class ImprovedReFlow(AbstractMethod):
    """Improved reflow (2-RF++): one reflow suffices if its loss is trained where and how it counts.

        loss = D(v, x1 - x0)                                               without an endpoint
        loss = t D(v, x1 - x0) / d + m P(x + (1 - t) v, x1) / (1 - t)^p    with one

    at x = (1 - t) x0 + t x1, with v = v(x, t) in d dimensions. P compares what is seen in the data,
    and its size does not grow with d, so that the other term is a mean there. Pairs of a flow do
    not cross, so that nothing is left of the loss at its minimum and any premetric D has the same
    minimum, one that large errors do not rule included. What remains of the loss in training lies
    at both ends, and so do the times. Real data with the noise that the teacher's flow takes back
    from them are mixed in.

    Reference: Lee, Lin and Fanti 2024, arXiv:2405.20320v1, section 4.1 for the times, section 4.2
        for the distance, section 4.3 for real data.
    Convention: theirs runs data -> noise; t' = 1 - t and v' = -v. The law of times is symmetric.
    Differs from the paper: the distance of the endpoint is optional, since its perceptual network
        has to be installed: ``perception@method.endpoint=lpips``, theirs with a side of 224. A
        FeatureDistance needs nothing, and ``auto`` takes one where there is no LPIPS. Without an
        endpoint the velocity's weight is 1 and not the published t, which would leave the start,
        where the only step begins, untrained, and the distance is a sum over dimensions. Real pairs
        come in for the last tenth, for half of the rows, in place of a further run on a share that
        is not known. The network starts from the teacher's weights, not from those of a diffusion
        model, and times may be 0 and 1.
    Cost: one forward pass a step, and the making of the pairs once; with a FeatureDistance as
        endpoint two passes of the teacher, one of them with its graph.
    Fails by: the teacher's errors are learnt too; few pairs are overfitted; where pairs do cross,
        as fresh noise makes them, a robust distance finds a median and not the flow.

    Attributes:
        path: Interpolant between noise and data; the endpoint needs the linear one.
        coupling: Stored pairs; nothing else makes sense here.
        times: Law of the time.
        generated: Share of the rows that the teacher made from fresh noise, in [0, 1].
        distance: How prediction and target are compared. The paper's c = 0.00054 d at d = 3072
            dimensions is c = scale sqrt(d) with a scale of 0.03: errors of more than that in each
            dimension count by their size and not by its square.
        weighting: Weight of each sample in the velocity's term.
        endpoint: P, the distance of the data that are predicted from the data of the pair, or None:
            a FeatureDistance, which asks the teacher, or a distance that needs no network of ours,
            such as LPIPS.
        endpoint_weight: m, at least 0; 1 is the paper's. For a P that is a sum over dimensions, 1 /
            d makes it a mean.
        endpoint_power: p, in [0, 1]: 0 and 1 are the paper's two choices.

    Raises:
        ValueError: If the coupling is not the stored pairs, the weight or the power is out of
            range, rows on the diagonal have no weight, or an endpoint is asked for on a path that
            is not linear.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = StoredPairs()
    times: DiagonalTimes = DiagonalTimes(law=UShaped(a=4.0))
    generated: Schedule = Piecewise(values=(1.0, 0.5), boundaries=(0.9,))
    distance: AbstractDistance = PseudoHuber(scale=0.00054 * math.sqrt(3072.0))
    weighting: AbstractWeighting = Unweighted()
    endpoint: FeatureDistance | AbstractDistance | None = None
    endpoint_weight: Schedule = Constant(value=1.0)
    endpoint_power: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, StoredPairs):
            raise ValueError(
                "improved reflow trains on StoredPairs, "
                f"got coupling {type(self.coupling).__name__}"
            )
        if not 0.0 <= self.endpoint_power <= 1.0:
            raise ValueError(f"method.endpoint_power must be in [0, 1], got {self.endpoint_power}")
        if self.endpoint is not None and not isinstance(self.path, LinearPath):
            raise ValueError(
                "method.endpoint reads the data off a LinearPath, "
                f"got path {type(self.path).__name__}"
            )
        require_range("method.endpoint_weight", self.endpoint_weight, 0.0, float("inf"))
        PairMix(generated=self.generated)  # refuses a share outside [0, 1]
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """The diagonal, as far as the path's velocity is finite; straight on the linear path."""
        return Domain(
            kind=DomainKind.DIAGONAL,
            t_hi=self.path.t_hi,
            is_straight=self.path.name == LINEAR,
            path=self.path.name,
            has_paired_noise=self.coupling.is_paired,
        )

    @property
    def needs(self) -> Needs:
        """Stored pairs, and the teacher where its features are read."""
        is_read = isinstance(self.endpoint, FeatureDistance)
        return Needs(
            frozen={TEACHER: Reading()} if is_read else {},
            pairs=PairMix(generated=self.generated),
        )

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        x, v = self.path.at(batch.noise, batch.x1, t)
        predicted = nets.online.velocity(x, t, batch.condition)
        error = self.weighting(self.distance(predicted, v), t, t)
        if self.endpoint is None:
            return Loss(terms={"velocity": error}, times=t)
        rest = (1.0 - t).clamp(min=1.0 - _LAST)
        reached = x + rows_like(rest, x) * predicted
        gap = self._gap(nets, reached, batch, now) / rest**self.endpoint_power
        size = math.prod(x.shape[1:])
        return Loss(
            terms={"velocity": t * error / size, "endpoint": self.endpoint_weight(now) * gap},
            times=t,
        )

    def _gap(
        self, nets: Nets, reached: Float[Tensor, " b *d"], batch: Batch, now: Moment
    ) -> Float[Tensor, " b"]:
        """Distance of the data that are predicted from those of the pair."""
        match self.endpoint:
            case FeatureDistance():
                teacher = nets.frozen[TEACHER]
                return self.endpoint(teacher, reached, batch.x1, batch.condition, now)
            case AbstractDistance():
                return self.endpoint(reached, batch.x1)
            case None:
                raise AssertionError("there is an endpoint to compare")
