"""A residual flow: a network whose every jump is invertible, for data in the plane.

Shape suffixes: B rows, D coordinates of the data, C channels, E embedding, I inputs and O outputs
of a layer.
"""

import math
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from ..core.flow_map import Domain, FlowMap
from ..core.shape import rows_like
from .affine import Linear, scaled, shifted
from .condition_embedding import check_condition, require_no_tokens
from .embedding import Embedding

_LAYERS: Final = 3
_SQUARINGS: Final = 5
_LEAST: Final = 1e-30
_STEEPEST: Final = 1.1
"""Slope that silu never exceeds: 1.0998."""


def spectral_bound(weight_OI: Tensor) -> Tensor:
    """A number at least as large as the spectral norm of a matrix, and at most 4 % larger.

    The Gram matrix is squared again and again; its Frobenius norm bounds its largest eigenvalue,
    for a matrix of rank r within a factor r^(1/2) that the roots reduce to r^(1/128). Unlike power
    iteration it has no state and is never too small.

    Reference: Delattre et al. 2023, arXiv:2305.16173v1, section 3.
    """
    wide = weight_OI.shape[0] > weight_OI.shape[1]
    gram = weight_OI.T @ weight_OI if wide else weight_OI @ weight_OI.T
    log_norm = torch.zeros((), dtype=weight_OI.dtype, device=weight_OI.device)
    for squaring in range(_SQUARINGS + 1):
        norm = gram.norm().clamp_min(_LEAST)
        log_norm = log_norm + norm.log() / 2.0**squaring
        gram = gram / norm
        gram = gram @ gram
    return (0.5 * log_norm).exp()


@final
class BoundedLinear(nn.Module):
    """A linear layer that is scaled down where its spectral norm exceeds a bound.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        bound: Largest spectral norm, above 0.
    """

    def __init__(self, inputs: int, outputs: int, *, bound: float) -> None:
        super().__init__()
        self.bound = bound
        layer = nn.Linear(inputs, outputs)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x_BI: Tensor) -> Tensor:
        """The rows of the input times the bounded weight, plus the bias."""
        with torch.autocast(x_BI.device.type, enabled=False):
            scale = self.bound / spectral_bound(self.weight).clamp_min(self.bound)
            weight_OI = self.weight * scale
        return shifted(functional.linear(x_BI, weight_OI), self.bias)


@final
class ResidualStep(nn.Module):
    """g(x, s, t), which moves x with a Lipschitz constant below 1 at any times.

    The embedding is added and multiplies nothing, so that it cannot change the constant.

    Args:
        size: Coordinates of the data.
        width: Channels.
        embedding_width: Width of the embedding.
        lipschitz: Largest Lipschitz constant in x.
    """

    def __init__(self, size: int, width: int, *, embedding_width: int, lipschitz: float) -> None:
        super().__init__()
        bound = lipschitz ** (1.0 / _LAYERS)
        self.stem = BoundedLinear(size, width, bound=bound)
        self.inner = BoundedLinear(width, width, bound=bound)
        self.head = BoundedLinear(width, size, bound=bound)
        self.shift = Linear(embedding_width, 2 * width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BD: Tensor, e_BE: Tensor) -> Tensor:
        """Velocity of the step."""
        first_BC, second_BC = self.shift(e_BE).chunk(2, dim=1)
        y_BC = _gentle(self.stem(x_BD) + first_BC)
        out_BD: Tensor = self.head(_gentle(self.inner(y_BC) + second_BC))
        return out_BD


def _gentle(x: Tensor) -> Tensor:
    """Silu with a slope of at most 1."""
    return scaled(functional.silu(x), 1.0 / _STEEPEST)


@final
class ResidualFlow(FlowMap):
    """Residual steps x <- x + (t - s) g(x, s, t), each of them invertible: so is every jump.

        |t - s| <= 1 and g has a Lipschitz constant below 1

    The jump from s to s is the identity, and one from s to t has a Lipschitz constant of at most
    2^depth. A map that has to be steeper, as between well separated modes, is out of its reach.
    Unlike other networks it depends on t in its form: trained on the diagonal alone, it is no
    velocity for every t.

    Reference: Bilos et al. 2021, arXiv:2110.13040v1, section 3 (ResNet flow), with phi(t) = t - s;
        Chen et al. 2019, arXiv:1906.02735v1, section 3 (LipSwish), for the activation.
    Differs from the paper: every layer is bounded, and by a bound that holds; power iteration's
        estimate is exceeded.

    Args:
        shape: Shape of a datum, which is flattened.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        vocabulary: Must be 0: this network has no attention for tokens.
        guided: Whether the guidance scale is an input.
        width: Channels of the hidden layers.
        depth: Number of residual steps.
        embedding_width: Width of the embedding of times and condition.
        lipschitz: Largest Lipschitz constant of g, in (0, 1).
        max_cycles: Periods of the fastest time feature over the unit interval.

    Raises:
        ValueError: If tokens are asked for, a size is below one or the constant is out of range.
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
        depth: int = 4,
        embedding_width: int = 64,
        lipschitz: float = 0.97,
        max_cycles: float = 4.0,
    ) -> None:
        super().__init__(domain=domain)
        require_no_tokens("ResidualFlow", vocabulary)
        if min(width, depth, embedding_width) < 1:
            raise ValueError(
                "ResidualFlow width, depth and embedding_width must be at least 1, "
                f"got {width}, {depth} and {embedding_width}"
            )
        if not 0.0 < lipschitz < 1.0:
            raise ValueError(f"ResidualFlow lipschitz must be in (0, 1), got {lipschitz}")
        self.classes = classes
        self.guided = guided
        self.embedding = Embedding(
            embedding_width, classes=classes, guided=guided, max_cycles=max_cycles
        )
        self.steps = nn.ModuleList(
            ResidualStep(
                math.prod(shape), width, embedding_width=embedding_width, lipschitz=lipschitz
            )
            for _ in range(depth)
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
        x_BD, h_B1 = x.flatten(1), (t - s)[:, None]
        u_BD = torch.zeros_like(x_BD)
        for step in self.steps:
            g_BD = step(x_BD + h_B1 * u_BD, e_BE)
            u_BD = u_BD + g_BD
        return u_BD.reshape(x.shape)

    @torch.no_grad()
    def inverse(
        self,
        y: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
        *,
        iterations: int = 100,
    ) -> Float[Tensor, " b *d"]:
        """State at s whose jump to t is y, without a graph.

        Each step is undone by iterating x <- y - (t - s) g(x, s, t), whose error falls at least by
        the factor (t - s) lipschitz each time.

        Args:
            y: States at t.
            s: Start times.
            t: End times.
            condition: Condition of each row, or None.
            iterations: Iterations of each step.

        Returns:
            States at s.
        """
        e_BE = self._embedded(s, t, condition)
        y_BD, h_B1 = y.flatten(1), rows_like(t - s, y.flatten(1))
        for step in reversed(self.steps):
            x_BD = y_BD
            for _ in range(iterations):
                x_BD = y_BD - h_B1 * step(x_BD, e_BE)
            y_BD = x_BD
        return y_BD.reshape(y.shape)

    def _embedded(self, s_B: Tensor, t_B: Tensor, condition: Condition | None) -> Tensor:
        check_condition(condition, classes=self.classes, vocabulary=0, guided=self.guided)
        e_BE: Tensor = self.embedding(s_B, t_B - s_B, condition)
        return e_BE
