"""Conversion of frames between NumPy, PIL or torch and the tensors of the loop."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .config import InputError
from .images import to_image, to_levels

Frame: TypeAlias = "np.ndarray | Image.Image | Tensor"
"""One frame: NumPy [h, w, 3 or 4], uint8 or float in [0, 1]; a PIL image; torch [3 or 4, h, w].
The fourth channel says which pixels are known, above 0."""

AnyFrame = TypeVar("AnyFrame", np.ndarray, Image.Image, Tensor)

TOLERANCE = 0.01
"""Values may be outside [0, 1] by so much, as those of filters and codecs are. Our choice."""


def to_tensor(frame: Frame) -> Tensor:
    """Convert a frame to float [3 or 4, h, w] in [0, 1]; a torch tensor stays on its device.

    Raises:
        InputError: it has another shape or type, or values that are not finite or not in [0, 1].
    """
    if isinstance(frame, Image.Image):
        alpha = frame.mode in ("RGBA", "LA", "PA") or "transparency" in frame.info
        frame = np.asarray(frame.convert("RGBA" if alpha else "RGB"))
    if isinstance(frame, np.ndarray):
        if frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape:
            raise InputError(
                f"frame: received a NumPy array {list(frame.shape)}, expected [h, w, 3] or "
                "[h, w, 4]" + " (torch tensors are [3, h, w])" * (frame.shape[:1] == (3,))
            )
        tensor = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))
    elif isinstance(frame, Tensor):
        tensor = frame
        if tensor.ndim != 3 or tensor.shape[0] not in (3, 4) or 0 in tensor.shape:
            raise InputError(
                f"frame: received a tensor {list(tensor.shape)}, expected [3, h, w] or [4, h, w]"
            )
    else:
        raise InputError(
            f"frame: received {type(frame).__name__}, expected a NumPy array, a PIL image or a "
            "torch tensor"
        )
    if tensor.dtype == torch.uint8:
        return to_unit_range(tensor)
    if not tensor.is_floating_point():
        raise InputError(f"frame: received {tensor.dtype}, expected uint8, or float in [0, 1]")
    check_range(tensor)
    return tensor.float()


def to_unit_range(frames: Tensor) -> Tensor:
    """Levels of 8 bits to numbers in [0, 1] on their device; numbers are returned unchanged.

    The result has the same bits on every device.

    Args:
        frames: uint8 or float, any shape.
    """
    if frames.dtype != torch.uint8:
        return frames
    if frames.device.type == "cpu":
        return torch.from_numpy(levels_to_numbers(frames.numpy()))
    # By a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds differently.
    return frames.float() / torch.full((), 255.0, device=frames.device)


def levels_to_numbers(levels: np.ndarray) -> np.ndarray:
    """Levels of 8 bits, any shape, to float32 in [0, 1], contiguous."""
    # By NumPy, as PyTorch's threads would take processors from the generator.
    numbers = levels.astype(np.float32, order="C")
    numbers /= np.float32(255.0)
    return numbers


def check_range(frame: Tensor) -> None:
    """Check that the values of a frame are finite and about in [0, 1].

    Raises:
        InputError: they are not; the message says what to do.
    """
    least, most = (float(value) for value in torch.aminmax(frame.detach()))
    if not (least >= -TOLERANCE and most <= 1.0 + TOLERANCE):  # NaN too
        advice = "; divide by 255, or give uint8" if 1.0 < most <= 255.0 and least >= 0 else ""
        raise InputError(
            f"frame: received values from {least:.4g} to {most:.4g}, expected 0 to 1{advice}"
        )


def like(frame: Tensor, given: AnyFrame) -> AnyFrame:
    """Convert a frame [3, H, W] in [0, 1] to the type and data type of ``given``."""
    if isinstance(given, Image.Image):
        return Image.fromarray(np.ascontiguousarray(to_image(frame)))
    if isinstance(given, np.ndarray):
        if given.dtype == np.uint8:
            return np.ascontiguousarray(to_image(frame))
        array = frame.cpu().numpy().transpose(1, 2, 0).astype(given.dtype)
        return np.ascontiguousarray(array)
    if given.dtype == torch.uint8:
        return to_levels(frame).to(given.device)
    return frame.to(given)
