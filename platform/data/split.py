"""Which examples are held out: decided by the bytes of each example, never by its place."""

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

_RANGE = 2**64


def check_fraction(fraction: float) -> None:
    """Refuse a share of held-out examples that leaves one side empty.

    Args:
        fraction: Share of examples to hold out.

    Raises:
        ValueError: If the share is not in (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"held_out_fraction must be in (0, 1), got {fraction}")


def is_held_out(examples: Iterable[bytes], fraction: float) -> Bool[Tensor, " n"]:
    """Whether each example is held out: the sha256 of its bytes, as a fraction, is small.

    The order of the examples plays no role, duplicates land on the same side, and adding examples
    moves none. The share that is held out is therefore only close to the fraction.

    Args:
        examples: Bytes of each example.
        fraction: Expected share of held-out examples, in (0, 1).
    """
    check_fraction(fraction)
    threshold = int(fraction * _RANGE)
    return torch.tensor(
        [
            int.from_bytes(hashlib.sha256(example).digest()[:8], "big") < threshold
            for example in examples
        ],
        dtype=torch.bool,
    )
