"""Models for ``torch.hub.load(REPOSITORY, "stream")``.

Each is called as ``frames, state = model(samples, mask, state)``.
"""

import sys
from pathlib import Path
from typing import Any

dependencies = ["av", "numpy", "PIL", "safetensors", "torch", "torchvision"]

sys.path.append(str(Path(__file__).parent / "src"))  # of use where the package is not installed


def stream(device: str = "auto", engine: str = "torch") -> Any:
    """Our own network: causal, knows where it was sampled, any size. See docs/model-cards."""
    return _load("stream", device, engine)


def stream_perceptual(device: str = "auto", engine: str = "torch") -> Any:
    """As stream, trained on for a crisper periphery."""
    return _load("stream-perceptual", device, engine)


def paper(device: str = "auto", engine: str = "torch") -> Any:
    """DeepFovea++ as published (Reich, Memmel, Grebe 2020), trained by us; six frames at a time."""
    return _load("paper", device, engine)


def _load(name: str, device: str, engine: str) -> Any:
    import deepfovea

    return deepfovea.load(name, device, engine)
