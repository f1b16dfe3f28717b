"""Faster gradients for images, through a first convolution of few channels, on a CPU.

PyTorch's kernel vectorises over input channels. For grey images it takes three times as long as
this module, which adds the contribution of each weight to all images at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_CHANNELS = 3


def with_fast_input_gradients(network: nn.Module) -> nn.Module:
    """Changes the convolutions of a network that have at most three input channels.

    While their weights need no gradient, they then compute gradients for their input only. These
    gradients differ from PyTorch's by rounding; the outputs are the same.
    Convolutions with groups, dilation or padding by anything but zeros, and subclasses of
    `nn.Conv2d`, stay as they are.

    Returns:
        The network itself.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = _FastConv2d
    return network


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.in_channels <= _MAX_CHANNELS
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.weight.dtype in (torch.float32, torch.float64)
    )


class _FastConv2d(nn.Conv2d):
    """A plain convolution with fast gradients for its input while its weights need none."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4 or not input.requires_grad or self.weight.requires_grad:
            return super().forward(input)
        return _Convolution.apply(input, self.weight, self.bias, self.stride, self.padding)


class _Convolution(torch.autograd.Function):
    """`F.conv2d`, differentiable by its images only."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, images.shape[2:]
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        images = _input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size)
        return images, None, None, None, None


def _input_gradient(
    gradient: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Computes the gradient of a convolution for its images.

    Args:
        gradient: [N, O, h, w], the gradient of the convolution's output.
        weight: [O, I, k, l].
        stride: The convolution's stride.
        padding: The convolution's padding.
        size: Height and width of the images.

    Returns:
        [N, I, H, W].
    """
    count, outputs, height, width = gradient.shape
    _, inputs, rows, columns = weight.shape
    flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    parts = weight.reshape(outputs, -1).t() @ flat.t()
    parts = parts.view(inputs, rows, columns, count, height, width)
    padded_height, padded_width = size[0] + 2 * padding[0], size[1] + 2 * padding[1]
    total = gradient.new_zeros(inputs, count, padded_height, padded_width)
    for row in range(rows):
        for column in range(columns):
            down = slice(row, row + stride[0] * (height - 1) + 1, stride[0])
            right = slice(column, column + stride[1] * (width - 1) + 1, stride[1])
            total[:, :, down, right] += parts[:, row, column]
    inner = total[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    return inner.transpose(0, 1)
