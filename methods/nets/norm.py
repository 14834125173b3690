"""Normalisation whose forward-mode derivative is cheap, and right to differentiate again.

In torch 2.13 the gradient of the forward-mode derivative of ``layer_norm`` is wrong, and the
forward-mode derivative of ``group_norm`` takes as long as a convolution.

Shape suffixes: B rows, C channels, H height, W width, R groups, K values of a group.
"""

import math
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from ..core.calculus import dual, dual_parts

_EPS: Final = 1e-5
_MAX_GROUPS: Final = 32
_GROUP_WIDTH: Final = 4


def _jacobian_product(
    v_RK: Tensor, x_RK: Tensor, mean_R1: Tensor, rstd_R1: Tensor, *, eps: float
) -> Tensor:
    """The Jacobian of the standardisation at x times v; it is symmetric, so in either mode."""
    if not torch.is_grad_enabled():
        product: Tensor = torch.ops.aten.native_layer_norm_backward(
            v_RK.contiguous(),
            x_RK,
            x_RK.shape[-1:],
            mean_R1,
            rstd_R1,
            None,
            None,
            [True, False, False],
        )[0]
        return product
    centred_RK = x_RK - x_RK.mean(-1, keepdim=True)
    scale_R1 = (centred_RK.square().mean(-1, keepdim=True) + eps).rsqrt()
    y_RK = centred_RK * scale_R1
    along_R1 = (y_RK * v_RK).mean(-1, keepdim=True)
    return scale_R1 * (v_RK - v_RK.mean(-1, keepdim=True) - y_RK * along_R1)


class _Standardise(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x_RK: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(x_RK, x_RK.shape[-1:], None, None, eps)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        x_RK, ctx.eps = inputs
        _, mean_R1, rstd_R1 = output
        ctx.mark_non_differentiable(mean_R1, rstd_R1)
        ctx.save_for_backward(x_RK, mean_R1, rstd_R1)
        ctx.save_for_forward(x_RK, mean_R1, rstd_R1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _jacobian_product(gradients[0], *ctx.saved_tensors, eps=ctx.eps), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, None, None]:
        return _jacobian_product(tangents[0], *ctx.saved_tensors, eps=ctx.eps), None, None


def standardised(x: Tensor, *, eps: float = _EPS) -> Tensor:
    """Mean zero and variance one over the last dimension, in single precision or better.

    Args:
        x: Values.
        eps: What is added to their variance.
    """
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if torch.is_grad_enabled():
        y: Tensor = _Standardise.apply(exact.contiguous(), eps)[0]  # type: ignore[no-untyped-call]
        return y
    # A function of autograd's takes longer than its kernels.
    value, tangent = dual_parts(exact.contiguous())
    y, mean, rstd = torch.native_layer_norm(value, value.shape[-1:], None, None, eps)
    if tangent is None:
        return y
    return dual(y, _jacobian_product(tangent, value, mean, rstd, eps=eps))


@final
class GroupNorm(nn.Module):
    """Group normalisation with at least four channels in a group, and no parameters.

    Args:
        channels: Channels, a multiple of four.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels // _GROUP_WIDTH, _MAX_GROUPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The image, each of its groups of channels standardised."""
        return standardised(x_BCHW.reshape(len(x_BCHW), self.groups, -1)).view(x_BCHW.shape)
