"""The layers that all parts of ``stream`` use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1
"""Slope of the activation below 0, as in the code of PWC-Net (Sun et al. 2018). No experiment
varies it."""
INITIAL_RESIDUAL = 0.1
"""The initial weights of the second convolution of a residual block are multiplied by it, so that
the block starts near the identity. No experiment varies it."""
ERROR_GAIN = 10.0
"""Colour differences in [0, 1] are multiplied by it before a convolution: usual differences, of a
few hundredths, become about as large as the other inputs. No experiment varies it."""


def act(x: Tensor) -> Tensor:
    """The activation that ``stream`` uses everywhere."""
    return F.leaky_relu(x, LEAK)


def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width; ``size`` is odd."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Set all parameters of a layer to zero, so that it adds nothing before training."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in float32 within autocast, and on CUDA without TF32, which has the ten bits of
    float16.

    Where samples go must be exact to fractions of a pixel, and what is wrong once is carried along:
    with all convolutions in float16, one clip of six loses 0.33 dB (experiment 66).
    """
    backend = torch.backends.cudnn
    on_cuda = device.type == "cuda" and not torch.compiler.is_compiling()
    without_tf32 = on_cuda and backend.allow_tf32
    if without_tf32:
        backend.allow_tf32 = False
    try:
        # The device "meta", which computes nothing, has no autocast.
        known = torch.amp.is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if known else nullcontext():
            yield
    finally:
        if without_tf32:
            backend.allow_tf32 = True


class Residual(nn.Module):
    """Residual block: two 3×3 convolutions, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        with torch.no_grad():
            self.conv2.weight.mul_(INITIAL_RESIDUAL)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        return act(x + self.conv2(act(self.conv1(x))))
