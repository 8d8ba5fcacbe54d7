"""Our own generator: one frame in, one frame out; it knows which pixels were sampled.

    samples, mask ──┬── scene change: measure brightness; after a cut discard the canvas
                    ├── motion: match the filled frame with the canvas, coarse to fine
                    │      └── flow candidates: use others where they explain the samples better
                    │      │
    previous state ──┴── warp along the motion ── gate: trust what agrees with the samples
                                                          │
                  write the new samples into the canvas, fill holes by pull-push
                                                          │
                            small U-Net at half the low resolution ── ×8 pixel shuffle ── frame
                                                          │
                                      canvas, output, hidden state for the next frame

The canvas is an explicit memory of samples at *twice* the low resolution. A low-resolution frame is
close to point samples of the scene (bilinear ÷4 without antialiasing takes the middle 2×2 of each
4×4 pixels). Motion moves old samples to places between the pixels of the new frame, so the canvas
gathers detail that no single low-resolution frame has. All learned corrections start at zero, so
the untrained network already accumulates samples.
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
from ..shapes import check_shapes
from .flow_candidates import select_flow
from .given_motion import MIN_TRUST, TRUST_EXPONENT, disoccluded, given_motion_fit
from .layers import ERROR_GAIN, Residual, act, conv, full_precision, zero_init
from .motion import MotionEstimator, speed_of
from .scene_change import exposure_gain, scene_continuity

# Where a constant names no experiment of docs/research/log.md, none varies it.
MIN_CONFIDENCE = 1e-3
"""Lower bound of a confidence in [0, 1] when it divides a colour."""
INITIAL_TOLERANCE = 0.2
"""Root-mean-square colour difference in [0, 1] at which the trust of an untrained gate has fallen
to 1 / e. Experiment 3 tried 0.10, 0.15 and 0.25 without learning."""
NEAR_WINDOW, WIDE_WINDOW = 3, 5
"""Sides, in cells of 2×2 low-resolution pixels, of the squares over which the gate averages errors.
Experiment 3 chose 9 low-resolution pixels, which are about 5 cells."""
GATE_CHANNELS = 16
"""Channels of the gate's hidden layer."""
MIN_WEIGHT = 1e-3
"""Added to a mean weight in [0, 1] before it divides, so that an error without samples is 0."""
MIN_VARIANCE, MIN_SQUARED_ERROR = 1e-6, 1e-8
"""Lower bound of variances, and value added to mean squared errors, of colours in [0, 1], so that
their roots have a gradient at 0."""
MIN_DOUBT, MAX_DOUBT = 1e-4, 20.0
"""Range of the squared error divided by the squared tolerance. Trust is the exponential of its
negative; at the ends it is 1 or 0 in effect, and its logit is still finite."""
BICUBIC_A = -0.75
"""The free parameter of cubic convolution (Keys 1981), with the value of PyTorch and OpenCV."""


@dataclass(frozen=True)
class StreamConfig:
    """The numbers of :class:`StreamNet`.

    ``channels``, ``deep_channels`` and ``deepest_channels`` are those of the U-Net at 1/2, 1/4 and
    1/8 of the low resolution; ``hidden_channels`` those of the hidden state; ``head_channels``
    those of the last layer but one, at the low resolution; ``motion_channels`` those of the motion
    estimator at 1/8, 1/4 and 1/2; ``blend_channels`` those of the blending on the canvas, 0 for
    none.
    """

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
    """What the network remembers from one frame to the next.

    canvas [B,4,2h,2w]: the colour of every cell times its confidence, and the confidence in [0, 1];
    prev_output [B,3,2h,2w]: the last output frame, at the canvas' resolution; hidden_state
    [B,C,h/2,w/2]: features; flow [B,2,h,w]: the last motion, from that frame back to the one
    before, low-resolution pixels. h and w are rounded up to a multiple of eight.

    A *cell* is a pixel of the canvas. Cell (i, j) is the mean of the output pixels 2i+1, 2i+2 by
    2j+1, 2j+2, so that low-resolution sample (i, j) is exactly cell (2i, 2j).
    """

    canvas: Tensor
    prev_output: Tensor
    hidden_state: Tensor
    flow: Tensor


class StreamNet(nn.Module):
    """Reconstruction and super-resolution by four, frame by frame, at any resolution.

    Call it as ``frames, state = net(samples, mask, state)``, see :meth:`forward`.

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
            state: the state that the last call returned; None starts a video.
            motion: [B, T, 2, h, w], motion vectors of a renderer: (x, y) from each pixel to where
                it was one frame ago, low-resolution pixels. Wherever they explain the samples about
                as well as the motion that the network estimates, they replace it.
            jitter: [B, T, 2], the offset (x, y) of the sampling grid of each frame in
                low-resolution pixels, each in [-1, 1]: pixel (i, j) was sampled at column
                j + x and row i + y. None: the grid does not move, as published.

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
        """As :meth:`forward`, and also return the motion [B, T, 2, h, w] that was used."""
        check_shapes(samples, mask)
        batch, time, _, height, width = samples.shape
        optional = {
            "motion": (motion, [batch, time, 2, height, width]),
            "jitter": (jitter, [batch, time, 2]),
        }
        for name, (given, expected) in optional.items():
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
        """The state before the first frame, for samples [B, 3, h, w]: a canvas of confidence 0."""
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
        """Reconstruct one frame.

        The state and the frame lie on the output grid, which does not move, and are computed in the
        same way for every jitter, so that still scenes do not shimmer. Only for comparison with the
        samples is the canvas read at the places where these were taken.

        Args:
            samples: [B, 3, h, w]; h and w multiples of 8.
            mask: [B, 1, h, w].
            state: see :meth:`forward`.
            motion: [B, 2, h, w].
            jitter: [B, 2].

        Returns:
            The frame [B, 3, 4h, 4w] and the next state.
        """
        if state is None:
            state = self.initial_state(samples)
        offset = None if jitter is None else jitter[:, :, None, None]  # [B,2,1,1]
        known, confidence = torch.split(state.canvas, [3, 1], 1)
        reference = known + (1.0 - confidence) * state.prev_output  # [B,3,2h,2w]
        at_samples = _sample_canvas(torch.cat([reference, confidence], 1), offset)  # [B,4,h,w]
        color_there, confidence_there = torch.split(at_samples, [3, 1], 1)
        gain = exposure_gain(samples, mask, color_there).detach()  # [B,3,1,1]
        with full_precision(samples.device):
            flow = self._motion(
                samples,
                mask,
                gain * reference,
                gain * color_there,
                confidence_there,
                state.flow,
                offset,
            )
        # Without anything to compare with, the motion is 0.
        flow = flow * confidence.amax((2, 3), keepdim=True)
        if motion is not None:
            fit = given_motion_fit(motion, flow, samples, mask, gain * reference, offset)
            flow = flow + upsample_bilinear(fit, 8) * (motion - flow)
            hidden = disoccluded(flow, state.flow)  # [B,1,h,w]
        # Only its own losses train the motion; this keeps training on long clips stable.
        warp_flow = flow.detach()
        canvas_flow = 2.0 * upsample_bilinear(warp_flow, 2)
        canvas_flow = _from_sampling_grid(canvas_flow, jitter)  # [B,2,2h,2w]
        hidden_flow = 0.5 * downsample_2x(warp_flow)  # [B,2,h/2,w/2]
        warped = backward_warp(torch.cat([state.canvas, state.prev_output], 1), canvas_flow)
        hidden_state = backward_warp(state.hidden_state, hidden_flow)  # [B,C,h/2,w/2]
        known, confidence, prev_output = torch.split(warped, [3, 1, 3], 1)  # [B,·,2h,2w]
        known, prev_output = gain * known, gain * prev_output
        color = known / confidence.clamp(min=MIN_CONFIDENCE)
        # Interpolation between cells weights their colours by confidence.
        at_samples = _sample_canvas(torch.cat([known, confidence], 1), offset)  # [B,4,h,w]
        color_there, confidence_there = torch.split(at_samples, [3, 1], 1)
        color_there = color_there / confidence_there.clamp(min=MIN_CONFIDENCE)
        continuity = scene_continuity(samples, mask, color_there, confidence_there).detach()
        confidence = continuity * confidence
        prev_output, hidden_state = continuity * prev_output, continuity * hidden_state

        if motion is not None:
            hidden = _from_sampling_grid(upsample_bilinear(hidden, 2), jitter)  # [B,1,2h,2w]
            confidence = confidence * (1.0 - hidden)
        with full_precision(samples.device):
            trust, error = self.gate(
                samples,
                mask,
                color_there,
                continuity * confidence_there,
                confidence,
                continuity * warp_flow,  # after a cut, what was found is not motion
            )
            scattered = _scatter_to_canvas(torch.cat([samples, mask], 1), jitter)
        if motion is not None:
            exponent = 1.0 - (1.0 - TRUST_EXPONENT) * upsample_bilinear(fit, 4)
            trust = trust.clamp(min=MIN_TRUST) ** exponent
        confidence = confidence * _from_sampling_grid(upsample_bilinear(trust, 4), jitter)
        new_color, new = torch.split(scattered, [3, 1], 1)  # [B,·,2h,2w]
        near: float | Tensor = 1.0
        if jitter is not None:
            # A sample that lies off the centre of its cell replaces the cell only in part.
            beside = (2.0 * jitter - _whole_cells(jitter)).abs()[:, :, None, None]  # [B,2,1,1]
            near = (1.0 - beside).prod(1, keepdim=True)
        known = color * confidence * (1.0 - near * new)
        known = known + (1.0 - (1.0 - near) * confidence) * new_color
        # The U-Net receives how much each sample adds, not the mask: where nothing moves and all is
        # known already, the frame must not depend on which cells happen to be sampled.
        gained = new * (1.0 - confidence * _noise_power_kept(canvas_flow))  # [B,1,2h,2w]
        confidence = torch.maximum(confidence, new)

        canvas = torch.cat([known, confidence], 1)
        # Holes are filled on the sampling grid, where most of the known cells are.
        total = 4.0 * downsample_2x(_to_sampling_grid(canvas, jitter))
        total, weight = torch.split(total, [3, 1], 1)
        holes = pull_push(total / weight.clamp(min=MIN_CONFIDENCE), weight.clamp(max=1.0))
        filled = _from_sampling_grid(_interpolate_to_canvas(holes), jitter)
        fine = known + (1.0 - confidence) * filled  # [B,3,2h,2w]
        low = downsample_2x(fine)  # [B,3,h,w]
        if self.blend is not None:
            fine = self.blend(fine, confidence, gained, prev_output)

        low_gained = 4.0 * downsample_2x(gained)  # a sum, as one cell in four can be sampled
        frame, hidden_state = self.refine(
            fine, confidence, prev_output, low, low_gained, trust, error, hidden_state
        )
        prev_output = _downsample_to_canvas(frame)
        return frame, StreamState(canvas, prev_output, hidden_state, continuity * flow)

    def _motion(
        self,
        samples: Tensor,  # [B,3,h,w]
        mask: Tensor,  # [B,1,h,w]
        reference: Tensor,  # [B,3,2h,2w]
        low: Tensor,  # [B,3,h,w], the reference at the samples
        confidence: Tensor,  # [B,1,h,w]
        prev_flow: Tensor,  # [B,2,h,w]
        offset: Tensor | None,  # [B,2,1,1]
    ) -> Tensor:
        # A frame without any sample is replaced by the reference, which gives no motion.
        seen = mask.amax((2, 3), keepdim=True)
        filled = pull_push(samples, mask) + (1.0 - seen) * low
        found = self.motion(filled, mask, low, confidence, prev_flow)
        return select_flow(found, samples, mask, reference, prev_flow, offset)


def _sample_canvas(cells: Tensor, offset: Tensor | None) -> Tensor:
    """Read the canvas where the low-resolution pixels were sampled: [B,C,2h,2w] -> [B,C,h,w].

    ``offset`` [B,2,1,1] is the jitter, low-resolution pixels; None: no jitter.
    """
    if offset is not None:
        height, width = (side // 2 for side in cells.shape[-2:])
        return bilinear_sample(2.0 * (pixel_grid(cells, height, width) + offset), cells)
    # Reshaped instead of sliced, as slices with steps are slow in most engines.
    batch, channels, _, width = cells.shape
    rows = cells.reshape(batch, channels, -1, 2, width)[:, :, :, 0]
    return rows.reshape(batch, channels, -1, width // 2, 2)[..., 0]


def _whole_cells(jitter: Tensor) -> Tensor:
    """A jitter [B,2] in cells of the canvas, rounded to whole ones."""
    return torch.round(2.0 * jitter)


def _scatter_to_canvas(image: Tensor, jitter: Tensor | None = None) -> Tensor:
    """Put low-resolution pixels into the cells nearest to where they were sampled.

    [B,C,h,w] -> [B,C,2h,2w], zero in all other cells. Samples beyond the border are left out.
    """
    corner = torch.eye(image.shape[1], device=image.device, dtype=image.dtype)[..., None, None]
    cells = F.conv_transpose2d(image, corner, stride=2, output_padding=1)
    if jitter is None:
        return cells
    margin = 2  # cells: a jitter is at most one low-resolution pixel
    wide = F.pad(cells, (margin,) * 4)
    return _shift(wide, -_whole_cells(jitter))[..., margin:-margin, margin:-margin]


def _to_sampling_grid(cells: Tensor, jitter: Tensor | None) -> Tensor:
    """Shift the canvas so that the samples come to lie in cells (2i, 2j); [B,C,2h,2w] each."""
    return cells if jitter is None else _shift(cells, _whole_cells(jitter))


def _from_sampling_grid(cells: Tensor, jitter: Tensor | None) -> Tensor:
    """The inverse of :func:`_to_sampling_grid`."""
    return cells if jitter is None else _shift(cells, -_whole_cells(jitter))


def _shift(x: Tensor, by: Tensor) -> Tensor:
    """Read x [B,C,h,w] at the pixels p + by, the border repeated; by [B,2] are integers (x, y)."""
    height, width = x.shape[-2:]
    offset = by.long()
    rows = (torch.arange(height, device=x.device) + offset[:, 1:]).clamp(0, height - 1)  # [B,h]
    columns = (torch.arange(width, device=x.device) + offset[:, :1]).clamp(0, width - 1)  # [B,w]
    if len(x) == 1:  # the usual case when a video is played: copy whole rows
        return x.index_select(2, rows[0]).index_select(3, columns[0])
    # Not a loop over the batch: on a GPU, launching its kernels would cost more than the copies.
    x = x.gather(2, rows[:, None, :, None].expand(x.shape))
    return x.gather(3, columns[:, None, None].expand(x.shape))


def _interpolate_to_canvas(low: Tensor) -> Tensor:
    """Interpolate low-resolution pixels to the canvas: [B,C,h,w] -> [B,C,2h,2w]; cells (2i, 2j)
    keep their values."""
    height, width = low.shape[-2:]
    return bilinear_sample(pixel_grid(low, 2 * height, 2 * width) / 2.0, low)


def _noise_power_kept(flow: Tensor) -> Tensor:
    """The share of the power of white noise that a bilinear warp keeps: [B,2,h,w] -> [B,1,h,w].

    It is the sum of the four squared weights: 1 for a flow by whole pixels, a quarter half-way
    between pixels along both axes.
    """
    part = flow - flow.floor()
    return ((1.0 - part).square() + part.square()).prod(1, keepdim=True)


def _downsample_to_canvas(frame: Tensor) -> Tensor:
    """Reduce a frame to the cells of the canvas: [B,3,4h,4w] -> [B,3,2h,2w]."""
    return downsample_2x(frame, shift=1)


class Gate(nn.Module):
    """Estimates how far the warped canvas can be trusted, by its agreement with the samples."""

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
        """Compare the warped canvas with the samples.

        Args:
            samples: [B, 3, h, w].
            mask: [B, 1, h, w].
            color: [B, 3, h, w], the warped canvas at the samples.
            known: [B, 1, h, w], the confidence of ``color``.
            confidence: [B, 1, 2h, 2w], the confidence of the warped canvas.
            flow: [B, 2, h, w], low-resolution pixels.

        Returns:
            The trust in [0, 1], 1 where the canvas agrees with the samples, and the
            root-mean-square error in the neighbourhood, [B, 1, h/2, w/2] each.
        """
        # Errors are weighted by confidence, as a wrong guess is no evidence against the rest.
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
        # Before training, when ``learned`` is 0, this is exp(-doubt).
        return torch.sigmoid(learned - (doubt.exp() - 1.0).log()), _root_mean(near)


def _root_mean(sums: Tensor) -> Tensor:
    """Weighted root mean square error of a window; about 0 without samples."""
    return (sums[:, :1] / (sums[:, 1:2] + MIN_WEIGHT) + MIN_SQUARED_ERROR).sqrt()


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a square window, zeros beyond the border."""
    # Padded separately, as some engines have no pooling that counts its own padding.
    rows = F.avg_pool2d(F.pad(x, (window // 2,) * 4), (window, 1), 1)
    return F.avg_pool2d(rows, (1, window), 1)


class Blend(nn.Module):
    """Blends new samples with the warped and filled cells around them.

    A cell that was sampled in this frame is sharper than its neighbours, which were warped or
    filled. Without blending, the samples would stand out as dots. Each cell is mixed with two
    smoothed versions of the canvas, by learned amounts, and a learned residual is added. An
    untrained Blend changes nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = conv(9, channels)
        self.conv_out = zero_init(conv(channels, 5))

    def forward(
        self, fine: Tensor, confidence: Tensor, gained: Tensor, prev_output: Tensor
    ) -> Tensor:
        """Blend the cells of the canvas.

        Args:
            fine: [B, 3, 2h, 2w], the canvas with its holes filled.
            confidence: [B, 1, 2h, 2w] in [0, 1].
            gained: [B, 1, 2h, 2w], how much this frame's sample adds: 1 where a cell was sampled
                and not known before, 0 where it was not sampled or was known as well before.
            prev_output: [B, 3, 2h, 2w], the last output, warped to this frame.

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
    """Smooth with the weights 1, 2, 1 along both axes, the border repeated."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    for _ in range(2):  # avg_pool2d gives the same bits, but takes four times as long
        x = 0.25 * (x[..., :-1, :-1] + x[..., :-1, 1:] + x[..., 1:, :-1] + x[..., 1:, 1:])
    return x


class Refine(nn.Module):
    """The small U-Net, at half the low resolution, that makes the frame from the canvas."""

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
        """Return the frame [B,3,4h,4w] and the next hidden state [B,C,h/2,w/2]."""
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
        # In mixed precision the convolutions return half precision; frames and canvas are float32.
        # Only then, as a conversion to the same type is a copy in an exported graph.
        if frame.dtype != fine.dtype:
            frame = frame.to(fine.dtype)
        return frame, torch.tanh(self.to_hidden(half))


class SpaceToDepthStem(nn.Module):
    """Brings inputs of three resolutions to half the low resolution by one 1×1 convolution.

    The inputs would have to be unshuffled (space to depth) by four, two and one before the 1×1
    convolution. Three convolutions with strides compute the same without moving any data.

    Args:
        fine: channels of the input at twice the low resolution.
        low: channels of the input at the low resolution.
        half: channels of the input at half the low resolution.
        after: channels of the result.
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
    """Bicubic ×2 from the canvas to the output grid, as one grouped convolution.

    [B, 3, 2h, 2w] -> [B, 48, h, w]. After a pixel shuffle by four the result equals PyTorch's
    bicubic upsampling by two, shifted to the right and down by one output pixel.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A list is repeated instead of a tensor: Tensor.repeat on the device "meta", on which
        # checkpoints are built, would import SymPy, which takes a second.
        kernel = torch.tensor(3 * _bicubic_kernel()).view(48, 1, 6, 6)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """[B, 3, 2h, 2w] -> [B, 48, h, w]."""
        x = F.pad(cells, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(x, self.kernel, stride=2, groups=3)


def _bicubic_kernel() -> list[float]:
    """The weights by which 4×4 output pixels depend on the 6×6 cells around them.

    Cubic convolution (Keys 1981). Along each axis, the low-resolution pixel of these output pixels
    has the cells 2 and 3, and the output pixels lie at cells 1.25, 1.75, 2.25 and 2.75.
    """

    def cubic(x: float) -> float:
        a, x = BICUBIC_A, abs(x)
        if x <= 1.0:
            return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        return a * (((x - 5.0) * x + 8.0) * x - 4.0) if x < 2.0 else 0.0

    rows = [[cubic(place - cell) for cell in range(6)] for place in (1.25, 1.75, 2.25, 2.75)]
    return [y * x for by_y in rows for by_x in rows for y in by_y for x in by_x]
