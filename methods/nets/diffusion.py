"""A diffusion network seen as a velocity on the linear path."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from ..core.condition import Condition
from ..core.diffusion_clock import AbstractDiffusionClock
from ..core.flow_map import Domain, FlowMap
from ..core.prediction import AbstractPrediction, variance_preserving_scale
from ..core.sampler import require_linear
from ..core.shape import rows_like
from .preconditioning import NetFactory


@final
class DiffusionVelocity(FlowMap):
    """A network that is told a diffusion's own state and clock, and predicts noise or data there.

        v(x, t) = the velocity of what net(z, 1 - tau) says,   z = x / sqrt(t^2 + (1 - t)^2)

    This is the probability-flow ODE of the diffusion, on the linear path. A predicted noise gives
    it without a division by 1 - t, so that it is as exact near the data as the network is. Inside
    a map of two times the network is told both.

    Reference: Song et al. 2021, arXiv:2011.13456v2, Eq. (13), in the coordinates of the linear
        path; Ho et al. 2020, arXiv:2006.11239v2, Alg. 1, for the network's inputs.
    Convention: their time tau runs from data to noise; the network is told 1 - tau, so that its 0
        is noise too.

    Args:
        shape: Shape of a datum.
        domain: The (s, t) on which the map is trained. Times outside the clock's range are read as
            its ends.
        net: Builds the network, or hands out one that has been trained.
        prediction: What it predicts.
        clock: The diffusion's clock.
        classes: Classes of the labels, 0 for an unconditional network.

    Raises:
        ValueError: If the prediction has no velocity somewhere on the domain, or the domain is of
            another path than the linear one.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        net: NetFactory,
        prediction: AbstractPrediction,
        clock: AbstractDiffusionClock,
        classes: int = 0,
    ) -> None:
        super().__init__(domain=domain)
        prediction.check(domain)
        require_linear("a diffusion network", domain)
        self.prediction = prediction
        self.clock = clock
        self.net = net(shape=shape, classes=classes, domain=domain)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t] of the trajectory that is at x at time s."""
        z = rows_like(variance_preserving_scale(s), x) * x
        said: Tensor = self.net(z, 1.0 - self.clock.tau(s), 1.0 - self.clock.tau(t), condition)
        return self.prediction.velocity(said, x, s)
