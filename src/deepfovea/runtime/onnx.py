"""ONNX Runtime, in the one place that opens its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Run = Callable[[Sequence[Tensor]], list[Tensor]]
"""The inputs of a step in their order -> its outputs."""


def onnx_session(content: bytes, input_names: Sequence[str], output_names: Sequence[str]) -> Run:
    """What runs an ONNX model on the CPU, on as many threads as PyTorch.

    Args:
        content: the model.
        input_names: in the order of the tensors; those that the model does not have are ignored.
        output_names: of what is returned.
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
