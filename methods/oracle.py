"""The exact flow map of Gaussian data: the network that every layer can be tested against."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .core.condition import Condition
from .core.flow_map import Domain, FlowMap
from .core.path import AbstractPath, LinearPath
from .core.rng import Rng

_LINEAR: Final = LinearPath()
_TRIANGLE: Final = Domain()
_SHORT: Final = 0.1
"""Intervals up to this length are averaged by quadrature, longer ones divided out directly."""
_NODES: Final = 16


def _moments(path: AbstractPath, t: Tensor) -> tuple[Tensor, Tensor]:
    """The path's alpha^2, beta^2, alpha beta and beta, and their derivatives, stacked in front."""
    at = path.coefficients(t)
    values = [at.alpha.square(), at.beta.square(), at.alpha * at.beta, at.beta]
    slopes = [
        2.0 * at.alpha * at.d_alpha,
        2.0 * at.beta * at.d_beta,
        at.alpha * at.d_beta + at.d_alpha * at.beta,
        at.d_beta,
    ]
    return torch.stack(values), torch.stack(slopes)


def _chords(path: AbstractPath, s: Tensor, t: Tensor) -> Tensor:
    """Divided differences (f(t) - f(s)) / (t - s) of the path's moments, f'(s) at t = s.

    A short interval takes the mean of f' over Gauss-Legendre nodes, which is exact for polynomial
    moments, never cancels, and is smooth at t = s under differentiation. A long one takes the
    quotient, which needs no smoothness of f' at the ends of the path. The linear path, by far the
    most used, has both in closed form.
    """
    if isinstance(path, LinearPath):
        both = s + t
        return torch.stack([both - 2.0, both, 1.0 - both, torch.ones_like(both)])
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    nodes = torch.as_tensor((points + 1.0) / 2.0, dtype=s.dtype, device=s.device)
    share = torch.as_tensor(weights / 2.0, dtype=s.dtype, device=s.device)
    gap = t - s
    mean = _moments(path, s[:, None] + gap[:, None] * nodes)[1] @ share
    is_long = gap.abs() > _SHORT
    rise = _moments(path, t)[0] - _moments(path, s)[0]
    return torch.where(is_long, rise / torch.where(is_long, gap, 1.0), mean)


@final
class GaussianMap(FlowMap):
    """The exact flow map between standard normal noise and Gaussian data, on any path.

    On the path x_t = alpha x_0 + beta x_1, in each principal coordinate with mean m, standard
    deviation c and correlation rho between x_0 and x_1,

        V_t = alpha^2 + beta^2 c^2 + 2 rho alpha beta c
        v(x, t) = beta' m + (V_t' / 2 V_t) (x - beta m)
        X(s, t)(x) = beta_t m + sqrt(V_t / V_s) (x - beta_s m)

    and u = (X - x) / (t - s) is evaluated without that difference, so it is exact and smooth on
    the diagonal. The consistency function is ``jump`` to t = 1; one step gives m + c x_0. The map
    from t back to s is its inverse.

    Args:
        mean: Mean of the data, of the shape of one sample or broadcast to ``shape``.
        std: Standard deviation of each coordinate; None if a covariance is given.
        covariance: Full covariance of the flattened sample; None if ``std`` is given. With
            rho, the cross-covariance of x_0 and x_1 is rho times its symmetric square root.
        path: Interpolant between noise and data.
        rho: Correlation of the coupling in (-1, 1]: 0 independent, 1 optimal transport.
        shape: Shape of one sample; None for the shape of ``mean``.
        classes: Number of class labels; the data are the same for each of them.
        domain: The (s, t) that the map declares; the map is exact on all of them. Its path is that
            of the map.

    Raises:
        ValueError: If not exactly one of ``std`` and ``covariance`` is given, a standard
            deviation is not positive, the covariance is not a positive definite matrix of the
            sample's size, or rho is outside (-1, 1].
    """

    mean: Tensor
    std: Tensor
    basis: Tensor

    def __init__(
        self,
        *,
        mean: Tensor | Sequence[float] | float,
        std: Tensor | Sequence[float] | float | None = None,
        covariance: Tensor | Sequence[Sequence[float]] | None = None,
        path: AbstractPath = _LINEAR,
        rho: float = 0.0,
        shape: Sequence[int] | None = None,
        classes: int = 0,
        domain: Domain = _TRIANGLE,
    ) -> None:
        super().__init__(domain=replace(domain, path=path.name))
        if (std is None) == (covariance is None):
            raise ValueError("a Gaussian takes either std or covariance, got both or neither")
        if not -1.0 < rho <= 1.0:
            raise ValueError(f"rho must be in (-1, 1], got {rho}")
        centre = torch.as_tensor(mean, dtype=torch.float64)
        self.shape = tuple(centre.shape if shape is None else shape)
        self.classes = classes
        self.path = path
        self.rho = rho
        centre = centre.expand(self.shape).flatten()
        if covariance is None:
            spread = torch.as_tensor(std, dtype=torch.float64).expand(self.shape).flatten()
            basis = torch.empty(0, dtype=torch.float64)
        else:
            spread, basis = _principal(covariance, size=len(centre))
            centre = centre @ basis
        if not bool((spread > 0.0).all()):
            raise ValueError(f"std must be positive, got {spread.min().item()}")
        self.register_buffer("mean", centre.clone())
        self.register_buffer("std", spread.clone())
        self.register_buffer("basis", basis)

    def _variance(self, moments: Tensor) -> Tensor:
        """V, or its divided difference, of every row and principal coordinate."""
        alpha2, beta2, alpha_beta, _ = moments[..., None].unbind()
        std = self.std.to(moments.dtype)
        return alpha2 + beta2 * std.square() + 2.0 * self.rho * alpha_beta * std

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Exact average velocity; the condition changes nothing."""
        del condition
        mean, basis = self.mean.to(x.dtype), self.basis.to(x.dtype)
        at = x.flatten(1) @ basis if basis.numel() else x.flatten(1)
        start, end = _moments(self.path, s)[0], _moments(self.path, t)[0]
        chord = _chords(self.path, s, t)
        g_s, g_t = self._variance(start).sqrt(), self._variance(end).sqrt()
        growth = (self._variance(chord) / (g_s * (g_s + g_t))).to(x.dtype)
        shift, drift = start[3][:, None].to(x.dtype), chord[3][:, None].to(x.dtype)
        u = drift * mean + growth * (at - shift * mean)
        return (u @ basis.T if basis.numel() else u).reshape(x.shape)

    def floor(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Least flow-matching loss at time t: the variance of the velocity given x_t.

        c^2 (1 - rho^2) (alpha beta' - alpha' beta)^2 / V_t, summed over the coordinates; over
        uniform t on the linear path it is pi c / 2 each, for rho = 0.
        """
        at = self.path.coefficients(t)
        area = (at.alpha * at.d_beta - at.d_alpha * at.beta)[:, None]
        spread = self.std.to(t.dtype).square() * (1.0 - self.rho**2)
        return (spread * area.square() / self._variance(_moments(self.path, t)[0])).sum(1)

    def draw(
        self, n: int, *, rng: Rng, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " n *d"], Float[Tensor, " n *d"]]:
        """Pairs of noise and data from the coupling whose correlation is rho."""
        size = len(self.mean)
        x0, fresh = rng.normal(n, size, dtype=dtype), rng.normal(n, size, dtype=dtype)
        rest = (1.0 - self.rho**2) ** 0.5
        x1 = self.mean.to(dtype) + self.std.to(dtype) * (self.rho * x0 + rest * fresh)
        if self.basis.numel():
            x0, x1 = x0 @ self.basis.to(dtype).T, x1 @ self.basis.to(dtype).T
        return x0.reshape(n, *self.shape), x1.reshape(n, *self.shape)


def _principal(
    covariance: Tensor | Sequence[Sequence[float]], *, size: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Standard deviations along the principal axes, and the axes as columns."""
    matrix = torch.as_tensor(covariance, dtype=torch.float64)
    if matrix.shape != (size, size) or not torch.allclose(matrix, matrix.T):
        raise ValueError(
            f"covariance must be a symmetric matrix of size {size}, got shape {tuple(matrix.shape)}"
        )
    variances, axes = torch.linalg.eigh(matrix)
    if variances[0] <= 0.0:
        raise ValueError(
            f"covariance must be positive definite, got an eigenvalue of {variances[0].item()}"
        )
    return variances.sqrt(), axes
