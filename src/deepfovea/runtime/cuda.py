"""One step of a generator as a CUDA graph, which is launched at once instead of kernel by kernel.

A small network has hundreds of short kernels, and a large GPU waits for the launch of each. A CUDA
graph contains all of them for one size of frames; replaying it costs one launch.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..config import InputError

WARM_UP = 3
"""Number of steps before a capture, in which cuDNN chooses its algorithms and caches are filled, as
PyTorch's documentation of CUDA graphs asks for."""

Run = Callable[[], tuple[Tensor, ...]]
Capture = Callable[[Run], tuple[Callable[[], object], tuple[Tensor, ...]]]
"""A function that captures ``Run`` and returns its replay and the tensors that a replay fills."""


def capture_graph(run: Run) -> tuple[Callable[[], object], tuple[Tensor, ...]]:
    """Capture the kernels that a function launches on the current CUDA device."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Meanwhile other threads may use the device, to read and sample the next frames.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()
    return graph.replay, outputs


class CapturedGenerator:
    """A generator whose step is captured once for each frame size and batch size.

    Call it as the generator itself: ``frames, state = captured(samples, mask, state, motion,
    jitter)``. Inputs and outputs are copied, so a state may be kept or used twice.

    Args:
        network: a generator on a CUDA device; it is copied, not changed.
        dtype: type of the convolutions; with float32 there is no autocast. States and frames are
            float32.
        channels_last: whether the weights have this memory layout.
        sizes_kept: largest number of graphs; the least recently used one is dropped for a new one.
        capture: the function that captures a step; tests without a GPU replace it.
    """

    def __init__(
        self,
        network: Any,
        dtype: torch.dtype = torch.float32,
        *,
        channels_last: bool = False,
        sizes_kept: int = 4,
        capture: Capture = capture_graph,
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.dtype = dtype
        self.frames_per_step: int = network.frames_per_step
        self.scale: int = network.scale
        self.sizes_kept = sizes_kept
        self._capture = capture
        self._graphs: OrderedDict[tuple[int | str, ...], _Graph] = OrderedDict()

    @torch.inference_mode()
    def __call__(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Reconstruct T frames, T a multiple of ``frames_per_step``.

        Args:
            samples: [B, T, 3, h, w].
            mask: [B, T, 1, h, w].
            state: the state that the last call returned; None starts a video.
            motion: [B, T, 2, h, w], if the generator takes it. There are separate graphs with and
                without it.
            jitter: [B, T, 2], likewise.

        Returns:
            The frames [B, T, 3, s·h, s·w], float32, and the state.

        Raises:
            InputError: T does not fit, or the state belongs to another batch or frame size.
        """
        group = self.frames_per_step
        if samples.shape[1] < 1 or samples.shape[1] % group:
            raise InputError(
                f"received {samples.shape[1]} frames, expected a multiple of {group}, one at least"
            )
        inputs = {"samples": samples, "mask": mask, "motion": motion, "jitter": jitter}
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        size = (*given, *samples.shape[:1], *samples.shape[-2:])
        graph = self._graphs.pop(size, None)
        if graph is None:
            while len(self._graphs) >= self.sizes_kept:
                self._graphs.popitem(last=False)
            graph = _Graph(self, {name: tensor[:, :group] for name, tensor in given.items()})
        self._graphs[size] = graph  # the latest comes last
        frames = []
        for t in range(0, samples.shape[1], group):
            part = slice(t, t + group)
            frame, state = graph.step([tensor[:, part] for tensor in given.values()], state)
            frames.append(frame)
        return torch.cat(frames, 1), state

    def reset(self) -> None:
        """Drop all graphs and their memory."""
        self._graphs.clear()


class _Graph:
    """The static input and output tensors of one size, and the replay that connects them."""

    def __init__(self, owner: CapturedGenerator, inputs: dict[str, Tensor]) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        samples = self.inputs["samples"]

        def compute(state: Any) -> tuple[Tensor, Any]:
            device, half = samples.device.type, owner.dtype != torch.float32
            dtype = owner.dtype if half else torch.bfloat16
            # Without a cache, as its cast weights would be freed while the graph still reads them.
            with torch.autocast(device, dtype, enabled=half, cache_enabled=False):
                frames, after = owner.network(**self.inputs, state=state)
            return frames, after

        first = owner.network.initial_state(samples.flatten(1, 2))
        self.kind = type(first)
        self.first = tuple(first)
        self.state = tuple(value.clone() for value in first)

        def run() -> tuple[Tensor, ...]:
            frames, after = compute(self.kind(*self.state))
            return (frames, *after)

        with self._on_device():
            self.replay, self.outputs = owner._capture(run)

    def _on_device(self) -> AbstractContextManager[object]:
        """Make the tensors' device the current one, as streams belong to the current device."""
        device = self.inputs["samples"].device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def step(self, inputs: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        before = self.first if state is None else tuple(state)
        shapes = [tuple(value.shape) for value in before]
        expected = [tuple(value.shape) for value in self.state]
        if shapes != expected:
            raise InputError(
                f"received a state of shapes {shapes}, expected {expected}; begin with state None "
                "where the batch or the size changes"
            )
        for own, value in zip(self.inputs.values(), inputs, strict=True):
            own.copy_(value)
        for own, value in zip(self.state, before, strict=True):
            own.copy_(value)
        with self._on_device():
            self.replay()
        frames, *after = self.outputs
        return frames.float().clone(), self.kind(*(value.float().clone() for value in after))
