"""A residual multi-layer perceptron, for data in the plane and other short vectors.

Shape suffixes: B rows, D coordinates of the data, C channels, E embedding.
"""

import math
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from ..core.dropout import Dropout
from ..core.flow_map import Domain, FlowMap
from .affine import Linear, modulated
from .condition_embedding import check_condition, require_no_tokens
from .embedding import Embedding


@final
class MlpBlock(nn.Module):
    """Two linear layers around a modulated nonlinearity, added to their input.

    Args:
        width: Channels.
        embedding_width: Width of the embedding.
        dropout: Drops activations before the outer layer.
    """

    def __init__(self, width: int, *, embedding_width: int, dropout: Dropout) -> None:
        super().__init__()
        self.dropout = dropout
        self.inner = Linear(width, width)
        self.modulation = Linear(embedding_width, 2 * width)
        self.outer = Linear(width, width)

    def forward(self, x_BC: Tensor, e_BE: Tensor) -> Tensor:
        """Channels of the next block."""
        scale_BC, shift_BC = self.modulation(e_BE).chunk(2, dim=1)
        y_BC = modulated(self.inner(functional.silu(x_BC)), scale_BC, shift_BC)
        out_BC: Tensor = x_BC + self.outer(self.dropout(functional.silu(y_BC)))
        return out_BC


@final
class MLP(FlowMap):
    """A residual multi-layer perceptron of (x, s, t - s, condition).

    Args:
        shape: Shape of a datum, which is flattened.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        vocabulary: Must be 0: this network has no attention for tokens.
        guided: Whether the guidance scale is an input.
        width: Channels of the hidden layers.
        depth: Number of residual blocks.
        embedding_width: Width of the embedding of times and condition.
        dropout: Share of the activations that each block drops in training, in [0, 1).
        max_cycles: Periods of the fastest time feature over the unit interval.

    Raises:
        ValueError: If tokens are asked for, a size is below one or the dropout is out of range.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        classes: int = 0,
        vocabulary: int = 0,
        guided: bool = False,
        width: int = 128,
        depth: int = 3,
        embedding_width: int = 64,
        dropout: float = 0.0,
        max_cycles: float = 4.0,
    ) -> None:
        super().__init__(domain=domain)
        require_no_tokens("MLP", vocabulary)
        if min(width, depth, embedding_width) < 1:
            raise ValueError(
                "MLP width, depth and embedding_width must be at least 1, "
                f"got {width}, {depth} and {embedding_width}"
            )
        self.classes = classes
        self.guided = guided
        size = math.prod(shape)
        self.embedding = Embedding(
            embedding_width, classes=classes, guided=guided, max_cycles=max_cycles
        )
        self.stem = Linear(size, width)
        self.blocks = nn.ModuleList(
            MlpBlock(
                width, embedding_width=embedding_width, dropout=Dropout(dropout, ordinal=ordinal)
            )
            for ordinal in range(depth)
        )
        self.head = Linear(width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t] of the trajectory that is at x at time s."""
        check_condition(condition, classes=self.classes, vocabulary=0, guided=self.guided)
        e_BE = self.embedding(s, t - s, condition)
        y_BC = self.stem(x.flatten(1))
        for block in self.blocks:
            y_BC = block(y_BC, e_BE)
        u_BD: Tensor = self.head(functional.silu(y_BC))
        return u_BD.reshape(x.shape)
