"""The deformable convolution on the CPU; Numba compiles it at the first call.

Legend: B batch, C channels in, O channels out, h, w size, K = k·k taps; O' and R are O and K·C
rounded up to multiples of OUTPUTS_AT_ONCE and INPUTS_AT_ONCE of ``deform``. All arrays have the
same float type. Channels come last, so that a tap reads C numbers that are adjacent in memory.

The B·h·w output pixels are numbered. A call computes those from ``first`` to ``last`` and releases
Python's global lock, so that threads can share the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numpy.ndarray; Numba infers the element type

# Sums may be reordered, so that they can be vectorised; NaN and infinity keep their meaning.
_compiled: Any = njit(nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_compiled
def convolve(
    first: int,
    last: int,
    k: int,
    x: Array,  # [B, h, w, C]
    offset: Array,  # [B, h, w, 2·K]
    mask: Array,  # [B, h, w, K]
    weight: Array,  # [O', R]
    bias: Array,  # [O]
    out: Array,  # [B·h·w, O], written
) -> None:
    """Compute the output pixels ``first`` to ``last``."""
    row, sums = np.zeros(weight.shape[1], x.dtype), np.zeros(len(weight), x.dtype)
    for pixel in range(first, last):
        _read(pixel, k, x, offset, mask, row)
        for o in range(0, len(weight), 4):
            w0, w1, w2, w3 = weight[o], weight[o + 1], weight[o + 2], weight[o + 3]
            sum0 = sum1 = sum2 = sum3 = x.dtype.type(0)
            for r in range(len(row)):
                sum0 += w0[r] * row[r]
                sum1 += w1[r] * row[r]
                sum2 += w2[r] * row[r]
                sum3 += w3[r] * row[r]
            sums[o], sums[o + 1], sums[o + 2], sums[o + 3] = sum0, sum1, sum2, sum3
        for o in range(len(bias)):
            out[pixel, o] = sums[o] + bias[o]


@_compiled
def convolve_backward(
    first: int,
    last: int,
    k: int,
    x: Array,
    offset: Array,
    mask: Array,
    weight: Array,  # [O', R]
    gradient: Array,  # [B·h·w, O], of the result
    grad_x: Array,  # the shape of x, added to
    grad_offset: Array,  # the shape of offset, written
    grad_mask: Array,  # the shape of mask, written
    grad_weight: Array,  # the shape of weight, added to
) -> None:
    """Compute the gradients of all arguments of :func:`convolve` except the bias."""
    row, grad_row = np.zeros(weight.shape[1], x.dtype), np.zeros(weight.shape[1], x.dtype)
    for pixel in range(first, last):
        _read(pixel, k, x, offset, mask, row)
        grad_row[:] = 0
        for o in range(gradient.shape[1]):
            g, w, by_w = gradient[pixel, o], weight[o], grad_weight[o]
            for r in range(len(row)):
                grad_row[r] += g * w[r]
            for r in range(len(row)):
                by_w[r] += g * row[r]
        _read_backward(pixel, k, x, offset, mask, grad_row, grad_x, grad_offset, grad_mask)


@_compiled
def _read(pixel: int, k: int, x: Array, offset: Array, mask: Array, row: Array) -> None:
    """Write what the taps of one pixel read, times the mask, into ``row`` [R]."""
    _, height, width, channels = x.shape
    b, i, j = pixel // (height * width), pixel // width % height, pixel % width
    float_ = x.dtype.type
    for t in range(k * k):
        y = float_(i + t // k - k // 2) + offset[b, i, j, 2 * t]
        x_ = float_(j + t % k - k // 2) + offset[b, i, j, 2 * t + 1]
        y0, y1, up, down, _, _ = _bilinear_weights(y, height)
        x0, x1, left, right, _, _ = _bilinear_weights(x_, width)
        up, down = up * mask[b, i, j, t], down * mask[b, i, j, t]
        w00, w01, w10, w11 = up * left, up * right, down * left, down * right
        x00, x01, x10, x11 = x[b, y0, x0], x[b, y0, x1], x[b, y1, x0], x[b, y1, x1]
        for c in range(channels):
            row[t * channels + c] = w00 * x00[c] + w01 * x01[c] + w10 * x10[c] + w11 * x11[c]


@_compiled
def _read_backward(
    pixel: int,
    k: int,
    x: Array,
    offset: Array,
    mask: Array,
    grad_row: Array,
    grad_x: Array,
    grad_offset: Array,
    grad_mask: Array,
) -> None:
    """From the gradient of a row to the gradients of the input, the offsets and the mask."""
    _, height, width, channels = x.shape
    b, i, j = pixel // (height * width), pixel // width % height, pixel % width
    float_ = x.dtype.type
    for t in range(k * k):
        y = float_(i + t // k - k // 2) + offset[b, i, j, 2 * t]
        x_ = float_(j + t % k - k // 2) + offset[b, i, j, 2 * t + 1]
        y0, y1, up, down, grad_up, grad_down = _bilinear_weights(y, height)
        x0, x1, left, right, grad_left, grad_right = _bilinear_weights(x_, width)
        x00, x01, x10, x11 = x[b, y0, x0], x[b, y0, x1], x[b, y1, x0], x[b, y1, x1]
        g00 = g01 = g10 = g11 = float_(0)
        start = t * channels
        for c in range(channels):
            g = grad_row[start + c]
            g00 += g * x00[c]
            g01 += g * x01[c]
            g10 += g * x10[c]
            g11 += g * x11[c]
        m, top, bottom = mask[b, i, j, t], left * g00 + right * g01, left * g10 + right * g11
        grad_mask[b, i, j, t] = up * top + down * bottom
        grad_offset[b, i, j, 2 * t] = m * (grad_up * top + grad_down * bottom)
        grad_offset[b, i, j, 2 * t + 1] = m * (
            grad_left * (up * g00 + down * g10) + grad_right * (up * g01 + down * g11)
        )
        up, down = up * m, down * m
        # Two of the four pixels may be the same one, so each is added in a loop of its own.
        for to, w in (
            (grad_x[b, y0, x0], up * left),
            (grad_x[b, y0, x1], up * right),
            (grad_x[b, y1, x0], down * left),
            (grad_x[b, y1, x1], down * right),
        ):
            for c in range(channels):
                to[c] += w * grad_row[start + c]


@_compiled
def _bilinear_weights(position: Any, size: int) -> Any:
    """The two pixels around a position, their weights, and the derivatives of the weights.

    A pixel outside of 0 … size - 1 has weight and derivative 0; the number of a pixel inside stands
    in for it. A NaN position has NaN weights and derivatives.
    """
    float_ = type(position)
    if not (position > -1 and position < size):
        nothing = float_(np.nan) if np.isnan(position) else float_(0)
        return 0, 0, nothing, nothing, nothing, nothing
    low = int(np.floor(position))
    part = position - float_(low)
    before, after = float_(low >= 0), float_(low + 1 < size)
    return (
        max(low, 0),
        min(low + 1, size - 1),
        before * (float_(1) - part),
        after * part,
        -before,
        after,
    )
