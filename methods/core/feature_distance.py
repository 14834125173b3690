"""Feature distance: how far apart samples are in what a frozen network computes inside."""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .feature_heads import features_at
from .flow_map import FlowMap
from .path import LinearPath
from .record import Moment

_PATH: Final = LinearPath()
_EPSILON: Final = 1e-10


@final
@dataclass(frozen=True, kw_only=True)
class FeatureDistance:
    """A perceptual distance without downloads: the one in the features of a frozen flow map.

        sum over parts, mean over positions of |f(x) / |f(x)| - f(y) / |f(y)||^2

    f are the channels that a part gives at one position. It has the form of LPIPS but neither its
    network, which knows photographs, nor its weights of the channels, which people's judgements
    have set: the flow map knows the data alone, and all channels count alike. It is no LPIPS and is
    never called so.

    Both samples may be mixed with the same noise first. A network that denoises tells of the shape
    of things at early times and of their texture at late ones.

    Reference: the form of Zhang et al. 2018, arXiv:1801.03924v2, section 3.
    Cost: two forward passes of the network, that of y without a graph.
    Fails by: samples that differ where the network does not look have distance 0, so that it stands
        beside another distance; the units of its parts are those of no metric.

    Attributes:
        features: Parts of the network by their dotted names, such as ``blocks.2``.
        time: Time at which the network looks, in (0, 1]; 1 is without noise. Outside the network's
            range it is moved to the nearer end.

    Raises:
        ValueError: If no part is named, or the time is out of range.
    """

    features: tuple[str, ...]
    time: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if not self.features:
            raise ValueError("feature distance needs at least one part of a network, got none")
        if not 0.0 < self.time <= 1.0:
            raise ValueError(f"feature distance needs a time in (0, 1], got {self.time}")

    def __call__(
        self,
        net: FlowMap,
        x: Float[Tensor, " b *d"],
        y: Float[Tensor, " b *d"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y.

        Args:
            net: The frozen network.
            x: Samples; the gradient runs to them through the network.
            y: What they are compared with, without a graph.
            condition: Condition of both.
            now: The moment, for the noise.
        """
        time = min(max(self.time, net.domain.t_lo), net.domain.t_hi)
        t, x0 = x.new_full((len(x),), time), torch.zeros_like(y)
        if time < 1.0:
            x0 = now.rng.normal(*y.shape, dtype=y.dtype).to(y.device)
        ours, theirs = (
            features_at(net, self.features, _PATH.at(x0, sample, t).x, t, condition)
            for sample in (x, y.detach())
        )
        # In half precision the difference of directions would be lost.
        parts = [_apart(ours[name].to(x), theirs[name].to(x)) for name in self.features]
        return torch.stack(parts).sum(0)


def _apart(x: Float[Tensor, " b *c"], y: Float[Tensor, " b *c"]) -> Float[Tensor, " b"]:
    error = (_normed(x) - _normed(y)).square()
    return error.sum(-1).flatten(1).mean(1) if error.dim() > 2 else error.sum(1)


def _normed(features: Float[Tensor, " b *c"]) -> Float[Tensor, " b *c"]:
    """Features with their channels last and of unit length at every position."""
    last = features.movedim(1, -1) if features.dim() == 4 else features
    return last * (last.square().sum(-1, keepdim=True) + _EPSILON).rsqrt()
