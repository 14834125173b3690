"""Networks that compute the activations of their blocks again in the backward pass."""

from typing import Any, final

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.mlp import MLP


@final
class Recomputed(nn.Module):
    """A block whose activations are computed again in the backward pass."""

    def __init__(self, block: nn.Module, *, is_reentrant: bool = False) -> None:
        super().__init__()
        self.block, self.is_reentrant, self.calls = block, is_reentrant, 0

    def forward(self, *given: Tensor) -> Tensor:
        y: Tensor = checkpoint(self._counted, *given, use_reentrant=self.is_reentrant)
        return y

    def _counted(self, *given: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.block(*given)
        return y


@final
class RecomputedMLP(FlowMap):
    """A perceptron of such blocks, as a user would write it."""

    def __init__(
        self, *, shape: tuple[int, ...], domain: Domain, classes: int = 0, **sizes: Any
    ) -> None:
        super().__init__(domain=domain)
        self.net = MLP(shape=shape, domain=domain, classes=classes, **sizes)
        for place, block in enumerate(self.net.blocks):
            self.net.blocks[place] = Recomputed(block)

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        u: Tensor = self.net(x, s, t, condition)
        return u
