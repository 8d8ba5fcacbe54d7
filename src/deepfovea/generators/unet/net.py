"""DeepFovea++ as published (2020) and its ancestor DeepFovea (2019): one recurrent U-Net.

Legend: B batch, T time, C channels, h, w the size of the input, s = ``model.scale``,
k = ``model.frames_per_step``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import InputError
from ..shapes import check_shapes
from .blocks import (
    RecurrentBlock,
    ResidualBlock,
    SuperResolutionBlock,
    TemporalBlock,
    elu,
    layer_norm,
    upsample,
)

_STRIDES = (16, 8, 4, 2, 1)
"""The decoder's levels are this many times smaller than the input; deepest first."""
_MULTIPLE = 2 * _STRIDES[0]
"""Height and width must be multiples of it, pixels: the encoder halves them five times."""
_MAX_X2_BLOCKS = 4
"""Most ×2 blocks that a configuration may ask for, so that a bad file of weights cannot fill the
memory. Our choice."""


@dataclass(frozen=True)
class UNetConfig:
    """All numbers of a :class:`RecurrentUNet`; ``UNetConfig(**json_object)`` reads it back.

    ``encoder`` and ``decoder`` are the channels of the levels, in the order in which they run.
    ``super_resolution`` are the channels of the ×2 blocks after them; the last block makes the
    frames. ``residual`` selects the blocks of 2020 (shortcuts, average pooling after every level);
    otherwise the blocks are those of 2019 (strided convolutions between the levels, no shortcuts).

    ``low_resolution_output`` adds a 1×1 convolution that makes low-resolution frames from the
    decoder's output; they are upsampled and added to the result, see
    :data:`PAPER_MULTIRESOLUTION`.

    The code of 2020 differs from its paper in the other five, see :data:`PAPER_RELEASED`.
    ``recurrent_activation`` follows the normalisation. ``norm_size`` is the one size of frames
    (h, w) for which the normalisation learns a gain and bias for every value of C×h×w; if it is
    empty, it learns one per channel, and any size can be given. ``final_deform_conv`` adds the
    third deformable convolution at the end. The first state is noise from
    N(0, ``first_state_std``²), drawn with ``first_state_seed`` and the same for every video; it is
    zero if the deviation is 0.
    """

    frames_per_step: int
    mask_input: bool
    residual: bool
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    super_resolution: tuple[int, ...]
    recurrent_activation: Literal["elu", "identity"] = "elu"
    norm_size: tuple[int, ...] = ()
    final_deform_conv: bool = True
    first_state_std: float = 0.0
    first_state_seed: int = 0
    low_resolution_output: bool = False

    def __post_init__(self) -> None:
        # JSON has lists instead of tuples.
        for name in ("encoder", "decoder", "super_resolution", "norm_size"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        levels = (len(self.encoder), len(self.decoder))
        if levels != (5, 4 if self.residual else 5):
            raise InputError(
                f"U-Net: received {levels[0]} encoder and {levels[1]} decoder levels; "
                "expected 5 and 4 with residual blocks, 5 and 5 without"
            )
        if self.frames_per_step < 1 or len(self.super_resolution) > _MAX_X2_BLOCKS:
            raise InputError(
                f"U-Net: received {self.frames_per_step} frames per step and "
                f"{len(self.super_resolution)} x2 blocks; expected at least 1 and at most "
                f"{_MAX_X2_BLOCKS}"
            )
        channels = 3 * self.frames_per_step
        if self.super_resolution and self.super_resolution[-1] != channels:
            raise InputError(
                f"U-Net: received {self.super_resolution[-1]} channels of the last block; "
                f"expected {channels}, three for each of {self.frames_per_step} frames"
            )
        sides = self.norm_size
        if len(sides) not in (0, 2) or any(side < _MULTIPLE or side % _MULTIPLE for side in sides):
            raise InputError(
                f"U-Net: received the size {sides} of frames for its normalisation; expected none, "
                f"or height and width, multiples of {_MULTIPLE}"
            )
        if self.low_resolution_output and not self.super_resolution:
            raise InputError(
                "U-Net: received a low-resolution output, but no x2 blocks; expected at least one "
                "block, as without one the output itself has the low resolution"
            )
        if not 0.0 <= self.first_state_std < float("inf") or self.first_state_seed < 0:
            raise InputError(
                f"U-Net: received a deviation {self.first_state_std} and a seed "
                f"{self.first_state_seed} of the first state; expected finite numbers from 0 on"
            )


PAPER = UNetConfig(
    frames_per_step=6,
    mask_input=False,
    residual=True,
    encoder=(32, 64, 128, 128, 128),
    decoder=(128, 128, 64, 16),
    super_resolution=(8, 18),
)
"""DeepFovea++ (Reich, Memmel, Grebe 2020): six frames at once, ×4, 2.29 M parameters.

The channels are those of their code, which without its normalisation has 2,290,362 parameters; the
paper's normalisation and third deformable convolution add 1,071.
"""

PAPER_RELEASED = replace(
    PAPER,
    recurrent_activation="identity",
    norm_size=(192, 256),
    final_deform_conv=False,
    first_state_std=0.02,
)
"""DeepFovea++ as its authors' code runs it on one GPU: 3.32 M parameters, frames of 192×256.

Their code differs from the paper in four points. It makes an activation for after the
normalisation, but never calls it. The normalisation learns a gain and bias for every value. The
third deformable convolution is missing, as the keyword that adds it is not passed. A video begins
with noise. On several GPUs, moreover, the normalisation loses its parameters and uses 1 and 0.
"""

PAPER_MULTIRESOLUTION = replace(PAPER, low_resolution_output=True)
"""The experiment with losses at two resolutions (branch Experimental of the published code).

A plain 1×1 convolution turns the decoder's output into six low-resolution frames. Training
compares them with the truth (L1, features of VGG-19). They are upsampled by four and added to the
output, so that the super-resolution blocks need to add only detail. See docs/published.md.
"""

DEEPFOVEA_2019 = UNetConfig(
    frames_per_step=1,
    mask_input=True,
    residual=False,
    encoder=(32, 64, 128, 128, 128),
    decoder=(128, 128, 128, 64, 32),
    super_resolution=(),
)
"""DeepFovea (Kaplanyan et al. 2019): one frame and its mask at a time, ×1, 3.17 M parameters.

What is known, from the README of the released graph and the names and sizes of its weights:
five encoder blocks of two 3×3 convolutions, the second with stride 2; two 3×3 convolutions at
the bottom; five decoder blocks of upsampling, a 3×3 convolution and a recurrent 3×3 convolution
that reads its own last output and is normalised with one gain and bias per channel; these
channels; ELU; four input channels; a last 1×1 convolution from 32 channels to RGB; 3,174,691
parameters in all, which this preset has exactly.

What we infer: the decoder concatenates the encoder features from before the strides (only this
gives that count), and the fourth input channel is the mask. What we chose, as nothing is known:
bilinear upsampling; mean and variance over C×H×W, before the activation; zero padding by one
pixel; no activation at the end.
"""


class UNetState(NamedTuple):
    """The recurrent tensors of DeepFovea++, deepest level first: [B, C, H/n, W/n], n = 16, 8, 4, 2.

    H and W are those of the input, rounded up to multiples of 32; C are the channels of the
    decoder.
    """

    r1: Tensor
    r2: Tensor
    r3: Tensor
    r4: Tensor


class DeepFoveaState(NamedTuple):
    """As :class:`UNetState`, for DeepFovea of 2019: [B, C, H/n, W/n], n = 16, 8, 4, 2, 1."""

    r1: Tensor
    r2: Tensor
    r3: Tensor
    r4: Tensor
    r5: Tensor


RecurrentState = UNetState | DeepFoveaState


class RecurrentUNet(nn.Module):
    """Recurrent U-Net: DeepFovea++ with :data:`PAPER`, its ancestor with :data:`DEEPFOVEA_2019`.

    Where paper and code of DeepFovea++ differ, :data:`PAPER` follows the paper: ELU before the
    recurrent tensor is stored, and a third deformable convolution at the end;
    :data:`PAPER_RELEASED` follows the code. Unlike in both, the recurrent state here is a value. It
    carries gradient, which the caller may detach; in the published code it is an attribute and
    always detached. With PAPER a video starts with zeros, and the normalisation learns one gain and
    bias per channel, so that the network works at any resolution.

    Attributes:
        config: all numbers.
        scale: s, output size over input size (4; ancestor 1).
        frames_per_step: k, the number of frames read and written together (6; ancestor 1).
        multiple: height and width are padded to multiples of it (32).
    """

    kind = "unet"
    config_type = UNetConfig
    multiple = _MULTIPLE
    suits_engines = False
    takes_jitter = False

    def __init__(self, config: UNetConfig = PAPER) -> None:
        super().__init__()
        self.config = config
        self.frames_per_step = config.frames_per_step
        self.scale = 2 ** len(config.super_resolution)
        self.makes_low_frames = config.low_resolution_output

        in_channels = config.frames_per_step * (4 if config.mask_input else 3)
        if config.residual:
            levels = pairwise((in_channels, *config.encoder))
            self.encoder = nn.ModuleList(ResidualBlock(i, o) for i, o in levels)
            *skips, running = config.encoder
        else:
            self.encoder = nn.ModuleList([_conv(in_channels, config.encoder[0])])
            for i, o in pairwise(config.encoder):
                self.encoder.append(nn.Sequential(_conv(i, i, stride=2), _conv(i, o)))
            running = config.encoder[-1]
            bottom = (_conv(running, running, stride) for stride in (2, 1, 1))
            self.encoder.append(nn.Sequential(*bottom))
            skips = list(config.encoder)

        decoder_block = TemporalBlock if config.residual else RecurrentBlock
        activation = elu if config.recurrent_activation == "elu" else nn.Identity()
        self.decoder = nn.ModuleList()
        for skip, out, stride in zip(reversed(skips), config.decoder, _STRIDES, strict=False):
            norm = layer_norm(out, [side // stride for side in config.norm_size])
            self.decoder.append(decoder_block(running, skip, out, norm, activation))
            running = out

        if config.low_resolution_output:
            self.to_low = nn.Conv2d(running, 3 * config.frames_per_step, 1)
        self.super_resolution = nn.ModuleList()
        for level, out in enumerate(config.super_resolution, start=1):
            final = config.final_deform_conv and level == len(config.super_resolution)
            self.super_resolution.append(SuperResolutionBlock(running + skips[0], out, final))
            running = out
        self.to_frames = (
            nn.Identity()
            if config.super_resolution
            else nn.Conv2d(running, 3 * config.frames_per_step, 1)
        )

    def forward(
        self,
        samples: Tensor,
        mask: Tensor,
        state: RecurrentState | None = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Reconstruct the next frames of a video.

        A clip in one call equals the same clip in several calls that pass the state on. Frames
        whose size is not a multiple of 32 are padded with unsampled pixels at the right and bottom,
        and the output is cropped.

        Args:
            samples: [B, T, 3, h, w] in [0, 1], 0 where not sampled.
            mask: [B, T, 1, h, w], 1 where sampled. **DeepFovea++ ignores it**, as published.
            state: the state that the last call returned; None starts a video.
            motion: must be None, as this network cannot use it.
            jitter: must be None, likewise.

        Returns:
            frames: [B, T, 3, s·h, s·w], about [0, 1], but not clamped, as training needs the
                gradient of values beyond.
            state: to be passed with the next frames. It carries gradient.

        Raises:
            InputError: T is not a multiple of k, motion or jitter was given, or the frames do not
                have the size ``config.norm_size``.
        """
        frames, _, _, state = self.forward_with_aux(samples, mask, state, motion, jitter)
        return frames, state

    def forward_with_aux(
        self,
        samples: Tensor,
        mask: Tensor,
        state: RecurrentState | None = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, None, Tensor | None, RecurrentState]:
        """As :meth:`forward`, and also return the low-resolution frames.

        Returns:
            The frames; None, as this network estimates no motion; the low-resolution frames
            [B, T, 3, h, w] if ``config.low_resolution_output`` is set, else None; and the state.
        """
        check_shapes(samples, mask)
        _refuse_motion_and_jitter(motion, jitter)
        length, (height, width) = samples.shape[1], samples.shape[-2:]
        if length == 0 or length % self.frames_per_step:
            raise InputError(
                f"U-Net: received {length} frames; "
                f"expected a positive multiple of {self.frames_per_step}"
            )
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        items, low_items = [], []
        for some, known in zip(
            torch.split(F.pad(samples, pad), self.frames_per_step, 1),
            torch.split(F.pad(mask, pad), self.frames_per_step, 1),
            strict=True,
        ):
            frames, low, state = self._step(some.flatten(1, 2), known.flatten(1, 2), state)
            items.append(frames.view(len(frames), -1, 3, *frames.shape[-2:]))
            if low is not None:
                low_items.append(low.view(len(low), -1, 3, *low.shape[-2:]))
        assert state is not None
        frames = torch.cat(items, 1)[..., : self.scale * height, : self.scale * width]
        low_frames = torch.cat(low_items, 1)[..., :height, :width] if low_items else None
        return frames, None, low_frames, state

    def initial_state(self, samples: Tensor) -> RecurrentState:
        """Make the state before the first step, for samples [B, 3·k, h, w].

        It is zero, or noise if ``config.first_state_std`` is not 0. The noise is the same in every
        call and for every video of the batch.
        """
        batch, (height, width) = len(samples), samples.shape[-2:]
        shapes = [
            (
                channels,
                -(-height // self.multiple) * self.multiple // stride,
                -(-width // self.multiple) * self.multiple // stride,
            )
            for channels, stride in zip(self.config.decoder, _STRIDES, strict=False)
        ]
        if self.config.first_state_std:
            draw = torch.Generator().manual_seed(self.config.first_state_seed)
            std = self.config.first_state_std
            noise = (std * torch.randn(shape, generator=draw, device="cpu") for shape in shapes)
            tensors = [n.to(samples).expand(batch, *n.shape).contiguous() for n in noise]
        else:
            tensors = [samples.new_zeros(batch, *shape) for shape in shapes]
        return UNetState(*tensors) if len(tensors) == 4 else DeepFoveaState(*tensors)

    def step(
        self,
        samples: Tensor,
        mask: Tensor,
        state: RecurrentState | None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Reconstruct k frames: [B,3·k,H,W], [B,k,H,W] -> [B,3·k,s·H,s·W]; H, W multiples of 32."""
        _refuse_motion_and_jitter(motion, jitter)
        frames, _, state = self._step(samples, mask, state)
        return frames, state

    def _step(
        self, samples: Tensor, mask: Tensor, state: RecurrentState | None
    ) -> tuple[Tensor, Tensor | None, RecurrentState]:
        """As :meth:`step`, and also return the low-resolution frames [B,3·k,H,W] or None."""
        height, width = samples.shape[-2:]
        if self.config.norm_size and self.config.norm_size != (height, width):
            sides = "x".join(map(str, self.config.norm_size))
            raise InputError(
                f"U-Net: received frames of {height}x{width} (multiples of {self.multiple}); this "
                f"network learned a normalisation for every value of frames of {sides}: crop or "
                "pad them to it"
            )
        if state is None:
            state = self.initial_state(samples)
        item = samples
        if self.config.mask_input:
            by_frame = torch.stack(torch.split(samples, 3, 1), 1), mask.unsqueeze(2)
            item = torch.cat(by_frame, 2).flatten(1, 2)
        # Channels last is several times faster on the CPU in the largest layers, which have few
        # channels.
        x = item.contiguous(memory_format=torch.channels_last)
        features = []
        for encode in self.encoder:
            x = encode(x)
            features.append(x)
        *skips, x = features  # 2020: at 1/2, 1/4, 1/8, 1/16 and 1/32; 2019: also at 1/1

        recurrent = []
        for decode, skip, r in zip(self.decoder, reversed(skips), state, strict=True):
            x, r = decode(upsample(x), skip, r)
            recurrent.append(r)

        if self.config.residual:
            x = upsample(x)  # from 1/2 to 1/1
        low = self.to_low(x) if self.config.low_resolution_output else None
        for block in self.super_resolution:
            skip = F.interpolate(skips[0], x.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat((x, skip), 1))
        frames = self.to_frames(x)
        if low is not None:
            size = frames.shape[-2:]
            frames = frames + F.interpolate(low, size, mode="bilinear", align_corners=False)
        return frames, low, type(state)(*recurrent)


def _refuse_motion_and_jitter(motion: Tensor | None, jitter: Tensor | None) -> None:
    for name, given in (("motion", motion), ("jitter", jitter)):
        if given is not None:
            raise InputError(
                f"U-Net: received {name}, which this network cannot use; expected None: "
                "leave it out, or take stream"
            )


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), nn.ELU())
