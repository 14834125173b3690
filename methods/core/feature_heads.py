"""Feature heads: a critic that reads what another network computes inside on its way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .condition import Condition
from .flow_map import FlowMap


@contextmanager
def features_of(net: FlowMap, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Collect what parts of a network give while it is evaluated inside.

    Args:
        net: The network; it is left as it was.
        names: Parts by their dotted names, such as ``blocks.2``.

    Yields:
        The outputs by name; each evaluation replaces those of the one before.

    Raises:
        ValueError: If the network has no part of a name, or a part gives no tensor.
    """
    parts = dict(net.named_modules())
    unknown = [name for name in names if name not in parts]
    if unknown:
        allowed = ", ".join(name for name in parts if name)
        raise ValueError(f"features name no part of the network: got {unknown}, allowed {allowed}")
    found: dict[str, Tensor] = {}
    handles = [parts[name].register_forward_hook(_keeper(found, name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def features_at(
    net: FlowMap,
    names: tuple[str, ...],
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
) -> dict[str, Tensor]:
    """What parts of a network give when its velocity is asked for.

    There is a graph only where the states have one, so that a turn which does not differentiate
    through the network keeps nothing of it.

    Args:
        net: The network.
        names: Parts by their dotted names.
        x: States.
        t: Their times.
        condition: Condition of each row.
    """
    with torch.set_grad_enabled(x.requires_grad), features_of(net, names) as features:
        net.velocity(x, t, condition)
    return features


def _keeper(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, object], None]:
    def keep(part: nn.Module, given: object, output: object) -> None:
        del part, given
        if not isinstance(output, Tensor):
            raise ValueError(
                f"features need parts that give one tensor, got {type(output).__name__} of {name}"
            )
        found[name] = output

    return keep


@final
class FeatureHead(nn.Module):
    """One number for each sample from features of any form: a small network at every position.

    Rows of features [b, c], tokens [b, n, c] and images [b, c, h, w] are read alike; the numbers
    of all positions are averaged.

    Args:
        channels: Channels of the features.
        width: Channels of the hidden layer.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        # Normalised over the channels of each position alone: samples do not talk.
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, width)
        self.logit = nn.Linear(width, 1)

    def forward(self, features: Float[Tensor, " b *c"]) -> Float[Tensor, " b"]:
        """The number of each sample.

        Args:
            features: Output of a part of a network.

        Raises:
            ValueError: If the features have other channels than declared.
        """
        last = features.movedim(1, -1) if features.dim() == 4 else features
        if last.shape[-1] != self.hidden.in_features:
            raise ValueError(
                f"a feature head was declared for {self.hidden.in_features} channels, "
                f"got features of shape {tuple(features.shape)}"
            )
        logit: Tensor = self.logit(functional.silu(self.hidden(self.norm(last))))
        return logit.flatten(1).mean(1)


@final
class FeatureHeads(nn.Module):
    """A critic of several feature heads, whose numbers are averaged.

    Args:
        channels: Channels of the features of each part that is read, by its dotted name.
        width: Channels of the hidden layers.

    Raises:
        ValueError: If no part is read, or a size is below 1.
    """

    def __init__(self, channels: Mapping[str, int], *, width: int) -> None:
        super().__init__()
        if not channels or min(*channels.values(), width) < 1:
            raise ValueError(
                "feature heads need at least one part, and sizes of at least 1, "
                f"got channels {dict(channels)} and width {width}"
            )
        self.names = tuple(channels)
        # Names of modules may hold no dot.
        self.heads = nn.ModuleList(FeatureHead(count, width=width) for count in channels.values())

    def forward(self, features: Mapping[str, Float[Tensor, " b *c"]]) -> Float[Tensor, " b"]:
        """The critic's number of each sample.

        Args:
            features: What ``features_of`` has collected of these parts.
        """
        values = [head(features[name]) for name, head in zip(self.names, self.heads, strict=True)]
        return torch.stack(values).mean(0)
