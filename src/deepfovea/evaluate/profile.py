"""The cost of a method: time, memory and parameters, for the published frame size.

Each method is measured in a process of its own, so that other methods do not influence it. Unlike
figures of quality, these vary from run to run and from machine to machine.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F

from ..fovea import jitter_sequence, sample
from ..runtime.engine import load_engine
from ..runtime.fresh_process import call_in_fresh_process, peak_memory_mib, reset_peak_memory
from .methods import BASELINES, jitter_of, run_method
from .result import Cost

HEIGHT, WIDTH = 192, 256
"""The published low resolution, pixels."""
SECONDS, CALLS = 5.0, 24
"""A measurement ends after so many seconds or calls, whichever comes first. Our choice."""


def measure(
    name: str, device: str = "cpu", engine: str = "torch", seconds: float = SECONDS
) -> Cost:
    """Measure the cost of a method in a new process.

    Args:
        name: the name of a baseline, or the name or path of a model.
        device: the device of the method.
        engine: the engine of a model: see :func:`deepfovea.runtime.engine.load_engine`.
        seconds: how long calls are repeated, but at least twice. The first call does not count, nor
            does the second one of an engine that compiles in it.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    return Cost(**call_in_fresh_process(measure_here, name, device, engine, seconds))


def measure_here(name: str, device: str, engine: str, seconds: float) -> dict[str, Any]:
    """As :func:`measure`, in this process and as a dictionary."""
    model = None
    if name not in BASELINES:
        model = load_engine(name, engine, device, in_background=False)
    method = model or BASELINES[name]
    first = 2 if model and model.name != "torch" else 1  # number of the first call that counts
    group = model.frames_per_step if model else 1
    # Smooth shapes that move two pixels per frame, so that optical flow has to be found.
    texture = torch.rand(3, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    still = F.interpolate(texture[None], (HEIGHT, WIDTH), mode="bicubic").clamp(0.0, 1.0)[0]
    low = torch.stack([still.roll(2 * t, -1) for t in range((CALLS + first) * group)])
    gaze = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).expand(1, len(low), 2)
    _, mask = sample(low[None], gaze)
    before = reset_peak_memory(device)
    jitter = jitter_sequence(jitter_of(method, "none"), 0, len(low))
    frames = run_method(method, low, mask[0], device, jitter)
    wall: list[float] = []
    processor: list[float] = []
    while len(wall) < first + 2 or (sum(wall[first:]) < seconds and len(wall) < CALLS + first):
        start, begun = time.perf_counter(), time.process_time()
        for _ in range(group):
            next(frames)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - begun)
    peak = None if before is None else peak_memory_mib(device)
    if peak is not None and before is not None:
        peak = round(peak - before, 1)
    parameters = sum(p.numel() for p in model.network.parameters()) if model else 0
    wall_ms, processor_ms = (
        round(1e3 * statistics.median(times[first:]) / group, 1) for times in (wall, processor)
    )
    return asdict(Cost(wall_ms, processor_ms, peak, parameters, torch.get_num_threads()))
