"""The streaming network as ONNX: one frame per run, the state in and out by name.

Legend: B batch, h, w low resolution (multiples of eight), s scale, C hidden channels.
See docs/export.md for the loop around it.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import Generator
from .config import InputError
from .generators.stream import StreamNet, StreamState

INPUTS = ("samples", "mask", *(f"state_{name}" for name in StreamState._fields))
OUTPUTS = ("frame", *(f"next_{name}" for name in StreamState._fields))
"""``next_x`` of one frame is ``state_x`` of the next; before the first frame it is zeros."""

OPSETS = range(16, 21)
"""16 is the first with GridSample, which the warps need; the tracer knows none beyond 20."""

FORBIDDEN = ("DeformConv", "GroupNormalization", "Loop", "If", "Scan")
"""Operators that game engines do not run; no exported file contains one."""

LARGEST_SIDE = 4096
"""Of h and w, when the size is left open."""

CHECKED_FRAMES = 8
CHECKED_SIZES = ((2, 48, 80), (1, 24, 16))
"""(B, h, w) of the two clips that an export with open size must reproduce."""

TOLERANCE = 1e-4
"""Largest difference from torch in any value of any output, [0, 1] being the range of colours."""
TOLERANCE_HALF = 2e-2
"""The same with float16 convolutions."""
FLOW_FACTOR = 10.0
"""``next_flow`` counts pixels, up to about ±20, and may differ by so many times more."""

Size = tuple[int, int]


def export_onnx(
    network: Generator,
    path: Path,
    *,
    name: str = "stream",
    opset: int = OPSETS[0],
    static: Size | None = None,
    half: bool = False,
) -> float:
    """Write one step of a streaming network as ONNX, once it is proven equal to torch.

    Inputs, all float32: samples [B,3,h,w] in [0, 1], 0 where not sampled; mask [B,1,h,w],
    1 where sampled; state_canvas [B,4,2h,2w], state_shown [B,3,2h,2w],
    state_hidden [B,C,h/2,w/2], state_flow [B,2,h,w], zeros before the first frame. Outputs:
    frame [B,3,s·h,s·w], about [0, 1], not clamped; next_canvas … next_flow, the state for the
    next frame. h and w are multiples of eight, at most 4096.

    Args:
        network: its weights are not changed.
        path: replaced if it exists; complete or as it was before.
        name: stored in the file.
        opset: 16 to 20.
        static: (h, w): fix the size, and the batch to one.
        half: float16 weights and convolutions; inputs, outputs, motion and warps stay float32.

    Returns:
        The largest difference of a frame from torch over eight frames, at two sizes or at the
        static one.

    Raises:
        InputError: not a streaming network; a size, opset or path that cannot be used; onnx or
            onnxruntime missing; the file would not reproduce torch.
    """
    onnx, _ = _libraries()
    if not isinstance(network, StreamNet):
        raise InputError(
            f"export: received a {type(network).__name__}; only networks of type stream can be "
            "exported for now"
        )
    if opset not in OPSETS:
        raise InputError(
            f"export: received opset {opset}, expected {OPSETS[0]} to {OPSETS[-1]} "
            "(GridSample begins at 16)"
        )
    if static is not None and any(side < 8 or side % 8 for side in static):
        raise InputError(
            f"export: received a static size of {static[0]}x{static[1]}, expected height and "
            "width to be multiples of eight; give the next larger ones and pad the samples and "
            "the mask with zeros at the right and bottom"
        )
    original = deepcopy(network).cpu().float().eval().requires_grad_(False)
    model = onnx.load_from_string(_trace(original, opset, static, half))
    _name_axes(model, original, static)
    _describe(onnx, model, original, name, half)
    onnx.checker.check_model(model)
    if found := sorted(set(_operators(model)) & set(FORBIDDEN)):
        raise InputError(f"export: the graph contains {', '.join(found)}, which engines lack")
    content: bytes = model.SerializeToString()
    sizes = CHECKED_SIZES if static is None else ((1, *static),)
    difference = _check(content, original, sizes, TOLERANCE_HALF if half else TOLERANCE)
    _write(path, content)
    return difference


def parse_size(text: str) -> Size:
    """``192x256`` to (192, 256): height, width."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise InputError(f"--static: received {text!r:.100}, expected HEIGHTxWIDTH, as 192x256")
    return int(match[1]), int(match[2])


class _Step(nn.Module):
    """``StreamNet.step`` with tensors only."""

    def __init__(self, network: StreamNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor, mask: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs in the order of :data:`INPUTS` and :data:`OUTPUTS`."""
        frame, following = self.network.step(samples, mask, StreamState(*state))
        return frame, *following


class _Half(nn.Module):
    """A part of the network in float16; float32 outside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.half()

    def forward(self, *tensors: Tensor) -> Any:
        """As the inner module, float32 in and out."""
        result = self.inner(*(tensor.half() for tensor in tensors))
        if isinstance(result, Tensor):
            return result.float()
        return tuple(tensor.float() for tensor in result)


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"export needs {error.name}, which is missing: pip install 'deepfovea[export]'"
        ) from None
    return onnx, onnxruntime


def _trace(network: StreamNet, opset: int, static: Size | None, half: bool) -> bytes:
    if half:
        network = _halved(network)
    # The pyramid that fills holes is unrolled for the size that is traced. Levels beyond the one
    # that holds a single pixel change nothing, so the longest side serves all shorter ones.
    samples = torch.zeros(1, 3, *(static or (8, LARGEST_SIDE)))
    state = network.initial_state(samples)
    axes = {} if static else {name: {0: "b", 2: "h", 3: "w"} for name in (*INPUTS, *OUTPUTS)}
    # Tracing, not torch.export: with symbolic sizes the latter takes more than ten minutes over
    # the same pyramid. It lacks one operator.
    content = io.BytesIO()
    exporter: Any = torch.onnx  # its annotations know neither streams nor the registration
    exporter.register_custom_op_symbolic("aten::expm1", _expm1, OPSETS[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python values in the trace: see above
            exporter.export(
                _Step(network).eval(),
                (samples, samples[:, :1], *state),
                content,
                dynamo=False,
                opset_version=opset,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_axes=axes,
            )
    finally:
        exporter.unregister_custom_op_symbolic("aten::expm1", OPSETS[0])
    return content.getvalue()


def _expm1(graph: Any, x: Any) -> Any:
    one = graph.op("Constant", value_t=torch.tensor(1.0))
    return graph.op("Sub", graph.op("Exp", x), one)


def _halved(network: StreamNet) -> StreamNet:
    network = deepcopy(network)
    owners: list[tuple[nn.Module, str]] = [(network, "refine"), (network.gate, "enter")]
    for level in (network.motion.at_eighth, network.motion.at_quarter, network.motion.at_half):
        owners += [(level, "enter"), (level, "mix"), (level, "leave")]
    for owner, name in owners:
        setattr(owner, name, _Half(getattr(owner, name)))
    return network


def _name_axes(model: Any, network: StreamNet, static: Size | None) -> None:
    """One name for each value: height, height_x2, height_half …; or the numbers themselves."""
    factor = {"frame": network.scale, "canvas": 2, "shown": 2, "hidden": 0.5}
    state = network.initial_state(torch.zeros(1, 3, 8, 8))._asdict()
    channels = {"samples": 3, "mask": 1, "frame": 3} | {k: t.shape[1] for k, t in state.items()}
    for tensor in (*model.graph.input, *model.graph.output):
        batch, channel, *sides = tensor.type.tensor_type.shape.dim
        name = tensor.name.split("_")[-1]
        times = factor.get(name, 1)
        channel.dim_value = channels[name]
        if static:
            batch.dim_value = 1
            for axis, side in zip(sides, static, strict=True):
                axis.dim_value = int(side * times)
        else:
            batch.dim_param = "batch"
            suffix = {1: "", 0.5: "_half"}.get(times, f"_x{times}")
            for axis, side_name in zip(sides, ("height", "width"), strict=True):
                axis.dim_param = side_name + suffix


def _describe(onnx: Any, model: Any, network: StreamNet, name: str, half: bool) -> None:
    about = {
        "model": name,
        "config": json.dumps(asdict(network.config), sort_keys=True),
        "scale": str(network.scale),
        "precision": "float16" if half else "float32",
    }
    onnx.helper.set_model_props(model, about)


def _operators(model: Any) -> Iterator[str]:
    """The type of every node, inside functions and nested graphs as well."""

    def walk(nodes: Iterable[Any]) -> Iterator[str]:
        for node in nodes:
            yield node.op_type
            for attribute in node.attribute:
                yield from walk(attribute.g.node)
                for graph in attribute.graphs:
                    yield from walk(graph.node)

    yield from walk(model.graph.node)
    for function in model.functions:
        yield from walk(function.node)


class _Clip(NamedTuple):
    """samples [T,B,3,h,w] and mask [T,B,1,h,w]."""

    samples: Tensor
    mask: Tensor


def _moving_clip(batch: int, height: int, width: int) -> _Clip:
    """A texture that moves by a pixel per frame, three tenths of it sampled."""
    random = torch.Generator().manual_seed(0)
    small = torch.rand(batch, 3, height // 4, width // 4, generator=random)
    texture = F.interpolate(small, scale_factor=4.0, mode="bicubic").clamp(0.0, 1.0)
    frames = torch.stack([texture.roll((t // 2, t), (2, 3)) for t in range(CHECKED_FRAMES)])
    mask = (torch.rand(frames[:, :, :1].shape, generator=random) < 0.3).float()
    return _Clip(frames * mask, mask)


def _check(
    content: bytes, network: StreamNet, sizes: Iterable[tuple[int, int, int]], tolerance: float
) -> float:
    """The largest difference of a frame from torch; an InputError if any output's is too large."""
    _, onnxruntime = _libraries()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch, height, width in sizes:
        clip = _moving_clip(batch, height, width)
        state = network.initial_state(clip.samples[0])
        arrays = [tensor.numpy() for tensor in state]
        for t, (samples, mask) in enumerate(zip(*clip, strict=True)):
            with torch.inference_mode():
                frame, state = network.step(samples, mask, state)
            feed = dict(zip(INPUTS, (samples.numpy(), mask.numpy(), *arrays), strict=True))
            outputs = session.run(list(OUTPUTS), feed)
            arrays = outputs[1:]
            for name, ours, truth in zip(OUTPUTS, outputs, (frame, *state), strict=True):
                difference = float(np.abs(ours - truth.numpy()).max())
                allowed = tolerance * (FLOW_FACTOR if name == "next_flow" else 1.0)
                if not difference < allowed:
                    raise InputError(
                        f"export: at {height}x{width}, frame {t}, {name} differs from torch by "
                        f"{difference:.1e}, allowed is {allowed:.0e}; nothing was written"
                    )
                if name == "frame":
                    largest = max(largest, difference)
    return largest


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder with space and write "
            "permission"
        ) from None
