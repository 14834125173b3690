"""A coupling flow: a network whose every jump is invertible in closed form, for short vectors.

Shape suffixes: B rows, D coordinates of the data, K coordinates that stay, M coordinates that move,
C channels, E embedding.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from ..core.flow_map import Domain, FlowMap
from .affine import Linear, scaled
from .condition_embedding import check_condition, require_no_tokens
from .embedding import Embedding


@final
class CouplingStep(nn.Module):
    """What moves some coordinates, computed from the others alone: w <- w + h (a w + b).

    The rate a lies between exp(-stretch) - 1 and exp(stretch) - 1, so that 1 + h a is positive for
    every h in [0, 1].

    Args:
        kept: Coordinates that stay.
        moved: Coordinates that move.
        width: Channels.
        embedding_width: Width of the embedding.
        stretch: Largest logarithm of the factor of a step over the whole unit interval.
    """

    def __init__(
        self, kept: int, moved: int, width: int, *, embedding_width: int, stretch: float
    ) -> None:
        super().__init__()
        self.stretch = stretch
        self.stem = Linear(kept, width)
        self.inner = Linear(width, width)
        self.head = Linear(width, 2 * moved)
        self.shift = Linear(embedding_width, 2 * width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, z_BK: Tensor, e_BE: Tensor) -> tuple[Tensor, Tensor]:
        """The rate a and the shift b."""
        first_BC, second_BC = self.shift(e_BE).chunk(2, dim=1)
        y_BC = functional.silu(self.stem(z_BK) + first_BC)
        y_BC = functional.silu(self.inner(y_BC) + second_BC)
        log_BM, b_BM = self.head(y_BC).chunk(2, dim=1)
        log_BM = scaled(scaled(log_BM, 1.0 / self.stretch).tanh(), self.stretch)
        return log_BM.expm1(), b_BM


@final
class CouplingFlow(FlowMap):
    """Affine coupling steps, each of them invertible in closed form: so is every jump.

        w <- w + (t - s) (a(z, s, t) w + b(z, s, t))      z the other half of the coordinates

    The halves take turns. The jump from s to s is the identity, and the determinant of a jump's
    Jacobian is the product of the factors 1 + (t - s) a over all steps and coordinates, which is
    positive: no mass is lost, folded over or mirrored. Unlike a residual flow it may be as steep as
    its `stretch` and depth allow. Trained on the diagonal alone, it is no velocity for every t: it
    depends on t in its form.

    Reference: Bilos et al. 2021, arXiv:2110.13040v1, section 3 (coupling flow); Dinh et al. 2016,
        arXiv:1605.08803v3 (Real NVP), for the layer.
    Convention: their F(t, x) is the jump from 0 to t; their phi(t) is t - s.
    Differs from the paper: a factor goes from 1 to exp(log factor) along a line, where theirs is
        exp(phi(t) log factor), along an exponential. On the linear path the factor of a Gaussian is
        a line, and an average velocity of (exp(h a) - 1) / h would lose digits near h = 0.
    Fails by: modes that lie apart are joined by thin bridges, for a map that can be undone cannot
        tear its noise.

    Args:
        shape: Shape of a datum, which is flattened; it has at least two coordinates.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        vocabulary: Must be 0: this network has no attention for tokens.
        guided: Whether the guidance scale is an input.
        width: Channels of the hidden layers.
        depth: Number of steps, at least 2, so that every coordinate moves.
        embedding_width: Width of the embedding of times and condition.
        stretch: Largest logarithm of what a step multiplies or divides a coordinate by, above 0.
        max_cycles: Periods of the fastest time feature over the unit interval.

    Raises:
        ValueError: If tokens are asked for, a datum has one coordinate, or a size or the stretch is
            out of range.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        classes: int = 0,
        vocabulary: int = 0,
        guided: bool = False,
        width: int = 64,
        depth: int = 8,
        embedding_width: int = 64,
        stretch: float = 2.0,
        max_cycles: float = 4.0,
    ) -> None:
        super().__init__(domain=domain)
        size = math.prod(shape)
        require_no_tokens("CouplingFlow", vocabulary)
        if size < 2:
            raise ValueError(
                f"CouplingFlow needs data of at least 2 coordinates, got shape {shape}"
            )
        if depth < 2 or min(width, embedding_width) < 1:
            raise ValueError(
                "CouplingFlow depth must be at least 2, width and embedding_width at least 1, "
                f"got {depth}, {width} and {embedding_width}"
            )
        if not 0.0 < stretch < math.inf:
            raise ValueError(f"CouplingFlow stretch must be positive and finite, got {stretch}")
        self.classes = classes
        self.guided = guided
        self.embedding = Embedding(
            embedding_width, classes=classes, guided=guided, max_cycles=max_cycles
        )
        self.sizes = (size // 2, size - size // 2)
        self.steps = nn.ModuleList(
            CouplingStep(
                self.sizes[k % 2],
                self.sizes[1 - k % 2],
                width,
                embedding_width=embedding_width,
                stretch=stretch,
            )
            for k in range(depth)
        )

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t]: the sum of the steps' velocities."""
        e_BE = self._embedded(s, t, condition)
        h_B1, start = (t - s)[:, None], x.flatten(1).split(self.sizes, dim=1)
        u = [torch.zeros_like(half) for half in start]
        for k, step in enumerate(self.steps):
            kept, moved = k % 2, 1 - k % 2
            a_BM, b_BM = step(start[kept] + h_B1 * u[kept], e_BE)
            w_BM = start[moved] + h_B1 * u[moved]
            u[moved] = u[moved] + (a_BM * w_BM + b_BM)
        return torch.cat(u, dim=1).reshape(x.shape)

    @torch.no_grad()
    def inverse(
        self,
        y: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b"]]:
        """State at s whose jump to t is y, and how much that jump stretches space, without a graph.

        Args:
            y: States at t.
            s: Start times.
            t: End times.
            condition: Condition of each row, or None.

        Returns:
            States at s, and the logarithm of the determinant of the jump's Jacobian there: the
            density of the jump's law at y is that at the state, over this determinant.
        """
        e_BE = self._embedded(s, t, condition)
        h_B1, parts = (t - s)[:, None], list(y.flatten(1).split(self.sizes, dim=1))
        log_determinant = torch.zeros_like(h_B1[:, 0])
        for k, step in reversed(list(enumerate(self.steps))):
            kept, moved = k % 2, 1 - k % 2
            a_BM, b_BM = step(parts[kept], e_BE)
            parts[moved] = (parts[moved] - h_B1 * b_BM) / (1.0 + h_B1 * a_BM)
            log_determinant = log_determinant + (h_B1 * a_BM).log1p().sum(1)
        return torch.cat(parts, dim=1).reshape(y.shape), log_determinant

    def _embedded(self, s_B: Tensor, t_B: Tensor, condition: Condition | None) -> Tensor:
        check_condition(condition, classes=self.classes, vocabulary=0, guided=self.guided)
        e_BE: Tensor = self.embedding(s_B, t_B - s_B, condition)
        return e_BE
