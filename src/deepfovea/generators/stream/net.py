"""Our own generator: one frame in, one frame out; it knows which pixels were sampled.

    samples, mask ──┬── scene change: how much brighter it has become; after a cut nothing is kept
                    ├── motion: match the filled frame against the canvas, coarse to fine
                    │      └── flow candidates: take others where they explain the samples better
                    │      │
    previous state ──┴── warp along the motion ── gate by agreement with the samples
                                                          │
                  the new samples laid over it, holes filled by pull-push
                                                          │
                            small U-Net at half the low resolution ── ×8 pixel shuffle ── frame
                                                          │
                                      canvas, output, hidden state for the next frame

The canvas is an explicit memory of samples at *twice* the low resolution. The low resolution is
close to point samples (bilinear ÷4 without antialiasing takes the middle 2×2 of each 4×4 pixels),
so samples that motion carries between its pixels show what a single low-resolution frame never
holds. All learned corrections start at zero, so the untrained network already accumulates samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import InputError
from ...fill import pull_push
from ...flow import backward_warp
from ...resample import bilinear_sample, downsample_2x, pixel_grid, upsample_bilinear
from ..shapes import refuse_other_shapes
from .flow_candidates import select_flow
from .given_motion import TRUST_EXPONENT, fit_of_given, newly_seen
from .layers import ERROR_GAIN, Residual, act, conv, zero_init
from .motion import MotionEstimator, speed_of
from .scene_change import exposure_gain, scene_continuity

# Where a constant names no experiment of docs/research/log.md, none varies it.
MIN_CONFIDENCE = 1e-3
"""Least confidence, 0 to 1, by which a colour times its confidence is divided."""
INITIAL_TOLERANCE = 0.2
"""Root-mean-square colour difference in [0, 1] at which the trust of an untrained gate has fallen
to 1 / e. Experiment 3 tried 0.10, 0.15 and 0.25 without learning."""
NEAR_WINDOW, WIDE_WINDOW = 3, 5
"""Cells (2×2 low-resolution pixels) on a side of the squares in which the gate judges. Experiment
3 chose 9 low-resolution pixels, which are about 5 cells."""
GATE_CHANNELS = 16
"""Of the one hidden layer of the gate."""
MIN_WEIGHT = 1e-3
"""Added to the weight of a square, 0 to 1, before it is divided by: no sample, no difference."""
MIN_VARIANCE, MIN_SQUARED_ERROR = 1e-6, 1e-8
"""Of colours in [0, 1], squared; so that roots have a gradient at 0."""
MIN_DOUBT, MAX_DOUBT = 1e-4, 20.0
"""Squared difference over squared tolerance at which trust, its negative exponential, is 1 or 0 in
float32 for all purposes; the logarithm of its odds stays finite."""
BICUBIC_A = -0.75
"""The free parameter of cubic convolution (Keys 1981), as PyTorch and OpenCV choose it."""


@dataclass(frozen=True)
class StreamConfig:
    """The numbers of :class:`StreamNet`: channels at 1/2, 1/4 and 1/8 of the low resolution, of
    the hidden state, of the head at the low resolution, of the motion at 1/8, 1/4 and 1/2, and of
    the blending on the canvas (0: none)."""

    channels: int = 48
    deep_channels: int = 64
    deepest_channels: int = 80
    hidden_channels: int = 32
    head_channels: int = 14
    motion_channels: tuple[int, int, int] = (48, 32, 24)
    blend_channels: int = 0

    def __post_init__(self) -> None:
        sizes = (self.channels, self.deep_channels, self.deepest_channels, self.hidden_channels)
        if min(*sizes, self.head_channels, *self.motion_channels) < 1:
            raise InputError(
                f"stream: received channels that are not positive in {self}; expected 1 or more"
            )


class StreamState(NamedTuple):
    """What one frame leaves for the next.

    canvas [B,4,2h,2w]: the colour of every sample carried so far times its confidence, and the
    confidence in [0, 1]; prev_output [B,3,2h,2w]: the last output frame on the canvas;
    hidden_state [B,C,h/2,w/2]: features; flow [B,2,h,w]: the motion found last, low-resolution
    pixels, from this frame back to the one before. h and w are rounded up to a multiple of eight.

    Cell (i, j) of the canvas is the mean of the output pixels 2i+1, 2i+2 by 2j+1, 2j+2, so that
    sample (i, j) of the low resolution is exactly its cell (2i, 2j).
    """

    canvas: Tensor
    prev_output: Tensor
    hidden_state: Tensor
    flow: Tensor


class StreamNet(nn.Module):
    """Causal reconstruction and super-resolution by four, any resolution.

    ``frames, state = net(samples, mask, state)``: see :meth:`forward`.

    Attributes:
        config: all numbers.
        scale, frames_per_step, multiple, suits_engines: see
            :class:`deepfovea.generators.Generator`.
    """

    kind = "stream"
    config_type = StreamConfig
    frames_per_step = 1
    scale = 4
    multiple = 8
    suits_engines = True
    takes_jitter = True
    makes_low_frames = False

    def __init__(self, config: StreamConfig = StreamConfig()) -> None:
        super().__init__()
        self.config = config
        self.motion = MotionEstimator(config.motion_channels)
        self.gate = Gate()
        self.blend = Blend(config.blend_channels) if config.blend_channels else None
        self.refine = Refine(config)

    def forward(
        self,
        samples: Tensor,
        mask: Tensor,
        state: StreamState | None = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, StreamState]:
        """Reconstruct T frames, one after the other.

        Args:
            samples: [B, T, 3, h, w] in [0, 1], 0 where not sampled.
            mask: [B, T, 1, h, w], 1 where sampled.
            state: what the frame before left; None starts a video.
            motion: [B, T, 2, h, w], where each pixel was one frame ago, in low-resolution pixels
                (x, y) from here to there: motion vectors of a renderer, used instead of the
                motion that the network finds wherever they explain the samples about as well.
            jitter: [B, T, 2], the offset (x, y) of the sampling grid of each frame in
                low-resolution pixels, each in [-1, 1]: pixel (i, j) was sampled at column
                j + x and row i + y. None: the grid rests, as published.

        Returns:
            frames [B, T, 3, 4h, 4w] on the output grid, whatever the jitter; about [0, 1], not
            clamped; and the state.

        Raises:
            InputError: T = 0; motion or jitter of another shape.
        """
        frames, _, _, state = self.forward_with_aux(samples, mask, state, motion, jitter)
        return frames, state

    def forward_with_aux(
        self,
        samples: Tensor,
        mask: Tensor,
        state: StreamState | None = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, None, StreamState]:
        """As :meth:`forward`, with the motion [B, T, 2, h, w] that each frame was warped along."""
        refuse_other_shapes(samples, mask)
        batch, time, _, height, width = samples.shape
        told = {
            "motion": (motion, [batch, time, 2, height, width]),
            "jitter": (jitter, [batch, time, 2]),
        }
        for name, (given, expected) in told.items():
            if given is not None and list(given.shape) != expected:
                raise InputError(
                    f"{name}: received the shape {list(given.shape)}, expected {expected}"
                )
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        frames, flows = [], []
        for t in range(samples.shape[1]):
            field = None if motion is None else F.pad(motion[:, t], pad, mode="replicate")
            offset = None if jitter is None else jitter[:, t]
            frame, state = self.step(
                F.pad(samples[:, t], pad), F.pad(mask[:, t], pad), state, field, offset
            )
            frames.append(frame[..., : self.scale * height, : self.scale * width])
            flows.append(state.flow[..., :height, :width])
        if state is None or not frames:
            raise InputError("received no frame (T = 0), expected at least one")
        return torch.stack(frames, 1), torch.stack(flows, 1), None, state

    def initial_state(self, samples: Tensor) -> StreamState:
        """The state before the first frame, for samples [B, 3, h, w]: empty, nothing trusted."""
        batch, (height, width) = len(samples), samples.shape[-2:]
        height, width = height + -height % self.multiple, width + -width % self.multiple
        return StreamState(
            samples.new_zeros(batch, 4, 2 * height, 2 * width),
            samples.new_zeros(batch, 3, 2 * height, 2 * width),
            samples.new_zeros(batch, self.config.hidden_channels, height // 2, width // 2),
            samples.new_zeros(batch, 2, height, width),
        )

    def step(
        self,
        samples: Tensor,
        mask: Tensor,
        state: StreamState | None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, StreamState]:
        """One frame: samples [B,3,h,w], mask [B,1,h,w], motion [B,2,h,w], jitter [B,2].

        h and w are multiples of 8. Everything that is carried lies on the output grid, and the
        frame is made there, in the same way for every phase of the jitter, so that scenes at rest
        do not shimmer. The canvas is compared with the samples at the places where they were taken.
        """
        if state is None:
            state = self.initial_state(samples)
        offset = None if jitter is None else jitter[:, :, None, None]  # [B,2,1,1]
        known, confidence = torch.split(state.canvas, [3, 1], 1)
        reference = known + (1.0 - confidence) * state.prev_output  # [B,3,2h,2w]
        at_samples = _at_samples(torch.cat([reference, confidence], 1), offset)  # [B,4,h,w]
        color_there, confidence_there = torch.split(at_samples, [3, 1], 1)
        gain = exposure_gain(samples, mask, color_there).detach()  # [B,3,1,1]
        flow = self._motion(
            samples,
            mask,
            gain * reference,
            gain * color_there,
            confidence_there,
            state.flow,
            offset,
        )
        # Nothing known before, no motion
        flow = flow * confidence.amax((2, 3), keepdim=True)
        if motion is not None:
            fit = fit_of_given(motion, flow, samples, mask, gain * reference, offset)
            flow = flow + upsample_bilinear(fit, 8) * (motion - flow)
            hidden = newly_seen(flow, state.flow)  # [B,1,h,w]
        # The motion is trained by its own losses alone, which keeps long clips stable.
        warp_flow = flow.detach()
        canvas_flow = _from_samples(2.0 * upsample_bilinear(warp_flow, 2), jitter)  # [B,2,2h,2w]
        hidden_flow = 0.5 * downsample_2x(warp_flow)  # [B,2,h/2,w/2]
        warped = backward_warp(torch.cat([state.canvas, state.prev_output], 1), canvas_flow)
        hidden_state = backward_warp(state.hidden_state, hidden_flow)  # [B,C,h/2,w/2]
        known, confidence, prev_output = torch.split(warped, [3, 1, 3], 1)  # [B,·,2h,2w]
        known, prev_output = gain * known, gain * prev_output
        color = known / confidence.clamp(min=MIN_CONFIDENCE)
        # Between cells, colours are weighted by what is known of them.
        at_samples = _at_samples(torch.cat([known, confidence], 1), offset)  # [B,4,h,w]
        color_there, confidence_there = torch.split(at_samples, [3, 1], 1)
        color_there = color_there / confidence_there.clamp(min=MIN_CONFIDENCE)
        continuity = scene_continuity(samples, mask, color_there, confidence_there).detach()
        confidence = continuity * confidence
        prev_output, hidden_state = continuity * prev_output, continuity * hidden_state

        if motion is not None:
            confidence = confidence * (1.0 - _from_samples(upsample_bilinear(hidden, 2), jitter))
        trust, error = self.gate(
            samples, mask, color_there, continuity * confidence_there, confidence, warp_flow
        )
        if motion is not None:
            trust = trust ** (1.0 - (1.0 - TRUST_EXPONENT) * upsample_bilinear(fit, 4))
        confidence = confidence * _from_samples(upsample_bilinear(trust, 4), jitter)
        new_color, new = torch.split(_on_canvas(torch.cat([samples, mask], 1), jitter), [3, 1], 1)
        near: float | Tensor = 1.0
        if jitter is not None:
            # A sample beside the middle of its cell replaces only in part what is known there.
            beside = (2.0 * jitter - _cells(jitter)).abs()[:, :, None, None]  # [B,2,1,1]
            near = (1.0 - beside).prod(1, keepdim=True)
        known = color * confidence * (1.0 - near * new)
        known = known + (1.0 - (1.0 - near) * confidence) * new_color
        # The U-Net sees how much each sample adds, not where samples fall: where everything rests
        # and is known, the frame must not depend on which cells happen to be sampled.
        gained = new * (1.0 - confidence * _detail_kept(canvas_flow))  # [B,1,2h,2w]
        confidence = torch.maximum(confidence, new)

        canvas = torch.cat([known, confidence], 1)
        # Holes are filled on the grid of the samples, where most of the known cells are.
        total = 4.0 * downsample_2x(_to_samples(canvas, jitter))
        total, weight = torch.split(total, [3, 1], 1)
        holes = pull_push(total / weight.clamp(min=MIN_CONFIDENCE), weight.clamp(max=1.0))
        filled = _from_samples(_between_samples(holes), jitter)
        fine = known + (1.0 - confidence) * filled  # [B,3,2h,2w]
        low = downsample_2x(fine)  # [B,3,h,w]
        if self.blend is not None:
            fine = self.blend(fine, confidence, gained, prev_output)

        low_gained = 4.0 * downsample_2x(gained)  # one cell in four is sampled: its own
        frame, hidden_state = self.refine(
            fine, confidence, prev_output, low, low_gained, trust, error, hidden_state
        )
        return frame, StreamState(canvas, _canvas_cells(frame), hidden_state, continuity * flow)

    def _motion(
        self,
        samples: Tensor,  # [B,3,h,w]
        mask: Tensor,  # [B,1,h,w]
        reference: Tensor,  # [B,3,2h,2w]
        low: Tensor,  # [B,3,h,w], the same where samples are
        confidence: Tensor,  # [B,1,h,w]
        prev_flow: Tensor,  # [B,2,h,w]
        offset: Tensor | None,  # [B,2,1,1]
    ) -> Tensor:
        # A frame without any sample shows no motion: it is compared with the one before itself.
        seen = mask.amax((2, 3), keepdim=True)
        filled = pull_push(samples, mask) + (1.0 - seen) * low
        found = self.motion(filled, mask, low, confidence, prev_flow)
        return select_flow(found, samples, mask, reference, prev_flow, offset)


def _at_samples(cells: Tensor, offset: Tensor | None) -> Tensor:
    """The canvas where low-resolution pixels were sampled: [B,C,2h,2w] -> [B,C,h,w].

    ``offset`` [B,2,1,1] is the jitter, low-resolution pixels.
    """
    if offset is not None:
        height, width = (side // 2 for side in cells.shape[-2:])
        return bilinear_sample(2.0 * (pixel_grid(cells, height, width) + offset), cells)
    # By whole rows, then by pairs: a slice with steps is slow in most engines.
    batch, channels, _, width = cells.shape
    rows = cells.reshape(batch, channels, -1, 2, width)[:, :, :, 0]
    return rows.reshape(batch, channels, -1, width // 2, 2)[..., 0]


def _cells(jitter: Tensor) -> Tensor:
    """The whole cells of the canvas that lie in a jitter [B,2]."""
    return torch.round(2.0 * jitter)


def _on_canvas(image: Tensor, jitter: Tensor | None = None) -> Tensor:
    """Low-resolution pixels in the cells nearest to where they were sampled, zero in the others.

    [B,C,h,w] -> [B,C,2h,2w]; what was sampled beyond the border is left out.
    """
    corner = torch.eye(image.shape[1], device=image.device, dtype=image.dtype)[..., None, None]
    cells = F.conv_transpose2d(image, corner, stride=2, output_padding=1)
    if jitter is None:
        return cells
    most = 2  # cells: a jitter is at most one low-resolution pixel
    wide = F.pad(cells, (most,) * 4)
    return _shift(wide, -_cells(jitter))[..., most:-most, most:-most]


def _to_samples(cells: Tensor, jitter: Tensor | None) -> Tensor:
    """The canvas moved so that the samples lie in the cells (2i, 2j); [B,C,2h,2w] each."""
    return cells if jitter is None else _shift(cells, _cells(jitter))


def _from_samples(cells: Tensor, jitter: Tensor | None) -> Tensor:
    """The other way: from the cells (2i, 2j) to those in which the samples lie."""
    return cells if jitter is None else _shift(cells, -_cells(jitter))


def _shift(x: Tensor, by: Tensor) -> Tensor:
    """x [B,C,h,w] at the pixels p + by, the border repeated; by [B,2] whole numbers (x, y)."""
    height, width = x.shape[-2:]
    offset = by.long()
    rows = (torch.arange(height, device=x.device) + offset[:, 1:]).clamp(0, height - 1)  # [B,h]
    columns = (torch.arange(width, device=x.device) + offset[:, :1]).clamp(0, width - 1)  # [B,w]
    if len(x) == 1:  # a copy of whole rows, as when a video is played
        return x.index_select(2, rows[0]).index_select(3, columns[0])
    # No loop over the batch: on a GPU its launches would cost more than the copies.
    x = x.gather(2, rows[:, None, :, None].expand(x.shape))
    return x.gather(3, columns[:, None, None].expand(x.shape))


def _between_samples(low: Tensor) -> Tensor:
    """Low-resolution pixels in their cells, interpolated in the others: [B,C,h,w] to the canvas."""
    height, width = low.shape[-2:]
    return bilinear_sample(pixel_grid(low, 2 * height, 2 * width) / 2.0, low)


def _detail_kept(flow: Tensor) -> Tensor:
    """How much of the power of white noise a bilinear warp keeps: flow [B,2,h,w] to [B,1,h,w].

    The sum of the four squared weights: 1 by whole pixels, a quarter half-way between them.
    """
    part = flow - flow.floor()
    return ((1.0 - part).square() + part.square()).prod(1, keepdim=True)


def _canvas_cells(frame: Tensor) -> Tensor:
    """A frame as the canvas would hold it: [B,3,4h,4w] -> [B,3,2h,2w]."""
    return downsample_2x(frame, shift=1)


class Gate(nn.Module):
    """How far what was carried is still valid: 1 where it agrees with the new samples around."""

    def __init__(self) -> None:
        super().__init__()
        self.tolerance = nn.Parameter(torch.tensor(math.log(INITIAL_TOLERANCE)))
        self.conv_in = conv(8, GATE_CHANNELS)
        self.conv_out = zero_init(conv(GATE_CHANNELS, 1))

    def forward(
        self,
        samples: Tensor,
        mask: Tensor,
        color: Tensor,
        known: Tensor,
        confidence: Tensor,
        flow: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Judge what was carried.

        Args:
            samples: [B, 3, h, w].
            mask: [B, 1, h, w].
            color: [B, 3, h, w], carried to where the samples are.
            known: [B, 1, h, w], its confidence there.
            confidence: [B, 1, 2h, 2w] of what was carried, on the canvas.
            flow: [B, 2, h, w].

        Returns:
            Trust in [0, 1] and the root-mean-square error around, [B, 1, h/2, w/2] each.
        """
        # Where nothing certain was carried, a difference says nothing about what was carried.
        weight = mask * known
        square = (color - samples).square().mean(1, keepdim=True) * weight
        gray = samples.mean(1, keepdim=True) * mask
        cells = downsample_2x(torch.cat([square, weight, gray, gray * gray, mask], 1))
        near, wide = _box_mean(cells, NEAR_WINDOW), _box_mean(cells, WIDE_WINDOW)
        sampled = wide[:, 4:] + MIN_WEIGHT
        mean = wide[:, 2:3] / sampled
        contrast = (wide[:, 3:4] / sampled - mean * mean).clamp(min=MIN_VARIANCE).sqrt()
        evidence = [
            ERROR_GAIN * _root_mean(cells),
            ERROR_GAIN * _root_mean(near),
            ERROR_GAIN * _root_mean(wide),
            near[:, 1:2],
            downsample_2x(downsample_2x(confidence)),
            downsample_2x(speed_of(flow)),
            ERROR_GAIN * contrast,
            cells[:, 4:],
        ]
        learned = self.conv_out(act(self.conv_in(torch.cat(evidence, 1))))
        doubt = (_root_mean(wide) / self.tolerance.exp()).square().clamp(MIN_DOUBT, MAX_DOUBT)
        # exp(-doubt) as long as nothing is learned.
        return torch.sigmoid(learned - (doubt.exp() - 1.0).log()), _root_mean(near)


def _root_mean(sums: Tensor) -> Tensor:
    """Weighted root mean square of a window; 0 without evidence."""
    return (sums[:, :1] / (sums[:, 1:2] + MIN_WEIGHT) + MIN_SQUARED_ERROR).sqrt()


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a square window, zeros beyond the border."""
    # Padded before: some engines know no pooling that counts its own padding.
    rows = F.avg_pool2d(F.pad(x, (window // 2,) * 4), (window, 1), 1)
    return F.avg_pool2d(rows, (1, window), 1)


class Blend(nn.Module):
    """Blends fresh samples and carried cells into one picture on the canvas.

    A cell that was sampled just now is sharper than its neighbours, which were carried or filled.
    Without blending, the samples would stand out as dots. Each cell is moved towards two smoothed
    versions of the canvas, by amounts learned from its surroundings, and a learned residual is
    added. Before training nothing is changed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = conv(9, channels)
        self.conv_out = zero_init(conv(channels, 5))

    def forward(
        self, fine: Tensor, confidence: Tensor, gained: Tensor, prev_output: Tensor
    ) -> Tensor:
        """Blend what lies on the canvas.

        Args:
            fine: [B, 3, 2h, 2w], samples, what was carried, and what fills the holes.
            confidence: [B, 1, 2h, 2w] in [0, 1].
            gained: [B, 1, 2h, 2w], 1 where a cell was sampled in this frame and was not known
                before, 0 where it was not sampled, or was known as well.
            prev_output: [B, 3, 2h, 2w], the frame before, carried to here.

        Returns:
            [B, 3, 2h, 2w].
        """
        near = _smooth(fine)
        wide = _smooth(_smooth(near))
        stale = (prev_output - fine).mean(1, keepdim=True)
        x = torch.cat([fine - near, near - wide, stale, confidence, gained], 1)
        x = self.conv_out(act(self.conv_in(x)))
        to_near, to_wide, residual = torch.split(x, [1, 1, 3], 1)
        return fine + to_near * (near - fine) + to_wide * (wide - fine) + residual


def _smooth(x: Tensor) -> Tensor:
    """Means weighted 1, 2, 1 along both axes, the border repeated."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    for _ in range(2):  # slices: avg_pool2d gives the same bits in four times the time
        x = 0.25 * (x[..., :-1, :-1] + x[..., :-1, 1:] + x[..., 1:, :-1] + x[..., 1:, 1:])
    return x


class Refine(nn.Module):
    """The learned image model: a small U-Net at half the low resolution."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__()
        c, d, e = config.channels, config.deep_channels, config.deepest_channels
        self.conv_in = SpaceToDepthStem(3 + 3 + 1, 3 + 1, 2 + config.hidden_channels, c)
        self.conv1 = conv(c, c)
        self.down1 = nn.Conv2d(c, d, 2, stride=2)
        self.block2 = Residual(d)
        self.down2 = nn.Conv2d(d, e, 2, stride=2)
        self.block3 = Residual(e)
        self.up2 = conv(e, d, 1)
        self.up1 = conv(d, c, 1)
        self.block1 = Residual(c)
        self.to_hidden = conv(c, config.hidden_channels, 1)
        self.to_head = conv(c, 4 * config.head_channels, 1)
        self.to_rgb = zero_init(conv(config.head_channels, 48))
        self.upsample = BicubicUpsample()

    def forward(
        self,
        fine: Tensor,  # [B,3,2h,2w]
        confidence: Tensor,  # [B,1,2h,2w]
        prev_output: Tensor,  # [B,3,2h,2w]
        low: Tensor,  # [B,3,h,w]
        gained: Tensor,  # [B,1,h,w]
        trust: Tensor,  # [B,1,h/2,w/2]
        error: Tensor,  # [B,1,h/2,w/2]
        hidden_state: Tensor,  # [B,C,h/2,w/2]
    ) -> tuple[Tensor, Tensor]:
        """Frame [B,3,4h,4w] and the next hidden features [B,C,h/2,w/2]."""
        x = act(
            self.conv_in(
                torch.cat([fine - 0.5, prev_output - fine, confidence], 1),
                torch.cat([gained, low - 0.5], 1),
                torch.cat([ERROR_GAIN * error, trust, hidden_state], 1),
            )
        )
        half = x + act(self.conv1(x))  # [B,c,h/2,w/2]
        quarter = self.block2(act(self.down1(half)))  # [B,d,h/4,w/4]
        eighth = self.block3(act(self.down2(quarter)))  # [B,e,h/8,w/8]
        quarter = quarter + upsample_bilinear(self.up2(eighth), 2)
        half = self.block1(act(half + upsample_bilinear(self.up1(act(quarter)), 2)))
        residual = self.to_rgb(act(F.pixel_shuffle(self.to_head(half), 2)))  # [B,48,h,w]
        frame = F.pixel_shuffle(residual + self.upsample(fine), 4)
        # In mixed precision the convolutions answer in half; the canvas stays in full.
        return frame.to(fine.dtype), torch.tanh(self.to_hidden(half))


class SpaceToDepthStem(nn.Module):
    """Canvas, low resolution and half of it in one 1×1 convolution at half the low resolution.

    The weights are those of pixel unshuffles by four and by two and a 1×1 convolution of
    everything; computed as convolutions with strides, nothing has to be put in that order.

    Args:
        fine: channels at twice the low resolution.
        low: at the low resolution.
        half: at half of it.
        after: of the result.
    """

    def __init__(self, fine: int, low: int, half: int, after: int) -> None:
        super().__init__()
        self.parts = [16 * fine, 4 * low, half]
        layer = nn.Conv2d(sum(self.parts), after, 1)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, fine: Tensor, low: Tensor, half: Tensor) -> Tensor:
        """[B, fine, 2h, 2w], [B, low, h, w] and [B, half, h/2, w/2] to [B, after, h/2, w/2]."""
        kernels = torch.split(self.weight, self.parts, 1)
        by_four = kernels[0].reshape(len(self.weight), -1, 4, 4)
        by_two = kernels[1].reshape(len(self.weight), -1, 2, 2)
        x = F.conv2d(half, kernels[2], self.bias) + F.conv2d(low, by_two, stride=2)
        return x + F.conv2d(fine, by_four, stride=4)


class BicubicUpsample(nn.Module):
    """The canvas as a frame: bicubic ×2 and the shift by a pixel, as one grouped convolution.

    [B, 3, 2h, 2w] -> [B, 48, h, w]; after a pixel shuffle by four equal to torch's bicubic,
    shifted to the right and down by one pixel.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        # One list three times: Tensor.repeat on the device "meta", where checkpoints are built,
        # would import SymPy, for a second.
        kernel = torch.tensor(3 * _bicubic_kernel()).view(48, 1, 6, 6)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """[B, 3, 2h, 2w] -> [B, 48, h, w]."""
        x = F.pad(cells, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(x, self.kernel, stride=2, groups=3)


def _bicubic_kernel() -> list[float]:
    """The weights of the 6×6 cells around a low-resolution pixel for its 4×4 output pixels.

    Cubic convolution (Keys 1981). Cells 2 and 3 are the
    pixel's own, and its output pixels lie at cells 1.25, 1.75, 2.25 and 2.75.
    """

    def cubic(x: float) -> float:
        a, x = BICUBIC_A, abs(x)
        if x <= 1.0:
            return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        return a * (((x - 5.0) * x + 8.0) * x - 4.0) if x < 2.0 else 0.0

    rows = [[cubic(place - cell) for cell in range(6)] for place in (1.25, 1.75, 2.25, 2.75)]
    return [y * x for by_y in rows for by_x in rows for y in by_y for x in by_x]
