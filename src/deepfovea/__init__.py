"""DeepFovea++: foveated video reconstruction and super-resolution.

    import deepfovea

    model = deepfovea.load("stream")
    frames, state = model(samples, mask, state)

The public names, in the order of the data path. They are imported when first used, so that the
command line can answer without loading PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import load, save_model
    from .config import Density, InputError, TrainConfig
    from .files_to_files import reconstruct_file
    from .fill import accumulate, pull_push
    from .fovea import density_map, downsample, draw_mask, sample
    from .gaze import DisplayGeometry, GazeTrack, read_track
    from .reconstructor import Reconstructor
    from .resample import upsample_bicubic
    from .video import Frame, VideoReader, VideoWriter

__version__ = "0.1.0"

_HOME = {
    "InputError": "config",
    "Density": "config",
    "TrainConfig": "config",
    "Frame": "video",
    "VideoReader": "video",
    "VideoWriter": "video",
    "GazeTrack": "gaze",
    "DisplayGeometry": "gaze",
    "read_track": "gaze",
    "density_map": "fovea",
    "draw_mask": "fovea",
    "sample": "fovea",
    "downsample": "fovea",
    "pull_push": "fill",
    "accumulate": "fill",
    "upsample_bicubic": "resample",
    "load": "checkpoint",
    "save_model": "checkpoint",
    "Reconstructor": "reconstructor",
    "reconstruct_file": "files_to_files",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deepfovea' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
