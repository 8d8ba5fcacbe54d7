"""A small roofline: what keeps a step of a network from being faster on a device.

Three rates of a device are measured: how fast it copies, how fast it multiplies matrices, and how
soon it begins with the next operation. They give three least times for a step, and the longest one
names the limit (after Williams, Waterman and Patterson 2009, "Roofline: an insightful visual
performance model", to whose two limits we add the launches).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..checkpoint import multiply_adds
from ..generators import Network
from .cuda import capture_graph

SIDES = {"cpu": (1536, 2**24), "cuda": (4096, 2**27)}
"""For each type of device, a side of matrices and a number of values to copy: more than its caches
hold, and less than a second. Our choice."""

LAUNCHES = 200
"""Number of small operations that are timed together. Our choice."""
REPEATS = 8
"""Number of measurements of which the fastest counts. Our choice."""


class Rates(NamedTuple):
    """What a device can do: bytes per second that a copy reads and writes, multiply-adds per second
    of matrix products, and seconds from one small operation to the next: if each is
    launched by itself, and within a CUDA graph (elsewhere the same)."""

    bytes_per_second: float
    multiply_adds_per_second: float
    launch_seconds: float
    replay_seconds: float

    def best_of(self, other: Rates | None) -> Rates:
        """The better of two measurements of a device in each value, as other programs on the
        machine can only make it slower."""
        if other is None:
            return self
        fastest, soonest = map(max, self[:2], other[:2]), map(min, self[2:], other[2:])
        return Rates(*fastest, *soonest)


class Work(NamedTuple):
    """What one frame asks for: multiply-adds, bytes that its operations read and write if each
    goes through the memory, and the number of operations."""

    multiply_adds: float
    bytes: float
    operations: float

    def least_times(self, rates: Rates, captured: bool = False) -> dict[str, float]:
        """Milliseconds that each limit allows at best: arithmetic, memory and launches.

        Args:
            rates: of the device.
            captured: whether the operations are replayed as a CUDA graph.
        """
        launch = rates.replay_seconds if captured else rates.launch_seconds
        return {
            "arithmetic": 1e3 * self.multiply_adds / rates.multiply_adds_per_second,
            "memory": 1e3 * self.bytes / rates.bytes_per_second,
            "launches": 1e3 * self.operations * launch,
        }


def work_of(network: Network, height: int, width: int, batch: int = 1) -> Work:
    """Count what a frame h × w of each of ``batch`` videos asks for; nothing is computed."""
    group = network.frames_per_step
    counted = copy.deepcopy(network).to("meta")
    samples = torch.empty(batch, group, 3, height, width, device="meta")
    with torch.no_grad(), _Traffic() as traffic:
        counted(samples, samples[:, :, :1])
    products = batch * multiply_adds(network, height, width)
    return Work(products, traffic.bytes / group, traffic.operations / group)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that compute something, and the bytes of their inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [x for x in _flat([args, kwargs, result]) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
            self.operations += 1
        return result


def _flat(values: Any) -> list[Any]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [item for value in values for item in _flat(value)]
    return [values]


def measure_rates(device: str | torch.device, side: int, count: int) -> Rates:
    """Measure a device.

    Args:
        device: the device.
        side: side of the matrices, which are float32.
        count: number of float32 values that are copied.
    """
    device = torch.device(device)
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)
    one = torch.ones(1, device=device)

    def small_operations() -> tuple[Tensor, ...]:
        for _ in range(LAUNCHES):
            one.add_(1.0)
        return (one,)

    launch = replay = _least_seconds(small_operations, device) / LAUNCHES
    if device.type == "cuda":
        with torch.cuda.device(device):
            replay = _least_seconds(capture_graph(small_operations)[0], device) / LAUNCHES
    return Rates(
        bytes_per_second=8 * count / _least_seconds(lambda: target.copy_(source), device),
        multiply_adds_per_second=matmul_rate(device, side),
        launch_seconds=launch,
        replay_seconds=replay,
    )


def matmul_rate(device: torch.device, side: int, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-adds per second of the fastest of some products of matrices with this side."""
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / _least_seconds(lambda: a @ b, device)


def _least_seconds(run: Callable[[], object], device: torch.device) -> float:
    return min(timed(run, device, REPEATS)) / 1e3


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Milliseconds of each repetition, by device events on CUDA, else by the clock."""
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - started))
    return times
