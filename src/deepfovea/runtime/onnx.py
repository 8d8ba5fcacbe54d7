"""ONNX Runtime; only this module opens its sessions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

Run = Callable[[Sequence[Tensor]], list[Tensor]]
"""A compiled step: from its inputs, in order, to its outputs."""


def onnx_session(content: bytes, input_names: Sequence[str], output_names: Sequence[str]) -> Run:
    """Load an ONNX model for the CPU, with as many threads as PyTorch uses.

    Args:
        content: the model.
        input_names: the names of the tensors that the result receives, in their order; names that
            the model does not have are ignored.
        output_names: the names of the tensors that it returns.

    Returns:
        A function from the inputs to the outputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    known = {tensor.name for tensor in session.get_inputs()}

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        named = zip(input_names, tensors, strict=True)
        feed = {name: tensor.numpy() for name, tensor in named if name in known}
        return [torch.from_numpy(array) for array in session.run(list(output_names), feed)]

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
