"""What is compared: generators, and three yardsticks that need no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..config import SCALE
from ..fill import accumulate, pull_push
from ..flow import dis_flow
from ..resample import upsample_bicubic
from ..runtime.engine import Engine

Method = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""(samples [B,T,3,h,w], mask [B,T,1,h,w], state) -> frames [B,T,3,H,W], state."""


def fill_frames(samples: Tensor, mask: Tensor, state: None = None) -> tuple[Tensor, None]:
    """Baseline ``fill``: holes filled frame by frame, then bicubic ×4."""
    return upsample_bicubic(pull_push(samples, mask), SCALE), None


def accumulate_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Baseline ``accumulate``: samples carried along DIS flow or none, then bicubic ×4."""
    frames, state = accumulate(samples, mask, state, flow=dis_flow)
    return upsample_bicubic(frames, SCALE), state


BASELINES: dict[str, Method | None] = {
    "fill": fill_frames,
    "accumulate": accumulate_frames,
    "bicubic-all": None,  # sees all low-resolution pixels, not the samples
}


def takes_jitter(method: Method | None) -> bool:
    """Whether a method can be told that the sampling grid is shifted."""
    return isinstance(method, Engine) and method.network.takes_jitter


def run_method(
    method: Method | None,
    low: Tensor,
    mask: Tensor,
    device: str | torch.device = "cpu",
    jitter: Tensor | None = None,
) -> Iterator[Tensor]:
    """A clip through a method, in constant memory, the state carried.

    Args:
        method: None is ``bicubic-all``.
        low: [T, 3, h, w], all low-resolution pixels.
        mask: [T, 1, h, w], 1 where sampled.
        device: where the method runs.
        jitter: [T, 2], see :class:`deepfovea.generators.Generator`; for methods that take it.

    Yields:
        T frames [3, H, W] on the CPU, as the method left them, which may be beyond [0, 1]. A
        last group of frames that is too short for the method is filled with its last one.
    """
    if method is None:
        for frame in low:
            yield upsample_bicubic(frame.to(device), SCALE).cpu()
        return
    group, state = method.frames_per_step if isinstance(method, Engine) else 1, None
    for start in range(0, len(low), group):
        here, known = (x[start : start + group] for x in (low, mask))
        count = len(here)
        if count < group:
            here, known = (
                torch.cat([x, x[-1:].expand(group - count, -1, -1, -1)]) for x in (here, known)
            )
        samples, known = (here * known)[None].to(device), known[None].to(device)
        with torch.inference_mode():
            if jitter is None:
                frames, state = method(samples, known, state)
            else:
                shifts = jitter[None, start : start + group].to(device)
                frames, state = method(samples, known, state, None, shifts)  # type: ignore[call-arg]
        yield from frames[0, :count].cpu()
