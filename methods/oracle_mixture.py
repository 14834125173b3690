"""The exact velocity and flow map of Gaussian-mixture data: the non-linear oracle."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.condition import Condition
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.path import AbstractPath, LinearPath
from .core.rng import Rng
from .core.shape import rows_like

_LINEAR: Final = LinearPath()
_DIAGONAL: Final = Domain(kind=DomainKind.DIAGONAL)
_TRIANGLE: Final = Domain()
_SHORT: Final = 0.01
"""Below this interval the quantile map's u would cancel; it is integrated instead."""
_BISECTIONS: Final = 30
_NEWTON_STEPS: Final = 4


@final
class MixtureVelocity(FlowMap):
    """The exact velocity of Gaussian-mixture data with independent noise, in any dimension.

    With V_k = alpha^2 + beta^2 s_k^2 and responsibilities r_k proportional to
    w_k N(x; beta m_k, V_k),

        v(x, t) = sum_k r_k [beta' m_k + (V_k' / 2 V_k) (x - beta m_k)]

    Args:
        weights: Weight of each component; scaled to sum to 1.
        means: Mean of each component, shape [k, *d].
        stds: Standard deviation: one number, one for each component, or of the shape of ``means``.
        path: Interpolant between noise and data.
        domain: The (s, t) that the map declares; any of them takes the velocity at s. Its path is
            that of the mixture.

    Raises:
        ValueError: If a weight or a standard deviation is not positive, or the numbers of
            weights and means differ.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def __init__(
        self,
        *,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[float] | Sequence[Sequence[float]],
        stds: Tensor | Sequence[float] | float,
        path: AbstractPath = _LINEAR,
        domain: Domain = _DIAGONAL,
    ) -> None:
        super().__init__(domain=replace(domain, path=path.name))
        share = torch.as_tensor(weights, dtype=torch.float64)
        centres = torch.as_tensor(means, dtype=torch.float64)
        spread = torch.as_tensor(stds, dtype=torch.float64)
        if len(share) != len(centres):
            raise ValueError(
                f"a mixture takes one mean for each weight, got {len(centres)} and {len(share)}"
            )
        if not (bool((share > 0.0).all()) and bool((spread > 0.0).all())):
            raise ValueError(
                "weights and stds of a mixture must be positive, got at least "
                f"{min(share.min().item(), spread.min().item())}"
            )
        if spread.dim() == 1:
            spread = rows_like(spread, centres)
        self.shape = tuple(centres.shape[1:])
        self.path = path
        self.register_buffer("weights", share / share.sum())
        self.register_buffer("means", centres.reshape(len(share), -1).clone())
        self.register_buffer("stds", spread.expand_as(centres).reshape(len(share), -1).clone())

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Velocity at the start time; the end time and the condition change nothing."""
        del t, condition
        at = self.path.coefficients(s.to(x.dtype)[:, None, None])
        means, stds = self.means.to(x.dtype), self.stds.to(x.dtype)
        away = x.reshape(len(x), 1, -1) - at.beta * means
        variance = at.alpha.square() + (at.beta * stds).square()
        half_slope = at.alpha * at.d_alpha + at.beta * at.d_beta * stds**2
        log_share = self.weights.to(x.dtype).log()
        log_density = log_share - 0.5 * (away.square() / variance + variance.log()).sum(2)
        share = log_density.softmax(1)[:, :, None]
        v = (share * (at.d_beta * means + half_slope / variance * away)).sum(1)
        return v.reshape(x.shape)

    def draw(
        self, n: int, *, rng: Rng, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, " n *d"]:
        """Data of the mixture."""
        edges = self.weights.cumsum(0)
        chosen = torch.bucketize(rng.uniform(n, dtype=torch.float64), edges[:-1], right=True)
        noise = rng.normal(n, self.means.shape[1], dtype=dtype)
        x1 = self.means.to(dtype)[chosen] + self.stds.to(dtype)[chosen] * noise
        return x1.reshape(n, *self.shape)


def _integrate(field: FlowMap, x: Tensor, s: Tensor, t: Tensor, *, steps: int) -> Tensor:
    """Mean slope of ``steps`` equal Runge-Kutta steps of order 4 from s to t.

    The slopes are averaged and never divided by t - s, so that nothing cancels on the diagonal.
    """
    h = (t - s) / steps
    total = torch.zeros_like(x)
    for i in range(steps):
        start = s + i * h
        k1 = field.velocity(x, start)
        k2 = field.velocity(x + rows_like(h, x) * k1 / 2.0, start + h / 2.0)
        k3 = field.velocity(x + rows_like(h, x) * k2 / 2.0, start + h / 2.0)
        k4 = field.velocity(x + rows_like(h, x) * k3, start + h)
        slope = (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0
        x, total = x + rows_like(h, x) * slope, total + slope
    return total / steps


@final
class MixtureMap(FlowMap):
    """The flow map of Gaussian-mixture data in any dimension, by fine integration.

    Args:
        velocity_field: The mixture's exact velocity.
        steps: Runge-Kutta steps of order 4 between s and t; the error falls with their 4th power.
        domain: The (s, t) that the map declares. Its path is that of the mixture.

    Raises:
        ValueError: If ``steps`` is not positive.
    """

    def __init__(
        self, *, velocity_field: MixtureVelocity, steps: int = 64, domain: Domain = _TRIANGLE
    ) -> None:
        super().__init__(domain=replace(domain, path=velocity_field.path.name))
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.velocity_field = velocity_field
        self.steps = steps

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity by integration; the condition changes nothing."""
        del condition
        return _integrate(self.velocity_field, x, s, t, steps=self.steps)


@final
class MixtureMap1d(FlowMap):
    """The exact flow map of a one-dimensional mixture: the quantile map, X = F_t^-1 o F_s.

    Trajectories in one dimension never cross, so they keep their rank. For samples of more than
    one number, each number is an independent draw from the same mixture.

    The quantile is found by bisection and Newton's method in float64, on the logarithm of the
    smaller tail. One more Newton step carries the derivatives, which are exact to first order.

    Args:
        weights: Weight of each component; scaled to sum to 1.
        means: Mean of each component.
        stds: Standard deviation: one number or one for each component.
        path: Interpolant between noise and data.
        domain: The (s, t) that the map declares. Its path is that of the mixture.
    """

    def __init__(
        self,
        *,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[float],
        stds: Tensor | Sequence[float] | float,
        path: AbstractPath = _LINEAR,
        domain: Domain = _TRIANGLE,
    ) -> None:
        super().__init__(domain=replace(domain, path=path.name))
        centres = torch.as_tensor(means, dtype=torch.float64)
        self.velocity_field = MixtureVelocity(
            weights=weights, means=centres[:, None], stds=stds, path=path
        )

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Exact average velocity; the condition changes nothing."""
        del condition
        numbers = x[0].numel()
        at, start, end = (
            part.to(torch.float64)
            for part in (x.reshape(-1), s.repeat_interleave(numbers), t.repeat_interleave(numbers))
        )
        gap = end - start
        is_long = gap.abs() > _SHORT
        chord = (self._quantile(at, start, end) - at) / torch.where(is_long, gap, 1.0)
        mean = _integrate(self.velocity_field, at[:, None], start, end, steps=8)[:, 0]
        return torch.where(is_long, chord, mean).to(x.dtype).reshape(x.shape)

    def _components(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each component at time t, shape [n, k]."""
        at = self.velocity_field.path.coefficients(t[:, None])
        stds = self.velocity_field.stds[:, 0]
        spread = (at.alpha.square() + (at.beta * stds).square()).sqrt()
        return at.beta * self.velocity_field.means[:, 0], spread

    def _log_tail(self, x: Tensor, t: Tensor, sign: Tensor) -> Tensor:
        """Logarithm of the lower tail at x where the sign is 1, of the upper one where it is -1."""
        means, spread = self._components(t)
        z = sign[:, None] * (x[:, None] - means) / spread
        logs: Tensor = self.velocity_field.weights.log() + torch.special.log_ndtr(z)
        return logs.logsumexp(1)

    def _newton(self, y: Tensor, t: Tensor, sign: Tensor, target: Tensor) -> Tensor:
        """One step of Newton's method towards the point whose log tail is the target."""
        means, spread = self._components(t)
        z = (y[:, None] - means) / spread
        log_normal = -0.5 * z.square() - spread.log() - 0.5 * math.log(2.0 * math.pi)
        log_density = (self.velocity_field.weights.log() + log_normal).logsumexp(1)
        tail = self._log_tail(y, t, sign)
        return y + sign * (target - tail) * (tail - log_density).exp()

    def _quantile(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        is_lower = self._log_tail(x.detach(), s.detach(), torch.ones_like(x)) < math.log(0.5)
        sign = torch.where(is_lower, 1.0, -1.0).to(x.dtype)
        target = self._log_tail(x, s, sign)
        y = self._solve(target.detach(), t.detach(), sign)
        return self._newton(y, t, sign, target)

    def _solve(self, target: Tensor, t: Tensor, sign: Tensor) -> Tensor:
        """The point with this log tail, to rounding; it lies between the components' quantiles."""
        means, spread = self._components(t)
        z: Tensor = sign * torch.special.ndtri(target.exp())
        quantiles = means + spread * z[:, None]
        low, high = quantiles.amin(1), quantiles.amax(1)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            is_below = sign * (target - self._log_tail(middle, t, sign)) > 0.0
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        y = (low + high) / 2.0
        for _ in range(_NEWTON_STEPS):
            y = self._newton(y, t, sign, target)
        return y
