"""Precision as a policy: networks may run in half precision, times and losses never."""

from enum import StrEnum

import torch


class Precision(StrEnum):
    """In which arithmetic a model is trained."""

    FLOAT32 = "float32"
    """Everything in single precision."""
    BFLOAT16 = "bfloat16"
    """Matrix products and convolutions of the forward pass in bfloat16; the rest in float32."""
    FLOAT64 = "float64"
    """Everything in double precision, for proofs."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of parameters, data, times and losses."""
        return torch.float64 if self is Precision.FLOAT64 else torch.float32

    def autocast(self, device_type: str) -> torch.autocast:
        """The context in which the networks of a loss run."""
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self is Precision.BFLOAT16)
