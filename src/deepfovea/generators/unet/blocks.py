"""The parts of the recurrent U-Nets.

Legend: B batch, C channels, h, w the size of a block's input, K = k·k taps of a kernel.
All activations are ELU, all upsampling is bilinear ×2 (``align_corners=False``).
Source: Reich, Memmel, Grebe 2020 (DeepFovea++), unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deform import deform_conv

Activation = Callable[[Tensor], Tensor]


def upsample(x: Tensor) -> Tensor:
    """Bilinear ×2: [B, C, h, w] -> [B, C, 2h, 2w]."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def elu(x: Tensor) -> Tensor:
    """Compute ``F.elu``, faster on the CPU; the result may differ by rounding."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
        return F.elu(x)
    # This takes a fifth of the time of F.elu, whose expm1 is slow on the CPU.
    below = x.clamp(max=0.0).exp_().sub_(1.0)
    return torch.maximum(x, below, out=below)


def layer_norm(channels: int, size: Sequence[int] = ()) -> nn.Module:
    """A layer that normalises each sample over C×h×w, then applies a learned gain and bias.

    Args:
        channels: C.
        size: h and w, to learn a gain and bias for every value, as the published code does; empty
            to learn one per channel, which works for any size.
    """
    return nn.LayerNorm([channels, *size]) if size else nn.GroupNorm(1, channels)


class ResidualBlock(nn.Module):
    """Encoder block: two convolutions with a shortcut, then 2×2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h/2, w/2], h and w even."""
        y = elu(self.conv2(elu(self.conv1(x))))
        return F.avg_pool2d(y + self.shortcut(x), 2)


class TemporalBlock(nn.Module):
    """Decoder block: a residual block that also reads its own feature of the step before.

    Args:
        running: channels of the feature from the level below.
        skip: channels of the feature from the encoder.
        out_channels: channels of the result and of the recurrent tensor.
        norm: see :func:`layer_norm`.
        activation: applied after ``norm``; its output is the recurrent tensor.
    """

    def __init__(
        self, running: int, skip: int, out_channels: int, norm: nn.Module, activation: Activation
    ) -> None:
        super().__init__()
        in_channels = running + skip + out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = norm
        self.activation = activation
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
        """Decode one level.

        Args:
            x: [B, running, h, w] from the level below, already upsampled to this size.
            skip: [B, skip, h, w] from the encoder.
            recurrent: [B, out, h, w], the recurrent tensor of the step before.

        Returns:
            The feature and the next recurrent tensor, both [B, out, h, w].
        """
        x = torch.cat((x, skip, recurrent), 1)
        recurrent = self.activation(self.norm(self.conv1(x)))
        return elu(self.conv2(recurrent)) + self.shortcut(x), recurrent


class RecurrentBlock(nn.Module):
    """Decoder block of 2019: a convolution, then one that also reads its own last output.

    Its arguments are those of :class:`TemporalBlock`.
    """

    def __init__(
        self, running: int, skip: int, out_channels: int, norm: nn.Module, activation: Activation
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(running + skip, out_channels, 3, padding=1)
        self.recurrent_conv = nn.Conv2d(2 * out_channels, out_channels, 3, padding=1)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor, skip: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`TemporalBlock.forward`, but both returned tensors are the same one."""
        x = elu(self.conv(torch.cat((x, skip), 1)))
        x = self.activation(self.norm(self.recurrent_conv(torch.cat((x, recurrent), 1))))
        return x, x


class SuperResolutionBlock(nn.Module):
    """Two deformable convolutions around a ×2 upsampling, with a shortcut.

    The ``final`` block ends with a third deformable convolution, 1×1, without activation. The paper
    has it; the published code leaves it out.
    """

    def __init__(self, in_channels: int, out_channels: int, final: bool = False) -> None:
        super().__init__()
        self.conv1 = ModulatedDeformConv(in_channels, out_channels)
        self.conv2 = ModulatedDeformConv(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.conv3 = ModulatedDeformConv(out_channels, out_channels, 1) if final else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        y = elu(self.conv2(upsample(elu(self.conv1(x)))))
        y = y + upsample(self.shortcut(x))
        out: Tensor = self.conv3(y)
        return out


class ModulatedDeformConv(nn.Conv2d):
    """Deformable convolution v2 (Zhu et al. 2019), stride 1, odd kernel.

    Every tap of every output pixel reads the input at its own real-valued position (bilinear,
    zero outside) and multiplies it by a weight in (0, 1). An ordinary convolution of the same
    input predicts positions and weights. Its parameters start at zero, so that the layer starts as
    a plain convolution times ½.
    """

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.points = kernel_size**2
        self.offset_and_mask = nn.Conv2d(
            in_channels, 3 * self.points, kernel_size, padding=kernel_size // 2
        )
        for zero in self.offset_and_mask.parameters():
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, O, h, w]."""
        # Channels last is several times faster for so few channels, and deform_conv needs it.
        x = x.contiguous(memory_format=torch.channels_last)
        offset, mask = torch.split(self.offset_and_mask(x), [2 * self.points, self.points], 1)
        return deform_conv(x, offset, self.weight, self.bias, mask.sigmoid())
