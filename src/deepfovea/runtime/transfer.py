"""Copies between the host and a GPU for which neither has to wait.

On the way to the GPU frames are uint8, a quarter of the bytes, and become numbers in [0, 1] there.
Both ways lead through page-locked ("pinned") memory, from which and to which a GPU copies by
itself while the host goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; if that is a GPU, the host does not wait for the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class OnItsWay:
    """Tensors that a GPU copies to the host; those of the host are there already."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._copied: torch.cuda.Event | None = None
        device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
        if device is None:
            return
        with torch.cuda.device(device):
            self._tensors = tuple(
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                for tensor in tensors
            )
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors in the host's memory, once all of them are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tensors
