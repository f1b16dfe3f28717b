"""Gradients with respect to images, through a first convolution of few channels, on a CPU.

The library's kernel vectorises over input channels, so for grey images it takes three times as long
as this, which adds the contribution of each weight to all images at once.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_CHANNELS = 3


def with_fast_input_gradients(network: nn.Module) -> nn.Module:
    """The network itself, whose convolutions of at most three channels have other gradients.

    They are those for the input alone, which is all that a network without trainable weights needs,
    and differ by rounding. Convolutions with groups or dilation, and subclasses, stay as they are.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.forward = partial(_forward, module)
    return network


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.in_channels <= _MOST_CHANNELS
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.weight.dtype in (torch.float32, torch.float64)
    )


def _forward(layer: nn.Conv2d, images: Tensor) -> Tensor:
    if images.ndim != 4 or not images.requires_grad:
        return F.conv2d(images, layer.weight, layer.bias, layer.stride, layer.padding)
    return _Convolution.apply(images, layer.weight, layer.bias, layer.stride, layer.padding)


class _Convolution(torch.autograd.Function):
    """F.conv2d whose weights need no gradient."""

    @staticmethod
    def forward(ctx, images, weight, bias, stride, padding):
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, images.shape[2:]
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, *gradients):
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        return _input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size), *[None] * 4


def _input_gradient(
    gradient: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """[N, I, H, W] of images of this size, from that of the result [N, O, h, w].

    weight: [O, I, k, l].
    """
    count, outputs, height, width = gradient.shape
    _, inputs, rows, columns = weight.shape
    flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    parts = weight.reshape(outputs, -1).t() @ flat.t()
    parts = parts.view(inputs, rows, columns, count, height, width)
    tall, wide = size[0] + 2 * padding[0], size[1] + 2 * padding[1]
    total = gradient.new_zeros(inputs, count, tall, wide)
    for row in range(rows):
        for column in range(columns):
            down = slice(row, row + stride[0] * (height - 1) + 1, stride[0])
            right = slice(column, column + stride[1] * (width - 1) + 1, stride[1])
            total[:, :, down, right] += parts[:, row, column]
    inner = total[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    return inner.transpose(0, 1)
