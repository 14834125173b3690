"""Numbers per row against tensors of any shape."""

import torch
from jaxtyping import Float
from torch import Tensor


def rows_like(row: Float[Tensor, "b"], x: Float[Tensor, "b *d"]) -> Tensor:
    """One number for each row, shaped to multiply a tensor whose rows have any shape."""
    return row.reshape(-1, *[1] * (x.dim() - 1))


def sum_rows(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
    """Sum over everything but the rows."""
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def dot_rows(x: Float[Tensor, "b *d"], y: Float[Tensor, "b *d"]) -> Float[Tensor, "b"]:
    """Inner product of each row of x with the same row of y."""
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))
