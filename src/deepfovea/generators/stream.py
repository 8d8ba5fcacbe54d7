"""Our own generator: one frame in, one frame out, told where it was sampled.

    samples, mask ──┬── motion: match the samples against the canvas, coarse to fine
                    │      │
    canvas, fine, hidden ──┴── carry along the motion ── gate by agreement with the samples
                                                          │
                   holes filled by pull-push ─────────────┤
                                                          │
                            small U-Net at half the low resolution ── ×8 pixel shuffle ── frame
                                                          │
                                       canvas, fine, hidden for the next frame

The explicit canvas makes an untrained network a working accumulator of samples: all learned
corrections start at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import InputError
from ..fill import backward_warp, pull_push
from ..fovea import reduce


@dataclass(frozen=True)
class StreamConfig:
    """The numbers of :class:`StreamNet`."""

    channels: int = 48
    deep_channels: int = 64
    hidden_channels: int = 32
    head_channels: int = 16
    scale: int = 4
    search_radii: tuple[int, int, int] = (4, 2, 1)
    """Displacements tried at 1/4, 1/2 and 1/1 of the low resolution, in pixels of that level."""
    gate_window: int = 9

    def __post_init__(self) -> None:
        sizes = (self.channels, self.deep_channels, self.hidden_channels, self.head_channels)
        if min(sizes) < 1 or self.scale < 2 or self.scale % 2:
            raise InputError(f"stream: received {self}; expected channels > 0 and an even scale")
        if min(self.search_radii) < 0 or self.gate_window < 1 or self.gate_window % 2 == 0:
            raise InputError(f"stream: received {self}; expected radii >= 0 and an odd window")


class StreamState(NamedTuple):
    """What one frame leaves for the next.

    color [B,3,h,w]: the canvas, every sample carried so far, else the network's own output;
    confidence [B,1,h,w] in [0, 1]: how far the canvas is a sample; fine [B,3,2h,2w]: the last
    frame at twice the low resolution; hidden [B,C,h/2,w/2]: features; flow [B,2,h,w]: the
    motion found last, low-resolution pixels, from this frame back to the one before.
    h and w are rounded up to a multiple of eight.
    """

    color: Tensor
    confidence: Tensor
    fine: Tensor
    hidden: Tensor
    flow: Tensor


class StreamNet(nn.Module):
    """Causal reconstruction and super-resolution by four, any resolution.

    ``frames, state = net(samples, mask, state)``: see :meth:`forward`.
    """

    frames_per_step = 1

    def __init__(self, config: StreamConfig = StreamConfig()) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.motion = Motion(config.search_radii)
        self.gate = Gate(config.gate_window)
        self.refine = Refine(config)

    def forward(
        self, samples: Tensor, mask: Tensor, state: StreamState | None = None
    ) -> tuple[Tensor, StreamState]:
        """Reconstruct T frames, one after the other.

        Args:
            samples: [B, T, 3, h, w] in [0, 1], 0 where not sampled.
            mask: [B, T, 1, h, w], 1 where sampled.
            state: what the frame before left; None starts a video.

        Returns:
            frames [B, T, 3, 4h, 4w], about [0, 1], not clamped; and the state.
        """
        height, width = samples.shape[-2:]
        pad = (0, -width % 8, 0, -height % 8)
        frames = []
        for t in range(samples.shape[1]):
            frame, state = self.step(F.pad(samples[:, t], pad), F.pad(mask[:, t], pad), state)
            frames.append(frame[..., : self.scale * height, : self.scale * width])
        if state is None or not frames:
            raise ValueError("received no frame (T = 0), expected at least one")
        return torch.stack(frames, 1), state

    def initial_state(self, samples: Tensor) -> StreamState:
        """The state before the first frame, for samples [B, 3, h, w]: empty, nothing trusted."""
        batch, _, height, width = samples.shape
        return StreamState(
            samples.new_zeros(batch, 3, height, width),
            samples.new_zeros(batch, 1, height, width),
            samples.new_zeros(batch, 3, 2 * height, 2 * width),
            samples.new_zeros(batch, self.config.hidden_channels, height // 2, width // 2),
            samples.new_zeros(batch, 2, height, width),
        )

    def step(
        self, samples: Tensor, mask: Tensor, state: StreamState | None
    ) -> tuple[Tensor, StreamState]:
        """One frame: samples [B,3,h,w], mask [B,1,h,w]; h and w multiples of eight."""
        if state is None:
            state = self.initial_state(samples)
        flow = self.motion(samples, mask, state)  # [B,2,h,w]
        carried = backward_warp(torch.cat([state.color, state.confidence], 1), flow)
        fine = backward_warp(state.fine, 2.0 * _resize(flow, 2.0))  # [B,3,2h,2w]
        hidden = backward_warp(state.hidden, 0.5 * F.avg_pool2d(flow, 2))  # [B,C,h/2,w/2]

        trust, error = self.gate(samples, mask, carried, flow)  # [B,1,h,w] each
        confidence = torch.maximum(mask, carried[:, 3:] * trust)
        color = samples + (1.0 - mask) * carried[:, :3]
        filled = pull_push(color, confidence)

        frame, hidden = self.refine(filled, confidence, mask, error, fine, hidden)
        color = torch.lerp(reduce(frame, self.scale), color, confidence)
        fine = F.avg_pool2d(frame, self.scale // 2)
        return frame, StreamState(color, confidence, fine, hidden, flow)


class Motion(nn.Module):
    """Where each pixel was one frame ago, found by matching the samples against the canvas.

    Only sampled pixels are compared, so holes mislead nobody. At each of three levels the
    displacement is the soft minimum of a local matching cost (as in the cost volumes of
    PWC-Net, Sun et al. 2018), plus what a few convolutions learn to add. Equal costs give
    zero: standing still is the default.
    """

    def __init__(self, radii: tuple[int, int, int]) -> None:
        super().__init__()
        coarse, middle, fine = radii
        self.coarse = Match(coarse, window=5, features=(48, 32), extra=2)
        self.middle = Match(middle, window=5, features=(32, 24))
        self.fine = Match(fine, window=7, features=None)
        self.stay = nn.Parameter(torch.tensor([60.0, -0.5]))

    def forward(self, samples: Tensor, mask: Tensor, state: StreamState) -> Tensor:
        """Flow [B,2,h,w] in low-resolution pixels, from this frame back to the canvas."""
        known4, weight4 = _cell_means(samples, mask, 4)
        flow = self.coarse(
            known4, weight4, F.avg_pool2d(state.color, 4), F.avg_pool2d(state.flow, 4) / 4.0
        )
        flow = 2.0 * _resize(flow, 2.0)
        known2, weight2 = _cell_means(samples, mask, 2)
        flow = flow + self.middle(
            known2, weight2, backward_warp(F.avg_pool2d(state.color, 2), flow), flow[:, :0]
        )
        flow = 2.0 * _resize(flow, 2.0)
        moved = backward_warp(state.color, flow)
        flow = flow + self.fine(samples, mask, moved, flow[:, :0])
        still_error = _local_error(samples, mask, state.color, 9)
        moved_error = _local_error(samples, mask, moved, 9)
        # The coarse motion is judged against none at all, where the samples are.
        moves = torch.sigmoid(self.stay[0] * (still_error - moved_error) - self.stay[1])
        kept: Tensor = flow * moves
        return kept


class Match(nn.Module):
    """Displacement in pixels of one level, from a local cost volume."""

    def __init__(
        self, radius: int, window: int, features: tuple[int, int] | None, extra: int = 0
    ) -> None:
        super().__init__()
        self.radius = radius
        self.window = window
        steps = torch.arange(-radius, radius + 1).float()
        side = len(steps)
        offsets = torch.stack([steps.repeat(side), steps.repeat_interleave(side)])  # x, y
        self.register_buffer("offsets", offsets, persistent=False)
        self.sharpness = nn.Parameter(torch.tensor(90.0).log())
        self.inertia = nn.Parameter(torch.tensor(0.02).log())
        self.learned: nn.Module | None = None
        if features is not None:
            first, second = features
            self.learned = nn.Sequential(
                nn.Conv2d(side * side + 1 + extra, first, 1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(first, second, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(second, second, 3, padding=1),
                nn.LeakyReLU(0.1),
                _zero(nn.Conv2d(second, 2, 3, padding=1)),
            )

    def forward(self, known: Tensor, weight: Tensor, reference: Tensor, extra: Tensor) -> Tensor:
        """Flow [B,2,h,w]; known [B,3,h,w] counts by weight [B,1,h,w]; extra [B,·,h,w]."""
        height, width = known.shape[-2:]
        r, side = self.radius, 2 * self.radius + 1
        padded = F.pad(reference, (r, r, r, r), mode="replicate")
        shifted = torch.stack(
            [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)],
            dim=1,
        )  # [B,N,3,h,w]
        cost = (shifted - known.unsqueeze(1)).abs().mean(2) * weight
        cost = _box_mean(cost, self.window)
        near = _box_mean(weight, self.window)
        cost = cost / (near + 0.01)
        offsets: Tensor = self.offsets  # type: ignore[assignment]
        inertia = self.inertia.exp() * offsets.square().sum(0)
        logits = -self.sharpness.exp() * cost - inertia[:, None, None]
        flow = torch.einsum("bnhw,cn->bchw", logits.softmax(1), offsets)
        if self.learned is not None:
            relative = 10.0 * (cost - cost.mean(1, keepdim=True))
            flow = flow + self.learned(torch.cat([relative, near, extra], 1))
        return flow


class Gate(nn.Module):
    """How far what was carried still holds: 1 where it agrees with the new samples around."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.tolerance = nn.Parameter(torch.tensor(0.15).log())
        self.learned = nn.Sequential(
            nn.Conv2d(6, 16, 1), nn.LeakyReLU(0.1), _zero(nn.Conv2d(16, 1, 1))
        )

    def forward(
        self, samples: Tensor, mask: Tensor, carried: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Trust in [0, 1] and the local error, [B,1,h,w] each."""
        color, confidence = carried[:, :3], carried[:, 3:]
        wide = _local_error(samples, mask, color, self.window)
        near = _local_error(samples, mask, color, 3)
        speed = flow.square().sum(1, keepdim=True).add(1e-6).sqrt()
        evidence = torch.cat(
            [
                10.0 * wide,
                10.0 * near,
                _box_mean(mask, 3),
                _box_mean(confidence, 3),
                confidence,
                speed.clamp(max=8.0),
            ],
            1,
        )
        doubt = (wide / self.tolerance.exp()).square().clamp(max=20.0)
        # exp(-doubt) as long as nothing is learned.
        return 1.0 / (1.0 + self.learned(evidence).exp() * doubt.expm1()), wide


class Refine(nn.Module):
    """The learned image model: a small U-Net at half the low resolution."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__()
        c, d, hidden = config.channels, config.deep_channels, config.hidden_channels
        inputs = 4 * (3 + 1 + 1 + 1) + 16 * 3 + hidden
        self.enter = nn.Conv2d(inputs, c, 1)
        self.first = nn.Conv2d(c, c, 3, padding=1)
        self.down = nn.Conv2d(c, d, 2, stride=2)
        self.deep = Residual(d)
        self.down_again = nn.Conv2d(d, d, 2, stride=2)
        self.deepest = Residual(d)
        self.up = nn.Conv2d(d, d, 1)
        self.up_again = nn.Conv2d(d, c, 1)
        self.last = Residual(c)
        self.keep = nn.Conv2d(c, hidden, 1)
        self.widen = nn.Conv2d(c, 4 * config.head_channels, 1)
        self.paint = _zero(nn.Conv2d(config.head_channels, 3 * config.scale**2, 3, padding=1))
        self.upscale = Upscale(config.scale)

    def forward(
        self,
        filled: Tensor,  # [B,3,h,w]
        confidence: Tensor,  # [B,1,h,w]
        mask: Tensor,  # [B,1,h,w]
        error: Tensor,  # [B,1,h,w]
        fine: Tensor,  # [B,3,2h,2w]
        hidden: Tensor,  # [B,C,h/2,w/2]
    ) -> tuple[Tensor, Tensor]:
        """Frame [B,3,4h,4w] and the next hidden features [B,C,h/2,w/2]."""
        low = torch.cat([filled - 0.5, confidence, mask, 10.0 * error], 1)
        detail = fine - _resize(filled, 2.0)
        x = torch.cat([F.pixel_unshuffle(low, 2), F.pixel_unshuffle(detail, 4), hidden], 1)
        x = _act(self.enter(x))
        half = x + _act(self.first(x))  # [B,c,h/2,w/2]
        quarter = self.deep(_act(self.down(half)))  # [B,d,h/4,w/4]
        eighth = self.deepest(_act(self.down_again(quarter)))  # [B,d,h/8,w/8]
        quarter = quarter + _resize(self.up(eighth), 2.0)
        half = self.last(_act(half + _resize(self.up_again(_act(quarter)), 2.0)))
        painted = self.paint(_act(F.pixel_shuffle(self.widen(half), 2)))  # [B,48,h,w]
        frame = F.pixel_shuffle(painted + self.upscale(filled), self.upscale.scale)
        # In mixed precision the convolutions answer in half; the canvas stays in full.
        return frame.to(filled.dtype), torch.tanh(self.keep(half))


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.two.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] to the same shape."""
        return _act(x + self.two(_act(self.one(x))))


class Upscale(nn.Module):
    """Bicubic interpolation as one convolution, so that it shares the head's pixel shuffle.

    [B,3,h,w] -> [B,3·s²,h,w]; after a pixel shuffle equal to ``torch``'s bicubic.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        # The response to a unit impulse holds the weights of every phase.
        impulse = torch.zeros(1, 1, 9, 9)
        impulse[..., 4, 4] = 1.0
        response = F.interpolate(impulse, scale_factor=scale, mode="bicubic", align_corners=False)
        phases = F.pixel_unshuffle(response, scale)[0, :, 2:7, 2:7].flip(-2, -1)
        self.register_buffer("kernel", phases.unsqueeze(1).repeat(3, 1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """[B,3,h,w] to [B,3·s²,h,w]."""
        kernel: Tensor = self.kernel  # type: ignore[assignment]
        return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _resize(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a square window, zeros beyond the border."""
    rows = F.avg_pool2d(x, (window, 1), 1, (window // 2, 0))
    return F.avg_pool2d(rows, (1, window), 1, (0, window // 2))


def _cell_means(samples: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean of the samples of each size × size cell, and how well it is known, in [0, 1]."""
    count = F.avg_pool2d(mask, size) * size**2
    total = F.avg_pool2d(samples, size) * size**2
    return total / count.clamp(min=1.0), count.clamp(max=1.0)


def _local_error(samples: Tensor, mask: Tensor, carried: Tensor, window: int) -> Tensor:
    """Root-mean-square difference over the samples of a window, [B,1,h,w]; 0 without samples."""
    error = ((carried - samples) * mask).square().mean(1, keepdim=True)
    return (_box_mean(error, window) / (_box_mean(mask, window) + 1e-3) + 1e-8).sqrt()
