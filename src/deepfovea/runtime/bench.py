"""Measures how long a frame takes, for each model in each engine.

Each row is measured in a process of its own, so that threads, caches and memory of earlier
measurements do not influence it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from ..checkpoint import bundled_models, load, multiply_adds
from ..config import InputError
from ..fovea import sample
from ..generators import PRESETS, Network
from .engine import load_engine
from .fresh_process import call_in_fresh_process, peak_memory_mib
from .roofline import SIDES, Rates, measure_rates, timed, work_of

WARM_UP = 3
"""Number of first steps that are not timed; engines compile in the second one."""


@dataclass(frozen=True)
class Row:
    """One model in one engine; all times and costs are per frame, with a batch per frame of each.

    height, width: the low resolution; batch: number of videos at a time, two for two eyes; threads:
    number of CPU threads; ms_p50, ms_p95: median and 95th percentile of the time, milliseconds;
    frames_per_second: of each video, from the mean time; peak_mib: peak of the process's resident
    memory, PyTorch included, or on CUDA of PyTorch's allocations there; gmac: multiply-adds in 1e9;
    params: number of parameters; matmul_share: the rate of multiply-adds as a share of
    ``matmul_gmac_per_second`` of the environment; least_ms: what
    :meth:`deepfovea.runtime.roofline.Work.least_times` allows, None for engines that fuse
    operations.
    """

    model: str
    engine: str
    device: str
    height: int
    width: int
    batch: int
    threads: int
    ms_p50: float
    ms_p95: float
    frames_per_second: float
    peak_mib: float | None
    gmac: float
    params: int
    matmul_share: float | None
    least_ms: dict[str, float] | None

    @property
    def limit(self) -> str:
        """The longest of ``least_ms``: arithmetic, memory or launches; "" if they are not known."""
        return max(self.least_ms, key=self.least_ms.__getitem__) if self.least_ms else ""


def bench(
    models: Sequence[str],
    engines: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]] = ((192, 256),),
    batches: Sequence[int] = (1,),
    frames: int = 60,
    rounds: int = 1,
    device: str | torch.device = "cpu",
    on_row: Callable[[Row], None] | None = None,
) -> tuple[list[Row], dict[str, Any]]:
    """Measure models in engines.

    Args:
        models: names or files; a preset without bundled weights gets random ones.
        engines: some of :data:`deepfovea.runtime.engine.ENGINES`.
        sizes: (h, w), low resolutions.
        batches: numbers of videos at a time.
        frames: number of frames that are timed, rounded up to full steps, at least five.
        rounds: how often everything is measured. The round with the lowest median counts, as other
            programs on the machine can only make it slower.
        device: the device. Times on CUDA are those between events on the device.
        on_row: called after each measurement.

    Returns:
        The rows, and a description of the machine.

    Raises:
        InputError: a model or engine is unknown or missing.
    """
    if not (models and engines):
        raise InputError("bench: received no model or no engine, expected one of each at least")
    for model in models:  # find mistakes before anything is measured
        for engine in engines:
            load_engine(_network(model), engine, device)
    threads, kind = torch.get_num_threads(), torch.device(device).type
    jobs = list(product(sizes, batches, models, engines))
    best, rates = dict[Any, Row](), None
    for _ in range(rounds):
        if kind in SIDES:
            rates = measure_rates(device, *SIDES[kind]).best_of(rates)
        for job in jobs:
            size, batch, model, engine = job
            row = Row(
                **call_in_fresh_process(measure, model, engine, size, frames, str(device), batch)
            )
            if job not in best or row.ms_p50 < best[job].ms_p50:
                best[job] = row
            if on_row:
                on_row(row)
    rows = list(best.values())
    if rates is not None:
        rows = [_compared(row, rates) for row in rows]
    environment = {
        "matmul_gmac_per_second": rates and rates.multiply_adds_per_second / 1e9,
        "rates": rates and rates._asdict(),
        "threads": threads,
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }
    return rows, environment


def _compared(row: Row, rates: Rates) -> Row:
    """Add to a row what the rates of its device say about it."""
    share = 1e12 * row.gmac / row.ms_p50 / rates.multiply_adds_per_second
    least = None
    if row.engine in ("torch", "cuda-graph"):  # the others fuse operations
        work = work_of(_network(row.model), row.height, row.width, row.batch)
        least = work.least_times(rates, captured=row.engine == "cuda-graph")
    return replace(row, matmul_share=share, least_ms=least)


def to_json(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    """The rows and the description of the machine as JSON."""
    return json.dumps({**environment, "rows": [asdict(row) for row in rows]}, indent=2)


def _network(model: str) -> Network:
    if model in PRESETS and model not in bundled_models():
        return PRESETS[model].build()
    return load(model)


def measure(
    model: str, engine: str, size: tuple[int, int], frames: int, device: str, batch: int = 1
) -> dict[str, Any]:
    """Measure one row in this process, and return it as a dictionary."""
    network = _network(model)
    gmac = multiply_adds(network, *size) / 1e9
    params = sum(parameter.numel() for parameter in network.parameters())
    runner = load_engine(network, engine, device, in_background=False)
    group = runner.frames_per_step
    height, width = size
    steps = max(5, -(-frames // group))
    gaze = torch.tensor([width / 2, height / 2]).expand(batch, group, 2)
    texture = torch.rand(batch, 1, 3, height, width)
    times: list[float] = []
    state: Any = None
    for number in range(WARM_UP + steps):
        clip = torch.cat([texture.roll(number * group + t, -1) for t in range(group)], 1)
        samples, mask = (t.to(device) for t in sample(clip, gaze, first_frame=number * group))

        def step(samples: torch.Tensor = samples, mask: torch.Tensor = mask) -> None:
            nonlocal state
            _, state = runner(samples, mask, state)

        with torch.inference_mode():
            times += [ms / group for ms in timed(step, runner.device, 1)]
    timed_ms = np.array(times[WARM_UP:])
    row = Row(
        model=model,
        engine=runner.name,
        device=device,
        height=height,
        width=width,
        batch=batch,
        threads=torch.get_num_threads(),
        ms_p50=float(np.median(timed_ms)),
        ms_p95=float(np.percentile(timed_ms, 95)),
        frames_per_second=float(1e3 / timed_ms.mean()),
        peak_mib=peak_memory_mib(device),
        gmac=batch * gmac,
        params=params,
        matmul_share=None,
        least_ms=None,
    )
    return asdict(row)
