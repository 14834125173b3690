"""How far two models are apart on the same seeds and labels: the energy distance, with a test."""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

PERMUTATIONS: Final = 4999


@final
@dataclass(frozen=True, kw_only=True)
class Drift:
    """What two sets of images say of their laws.

    Attributes:
        coefficient: Energy distance over twice the mean distance between the sets, in [0, 1]; 0
            for equal laws.
        p_value: Share of exchanges that lie as far apart, in (0, 1].
    """

    coefficient: float
    p_value: float


def measure_drift(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    rng: torch.Generator,
    permutations: int = PERMUTATIONS,
) -> Drift:
    """The drift from one model to another, label by label.

    Only images of the same label are compared, so a model that mixes up its labels is found,
    although all its images together may have the right law. Row k of both comes from the same
    noise, so such pairs are no two draws: they are left out of the distance, and the test exchanges
    the two of a pair. With

        K_ij = |x_i - y_j| + |x_j - y_i| - |x_i - x_j| - |y_i - y_j|,   i != j of one label

    the mean of K is the energy distance without bias, and an exchange of pair i turns the sign of
    row and column i, so each exchange costs a quadratic form.

    Reference: Szekely and Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143, Eq. (5) and
        its Section 3; the coefficient is that of their Section 8.

    Args:
        x: Images of one model, flat.
        y: Images of the other, of the same noise and labels.
        labels: Label of each row; all the same for a model without classes.
        rng: Draws the exchanges.
        permutations: How many.

    Returns:
        Coefficient and p-value.

    Raises:
        ValueError: If no label has two images.
    """
    x, y = x.double(), y.double()
    between = _distances(x, y)
    apart = between + between.T
    pairs = (labels[:, None] == labels[None, :]).double().fill_diagonal_(0.0)
    if not pairs.any():
        raise ValueError(f"a drift needs two images of one label, got {len(labels)} labels")
    kernel = pairs * (apart - _distances(x, x) - _distances(y, y))
    total = kernel.sum()
    signs = torch.randint(0, 2, (permutations, len(x)), generator=rng).double() * 2.0 - 1.0
    exchanged = ((signs @ kernel) * signs).sum(1)
    as_far = int((exchanged >= total - 1e-9 * kernel.abs().sum()).sum())
    scale = (pairs * apart).sum().item()
    coefficient = total.item() / scale if scale > 0.0 else 0.0
    return Drift(
        coefficient=min(max(coefficient, 0.0), 1.0), p_value=(1 + as_far) / (1 + permutations)
    )


def _distances(x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
    """Each by itself: by matrix products, equal points of equal sets would be apart."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
