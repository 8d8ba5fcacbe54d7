"""What every generator asks of the shapes of its input."""

from __future__ import annotations

from torch import Tensor

from ..config import InputError


def refuse_other_shapes(samples: Tensor, mask: Tensor) -> None:
    """Let pass samples [B, T, 3, h, w] with a mask [B, T, 1, h, w].

    Raises:
        InputError: others, such as one frame, or frame and gaze.
    """
    for name, given, channels in (("samples", samples, 3), ("mask", mask, 1)):
        if not isinstance(given, Tensor) or given.ndim != 5:
            kind = type(given).__name__
            received = f"a tensor {list(given.shape)}" if isinstance(given, Tensor) else kind
            raise InputError(
                f"{name}: received {received}, expected a tensor [B, T, {channels}, h, w]; "
                "deepfovea.Reconstructor(model) takes a frame and the gaze"
            )
