"""Modulated deformable convolution (DCNv2, Zhu et al. 2019), stride 1, same size.

Legend: B batch, C channels in, O channels out, h, w size, K = k·k taps of an odd kernel.

Every tap of every output pixel reads the input at its own real-valued position (bilinear, zero
outside) and multiplies it by a weight. ``torchvision.ops.deform_conv2d`` is the reference, but on
the CPU it runs on one thread. On the CPU this module therefore uses kernels that Numba compiles
(extra ``fast``), or ``grid_sample`` if Numba is missing; benchmarks/deform_conv.py compares all
three.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_ELEMENTS = 2**22
"""How many values inference by ``grid_sample`` holds at a time: the fastest choice between 4 and
512 MB, measured by benchmarks/deform_conv.py."""

OUTPUTS_AT_ONCE, INPUTS_AT_ONCE = 4, 32
"""The number of output channels that the inner loop of the kernels computes at once, and the
multiple to which the inputs are padded so that the compiler vectorises that loop. Our choice."""

MAX_BACKWARD_THREADS = 8
"""Largest number of threads of the backward pass. Each holds its own copy of the input's gradient,
so that this bounds the memory. Our choice."""


def deform_conv(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Compute ``torchvision.ops.deform_conv2d`` by the fastest implementation available.

    All implementations agree up to rounding, also in their gradients. (Near pixel 1000 a float32
    coordinate is exact to about 1e-4 pixels. Exactly on a pixel, bilinear interpolation has two
    derivatives by the offset, and implementations may return different ones.)

    A tap with an infinite offset reads zero. A NaN offset makes its output pixel NaN in every
    implementation, so that a check for finite values notices it. An empty batch is allowed.

    Args:
        x: [B, C, h, w].
        offset: [B, 2·K, h, w], pixels, alternating y and x.
        weight: [O, C, k, k], k odd.
        bias: [O].
        mask: [B, K, h, w], the weight of each tap.

    Returns:
        [B, O, h, w].
    """
    if x.is_cuda:
        from torchvision.ops import deform_conv2d  # takes longer to import than PyTorch itself

        padding = weight.shape[-1] // 2
        by_torchvision: Tensor = deform_conv2d(x, offset, weight, bias, padding=padding, mask=mask)
        return by_torchvision
    tensors = (x, offset, weight, bias, mask)
    compiled = x.device.type == "cpu" and has_numba() and not torch.onnx.is_in_onnx_export()
    if compiled and all(tensor.dtype == torch.float32 for tensor in tensors):
        by_kernels: Tensor = DeformConv.apply(*tensors)  # type: ignore[no-untyped-call]
        return by_kernels
    return deform_conv_by_sampling(*tensors)


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """Whether the extra ``fast`` is installed."""
    return find_spec("numba") is not None


class DeformConv(torch.autograd.Function):
    """The kernels of :mod:`.deform_numba`, on as many threads as PyTorch uses.

    No tensor that is K times as large as the input is stored: the backward pass reads the input
    again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
    ) -> Tensor:
        """As :func:`deform_conv`, for float32 or float64 on the CPU."""
        from .deform_numba import convolve

        ctx.save_for_backward(x, offset, weight, mask)
        batch, _, height, width = x.shape
        arrays, rows = _channels_last(x, offset, mask), _rows(weight)
        out = x.new_empty(batch * height * width, len(weight))
        arrays += [tensor.detach().numpy() for tensor in (rows, bias, out)]

        def part(_: int, first: int, last: int) -> None:
            convolve(first, last, weight.shape[-1], *arrays)

        _share_among_threads(part, len(out), torch.get_num_threads())
        return out.view(batch, height, width, len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """From the gradient of the result [B, O, h, w] to the gradients of the five arguments."""
        from .deform_numba import convolve_backward

        x, offset, weight, mask = ctx.saved_tensors
        arrays, rows = _channels_last(x, offset, mask), _rows(weight)
        gradient = gradient.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # [B·h·w, O]
        threads = min(torch.get_num_threads(), MAX_BACKWARD_THREADS)
        grad_x, grad_rows = (
            torch.zeros(threads, *shape, dtype=x.dtype) for shape in (arrays[0].shape, rows.shape)
        )
        grad_offset, grad_mask = (torch.empty(array.shape, dtype=x.dtype) for array in arrays[1:])
        arrays += [rows.numpy(), gradient.numpy()]

        def part(number: int, first: int, last: int) -> None:
            wanted = [
                t.numpy() for t in (grad_x[number], grad_offset, grad_mask, grad_rows[number])
            ]
            convolve_backward(first, last, weight.shape[-1], *arrays, *wanted)

        _share_among_threads(part, len(gradient), threads)
        out, channels, k, _ = weight.shape
        grad_weight = grad_rows.sum(0)[:out, : k * k * channels].view(out, k, k, channels)
        grad_x, grad_offset, grad_weight, grad_mask = (
            tensor.permute(0, 3, 1, 2)
            for tensor in (grad_x.sum(0), grad_offset, grad_weight, grad_mask)
        )
        return grad_x, grad_offset, grad_weight, gradient.sum(0), grad_mask


def _channels_last(*tensors: Tensor) -> list[Any]:
    """Tensors [B, C, h, w] as arrays [B, h, w, C] whose channels are adjacent in memory."""
    moved = [tensor.detach().permute(0, 2, 3, 1) for tensor in tensors]
    return [(t if t.stride(3) == 1 else t.contiguous()).numpy() for t in moved]


def _rows(weight: Tensor) -> Tensor:
    """Weights [O, C, k, k] as [O, K·C], padded with zeros to the multiples that kernels take."""
    rows = weight.detach().permute(0, 2, 3, 1).flatten(1)
    return F.pad(rows, (0, -rows.shape[1] % INPUTS_AT_ONCE, 0, -len(rows) % OUTPUTS_AT_ONCE))


def _share_among_threads(part: Callable[[int, int, int], None], count: int, threads: int) -> None:
    """Split ``range(count)`` among threads, which each call ``part(thread, first, last)``."""
    edges = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(threads), edges[:-1], edges[1:]))


def deform_conv_by_sampling(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
) -> Tensor:
    """:func:`deform_conv` composed from ``grid_sample``, for any device and type, and for ONNX."""
    # One item at a time, so that the taps are the batch, over which grid_sample uses its threads.
    items = [_deform_one(*item, weight) for item in zip(x, offset, mask, strict=True)]
    if not items:  # an empty batch, with gradients of zero for all arguments
        return x.new_empty(0, len(weight), *x.shape[2:]) + 0 * sum(
            tensor.sum() for tensor in (x, offset, weight, bias, mask)
        )
    return torch.stack(items) + bias.view(-1, 1, 1)


def _deform_one(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """[C, h, w], [2·K, h, w], [K, h, w], [O, C, k, k] -> [O, h, w]."""
    x, offset, mask = (tensor.contiguous() for tensor in (x, offset, mask))
    (channels, height, width), (out, _, k, _), taps = x.shape, weight.shape, len(mask)

    # The coordinates of grid_sample go from -1, the outer edge of the first pixel, to 1.
    dtype, device = torch.promote_types(offset.dtype, torch.float32), offset.device
    tap = torch.arange(taps, device=device).view(taps, 1, 1)
    rows = torch.arange(height, dtype=dtype, device=device).view(height, 1)
    y = rows + tap // k - k // 2  # [K, h, 1] in pixels
    x_ = torch.arange(width, dtype=dtype, device=device) + tap % k - k // 2  # [K, 1, w]
    dy, dx = offset.view(taps, 2, height, width).unbind(1)
    grid_y = torch.add((2 * y + 1) / height - 1, dy, alpha=2 / height)
    grid_x = torch.add((2 * x_ + 1) / width - 1, dx, alpha=2 / width)
    # Beyond ±2 grid_sample reads zeros; an infinite position must not become NaN.
    grid = torch.stack((grid_x, grid_y), -1).clamp(-3.0, 3.0)  # [K, h, w, 2]

    # Sampling treats each channel alone, so the kernel may mix the channels before or after it:
    # we take the order that leaves fewer channels to sample.
    mix_first = out < channels
    if mix_first:
        kernel = weight.permute(2, 3, 0, 1).reshape(taps * out, channels)
        source = (kernel @ x.reshape(channels, -1)).view(taps, out, height, width)
    else:
        kernel = weight.permute(0, 2, 3, 1).reshape(out, taps * channels)
        source = x.expand(taps, channels, height, width)

    # Inference takes one strip of rows at a time, to save memory. Training keeps all sampled values
    # anyway, and an exported graph must not depend on the size.
    strip = max(1, STRIP_ELEMENTS // (taps * source.shape[1] * width))
    if torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
        parts = [(grid, mask)]
    else:
        parts = list(zip(torch.split(grid, strip, 1), torch.split(mask, strip, 1), strict=True))
    mixtures = []
    for at, weigh in parts:
        sampled = F.grid_sample(source, at, align_corners=False) * weigh.unsqueeze(1)
        mixed = sampled.sum(0) if mix_first else kernel @ sampled.view(taps * channels, -1)
        mixtures.append(mixed.view(out, -1, width))
    return torch.cat(mixtures, 1)
