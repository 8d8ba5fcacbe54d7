"""The check of input shapes that all generators share."""

from __future__ import annotations

from torch import Tensor

from ..config import InputError


def check_shapes(samples: Tensor, mask: Tensor) -> None:
    """Check that samples are [B, T, 3, h, w] and the mask is [B, T, 1, h, w].

    Raises:
        InputError: either is something else, such as a single frame.
    """
    for name, given, channels in (("samples", samples, 3), ("mask", mask, 1)):
        if not isinstance(given, Tensor) or given.ndim != 5:
            kind = type(given).__name__
            received = f"a tensor {list(given.shape)}" if isinstance(given, Tensor) else kind
            raise InputError(
                f"{name}: received {received}, expected a tensor [B, T, {channels}, h, w]; "
                "deepfovea.Reconstructor(model) takes a frame and the gaze"
            )
