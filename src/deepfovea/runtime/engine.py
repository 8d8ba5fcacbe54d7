"""Engines: PyTorch, CUDA graphs, ONNX Runtime or OpenVINO run a generator behind one interface.

engine = load_engine("stream", "auto")
frames, state = engine(samples, mask, state)  # as with the generator itself

To add an engine, add a row to :data:`BACKENDS`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..checkpoint import load
from ..config import InputError, expected_one_of
from ..generators import Network
from ..io.user_cache import user_cache
from ..video import YUV420, colorspace_of, to_yuv420
from .cuda import CapturedGenerator
from .export import Step, trace
from .onnx import CPU, CUDA, TENSORRT, Run, missing_provider, onnx_session
from .openvino import compile_openvino

MAX_CACHED_SIZES = 4
"""Largest number of compiled steps that an engine keeps; all pages of a viewer share one engine.
There is one for each size of frames, each again for RGB and YUV, with and without motion, and with
and without jitter, as far as they were needed. Our choice."""

_log = logging.getLogger(__name__)

MIN_FRAMES_TO_COMPILE = 150
"""For fewer frames, if their number is known, ``auto`` does not compile. 24 frames of 180x120 took
PyTorch 3.9 s and OpenVINO 8.6 s. By docs/speed.md OpenVINO gains 65 ms per frame at 256x192, so
about 30 ms at that size, and makes up for the 4.7 s after 160 frames."""


@dataclass(frozen=True)
class Backend:
    """A way to run a step of a generator.

    title: its name as its makers write it; packages: the packages that it needs, including those
    for PyTorch's exporter; extra: the extra of this package that installs them; compile: a function
    from the ONNX graph, the names of inputs and outputs, and the options ``device``, ``half``
    and ``cache`` to a compiled step, None if the network itself runs; devices: the types of devices
    that it runs on, empty for any; captures: whether the network's step is captured as a CUDA
    graph; lacks: a function from the type of a device to what is missing there, "" for nothing.
    """

    title: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    compile: Callable[..., Run] | None = None
    devices: tuple[str, ...] = ()
    captures: bool = False
    lacks: Callable[[str], str] = lambda device: ""

    def missing(self) -> str:
        """The first package that is not installed, empty if none is missing."""
        return next((package for package in self.packages if find_spec(package) is None), "")

    def runs_on(self, device: str) -> bool:
        """Whether it runs on a type of device."""
        return not self.devices or device in self.devices


def _onnx_backend(title: str, providers: dict[str, str]) -> Backend:
    """ONNX Runtime with a provider for each type of device."""

    def compile_onnx(
        content: bytes,
        input_names: tuple[str, ...],
        output_names: tuple[str, ...],
        *,
        device: torch.device,
        cache: Path | None,
        **others: object,
    ) -> Run:
        return onnx_session(content, input_names, output_names, providers[device.type], cache)

    return Backend(
        title,
        ("onnx", "onnxruntime"),
        "export",
        compile_onnx,
        devices=tuple(providers),
        lacks=lambda device: missing_provider(providers[device]),
    )


BACKENDS = {
    "torch": Backend("PyTorch"),
    "cuda-graph": Backend("PyTorch, CUDA graph", devices=("cuda",), captures=True),
    "onnxruntime": _onnx_backend("ONNX Runtime", {"cpu": CPU, "cuda": CUDA}),
    "openvino": Backend(
        "OpenVINO", ("onnx", "openvino"), "openvino", compile_openvino, devices=("cpu",)
    ),
    "tensorrt": _onnx_backend("ONNX Runtime, TensorRT", {"cuda": TENSORRT}),
}
"""All backends by name. For generators that suit engines, those of the CPU are in the order of
their speed, the slowest first (docs/speed.md; nothing was measured on CUDA)."""

ENGINES = ("auto", *BACKENDS)


def load_engine(
    model: str | Path | Network,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    *,
    half: bool = True,
    frames: int | None = None,
    in_background: bool = True,
) -> Engine:
    """Load a trained generator and the engine that runs it.

    Args:
        model: as for :func:`deepfovea.load`, or a generator.
        engine: one of :data:`ENGINES`. ``auto`` takes the fastest that is installed: on a CPU,
            for a generator that suits engines, OpenVINO, then ONNX Runtime; on CUDA a captured
            graph; else PyTorch.
        device: the device. OpenVINO runs on the CPU only, CUDA graphs and TensorRT on CUDA only.
        half: whether convolutions may be computed in 16 bits. They then are for generators that
            suit engines: in float16 on CUDA, and in bfloat16 by OpenVINO where a convolution is
            wide, on processors that have it (AMX, AVX-512 BF16; a sixth less time). PSNR is the
            same to 0.024 dB (docs/speed.md).
        frames: number of frames that will be reconstructed, if known: ``auto`` does not compile for
            few.
        in_background: whether, with ``auto``, PyTorch makes the frames while the other engine
            compiles. If False, the second step waits for the compilation, so that the same machine
            with the same number of threads makes the same frames every time.

    Raises:
        InputError: the engine is unknown, not installed, or does not run on the device; or
            :func:`deepfovea.load` raises it.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine: received {engine!r:.100}, {expected_one_of(engine, ENGINES)}")
    network = load(model) if isinstance(model, str | Path) else model
    name = _fastest(network, device, frames) if engine == "auto" else engine
    backend = BACKENDS[name]
    if missing := backend.missing():
        raise InputError(
            f"--engine: {name} needs {missing}, which is missing: "
            f"pip install 'deepfovea[{backend.extra}]'"
        )
    kind = torch.device(device).type
    if not backend.runs_on(kind):
        raise InputError(
            f"--engine: received {name} for the device {device}; it runs on "
            f"{' and '.join(backend.devices)} only: choose torch, or --device {backend.devices[0]}"
        )
    if lack := backend.lacks(kind):
        raise InputError(f"--engine: {name} needs {lack}; or choose torch")
    half = half and network.suits_engines
    network = network.to(device).eval()
    return Engine(network, name, half=half, in_background=in_background and engine == "auto")


def _fastest(network: Network, device: str | torch.device, frames: int | None) -> str:
    kind = torch.device(device).type
    if kind == "cuda":  # a capture takes a few steps
        return "cuda-graph"
    few = frames is not None and frames < MIN_FRAMES_TO_COMPILE
    if few or kind != "cpu" or not network.suits_engines:
        return "torch"
    here = (name for name, backend in BACKENDS.items() if backend.runs_on(kind))
    return next(name for name in reversed(list(here)) if not BACKENDS[name].missing())


class Engine:
    """A generator run by one of :data:`BACKENDS`, called like the generator.

    Engines other than PyTorch compile the generator at the second step, for each size of frames and
    separately with motion or jitter. PyTorch computes the first step of a video, so that the first
    frame does not wait; with ``in_background`` it computes all steps until the compilation is done.
    How many these are depends on the machine. So the frames depend on it too, as engines differ: in
    float32 by less than 1e-4 for ``paper``; for ``stream``, which may choose another motion, by
    more in single pixels (docs/speed.md has the figures). Steps are compiled for a fixed size, as
    that is faster (OpenVINO: a fifth). The last :data:`MAX_CACHED_SIZES` are kept.

    ``cuda-graph`` captures PyTorch's step for each size. If that fails, for example for
    lack of memory, it logs a warning, and PyTorch continues without a graph.

    Attributes:
        network: the generator.
        name: name of the engine, a key of :data:`BACKENDS`.
        half: see :func:`load_engine`.
        scale, frames_per_step: those of the generator.
        device: the generator's device.
        frames_by: how many frames each engine has made so far, by the engine's name.
    """

    def __init__(
        self,
        network: Network,
        name: str = "torch",
        *,
        half: bool = False,
        in_background: bool = False,
    ) -> None:
        self.network, self.name, self.half = network, name, half
        self.scale, self.frames_per_step = network.scale, network.frames_per_step
        parameter = next(network.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self._compile = BACKENDS[name].compile
        # Graphs of ONNX are traced on the CPU, for every device.
        traced = self._compile and self.device.type != "cpu"
        self._traced = deepcopy(network).cpu() if traced else network
        self.frames_by: Counter[str] = Counter()
        self._in_background = in_background
        self._captured: CapturedGenerator | None = None
        if BACKENDS[name].captures:
            dtype = torch.float16 if half else torch.float32
            self._captured = CapturedGenerator(network, dtype, sizes_kept=MAX_CACHED_SIZES)
        # By the matrix of YUV (None: RGB), and whether motion and jitter are given
        self._step_of: dict[tuple[int | None, bool, bool], Step] = {}
        self._runs: dict[tuple[Step, torch.Size], Future[Run]] = {}  # the most recent one is last

    @torch.inference_mode()
    def __call__(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """As the generator: samples [B,T,3,h,w], mask [B,T,1,h,w], state -> frames, state.

        Raises:
            InputError: as the generator.
        """
        (frames,), state = self._steps(None, samples, mask, state, motion, jitter)
        return frames, state

    @torch.inference_mode()
    def yuv420(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[YUV420, Any]:
        """As a call, but return frames as video encoders need them. A compiled engine converts them
        itself, which takes less time."""
        height, width = (self.scale * side for side in samples.shape[-2:])
        planes, state = self._steps(
            colorspace_of(width, height), samples, mask, state, motion, jitter
        )
        return YUV420(*planes), state

    def summary(self) -> str:
        """A text that says how many frames each engine made."""
        made = [(BACKENDS[name].title, count) for name, count in self.frames_by.items()]
        if len(made) < 2:
            return made[0][0] if made else BACKENDS[self.name].title
        return ", ".join(f"{title} {count}" for title, count in made)

    def _steps(
        self,
        matrix: int | None,
        samples: Tensor,
        mask: Tensor,
        state: Any,
        motion: Tensor | None,
        jitter: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], Any]:
        given = motion is not None, jitter is not None
        if self._compile is None or (any(given) and not self.network.takes_jitter):  # which refuses
            return self._by_torch(matrix, samples, mask, state, motion, jitter)
        group = self.frames_per_step
        if samples.shape[1] == 0 or samples.shape[1] % group:
            raise InputError(
                f"received {samples.shape[1]} frames, expected a positive multiple of {group}"
            )
        kind = matrix, *given
        if kind not in self._step_of:
            self._step_of[kind] = Step(self._traced, matrix, motion=given[0], jitter=given[1])
        step = self._step_of[kind]
        made = []
        for t in range(0, samples.shape[1], group):
            part = slice(t, t + group)
            some, known = samples[:, part], mask[:, part]
            field = None if motion is None else motion[:, part]
            shift = None if jitter is None else jitter[:, part]
            inputs, run = list[Tensor](), None
            if state is not None:
                inputs = step.arguments(some, known, state, field, shift)
                run = self._compiled(step, inputs)
            if run is None:
                outputs, state = self._by_torch(matrix, some, known, state, field, shift)
            else:
                outputs, state = self._by_run(run, step, inputs, samples.shape[-2:])
            made.append(outputs)
        if len(made) == 1:
            return made[0], state
        return tuple(torch.cat(parts, 1) for parts in zip(*made, strict=True)), state

    def _by_torch(
        self,
        matrix: int | None,
        samples: Tensor,
        mask: Tensor,
        state: Any,
        motion: Tensor | None,
        jitter: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], Any]:
        frames, state = self._by_graph(samples, mask, state, motion, jitter) or self.network(
            samples, mask, state, motion, jitter
        )
        self.frames_by[self.name if self._captured else "torch"] += samples.shape[1]
        return ((frames,) if matrix is None else to_yuv420(frames, matrix)), state

    def _by_graph(self, *given: Any) -> tuple[Tensor, Any] | None:
        """The result of a captured graph; None without one, or if the capture failed."""
        if self._captured is None:
            return None
        try:
            return self._captured(*given)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            _log.warning(
                "the step cannot run as a CUDA graph (%.200s); PyTorch goes on without", reason
            )
            self._captured = None
            return None

    def _by_run(
        self, run: Run, step: Step, inputs: list[Tensor], size: torch.Size
    ) -> tuple[tuple[Tensor, ...], Any]:
        height, width = size
        results = run([tensor.contiguous() for tensor in inputs])
        count = len(results) - len(step.state_type._fields)
        outputs = []
        for output in results[:count]:
            grown = output.shape[-1] // inputs[0].shape[-1]  # luma and chroma differ
            output = output[..., : grown * height, : grown * width]
            outputs.append(output if step.multi_frame else output[:, None])
        self.frames_by[self.name] += self.frames_per_step
        return tuple(outputs), step.state_type(*results[count:])

    def _compiled(self, step: Step, inputs: list[Tensor]) -> Run | None:
        """The compiled step for this size; None while it is being compiled."""
        key = step, inputs[0].shape
        future = self._runs.pop(key, None)
        if future is None:
            if len(self._runs) == MAX_CACHED_SIZES:
                del self._runs[next(iter(self._runs))]
            make = partial(self._make, step, [tensor.clone().cpu() for tensor in inputs])
            if self._in_background:
                pool = ThreadPoolExecutor(1, "compile")
                future = pool.submit(make)
                pool.shutdown(wait=False)  # once it is done
            else:
                future = Future()
                future.set_result(make())
        self._runs[key] = future
        return future.result() if future.done() else None

    def _make(self, step: Step, inputs: list[Tensor]) -> Run:
        assert self._compile is not None
        content = trace(step, inputs)
        return self._compile(
            content,
            step.input_names,
            step.output_names,
            device=self.device,
            half=self.half,
            cache=self._cache(),
        )

    def _cache(self) -> Path | None:
        """The folder for an engine's cache of models with these weights; None without one."""
        weights = sha256()
        for tensor in self.network.state_dict().values():
            levels = tensor.cpu().contiguous().view(-1).view(torch.uint8)
            weights.update(levels.numpy().tobytes())
        folder = user_cache(self.name) / f"{__version__}-{weights.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return folder
