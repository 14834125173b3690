"""A critic that reads what a frozen teacher computes inside of noised samples."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .condition import Condition
from .feature_heads import FeatureHeads, features_of
from .flow_map import FlowMap


def judged(
    heads: nn.Module,
    teacher: FlowMap,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
) -> Float[Tensor, " b"]:
    """What a critic says of the teacher's features of noised samples.

    Args:
        heads: The critic's feature heads.
        teacher: The teacher; it keeps a graph where the samples have one.
        x: Noised samples.
        t: Times of their noise.
        condition: Condition of each row.
    """
    assert isinstance(heads, FeatureHeads), "the platform builds what needs declares"
    with torch.set_grad_enabled(x.requires_grad), features_of(teacher, heads.names) as features:
        teacher.velocity(x, t, condition)
    value: Tensor = heads(features)
    return value.to(x.dtype)
