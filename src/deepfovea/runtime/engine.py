"""Who computes the generator: PyTorch, ONNX Runtime or OpenVINO, behind one interface.

engine = load_engine("stream", "auto")
frames, state = engine(samples, mask, state)  # as with the generator itself
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import Generator, load
from ..config import InputError
from ..generators.stream.net import StreamNet
from ..video import LUMA_SHARES, YUV420, colorspace_of, to_yuv420
from .export import Step, trace

ENGINES = ("auto", "torch", "onnxruntime", "openvino")

ENGINE_NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""As their makers write them, for people."""

EXTRA = {"onnxruntime": "export", "openvino": "openvino"}
"""What brings the engines that are not PyTorch."""

FASTEST = ("openvino", "onnxruntime")
"""For ``stream`` on the CPU, fastest first, before PyTorch (docs/speed.md)."""

WIDE = 16
"""Channels from which on a convolution of ``stream`` is computed in bfloat16."""

SIZES_KEPT = 4
"""Sizes of frames that a compiled generator keeps ready; the pages of a viewer share one. One
counts twice if both RGB and planes were asked for."""

Compiled = Callable[[list[Tensor]], list[Tensor]]


def load_engine(
    model: str | Path | Generator,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    *,
    bfloat16: bool = True,
) -> Generator | CompiledGenerator:
    """A trained generator, ready to use, run by the engine that was asked for.

    Args:
        model: as for :func:`deepfovea.load`, or a generator.
        engine: one of :data:`ENGINES`. ``auto`` takes the fastest that is installed: on a CPU
            for ``stream`` OpenVINO, then ONNX Runtime; else PyTorch.
        device: of PyTorch; the others run on the CPU.
        bfloat16: whether OpenVINO may compute the wide convolutions of ``stream`` in bfloat16,
            as it then does on processors that have it (AMX, AVX-512 BF16): a sixth less time,
            frames that differ by some 2e-4 instead of 1e-6, PSNR the same to 0.002 dB.

    Returns:
        What is called, and has ``scale`` and ``frames_per_step``, like a generator.

    Raises:
        InputError: an unknown engine, one that is not installed or does not run on the device;
            what :func:`deepfovea.load` refuses.
    """
    if engine not in ENGINES:
        raise InputError(
            f"--engine: received {engine!r:.100}, expected one of {', '.join(ENGINES)}"
        )
    network = load(model) if isinstance(model, str | Path) else model
    if engine == "auto":
        installed = [name for name in FASTEST if not _missing(name)]
        suits = torch.device(device).type == "cpu" and isinstance(network, StreamNet)
        engine = installed[0] if suits and installed else "torch"
    if engine == "torch":
        return network.to(device).eval()
    if missing := _missing(engine):
        raise InputError(
            f"--engine: {engine} needs {missing}, which is missing: "
            f"pip install 'deepfovea[{EXTRA[engine]}]'"
        )
    if torch.device(device).type != "cpu":
        raise InputError(
            f"--engine: received {engine} for the device {device}; it runs on the CPU here: "
            "choose torch, or --device cpu"
        )
    low = bfloat16 and isinstance(network, StreamNet)
    return CompiledGenerator(network.cpu().eval(), engine, bfloat16=low)


def _missing(engine: str) -> str:
    """The first package that an engine lacks; PyTorch's exporter, on the way to it, needs onnx."""
    return next((package for package in ("onnx", engine) if find_spec(package) is None), "")


def engine_of(generator: Generator | CompiledGenerator) -> str:
    """Which of :data:`ENGINES` runs what :func:`load_engine` has returned."""
    return generator.engine if isinstance(generator, CompiledGenerator) else "torch"


class CompiledGenerator:
    """A generator compiled for each size of frame, when a second step asks for it.

    The first step of a video is computed by PyTorch, so that the first frame waits for nothing.
    In float32 the others differ from PyTorch's by less than 1e-3. A fixed size is the faster one
    (OpenVINO: a fifth). Compiling takes about two seconds; the last :data:`SIZES_KEPT` sizes are
    kept.

    Attributes:
        network: the generator.
        engine: ``onnxruntime`` or ``openvino``.
        bfloat16: see :func:`load_engine`.
        scale, frames_per_step: those of the generator.
    """

    def __init__(self, network: Generator, engine: str, *, bfloat16: bool = False) -> None:
        self.network, self.engine, self.bfloat16 = network, engine, bfloat16
        self.scale, self.frames_per_step = network.scale, network.frames_per_step
        self._frame_step = Step(network)
        self._planes_steps = {matrix: YUV420Step(network, matrix) for matrix in LUMA_SHARES}
        self._runs: dict[tuple[Step, torch.Size], Compiled] = {}  # the one used last is the last

    @torch.inference_mode()
    def __call__(self, samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As the generator: samples [B,T,3,h,w], mask [B,T,1,h,w], state -> frames, state."""
        (frames,), state = self._steps(self._frame_step, samples, mask, state)
        return frames, state

    @torch.inference_mode()
    def planes(self, samples: Tensor, mask: Tensor, state: Any = None) -> tuple[YUV420, Any]:
        """As :meth:`__call__`, with frames as an encoder takes them, which costs less time."""
        height, width = (self.scale * side for side in samples.shape[-2:])
        step = self._planes_steps[colorspace_of(width, height)]
        outputs, state = self._steps(step, samples, mask, state)
        return YUV420(*outputs), state

    def _steps(
        self, step: Step, samples: Tensor, mask: Tensor, state: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        group = self.frames_per_step
        if samples.shape[1] == 0 or samples.shape[1] % group:
            raise InputError(
                f"received {samples.shape[1]} frames, expected a positive multiple of {group}"
            )
        made = []
        if state is None:
            first, state = self.network(samples[:, :group], mask[:, :group], None)
            made.append(step.outputs(first))
        for t in range(group * len(made), samples.shape[1], group):
            some = samples[:, t : t + group], mask[:, t : t + group]
            outputs, state = self._one_step(step, *some, state)
            made.append(outputs)
        if len(made) == 1:
            return made[0], state
        return tuple(torch.cat(parts, 1) for parts in zip(*made, strict=True)), state

    def _one_step(
        self, step: Step, samples: Tensor, mask: Tensor, state: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        height, width = samples.shape[-2:]
        pad = (0, -width % step.multiple, 0, -height % step.multiple)
        tensors = [F.pad(tensor, pad) if any(pad) else tensor for tensor in (samples, mask)]
        if not step.multi_frame:
            tensors = [tensor[:, 0] for tensor in tensors]
        tensors += state
        key = step, tensors[0].shape
        run = self._runs.pop(key, None)
        if run is None:
            if len(self._runs) == SIZES_KEPT:
                del self._runs[next(iter(self._runs))]
            run = self._compiled(step, *tensors)
        self._runs[key] = run
        results = run([tensor.contiguous() for tensor in tensors])
        count = len(results) - len(state)
        outputs = []
        for output in results[:count]:
            grown = output.shape[-1] // (width + pad[1])  # luma and chroma differ
            output = output[..., : grown * height, : grown * width]
            outputs.append(output if step.multi_frame else output[:, None])
        return tuple(outputs), step.state_type(*results[count:])

    def _compiled(self, step: Step, samples: Tensor, mask: Tensor, *state: Tensor) -> Compiled:
        content = trace(step, samples, mask, state, by_grid=self.engine == "openvino")
        if self.engine == "openvino":
            return _openvino(content, step, self.bfloat16)
        return _onnxruntime(content, step)


class YUV420Step(Step):
    """A step whose frames come as :class:`deepfovea.video.YUV420`, by one matrix."""

    def __init__(self, network: Generator, matrix: int) -> None:
        super().__init__(network)
        self.matrix = matrix
        self.output_names = ("luma", "chroma", *self.output_names[1:])

    def outputs(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Luma and chroma of a frame [B,(k,)3,s·h,s·w]."""
        return to_yuv420(frame, self.matrix)


def _onnxruntime(content: bytes, step: Step) -> Compiled:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    known = {tensor.name for tensor in session.get_inputs()}

    def run(tensors: list[Tensor]) -> list[Tensor]:
        named = zip(step.input_names, tensors, strict=True)
        feed = {name: tensor.numpy() for name, tensor in named if name in known}
        return [torch.from_numpy(array) for array in session.run(list(step.output_names), feed)]

    return run


@lru_cache(maxsize=1)
def _openvino_core() -> Any:
    """The one core of the process, never given up.

    With the last core OpenVINO 2026.4 unloads its CPU plugin, and later forks of the process
    then damage its memory: seen as a crash of a test that only starts another process.
    """
    import openvino

    return openvino.Core()


def _openvino(content: bytes, step: Step, bfloat16: bool) -> Compiled:
    import openvino

    core = _openvino_core()
    model = core.read_model(content)
    if bfloat16:
        _wide_convolutions_in_bfloat16(model)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Else some processors compute all in bfloat16: positions too, which costs 0.17 dB.
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # its threads share the cores with those of other stages
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    known = {name for port in request.model_inputs for name in port.names}
    made = [torch.from_numpy(request.get_tensor(name).data) for name in step.output_names]
    kinds = [(tensor.shape, tensor.dtype) for tensor in made]

    def run(tensors: list[Tensor]) -> list[Tensor]:
        named = zip(step.input_names, tensors, strict=True)
        feed = {name: tensor.numpy() for name, tensor in named if name in known}
        # New ones, into which it computes
        outputs = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
        for name, tensor in zip(step.output_names, outputs, strict=True):
            request.set_tensor(name, openvino.Tensor(tensor.numpy(), shared_memory=True))
        request.infer(feed, share_inputs=True, share_outputs=True)
        return outputs

    return run


def _wide_convolutions_in_bfloat16(model: Any) -> None:
    """In place; on a processor without bfloat16 OpenVINO computes them in float32 all the same."""
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or node.output(0).shape[1] < WIDE:
            continue
        image, kernel = (ops.convert(node.input_value(i), "bf16") for i in range(2))
        attributes = node.get_attributes()
        low = ops.convolution(
            image,
            kernel,
            attributes["strides"],
            attributes["pads_begin"],
            attributes["pads_end"],
            attributes["dilations"],
        )
        result = ops.convert(low, "f32").output(0)
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(result)
