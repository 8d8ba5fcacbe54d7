"""What a method takes: time, memory, parameters, for the published size of frame.

Each method is measured in a process of its own, so that no other one has warmed or filled its
memory. Unlike the quality figures these vary from run to run and from machine to machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..fovea import sample
from ..runtime.engine import CompiledGenerator, load_engine
from .methods import BASELINES, run_method
from .result import Cost

HEIGHT, WIDTH = 192, 256
SECONDS, CALLS = 5.0, 24


def measure(
    name: str, device: str = "cpu", engine: str = "torch", seconds: float = SECONDS
) -> Cost:
    """The cost of a method in a fresh process.

    Args:
        name: of a baseline, or name or path of a model.
        device: where it runs.
        engine: that runs it, if it is a model: see :func:`deepfovea.runtime.engine.load_engine`.
        seconds: how long calls are repeated; at least two after the first one, which does not
            count, nor does the second of an engine that compiles in it.

    Raises:
        RuntimeError: the process failed; with its last line.
    """
    code = "import sys; from deepfovea.evaluate import profile; profile.main(*sys.argv[1:])"
    # It is alone, even if this process is one of several that share the clips.
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    package = str(Path(__file__).parents[2])
    alone["PYTHONPATH"] = os.pathsep.join(filter(None, [package, alone.get("PYTHONPATH")]))
    alone["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-c", code, name, device, engine, str(seconds)],
        env=alone,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main(name: str, device: str, engine: str, seconds: str) -> None:
    """Measure here and print a line of JSON."""
    print(json.dumps(asdict(measure_here(name, device, engine, float(seconds)))))


def measure_here(name: str, device: str, engine: str, seconds: float) -> Cost:
    """As :func:`measure`, in this process."""
    method: Any = BASELINES[name] if name in BASELINES else load_engine(name, engine, device)
    compiles = isinstance(method, CompiledGenerator)
    network = method.network if compiles else method
    first = 2 if compiles else 1  # that counts
    group = getattr(method, "frames_per_step", 1)
    # Smooth shapes that move two pixels per frame: the baselines' optical flow has work to do.
    texture = torch.rand(3, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    still = F.interpolate(texture[None], (HEIGHT, WIDTH), mode="bicubic").clamp(0.0, 1.0)[0]
    low = torch.stack([still.roll(2 * t, -1) for t in range((CALLS + first) * group)])
    gaze = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).expand(1, len(low), 2)
    _, mask = sample(low[None], gaze)
    _reset_peak_memory(device)
    before = _memory_kib("VmRSS")
    frames = run_method(method, low, mask[0], device)
    wall: list[float] = []
    processor: list[float] = []
    while len(wall) < first + 2 or (sum(wall[first:]) < seconds and len(wall) < CALLS + first):
        start, begun = time.perf_counter(), time.process_time()
        for _ in range(group):
            next(frames)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - begun)
    if torch.device(device).type == "cuda":
        peak: float | None = torch.cuda.max_memory_allocated() / 2**20
    else:
        most = _memory_kib("VmHWM")
        peak = None if most is None or before is None else (most - before) / 2**10
    parameters = sum(p.numel() for p in network.parameters()) if hasattr(network, "scale") else 0
    wall_ms, processor_ms = (
        round(1e3 * statistics.median(times[first:]) / group, 1) for times in (wall, processor)
    )
    peak = None if peak is None else round(peak, 1)
    return Cost(wall_ms, processor_ms, peak, parameters, torch.get_num_threads())


def _reset_peak_memory(device: str) -> None:
    """What was freed so far goes back to the system; from here on the peak is counted anew."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):  # glibc on Linux
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _memory_kib(name: str) -> int | None:
    """Memory of this process in KiB by Linux's name for it, None elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return None
