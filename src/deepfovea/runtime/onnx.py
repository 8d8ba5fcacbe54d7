"""ONNX Runtime; only this module opens its sessions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import InputError

Run = Callable[[Sequence[Tensor]], list[Tensor]]
"""A compiled step: from its inputs, in order, to its outputs."""

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
"""ONNX Runtime's names of what executes a model. Each takes the operators that it has; the rest go
to those before it in this list."""

_TYPES = {"tensor(float)": (torch.float32, np.float32), "tensor(uint8)": (torch.uint8, np.uint8)}
"""The types of a step's tensors, by ONNX Runtime's names."""


def missing_provider(provider: str) -> str:
    """What to install so that ONNX Runtime has a provider; "" if it was built with it."""
    import onnxruntime

    if provider in onnxruntime.get_available_providers():
        return ""
    return (
        f"an ONNX Runtime with {provider}, which this one lacks: pip install onnxruntime-gpu in "
        "place of onnxruntime"
    )


def onnx_session(
    content: bytes,
    input_names: Sequence[str],
    output_names: Sequence[str],
    provider: str = CPU,
    cache: Path | None = None,
) -> Run:
    """Load an ONNX model, for the CPU with as many threads as PyTorch uses.

    Args:
        content: the model.
        input_names: the names of the tensors that the result receives, in their order; names that
            the model does not have are ignored.
        output_names: the names of the tensors that it returns.
        provider: :data:`CPU`, :data:`CUDA` or :data:`TENSORRT`. With the last two, all sizes of the
            model are fixed, and inputs and outputs are on a CUDA device.
        cache: folder in which TensorRT keeps compiled models; None: it keeps none.

    Returns:
        A function from the inputs to the outputs.

    Raises:
        InputError: ONNX Runtime cannot use the provider on this machine.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    keep = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
    settings: dict[str, dict[str, Any]] = {TENSORRT: keep if cache else {}, CUDA: {}, CPU: {}}
    chain = list(settings.items())[list(settings).index(provider) :]
    session = onnxruntime.InferenceSession(content, options, providers=chain)
    if session.get_providers()[0] != provider:
        raise InputError(
            f"--engine: ONNX Runtime was built with {provider} but cannot use it here; expected "
            "the driver and libraries that its version needs: choose cuda-graph or torch"
        )
    if provider != CPU:
        return bound_run(session, input_names, output_names)
    known = {tensor.name for tensor in session.get_inputs()}

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        named = zip(input_names, tensors, strict=True)
        feed = {name: tensor.numpy() for name, tensor in named if name in known}
        return [torch.from_numpy(array) for array in session.run(list(output_names), feed)]

    return run


def bound_run(session: Any, input_names: Sequence[str], output_names: Sequence[str]) -> Run:
    """Run a session on tensors where they are, on any device, without copies to the host.

    Args:
        session: of ONNX Runtime; all sizes of its model are fixed.
        input_names: see :func:`onnx_session`.
        output_names: likewise.
    """
    takes = {tensor.name: _TYPES[tensor.type][1] for tensor in session.get_inputs()}
    makes = {tensor.name: tensor for tensor in session.get_outputs()}

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        device = tensors[0].device
        where = device.type, device.index or 0
        outputs = [
            torch.empty(makes[name].shape, dtype=_TYPES[makes[name].type][0], device=device)
            for name in output_names
        ]
        binding = session.io_binding()
        inputs = [tensor.contiguous() for tensor in tensors]  # kept until the session has run
        for name, tensor in zip(input_names, inputs, strict=True):
            if name in takes:
                place = list(tensor.shape), tensor.data_ptr()
                binding.bind_input(name, *where, takes[name], *place)
        for name, tensor in zip(output_names, outputs, strict=True):
            place = list(tensor.shape), tensor.data_ptr()
            binding.bind_output(name, *where, _TYPES[makes[name].type][1], *place)
        if device.type == "cuda":  # ONNX Runtime has a stream of its own
            torch.cuda.synchronize(device)
        session.run_with_iobinding(binding)
        return outputs

    return run


def fold_constants(content: bytes) -> bytes:
    """Simplify an ONNX model as ONNX Runtime does whenever it loads one, so that loading is quick.

    Whatever does not depend on the inputs is computed, and what occurs twice is computed once. Only
    standard operators are used. Open the result with all optimizations disabled.

    Args:
        content: the model.

    Returns:
        A model that computes the same.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def record_sizes(
    content: bytes, input_names: Sequence[str], examples: Iterable[Sequence[Tensor]]
) -> bytes:
    """Write into an ONNX model whose sizes are not fixed which of its tensors are equally large.

    Opening a model, ONNX Runtime looks for tensors that can share memory. It compares every tensor
    with those that are free, and without this knowledge it finds few and compares for long.

    Args:
        content: the model. No size in it may depend on values.
        input_names: see :func:`onnx_session`.
        examples: inputs in the order of these names. Axes that are equally long in all of them are
            taken to be so always; if they are not, ONNX Runtime refuses to run the model. So every
            height and every width that the model will get must occur.

    Returns:
        The model with a ``value_info`` for each tensor; axes of variable length are named.
    """
    import onnx

    model, probe = onnx.load_from_string(content), onnx.load_from_string(content)
    outputs = {tensor.name for tensor in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    inner = [name for name in made if name not in outputs]
    for name in inner:
        probe.graph.output.add().name = name
    run = onnx_session(probe.SerializeToString(), input_names, inner)
    shapes: list[list[tuple[int, ...]]] = []
    for example in examples:
        tensors = run(example)
        shapes.append([tuple(tensor.shape) for tensor in tensors])
    names: dict[tuple[int, ...], str] = {}
    del model.graph.value_info[:]
    for name, tensor, *seen in zip(inner, tensors, *shapes, strict=True):
        axes = [
            lengths[0]
            if len(set(lengths)) == 1
            else names.setdefault(lengths, f"length_{len(names)}")
            for lengths in zip(*seen, strict=True)
        ]
        kind = onnx.helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, axes))
    return bytes(model.SerializeToString())
