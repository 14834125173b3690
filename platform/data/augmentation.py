"""Changes of training examples that keep their meaning."""

import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.rng import Rng
from ...methods.core.shape import rows_like


def flip_rows(x: Float[Tensor, "b c h w"], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Mirror each image left to right with probability one half.

    Args:
        x: Images.
        rng: Random numbers, one uniform number for each row.

    Raises:
        ValueError: If the rows are no images.
    """
    if x.dim() != 4:
        raise ValueError(f"only images [b, c, h, w] can be mirrored, got shape {tuple(x.shape)}")
    mirrored = rng.uniform(len(x)).to(x.device) < 0.5
    return torch.where(rows_like(mirrored, x), x.flip(-1), x)
