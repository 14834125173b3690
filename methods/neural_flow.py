"""Neural flow matching: the solution of the flow is regressed itself, from its noise."""

import warnings
from dataclasses import dataclass, replace
from typing import final

from .core.coupling import AbstractCoupling, IndependentCoupling, StoredPairs
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain
from .core.loom import Loom
from .core.method import AbstractMethod, Needs, PairMix
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.time_law import Uniform
from .core.times import FromNoiseTimes
from .core.weighting import AbstractWeighting, Unweighted


@final
@dataclass(frozen=True, kw_only=True)
class NeuralFlow(AbstractMethod):
    """Neural flow matching (OT-NFM): where the path of its noise has come at time t, in one jump.

        loss = |X(0, t)(x0) - (alpha x0 + beta x1)|^2

    The network sees the noise alone and never the state on the path, so that what it learns is

        X(0, t)(x0) = alpha x0 + beta E[x1 | x0]

    and its samples have the law of that mean. Only a coupling that decides the data of a noise
    gives them the law of the data; under an independent one they all are the mean of the data. On
    the linear path the loss is t^2 |u(x0, 0, t) - (x1 - x0)|^2: the time says nothing that the pair
    does not, and the method is the distillation of the coupling in one step.

    Reference: Shou 2026, arXiv:2604.06413v1, section 3.2 and Eq. (8); neural flows: Bilos et al.
        2021, arXiv:2110.13040v1, section 3. The coupling that is kept: Davtyan et al. 2025,
        arXiv:2603.15279v1.
    Convention: as theirs; their F(x0, t) is the jump from 0 to t.
    Differs from the paper: its law of times is not established; here it is uniform. Its two claims
        that are: mean collapse, and that a consistent coupling avoids it. That a coupling which is
        no product were enough, as its second theorem is reported, is not so: pairs that depend on
        each other may have one mean all the same. Teacher pairs are a coupling here, and the only
        one that decides the data of fresh noise.
    Cost: one forward pass a step, and the coupling's assignment on the CPU.
    Fails by: blur, as far as the coupling leaves the data of a noise open: transport within a batch
        of 256 leaves nearly all of it open in hundreds of dimensions; noise that is kept can be
        learnt by heart; one step only, for the network knows no state but the noise.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data; StoredPairs for the pairs of a teacher.
        times: Law of the end time; a law of None is the one-step generator alone.
        pairs: How stored pairs are mixed; None for every other coupling.
        distance: How the jump and the point on the path are compared. Only squared L2 has the
            mean as its minimum; with the pairs of a teacher any distance will do.
        weighting: Weight of each sample.

    Raises:
        ValueError: If stored pairs are not told how they are mixed, or other pairs are.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = Loom()
    times: FromNoiseTimes = FromNoiseTimes(law=Uniform())
    pairs: PairMix | None = None
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()

    def __post_init__(self) -> None:
        if isinstance(self.coupling, StoredPairs) != (self.pairs is not None):
            raise ValueError(
                "method.pairs says how StoredPairs are mixed and is null for every other coupling, "
                f"got {self.pairs} for coupling {type(self.coupling).__name__}"
            )
        if isinstance(self.coupling, IndependentCoupling):
            warnings.warn(
                "method.coupling is independent: a neural flow then makes the mean of the data of "
                "every noise; take loom, global_ot, minibatch_ot or stored_pairs",
                UserWarning,
                stacklevel=3,
            )

    @property
    def domain(self) -> Domain:
        """Jumps from the noise, or the one jump to the data where the times have no law."""
        return replace(self.times.covers, path=self.path.name)

    @property
    def needs(self) -> Needs:
        """Stored pairs, if they are the coupling."""
        return Needs(pairs=self.pairs)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t = times.s, times.t
        point, _ = self.path.at(batch.noise, batch.x1, t)
        error = self.distance(nets.online.jump(batch.noise, s, t, batch.condition), point)
        return Loss(terms={"neural_flow": self.weighting(error, s, t)}, times=t)
