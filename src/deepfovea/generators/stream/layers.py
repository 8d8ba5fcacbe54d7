"""The few layers that the parts of ``stream`` share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def act(x: Tensor) -> Tensor:
    """The activation everywhere in ``stream``."""
    return F.leaky_relu(x, 0.1)


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
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to the same shape."""
        return act(x + self.conv2(act(self.conv1(x))))
