"""Convolution and linear layer whose forward-mode derivative costs one application of the map.

torch 2.13 multiplies by the tangent of the weights even where they have none, as when a network is
differentiated along a path: a third of the work for nothing.

Shape suffixes: B rows, C channels, H height, W width.
"""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _autocast(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The inputs as autocast would have them; it does not look into a function of our own."""
    kind = inputs[0].device.type
    if not torch.is_autocast_enabled(kind):
        return inputs
    return tuple(value.to(torch.get_autocast_dtype(kind)) for value in inputs)


class _Convolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor
    ) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if gradient is None:
            return None, None, None, None, None
        x, weight = ctx.saved_tensors
        parts: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            [len(weight)],
            [ctx.stride] * 2,
            [ctx.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            ctx.needs_input_grad[:3],
        )
        return *parts, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        x, weight = ctx.saved_tensors
        dx, dweight, dbias, _, _ = tangents
        along = None if dx is None else functional.conv2d(dx, weight, None, ctx.stride, ctx.padding)
        if dweight is not None:
            change = functional.conv2d(x, dweight, None, ctx.stride, ctx.padding)
            along = _sum(along, change)
        return along if dbias is None else _sum(along, dbias[:, None, None])


@final
class Conv2d(nn.Module):
    """Convolution with a square kernel and half of it as padding.

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        kernel: Side of the kernel, odd.
        stride: Places of the input from one of the output to the next.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        like = nn.Conv2d(channels_in, channels, kernel)
        assert like.bias is not None, "torch's convolution has a bias by default"
        self.weight = like.weight
        self.bias = like.bias
        self.stride = stride
        self.padding = kernel // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The image of the next layer."""
        inputs = _autocast(x_BCHW, self.weight, self.bias)
        y_BCHW: Tensor = _Convolve.apply(*inputs, self.stride, self.padding)
        return y_BCHW
