"""Numbers per row against tensors of any shape."""

from jaxtyping import Float
from torch import Tensor


def rows_like(row: Float[Tensor, " b"], x: Float[Tensor, " b *d"]) -> Tensor:
    """One number for each row, shaped to multiply a tensor whose rows have any shape."""
    shaped: Tensor = row.reshape(-1, *[1] * (x.dim() - 1))
    return shaped


def sum_rows(x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """Sum over everything but the rows."""
    return x.flatten(1).sum(1) if x.dim() > 1 else x
