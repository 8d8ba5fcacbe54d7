"""The two discriminators, which judge a whole video, and the adversarial losses.

Source: Reich, Memmel, Grebe 2020 (DeepFovea++), without three defects of the published code: axes
are never mixed by a reshape, the spectrum is three-dimensional, and any batch size, length and
frame size is allowed.

Legend: B batch, T time, C channels, H, W the size of the input, C' channels inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..config import InputError

DISCRIMINATOR_CHANNELS = (64, 256, 256, 128, 1)
"""The published channels of the five residual blocks, the same in both discriminators."""

STRIDE = 128
"""Downsampling factor from the frames to the patch logits: 4 × 2⁵."""


class VideoDiscriminator(nn.Module):
    """3-D discriminator, which judges whether the patches of a video look and move like real ones.

    Every learned layer is spectrally normalised (Miyato et al. 2018), as in the paper. The learned
    downsampling convolves each frame alone; in the published code it convolves the channels of all
    six frames at once, which fixes the length.

    In training mode each call makes one step of the power iteration for the normalisation, so two
    calls differ slightly; in evaluation mode they are equal.
    """

    def __init__(self, channels: Sequence[int] = DISCRIMINATOR_CHANNELS) -> None:
        super().__init__()
        self.tower = _Tower(3, channels)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits of the patches, positive for real.

        Args:
            frames: [B, T, 3, H, W] in [0, 1], any T, H and W. Frames whose size is not a multiple
                of 128 are padded at the right and bottom by repeating their last pixels.

        Returns:
            [B, ⌈H/128⌉, ⌈W/128⌉], unbounded, the mean over time (and over the last block's
            channels, of which the published network has one).

        Raises:
            InputError: the shape is another one (a ValueError).
        """
        _check(frames)
        right, bottom = _padding(frames)
        video = frames.transpose(1, 2)  # [B, 3, T, H, W]
        video = F.pad(video, (0, right, 0, bottom, 0, 0), mode="replicate")
        logits: Tensor = self.tower(video).mean((1, 2))
        return logits


class SpectrumDiscriminator(nn.Module):
    """3-D FFT discriminator, which judges whether a video has the spectrum of a real one.

    Its input is ``asinh(255·spectrum)``, see :func:`spectrum`. The inverse hyperbolic sine is the
    identity near 0 and a signed logarithm far from it; with the factor 255, noise of one 8-bit grey
    level has the size 1. In 128×128 crops of real videos the median coefficient is about 0.01 and
    the mean near 100. Without the factor, a small network (channels 16, 32, 32, 16, 1) gave all
    such crops the same logit within 1e-3 and learned nothing in 120 steps; with it, the network
    separated crops with 3 % of noise from clean ones without an error.

    The rest is built like :class:`VideoDiscriminator` and ends, as published, with average pooling
    to 16×16 and a linear layer.
    """

    def __init__(self, channels: Sequence[int] = DISCRIMINATOR_CHANNELS) -> None:
        super().__init__()
        self.tower = _Tower(6, channels)
        self.linear = spectral_norm(nn.Linear(channels[-1] * 16 * 16, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """One logit for each video, positive for real.

        Args:
            frames: [B, T, 3, H, W] in [0, 1], any T, H and W. The *spectrum* is padded with zeros
                to multiples of 128, as if the video had no such frequencies. With T = 1 there is
                only one temporal frequency, the mean.

        Returns:
            [B], unbounded.

        Raises:
            InputError: the shape is another one (a ValueError).
        """
        _check(frames)
        waves = (255 * spectrum(frames)).asinh()
        right, bottom = _padding(waves)
        features = self.tower(F.pad(waves, (0, right, 0, bottom)))  # [B, C', T, ...]
        pooled = F.adaptive_avg_pool3d(features, (1, 16, 16))
        logits: Tensor = self.linear(pooled.flatten(1)).squeeze(1)
        return logits


def spectrum(frames: Tensor) -> Tensor:
    """The discrete Fourier transform of a video over time, height and width.

    It is orthonormal (the energy of the whole spectrum is that of the video) and uses no window.
    Time and height are shifted so that frequency 0 has index T // 2 and H // 2. Along the width
    only frequencies from 0 on are kept, as the others are their complex conjugates. Index
    (T // 2 + i, H // 2 + j, k) is the wave with i cycles in T frames, j in H and k in W pixels.

    Args:
        frames: [B, T, C, H, W], real. Half precision is computed, and returned, in float32.

    Returns:
        [B, 2·C, T, H, W // 2 + 1]: the real parts of the C channels, then the imaginary parts.
    """
    video = frames.to(torch.promote_types(frames.dtype, torch.float32)).transpose(1, 2)
    waves = torch.fft.rfftn(video, dim=(2, 3, 4), norm="ortho")
    waves = torch.fft.fftshift(waves, dim=(2, 3))
    return torch.cat((waves.real, waves.imag), 1)


class _Tower(nn.Module):
    """Two downsamplings of the input by 4, learned and bilinear, concatenated; then the blocks."""

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        if len(channels) != 5:
            raise InputError(f"discriminator: received {len(channels)} blocks, expected 5")
        self.reduce = spectral_norm(nn.Conv3d(in_channels, in_channels, (1, 4, 4), (1, 4, 4)))
        levels = pairwise((2 * in_channels, *channels))
        self.blocks = nn.Sequential(*(_Block(i, o) for i, o in levels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T, H/128, W/128], H and W multiples of 128."""
        size = (x.shape[2], x.shape[3] // 4, x.shape[4] // 4)
        bilinear = F.interpolate(x, size, mode="trilinear", align_corners=False)  # T is kept
        out: Tensor = self.blocks(torch.cat((self.reduce(x), bilinear), 1))
        return out


class _Block(nn.Module):
    """Two 3-D convolutions with a shortcut, then 2×2 average pooling of the frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv3d(in_channels, out_channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv3d(out_channels, out_channels, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv3d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, h, w] -> [B, out, T, h/2, w/2], h and w even."""
        y = F.elu(self.conv2(F.elu(self.conv1(x))))
        return F.avg_pool3d(y + self.shortcut(x), (1, 2, 2))


def _check(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3 or 0 in frames.shape:
        raise InputError(
            f"discriminator: received frames of shape {tuple(frames.shape)}; "
            "expected [B, T, 3, H, W], none of them 0"
        )


def _padding(x: Tensor) -> tuple[int, int]:
    """How many pixels to add at the right and at the bottom, up to a multiple of the stride."""
    return -x.shape[-1] % STRIDE, -x.shape[-2] % STRIDE


# --- adversarial terms: logits of any shape in, a scalar to be minimised out --------------------


def logistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(real) − log(1 − σ(fake)), each a mean; ≥ 0 (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def logistic_generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating −log σ(fake), a mean; ≥ 0 (Goodfellow et al. 2014). As published."""
    return F.softplus(-fake).mean()


def wasserstein_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of fake − mean of real, unbounded (Arjovsky et al. 2017).

    The theory asks for a limit on the slope of the discriminator; spectral normalisation sets it.
    """
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """−(mean of fake), unbounded (Arjovsky et al. 2017)."""
    return -fake.mean()


def r1_penalty(logits: Tensor, frames: Tensor) -> Tensor:
    """Squared gradient of the discriminator at real videos (R1, Mescheder et al. 2018).

    It is the mean over the batch of ‖∂D/∂frames‖², where D is the mean of a video's logits. The
    paper's term is γ/2 times this. The result has a graph, so that the discriminator can be trained
    with it.

    Args:
        logits: [B, ...], the output of a discriminator for ``frames``, with its graph.
        frames: [B, T, 3, H, W], real videos, with ``requires_grad``.

    Returns:
        A scalar ≥ 0.
    """
    per_video = logits.reshape(len(logits), -1).mean(1)
    (slope,) = torch.autograd.grad(per_video.sum(), frames, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
