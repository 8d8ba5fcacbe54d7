"""OpenVINO: compiles the ONNX graph of a step for the CPU, after two changes that speed it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Run = Callable[[Sequence[Tensor]], list[Tensor]]

WIDE = 16
"""From this number of channels on, convolutions may be computed in bfloat16. Images with fewer
channels are resized by sampling a grid, which takes OpenVINO a quarter of the time
(docs/speed.md)."""


def compile_openvino(
    content: bytes,
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    half: bool = False,
    cache: Path | None = None,
    **others: object,
) -> Run:
    """Compile an ONNX model for the CPU, with as many threads as PyTorch uses.

    Args:
        content: the model, with inputs of fixed size.
        input_names: the names of the tensors that the result receives, in their order; names that
            the model does not have are ignored.
        output_names: the names of the tensors that it returns.
        half: whether to compute wide convolutions in bfloat16, if the processor supports it.
        cache: folder in which OpenVINO keeps compiled models; None: it keeps none.
        others: options of other engines.

    Returns:
        A function from the inputs to the outputs.
    """
    import openvino

    core = openvino_core()
    model = core.read_model(content)
    sample_grids(model)
    if half:
        wide_convolutions_in_bfloat16(model)
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Otherwise some processors compute everything in bfloat16, even positions; docs/speed.md
        # says what that costs.
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # its threads share the cores with those of other stages
    }
    if cache is not None:
        options["CACHE_DIR"] = str(cache)
    request = core.compile_model(model, "CPU", options).create_infer_request()
    known = {name for port in request.model_inputs for name in port.names}
    made = [torch.from_numpy(request.get_tensor(name).data) for name in output_names]
    kinds = [(tensor.shape, tensor.dtype) for tensor in made]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        named = zip(input_names, tensors, strict=True)
        feed = {name: tensor.numpy() for name, tensor in named if name in known}
        # New tensors, into which OpenVINO writes
        outputs = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
        for name, tensor in zip(output_names, outputs, strict=True):
            request.set_tensor(name, openvino.Tensor(tensor.numpy(), shared_memory=True))
        request.infer(feed, share_inputs=True, share_outputs=True)
        return outputs

    return run


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """The only core of this process, which is never released.

    When the last core is released, OpenVINO 2026.4 unloads its CPU plugin, and later forks of the
    process then damage its memory: a test that only started another process crashed.
    """
    import openvino

    return openvino.Core()


def sample_grids(model: Any) -> None:
    """Replace, in a model, the resizing of images with few channels by sampling of a grid.

    Bilinear interpolation by n, and means of 2×2 pixels, equal bilinear sampling at the right
    positions, up to rounding. With few channels OpenVINO takes a quarter of the time for it.
    PyTorch and ONNX Runtime would take longer, so only this module does it.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        places = _places(node)
        if places is None:
            continue
        image = node.input_value(0)
        height, width = list(image.shape)[2:]
        y, x = (
            (2.0 * p + 1.0) / side - 1.0 for p, side in zip(places, (height, width), strict=True)
        )
        grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1).astype(np.float32)
        grid = np.broadcast_to(grid, (image.shape[0], *grid.shape)).copy()
        sampled = ops.grid_sample(
            image,
            ops.constant(grid),
            {"align_corners": False, "mode": "bilinear", "padding_mode": "border"},
        )
        _replace(node, sampled.output(0))


def _places(node: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The positions (rows, columns) whose bilinear values a node computes; None for other nodes."""
    kind = node.get_type_name()
    if kind not in ("Interpolate", "AvgPool") or node.input_value(0).shape[1] >= WIDE:
        return None
    attributes = node.get_attributes()
    sides = list(node.input_value(0).shape)[2:], list(node.output(0).shape)[2:]
    if kind == "Interpolate":
        at_centers = str(attributes["coordinate_transformation_mode"]).endswith("half_pixel")
        if not (at_centers and str(attributes["mode"]).startswith("linear")):
            return None
        rows, columns = (
            (np.arange(after) + 0.5) * before / after - 0.5
            for before, after in zip(*sides, strict=True)
        )
        return rows, columns
    if list(attributes["kernel"]) != [2, 2] or list(attributes["strides"]) != [2, 2]:
        return None
    pads = list(attributes["pads_begin"])  # padding does not count in the means: border repeated
    rows, columns = (
        2.0 * np.arange(after) - pad + 0.5 for after, pad in zip(sides[1], pads, strict=True)
    )
    return rows, columns


def wide_convolutions_in_bfloat16(model: Any) -> None:
    """Convert the inputs of wide convolutions of a model to bfloat16, in place.

    On a processor without bfloat16, OpenVINO computes them in float32 all the same.
    """
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
        _replace(node, ops.convert(low, "f32").output(0))


def _replace(node: Any, result: Any) -> None:
    for consumer in node.output(0).get_target_inputs():
        consumer.replace_source_output(result)
