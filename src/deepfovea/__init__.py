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
    from .api import load as load
    from .api import reconstruct as reconstruct
    from .checkpoint import save_model as save_model
    from .config import Density as Density
    from .config import InputError as InputError
    from .config import TrainConfig as TrainConfig
    from .files_to_files import reconstruct_file as reconstruct_file
    from .fill import accumulate as accumulate
    from .fill import pull_push as pull_push
    from .fovea import density_map as density_map
    from .fovea import downsample as downsample
    from .fovea import draw_mask as draw_mask
    from .fovea import sample as sample
    from .gaze import DisplayGeometry as DisplayGeometry
    from .gaze import GazeTrack as GazeTrack
    from .gaze import read_track as read_track
    from .gaze.live import LiveGaze as LiveGaze
    from .reconstructor import Reconstructor as Reconstructor
    from .resample import upsample_bicubic as upsample_bicubic
    from .video import Frame as Frame
    from .video import VideoReader as VideoReader
    from .video import VideoWriter as VideoWriter

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
    "LiveGaze": "gaze.live",
    "read_track": "gaze",
    "density_map": "fovea",
    "draw_mask": "fovea",
    "sample": "fovea",
    "downsample": "fovea",
    "pull_push": "fill",
    "accumulate": "fill",
    "upsample_bicubic": "resample",
    "load": "api",
    "reconstruct": "api",
    "save_model": "checkpoint",
    "Reconstructor": "reconstructor",
    "reconstruct_file": "files_to_files",
}

__all__ = [*_HOME, "__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deepfovea' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
