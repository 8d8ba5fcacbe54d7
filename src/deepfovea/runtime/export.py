"""Export of a generator as ONNX: one step per run, with the state as named inputs and outputs.

Legend: B batch, k frames per step, h, w low resolution (multiples of ``network.multiple``),
s scale. See docs/export.md for the loop around it.
"""

from __future__ import annotations

import io
import json
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LARGEST_SIDE, InputError
from ..fovea import downsample, jitter_sequence
from ..generators import Network
from ..io.atomic import atomic_write
from ..video import to_yuv420
from .onnx import onnx_session

OPSETS = range(16, 21)
"""ONNX opsets that can be chosen: 16 is the first with GridSample, which the warps need; the tracer
supports none beyond 20."""

FORBIDDEN = ("DeformConv", "GroupNormalization", "Loop", "If", "Scan")
"""Operators that game engines do not support; no exported file contains one."""

MIN_SIDE = 8
"""Smallest side of the frames that are traced, pixels: PyTorch would treat a side of 1 as a
constant."""
CHECKED_STEPS = 8
"""Number of steps of the clips with which an export is checked. Our choice, as the sizes."""
CHECKED_SIZES = ((2, 48, 80), (1, 24, 16))
"""(B, h, w), rounded up to multiples, of the clips with which an export of open size is checked."""

# The limits of the check are our choice: above what rounding causes, below what can be seen.
TOLERANCE = 1e-4
"""Largest difference from PyTorch in the values of an output, for one step from the same state,
relative to the output's largest value or to 1, whichever is larger."""
MAX_BEYOND = 1e-3
"""Share of the values of an output that may differ by more. If two motions fit equally well, the
last bit of a sum decides, which differs between processors: at 192x256, changes of the inputs by
1e-7 of their size change single values of the canvas by up to 7e-5."""
MIN_PSNR = 60.0
"""Least PSNR in dB between the frames of a clip and those of PyTorch, each with its own state."""
TOLERANCE_HALF, MIN_PSNR_HALF = 2e-2, 40.0
"""TOLERANCE and MIN_PSNR for float16 convolutions."""

_one_export = threading.Lock()
"""Only one export at a time, as PyTorch's exporter has global state, and engines compile in their
own threads."""

_OTHER_VERSIONS = "take other versions of torch and onnxruntime"

Size = tuple[int, int]
Sized = tuple[int, int, int]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Step(nn.Module):
    """One step of a generator with tensors only: samples, mask, the state -> frame, the state.

    Samples are [B,3,h,w], or [B,k,3,h,w] where k is not 1; mask, motion, jitter and frame likewise.

    Args:
        network: the generator.
        matrix: a key of :data:`deepfovea.video.LUMA_SHARES` to get frames as luma and chroma, see
            :class:`deepfovea.video.YUV420`; None: frames are RGB.
        motion: whether motion [B,2,h,w] is the third input.
        jitter: whether jitter [B,2] is the next input.
    """

    def __init__(
        self,
        network: Network,
        matrix: int | None = None,
        *,
        motion: bool = False,
        jitter: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.matrix = network, matrix
        self.given = tuple(
            name for name, wanted in (("motion", motion), ("jitter", jitter)) if wanted
        )
        self.multi_frame = network.frames_per_step != 1
        self.multiple = network.multiple
        self.state_type: Any = type(self.initial_state(1, self.multiple, self.multiple))
        fields: tuple[str, ...] = self.state_type._fields
        self.input_names = ("samples", "mask", *self.given, *(f"state_{name}" for name in fields))
        frame = ("frame",) if matrix is None else ("luma", "chroma")
        self.output_names = (*frame, *(f"next_{name}" for name in fields))

    def initial_state(self, batch: int, height: int, width: int) -> Any:
        """The state before the first frame, on the CPU; the sides are multiples of ``multiple``."""
        channels = 3 * self.network.frames_per_step
        return self.network.initial_state(torch.zeros(batch, channels, height, width))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the step; inputs and outputs are in the order of their names."""
        count = 2 + len(self.given)
        of_frame, state = inputs[:count], self.state_type(*inputs[count:])
        if self.multi_frame:
            of_frame = tuple(tensor.flatten(1, 2) for tensor in of_frame)
        samples, mask, *rest = of_frame
        given = dict(zip(self.given, rest, strict=True))
        frame, after = self.network.step(samples, mask, state, **given)
        if self.multi_frame:
            frame = frame.view(len(frame), -1, 3, *frame.shape[-2:])
        outputs = (frame,) if self.matrix is None else to_yuv420(frame, self.matrix)
        return *outputs, *after

    def arguments(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Iterable[Tensor],
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> list[Tensor]:
        """Convert the arguments of a generator, of any size, to those of :meth:`forward`.

        samples [B,k,3,h,w], mask [B,k,1,h,w], motion [B,k,2,h,w], jitter [B,k,2]; the last two are
        None unless they are inputs.
        """
        height, width = samples.shape[-2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        tensors = [samples, mask]
        if any(pad):
            tensors = [F.pad(tensor, pad) for tensor in tensors]
            if motion is not None:
                fields = [F.pad(field, pad, mode="replicate") for field in motion.unbind(1)]
                motion = torch.stack(fields, 1)
        tensors += [tensor for tensor in (motion, jitter) if tensor is not None]
        return [*(tensors if self.multi_frame else [tensor[:, 0] for tensor in tensors]), *state]


def export_onnx(
    network: Network,
    path: Path,
    *,
    name: str = "stream",
    opset: int = OPSETS[0],
    static: Size | None = None,
    half: bool = False,
    motion: bool = False,
    jitter: bool = False,
    one_video: bool = False,
    longest_side: int = LARGEST_SIDE,
) -> float:
    """Write one step of a generator as ONNX, after checking that it gives the same as PyTorch.

    Inputs, all float32: samples [B,3,h,w] in [0, 1], 0 where not sampled; mask [B,1,h,w], 1
    where sampled; if asked for, motion [B,2,h,w] and jitter [B,2], both (x, y) in low-resolution
    pixels; state_x for each field x of the generator's state, zeros before the first frame.
    Outputs: frame [B,3,s·h,s·w], about [0, 1], not clamped; next_x, the state for the next step. If
    a step takes k frames, samples, mask and frame are [B,k,·,·,·]. h and w are multiples of
    ``network.multiple``, at most ``longest_side``. Deformable convolutions become GridSample, which
    fixes the batch to one.

    Args:
        network: the generator; it is not changed.
        path: the file; an existing one is replaced, but only by a complete one.
        name: the model's name, which is stored in the file.
        opset: 16 to 20.
        static: (h, w), a fixed size, with a batch of one; None: any size.
        half: use float16 weights and convolutions; inputs, outputs and warps stay float32.
        motion: whether ``motion`` is an input.
        jitter: whether ``jitter`` is an input.
        one_video: fix B to one, which is faster with jitter.
        longest_side: the longest side of samples that the model is for, a multiple of
            ``network.multiple``. The graph is smaller the shorter it is.

    Returns:
        The largest difference of a frame from PyTorch's over eight steps, at two sizes or at the
        static one.

    Raises:
        InputError: a size, opset or path cannot be used; onnx or onnxruntime is missing; the
            export differs from PyTorch; or the network cannot use motion or jitter.
    """
    onnx = _libraries()
    if opset not in OPSETS:
        raise InputError(
            f"export: received opset {opset}, expected {OPSETS[0]} to {OPSETS[-1]} "
            "(GridSample begins at 16)"
        )
    if (motion or jitter) and not network.takes_jitter:
        raise InputError(
            f"export: received {'--motion' if motion else '--jitter'} for {name}, which cannot "
            "use it; expected a stream network, or neither option"
        )
    whole = deepcopy(network).cpu().float().eval().requires_grad_(False)
    step = Step(whole, motion=motion, jitter=jitter)
    multiple = step.multiple
    if static is not None and any(side < multiple or side % multiple for side in static):
        raise InputError(
            f"export: received a static size of {static[0]}x{static[1]}, expected height and "
            f"width to be multiples of {multiple}; give the next larger ones and pad the samples "
            "and the mask with zeros at the right and bottom"
        )
    # The pyramid of pull_push is unrolled for the size that is traced. Levels beyond the one with a
    # single pixel change nothing, so the graph for the longest side works for all shorter ones.
    shorter = -(-MIN_SIDE // multiple) * multiple
    one = static is not None or step.multi_frame or one_video
    # For an open batch trace two videos, as a single one takes another path in _shift.
    batch = 1 if one else 2
    example = _moving_clip(batch, *(static or (shorter, longest_side)), step, steps=1)
    state = step.initial_state(batch, *example[0][0].shape[-2:])
    traced = deepcopy(step)
    if half:
        to_half_precision(traced)
    inputs = [*example[0], *state]
    content = trace(traced, inputs, opset=opset, opened=static is None, batch=not one)
    model = onnx.load_from_string(content)
    _keep_state_inputs(model, step)
    _name_axes(model, step, 1 if one else None, static)
    metadata = {
        "model": name,
        "config": json.dumps(asdict(network.config), sort_keys=True),
        "scale": str(network.scale),
        "frames_per_step": str(network.frames_per_step),
        "multiple": str(multiple),
        "precision": "float16" if half else "float32",
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    if found := sorted(set(_operators(model)) & set(FORBIDDEN)):
        raise InputError(
            f"export: received a network whose graph contains {', '.join(found)}; expected "
            "operators that engines have: write it without them"
        )
    content = model.SerializeToString()
    sizes: list[Sized] = (
        [(1, *static)]
        if static
        else [(1 if one else b, h + -h % multiple, w + -w % multiple) for b, h, w in CHECKED_SIZES]
    )
    run = onnx_session(content, step.input_names, step.output_names)
    difference = _check(run, step, sizes, half)
    if half:  # check in float16, too, as ONNX Runtime computes it in float32 on the CPU
        in_half = lambda tensors: traced(*tensors)  # noqa: E731
        difference = max(difference, _check(in_half, step, sizes, half))
    _write(path, content)
    return difference


def parse_size(text: str, option: str = "--static") -> Size:
    """Read a size: ``192x256`` becomes (192, 256), height and width."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise InputError(f"{option}: received {text!r:.100}, expected HEIGHTxWIDTH, as 192x256")
    return int(match[1]), int(match[2])


def trace(
    step: Step,
    inputs: Sequence[Tensor],
    *,
    opset: int = OPSETS[0],
    opened: bool = False,
    batch: bool = False,
) -> bytes:
    """Trace a step to ONNX, for the size of its inputs; if ``opened``, h and w may vary.

    Args:
        step: the step.
        inputs: example inputs.
        opset: of ONNX.
        opened: whether h and w may vary.
        batch: whether the batch may vary.
    """
    axes: dict[str, dict[int, str]] = {}
    for name in (*step.input_names, *step.output_names):
        first = 3 if step.multi_frame and name in ("samples", "mask", "frame") else 2
        axes[name] = {first: "h", first + 1: "w"} if opened and name != "jitter" else {}
        if batch:
            axes[name][0] = "b"
    # By tracing, as torch.export with symbolic sizes takes more than ten minutes for a pyramid. The
    # tracer lacks one operator, expm1.
    content = io.BytesIO()
    exporter: Any = torch.onnx  # Any, as its type annotations are incomplete
    with _one_export:
        exporter.register_custom_op_symbolic("aten::expm1", _expm1, OPSETS[0])
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # about Python values that become constants
                exporter.export(
                    step,
                    tuple(inputs),
                    content,
                    dynamo=False,
                    opset_version=opset,
                    input_names=list(step.input_names),
                    output_names=list(step.output_names),
                    dynamic_axes=axes,
                )
        finally:
            exporter.unregister_custom_op_symbolic("aten::expm1", OPSETS[0])
    return content.getvalue()


def _libraries() -> Any:
    """The package onnx; InputError if it or ONNX Runtime is missing."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"export needs {error.name}, which is missing: pip install 'deepfovea[export]'"
        ) from None
    return onnx


def _expm1(graph: Any, x: Any) -> Any:
    one = graph.op("Constant", value_t=torch.tensor(1.0))
    return graph.op("Sub", graph.op("Exp", x), one)


def round_to_float16(network: nn.Module) -> None:
    """Round every weight, in place, to a value that float16 can represent; the type is float32."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half())


class _Half(nn.Module):
    """A module that computes in float16, with float32 inputs and outputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.half()

    def forward(self, x: Tensor) -> Tensor:
        """As the inner module, from float32 to float32."""
        result: Tensor = self.inner(x.half())
        return result.float()


def to_half_precision(network: nn.Module) -> None:
    """Convert convolutions, and sequences of convolutions and activations, to float16."""
    for name, child in network.named_children():
        links = list(child) if isinstance(child, nn.Sequential) else [child]
        if all(type(link) in (nn.Conv2d, nn.ELU, nn.LeakyReLU, nn.ReLU) for link in links):
            setattr(network, name, _Half(child))
        else:
            to_half_precision(child)


def _keep_state_inputs(model: Any, step: Step) -> None:
    """Add the inputs of the state that the tracer left out because the graph does not read them.

    So all exports of a generator have the same state, whatever their other inputs are.
    """
    given = {tensor.name: tensor for tensor in model.graph.input}
    outputs = {tensor.name: tensor for tensor in model.graph.output}
    for name in step.input_names:
        if name.startswith("state_") and name not in given:
            given[name] = deepcopy(outputs[f"next_{name.removeprefix('state_')}"])
            given[name].name = name
    del model.graph.input[:]
    model.graph.input.extend(given[name] for name in step.input_names if name in given)


def _name_axes(model: Any, step: Step, batch: int | None, static: Size | None) -> None:
    """Name the axes by their size: height, height_x2, height_half …; or set their numbers."""
    size = static or (step.multiple, step.multiple)
    state = step.initial_state(1, *size)
    scale = step.network.scale
    times = {"frame": float(scale)}
    channels = {"samples": 3, "mask": 1, "motion": 2, "frame": 3}
    for name, tensor in zip(state._fields, state, strict=True):
        for end in (f"state_{name}", f"next_{name}"):
            times[end], channels[end] = tensor.shape[-1] / size[1], tensor.shape[1]
    for tensor in (*model.graph.input, *model.graph.output):
        axes = tensor.type.tensor_type.shape.dim
        factor = times.get(tensor.name, 1.0)
        if batch is None:
            axes[0].dim_param = "batch"
        else:
            axes[0].dim_value = batch
        if tensor.name == "jitter":
            axes[1].dim_value = 2
            continue
        list(axes)[-3].dim_value = channels[tensor.name]
        for axis, side, name in zip(list(axes)[-2:], size, ("height", "width"), strict=True):
            if static:
                axis.dim_value = int(side * factor)
            else:
                axis.dim_param = name + _suffix(factor)


def _suffix(factor: float) -> str:
    if factor >= 1:
        return "" if factor == 1 else f"_x{factor:g}"
    return "_half" if factor == 0.5 else f"_d{1 / factor:g}"


def _operators(model: Any) -> Iterator[str]:
    """The types of all nodes, also in functions and nested graphs."""

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


def _moving_clip(
    batch: int, height: int, width: int, step: Step, steps: int = CHECKED_STEPS
) -> list[list[Tensor]]:
    """The inputs of each step without the state: a moving texture, of which 30 % is sampled."""
    random = torch.Generator().manual_seed(0)
    small = torch.rand(batch, 3, -(-height // 4), -(-width // 4), generator=random)
    texture = F.interpolate(small, scale_factor=4.0, mode="bicubic").clamp(0.0, 1.0)
    texture = texture[..., :height, :width]
    group = step.network.frames_per_step
    times = range(steps * group)
    frames = torch.stack([texture.roll((t // 2, t), (2, 3)) for t in times], 1)
    mask = (torch.rand(frames[:, :, :1].shape, generator=random) < 0.3).float()
    given: dict[str, Tensor] = {}
    if "motion" in step.given:
        moved = torch.tensor([[-1.0, (t - 1) // 2 - t // 2] for t in times])
        given["motion"] = moved.view(1, -1, 2, 1, 1).expand(batch, -1, -1, height, width)
    if "jitter" in step.given:
        sequence = jitter_sequence("halton", 0, len(times))
        assert sequence is not None
        # Each video of the batch has its own jitter.
        given["jitter"] = torch.stack([sequence.roll(b, 0) for b in range(batch)])
        frames = downsample(frames, 1, given["jitter"])
    videos = (frames * mask, mask, *given.values())
    parts = zip(*(torch.split(video, group, 1) for video in videos), strict=True)
    return [
        [p.contiguous() if step.multi_frame else p[:, 0].contiguous() for p in k] for k in parts
    ]


def _check(run: Run, step: Step, sizes: Iterable[Sized], half: bool) -> float:
    """Compare an export with PyTorch; InputError if they differ too much.

    Two comparisons are made. In the first, both get PyTorch's state before every step and must
    agree closely in nearly all values. In the second, each continues with its own state. There
    rounding errors accumulate, differently on each processor, so the frames of the clip must agree
    by PSNR.

    Returns:
        The largest difference of a frame in the first comparison.
    """
    tolerance = TOLERANCE_HALF if half else TOLERANCE
    psnr = MIN_PSNR_HALF if half else MIN_PSNR
    instead = f"leave --fp16 out, or {_OTHER_VERSIONS}" if half else _OTHER_VERSIONS
    largest = 0.0
    for batch, height, width in sizes:
        state: Sequence[Tensor] = step.initial_state(batch, height, width)
        own, errors = state, []
        for number, given in enumerate(_moving_clip(batch, height, width, step)):
            with torch.inference_mode():
                expected = step(*given, *state)
                outputs = run([*given, *state])
                frame, *own = run([*given, *own])
            state = expected[1:]
            errors.append(float((frame - expected[0]).square().mean()))
            for name, received, truth in zip(step.output_names, outputs, expected, strict=True):
                difference = (received - truth).abs()
                allowed = tolerance * max(1.0, float(truth.abs().max()))
                beyond = float((~(difference < allowed)).float().mean())  # NaN is beyond
                if beyond > MAX_BEYOND:
                    raise InputError(
                        f"export: at {height}x{width}, step {number}, {100 * beyond:.3g} % of "
                        f"{name} differ from torch by more than {allowed:.0e} (the largest by "
                        f"{float(difference.max()):.1e}), allowed is {100 * MAX_BEYOND:g} %; "
                        f"nothing was written: {instead}"
                    )
                if name == "frame":
                    largest = max(largest, float(difference.max()))
        reached = -10.0 * math.log10(max(sum(errors) / len(errors), 1e-20))
        if not reached > psnr:
            raise InputError(
                f"export: at {height}x{width}, the clip of {len(errors)} steps agrees with torch "
                f"to {reached:.1f} dB, expected more than {psnr:g} dB; nothing was written: "
                f"{instead}"
            )
    return largest


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder with space and write "
            "permission"
        ) from None
