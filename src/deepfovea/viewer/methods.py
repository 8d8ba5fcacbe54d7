"""Other methods beside the reconstruction: what each makes of the same samples."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SCALE, InputError
from ..files_to_files import pad
from ..fill import Canvas, accumulate
from ..fovea import downsample
from ..generators.stream.motion import RIGIDITY, lucas_kanade_step
from ..reconstructor import Reconstructor
from ..resample import downsample_2x, upsample_bicubic, upsample_bilinear
from ..runtime.engine import Engine
from .batcher import PendingFrame
from .request import ACCUMULATED, MODEL_PREFIX

STEPS = (3, 2, 1)
"""Of the matcher, at 1/8, 1/4 and 1/2 of the low resolution: as in ``stream``."""


class OtherMethods:
    """The methods that are shown beside the reconstruction, each with its own state.

    A method is told the jitter if it takes it; else it samples a grid that rests, as in
    ``evaluate``. All of them take the pixels of the same mask. A method that is no longer shown is
    forgotten, and begins anew when it is shown again.

    Args:
        load: gives the model of a name.
    """

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load = load
        self._running: dict[str, Reconstructor] = {}

    def reset(self) -> None:
        """Forget all earlier frames."""
        for method in self._running.values():
            method.reset()

    def open(self, views: Collection[str], model: str, scale: int) -> bool:
        """Have the methods of some views ready, except ``model``, the one that is reconstructed by.

        Returns:
            Whether there is a new one. It is fair only if all begin anew together.

        Raises:
            InputError: a method that needs several frames at once, or enlarges by another factor.
        """
        wanted = {view for view in views if view == ACCUMULATED or view.startswith(MODEL_PREFIX)}
        wanted.discard(MODEL_PREFIX + model)
        for view in self._running.keys() - wanted:
            del self._running[view]
        new = sorted(wanted - self._running.keys())
        for view in new:
            name = view.removeprefix(MODEL_PREFIX)
            method = Reconstructor(
                Engine(Accumulator()) if view == ACCUMULATED else self._load(name)  # type: ignore[arg-type]
            )
            if method.engine.frames_per_step != 1 or method.engine.scale != scale:
                raise InputError(
                    f"{name}: received it beside {model}; expected a method that takes one frame "
                    f"at a time and enlarges by {scale}: choose {name} as the model"
                )
            self._running[view] = method
        return bool(new)

    def frames(self, pending: PendingFrame, mask: Tensor) -> dict[str, Tensor]:
        """A frame [3, H, W] in [0, 1] of each, by its view, from the pixels of a mask [1, h, w]."""
        made = {}
        for view, method in self._running.items():
            told = pending.jitter if method.engine.network.takes_jitter else None
            low = pending.low
            if told != pending.jitter:
                low = downsample(pad(pending.image, SCALE), SCALE)
            frame = method(torch.cat([low, mask.cpu()]), jitter=told)
            assert isinstance(frame, Tensor)
            height, width = pending.image.shape[-2:]
            made[view] = frame[..., :height, :width].cpu()
        return made


@dataclass(frozen=True)
class NoConfig:
    """An accumulator has no parameters."""


class Accumulator(nn.Module):
    """:func:`deepfovea.fill.accumulate` as a generator: samples carried along motion, then ×4.

    The motion is found by Lucas and Kanade's method from coarse to fine, which needs neither
    OpenCV nor training, so that it runs in a browser, too.
    """

    scale, frames_per_step, multiple = SCALE, 1, 8
    suits_engines = takes_jitter = makes_low_frames = False
    config = NoConfig()

    def initial_state(self, samples: Tensor) -> Canvas:
        """Nothing is known: zeros of the size of samples [B, 3, h, w]."""
        return Canvas(torch.zeros_like(samples), torch.zeros_like(samples[:, :1]))

    def step(self, samples: Tensor, mask: Tensor, state: Canvas) -> tuple[Tensor, Canvas]:
        """One frame: samples [B,3,h,w] and mask [B,1,h,w] to a frame [B,3,4h,4w] and the state.

        h and w are multiples of 8.
        """
        frames, after = accumulate(samples[:, None], mask[:, None], state, flow=lucas_kanade)
        return upsample_bicubic(frames[:, 0], SCALE), after

    def forward(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Canvas | None = None,
        motion: None = None,
        jitter: None = None,
    ) -> tuple[Tensor, Canvas]:
        """As :class:`deepfovea.generators.Generator`; takes neither motion nor jitter."""
        height, width = samples.shape[-2:]
        sides = (0, -width % self.multiple, 0, -height % self.multiple)
        samples, mask = F.pad(samples, sides), F.pad(mask, sides)
        state = self.initial_state(samples[:, 0]) if state is None else state
        frames = []
        for t in range(samples.shape[1]):
            frame, state = self.step(samples[:, t], mask[:, t], state)
            frames.append(frame[..., : SCALE * height, : SCALE * width])
        return torch.stack(frames, 1), state


def lucas_kanade(previous: Tensor, current: Tensor) -> Tensor:
    """Backward flow [B, 2, h, w] between frames [B, 3, h, w], pixels; h and w multiples of 8."""
    pairs = []
    for _ in STEPS:
        previous, current = downsample_2x(previous), downsample_2x(current)
        pairs.append((previous, current))
    flow = torch.zeros_like(current[:, :2])
    rigidity = torch.tensor(RIGIDITY)
    for level, (steps, (before, now)) in enumerate(zip(STEPS, reversed(pairs), strict=True)):
        if level:
            flow = 2.0 * upsample_bilinear(flow, 2)
        for _ in range(steps):
            weight = torch.ones_like(now[:, :1])
            flow = flow + lucas_kanade_step(now, before, weight, flow, rigidity)[0]
    return 2.0 * upsample_bilinear(flow, 2)
