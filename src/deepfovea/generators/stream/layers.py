"""The few layers that the parts of ``stream`` share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1
"""Slope of the activation below 0, as in the code of PWC-Net (Sun et al. 2018). No experiment
varies it."""
INITIAL_RESIDUAL = 0.1
"""Factor of the weights with which the second convolution of a residual block starts, so that the
block starts near the identity. No experiment varies it."""
ERROR_GAIN = 10.0
"""Factor of colour differences in [0, 1] before a convolution: usual ones, of a few hundredths,
become about as large as its other inputs. No experiment varies it."""


def act(x: Tensor) -> Tensor:
    """The activation everywhere in ``stream``."""
    return F.leaky_relu(x, LEAK)


def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width; ``size`` is odd."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all its parameters zero, so that it adds nothing until it has learned."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        with torch.no_grad():
            self.conv2.weight.mul_(INITIAL_RESIDUAL)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        return act(x + self.conv2(act(self.conv1(x))))
