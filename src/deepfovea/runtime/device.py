"""Choice of the device that computes."""

from __future__ import annotations

import re

import torch

from ..config import InputError


def pick_device(name: str) -> torch.device:
    """The device of this name; ``auto`` takes CUDA, else MPS, else the CPU.

    Raises:
        InputError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Only the first sentence, as the rest is long advice with links.
        reason = re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")[:120]
        raise InputError(
            f"--device: received {name!r}, which is not usable here ({reason}); "
            "expected auto, cpu, cuda, cuda:N or mps"
        ) from None
    return device
