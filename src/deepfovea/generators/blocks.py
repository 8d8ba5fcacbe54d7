"""The parts of the recurrent U-Nets.

Legend: B batch, C channels, h, w the size a block receives, K = k·k taps of a kernel.
All activations are ELU, all upsampling is bilinear ×2 (``align_corners=False``).
Source: Reich, Memmel, Grebe 2020 (DeepFovea++), figure 2, unless a docstring says otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

STRIP_ELEMENTS = 2**22
"""How many sampled values inference holds at a time: 16 MB, the fastest of 4 to 512 MB."""


def upsample(x: Tensor) -> Tensor:
    """Bilinear ×2: [B, C, h, w] -> [B, C, 2h, 2w]."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Encoder block: two convolutions beside a shortcut, then 2×2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h/2, w/2], h and w even."""
        y = F.elu(self.conv2(F.elu(self.conv1(x))))
        return F.avg_pool2d(y + self.shortcut(x), 2)


class TemporalBlock(nn.Module):
    """Decoder block: a residual block that also reads what it computed one step before.

    The normalisation takes mean and variance over C×h×w of each sample, as published, but has
    one gain and bias per channel where the published code learned one per channel *and pixel*,
    which fixed the resolution.
    """

    def __init__(self, running: int, skip: int, out_channels: int) -> None:
        super().__init__()
        in_channels = running + skip + out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
        """One step at one level.

        Args:
            x: [B, running, h, w] from the level below, already at this size.
            skip: [B, skip, h, w] from the encoder.
            recurrent: [B, out, h, w] of the last step.

        Returns:
            The feature and the next recurrent tensor, both [B, out, h, w].
        """
        x = torch.cat((x, skip, recurrent), 1)
        recurrent = F.elu(self.norm(self.conv1(x)))
        return F.elu(self.conv2(recurrent)) + self.shortcut(x), recurrent


class RecurrentBlock(nn.Module):
    """Decoder block of 2019: a convolution, then one that also reads its own last output."""

    def __init__(self, running: int, skip: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(running + skip, out_channels, 3, padding=1)
        self.recurrent_conv = nn.Conv2d(2 * out_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, out_channels)

    def forward(self, x: Tensor, skip: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`TemporalBlock.forward`; the two returned tensors are one and the same."""
        x = F.elu(self.conv(torch.cat((x, skip), 1)))
        x = F.elu(self.norm(self.recurrent_conv(torch.cat((x, recurrent), 1))))
        return x, x


class SuperResolutionBlock(nn.Module):
    """Two deformable convolutions around a ×2 upsampling, beside a shortcut.

    The ``final`` block ends with a third deformable convolution, 1×1, without activation (in
    the paper; the published code left it out).
    """

    def __init__(self, in_channels: int, out_channels: int, final: bool = False) -> None:
        super().__init__()
        self.conv1 = ModulatedDeformConv(in_channels, out_channels)
        self.conv2 = ModulatedDeformConv(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.conv3 = ModulatedDeformConv(out_channels, out_channels, 1) if final else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        y = F.elu(self.conv2(upsample(F.elu(self.conv1(x)))))
        y = y + upsample(self.shortcut(x))
        out: Tensor = self.conv3(y)
        return out


class ModulatedDeformConv(nn.Conv2d):
    """Deformable convolution v2 (Zhu et al. 2019), stride 1, odd kernel.

    Every tap of every output pixel reads the input at its own real-valued position (bilinear,
    zero outside) and weighs it by a number in (0, 1). An ordinary convolution of the same
    input predicts both; it starts at zero, that is as a plain convolution times ½.
    """

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.taps = kernel_size**2
        self.offset_and_mask = nn.Conv2d(
            in_channels, 3 * self.taps, kernel_size, padding=kernel_size // 2
        )
        for zero in self.offset_and_mask.parameters():
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, O, h, w]."""
        offset, mask = torch.split(self.offset_and_mask(x), [2 * self.taps, self.taps], 1)
        mask = mask.sigmoid()
        # torchvision's CPU kernel runs on one thread. The five convolutions of one DeepFovea++
        # item (192×256 -> 768×1024) on two x86-64 cores, seconds forward and backward:
        # torchvision 6.7 and 50, by sampling 1.2 and 4.9. On CUDA neither was measured.
        if x.is_cuda:
            out: Tensor = deform_conv2d(
                x, offset, self.weight, self.bias, padding=self.padding, mask=mask
            )
            return out
        return deform_conv_by_sampling(x, offset, self.weight, self.bias, mask)


def deform_conv_by_sampling(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
) -> Tensor:
    """``torchvision.ops.deform_conv2d`` for stride 1 and same size, composed from ``grid_sample``.

    Same result and gradients up to rounding: near pixel 1000 either implementation knows a
    float32 coordinate to about 1e-4 pixels. (Exactly on a pixel, where bilinear interpolation
    has two derivatives by the offset, they may return different ones.)

    Args:
        x: [B, C, h, w].
        offset: [B, 2·K, h, w], pixels, alternating y and x.
        weight: [O, C, k, k], k odd.
        bias: [O].
        mask: [B, K, h, w], the weight of each tap.

    Returns:
        [B, O, h, w].
    """
    # One sample at a time: the batch over which grid_sample spreads its threads is the taps.
    items = [_deform_one(*item, weight) for item in zip(x, offset, mask, strict=True)]
    return torch.stack(items) + bias.view(-1, 1, 1)


def _deform_one(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """[C, h, w], [2·K, h, w], [K, h, w], [O, C, k, k] -> [O, h, w]."""
    (channels, height, width), (out, _, k, _), taps = x.shape, weight.shape, len(mask)

    # grid_sample counts from -1 to 1, from the first pixel's outer edge to the last one's.
    dtype, device = torch.promote_types(offset.dtype, torch.float32), offset.device
    tap = torch.arange(taps, device=device).view(taps, 1, 1)
    rows = torch.arange(height, dtype=dtype, device=device).view(height, 1)
    y = rows + tap // k - k // 2  # [K, h, 1] in pixels
    x_ = torch.arange(width, dtype=dtype, device=device) + tap % k - k // 2  # [K, 1, w]
    dy, dx = offset.view(taps, 2, height, width).unbind(1)
    grid_y = torch.add((2 * y + 1) / height - 1, dy, alpha=2 / height)
    grid_x = torch.add((2 * x_ + 1) / width - 1, dx, alpha=2 / width)
    grid = torch.stack((grid_x, grid_y), -1)  # [K, h, w, 2]

    # Sampling acts on each channel alone, so the kernel may mix them before or after it:
    # whichever leaves fewer to sample.
    mix_first = out < channels
    if mix_first:
        kernel = weight.permute(2, 3, 0, 1).reshape(taps * out, channels)
        source = (kernel @ x.reshape(channels, -1)).view(taps, out, height, width)
    else:
        kernel = weight.permute(0, 2, 3, 1).reshape(out, taps * channels)
        source = x.expand(taps, channels, height, width)

    # Training keeps all sampled values anyway; inference needs one strip of rows at a time.
    strip = STRIP_ELEMENTS // (taps * source.shape[1] * width)
    strip = height if torch.is_grad_enabled() else max(1, strip)
    grids, masks = torch.split(grid, strip, 1), torch.split(mask, strip, 1)
    strips = []
    for at, weigh in zip(grids, masks, strict=True):
        sampled = F.grid_sample(source, at, align_corners=False) * weigh.unsqueeze(1)
        mixed = sampled.sum(0) if mix_first else kernel @ sampled.view(taps * channels, -1)
        strips.append(mixed.view(out, -1, width))
    return torch.cat(strips, 1)
