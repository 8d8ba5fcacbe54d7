"""The methods to compare: generators, baselines that need no training, and frames of other tools.

To add a baseline, add a row to :data:`BASELINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import SCALE, InputError, expected_one_of
from ..fill import accumulate, pull_push
from ..flow import dis_flow
from ..resample import upsample_bicubic
from ..runtime.engine import Engine
from ..video import VIDEO_SUFFIXES, VideoReader
from ..wording import pluralize
from .clips import ReferenceClip
from .inpaint import (
    biharmonic_frames,
    griddata_frames,
    natural_neighbour_frames,
    navier_stokes_frames,
    telea_frames,
)
from .low_rank import low_rank_frames
from .taau import taau_frames
from .total_variation import total_variation_frames


def fill_frames(samples: Tensor, mask: Tensor, state: None = None) -> tuple[Tensor, None]:
    """Baseline ``fill``: holes filled frame by frame, then bicubic ×4."""
    return upsample_bicubic(pull_push(samples, mask), SCALE), None


def accumulate_frames(samples: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Baseline ``accumulate``: samples carried along DIS flow or none, then bicubic ×4."""
    frames, state = accumulate(samples, mask, state, flow=dis_flow)
    return upsample_bicubic(frames, SCALE), state


def bicubic_frames(samples: Tensor, mask: Tensor, state: None = None) -> tuple[Tensor, None]:
    """Baseline ``bicubic-all``: bicubic ×4."""
    return upsample_bicubic(samples, SCALE), None


def lanczos_frames(samples: Tensor, mask: Tensor, state: None = None) -> tuple[Tensor, None]:
    """Baseline ``lanczos-all``: Lanczos ×4 of three lobes, Pillow's, clamped to [0, 1]."""
    height, width = (SCALE * side for side in samples.shape[-2:])
    planes = [
        np.asarray(
            Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS), np.float32
        )
        for plane in samples.cpu().float().flatten(0, 2).numpy()
    ]
    frames = torch.from_numpy(np.stack(planes)).to(samples)
    return frames.view(*samples.shape[:3], height, width).clamp(0.0, 1.0), None


@dataclass(frozen=True)
class Baseline:
    """A method that needs no training."""

    name: str
    definition: str
    """A description in one line, which names the authors."""
    frames: Callable[..., tuple[Tensor, Any]]
    """(samples [B,T,3,h,w], mask [B,T,1,h,w], state) -> frames [B,T,3,H,W], state; with ``jitter``
    or ``takes_motion``, it also takes motion and jitter, as a generator does."""
    sees: Literal["samples", "all"] = "samples"
    """``all``: it receives all low-resolution pixels instead of the samples."""
    jitter: str = "none"
    """Its own jitter, whatever the protocol says: see ``JITTERS``."""
    takes_motion: bool = False
    packages: tuple[str, ...] = ()
    """The modules that it needs, which the extra ``benchmark`` installs."""

    def unavailable(self) -> str | None:
        """None, or a message that says what is missing and how to install it."""
        for package in self.packages:
            if find_spec(package) is None:
                return f"needs {package}, which is missing: pip install 'deepfovea[benchmark]'"
        return None


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            "fill",
            "holes filled frame by frame by pull-push (Gortler et al. 1996), then bicubic x4",
            fill_frames,
        ),
        Baseline(
            "accumulate",
            "samples carried along DIS flow or none, holes filled by pull-push, then bicubic x4",
            accumulate_frames,
            packages=("cv2",),
        ),
        Baseline(
            "telea",
            "holes inpainted from their edges (Telea 2004, OpenCV), then bicubic x4",
            telea_frames,
            packages=("cv2",),
        ),
        Baseline(
            "navier-stokes",
            "holes inpainted along isophotes (Bertalmio et al. 2001, OpenCV), then bicubic x4",
            navier_stokes_frames,
            packages=("cv2",),
        ),
        Baseline(
            "griddata-linear",
            "linear interpolation on a Delaunay triangulation (SciPy), then bicubic x4",
            griddata_frames,
            packages=("scipy",),
        ),
        Baseline(
            "natural-neighbour",
            "natural-neighbour interpolation (Sibson 1981, startinpy), then bicubic x4",
            natural_neighbour_frames,
            packages=("scipy", "startinpy"),
        ),
        Baseline(
            "biharmonic",
            "biharmonic inpainting (Damelin and Hoang 2018, scikit-image), then bicubic x4",
            biharmonic_frames,
            packages=("skimage",),
        ),
        Baseline(
            "total-variation",
            "least total variation of colours (Chambolle and Pock 2011), then bicubic x4",
            total_variation_frames,
        ),
        Baseline(
            "low-rank",
            "causal tensor completion, rank 16 (OLSTEC, Kasai 2016), then bicubic x4",
            low_rank_frames,
        ),
        Baseline("bicubic-all", "all low-resolution pixels, bicubic x4", bicubic_frames, "all"),
        Baseline(
            "lanczos-all",
            "all low-resolution pixels, Lanczos x4 of three lobes (Pillow)",
            lanczos_frames,
            "all",
        ),
        Baseline(
            "taau-all",
            "all low-resolution pixels on a grid with Halton jitter, temporal upscaling with a "
            "clipped history (Yang et al. 2020)",
            taau_frames,
            "all",
            jitter="halton",
            takes_motion=True,
            packages=("cv2",),
        ),
    )
}
"""All baselines by name, in the order of the tables."""

DEFAULT_BASELINES = ("fill", "accumulate", "bicubic-all")

SEES_ALL = tuple(name for name, baseline in BASELINES.items() if baseline.sees == "all")
"""Names of the baselines that receive all low-resolution pixels."""


@dataclass(frozen=True)
class FramesFrom:
    """Frames from another tool: a folder with a video or a folder of images for every clip."""

    folder: Path

    def find(self, clip: str) -> Path:
        """Find the frames of a clip: a file or folder of its name, with any video suffix or none.

        Raises:
            InputError: there are none.
        """
        path = self.folder / clip
        stem = path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path
        for candidate in (path, stem, *(Path(f"{stem}{s}") for s in sorted(VIDEO_SUFFIXES))):
            if candidate.exists():
                return candidate
        raise InputError(
            f"--method: received {self.folder} without frames of {clip}; expected a video or a "
            f"folder of images {stem.relative_to(self.folder)} in it"
        )

    def frames(self, clip: ReferenceClip) -> Iterator[Tensor]:
        """Read as many frames [3, H, W] in [0, 1] as the clip has, cropped as the clip is.

        Raises:
            InputError: the frames have another size, or there are too few.
        """
        path, size = self.find(clip.name), clip.frames.shape[1:3]
        count = 0
        with VideoReader(path) as reader:
            if (reader.height, reader.width) not in (size, (clip.height, clip.width)):
                raise InputError(
                    f"{path}: received frames of {reader.width}x{reader.height} pixels, expected "
                    f"{size[1]}x{size[0]}, the size of the clip"
                )
            for frame in islice(reader, len(clip.frames)):
                count += 1
                pixels = np.ascontiguousarray(frame.image[: size[0], : size[1], :3])
                yield torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0
        if count < len(clip.frames):
            raise InputError(
                f"{path}: received {pluralize(count, 'frame')}, expected "
                f"{len(clip.frames)}, those of the clip"
            )


Method: TypeAlias = Engine | Baseline | FramesFrom


def jitter_of(method: Method, of_protocol: str) -> str:
    """The jitter with which a method is sampled, one of ``JITTERS``."""
    if isinstance(method, Baseline):
        return method.jitter
    takes_jitter = isinstance(method, Engine) and method.network.takes_jitter
    return of_protocol if takes_jitter else "none"


def takes_motion(method: Method) -> bool:
    """Whether a method takes motion."""
    if isinstance(method, Baseline):
        return method.takes_motion
    return isinstance(method, Engine) and method.network.takes_jitter


def run_method(
    method: Engine | Baseline,
    low: Tensor,
    mask: Tensor,
    device: str | torch.device = "cpu",
    jitter: Tensor | None = None,
    motion: Tensor | None = None,
) -> Iterator[Tensor]:
    """Reconstruct a clip with a method, in constant memory, and pass its state on.

    Args:
        method: the method.
        low: [T, 3, h, w], all low-resolution pixels.
        mask: [T, 1, h, w], 1 where sampled.
        device: the device of the method.
        jitter: [T, 2], see :class:`deepfovea.generators.Generator`; for methods that take it.
        motion: [T, 2, h, w], likewise.

    Yields:
        T frames [3, H, W] on the CPU, not clamped to [0, 1]. If the last group of frames is too
        short for the method, its last frame is repeated.
    """
    call, group = (
        (method.frames, 1) if isinstance(method, Baseline) else (method, method.frames_per_step)
    )
    if isinstance(method, Baseline) and method.sees == "all":
        mask = torch.ones_like(mask)
    state = None
    for start in range(0, len(low), group):
        here, known = (x[start : start + group] for x in (low, mask))
        count = len(here)
        if count < group:
            here, known = (
                torch.cat([x, x[-1:].expand(group - count, -1, -1, -1)]) for x in (here, known)
            )
        samples, known = (here * known)[None].to(device), known[None].to(device)
        given = {
            name: x[None, start : start + group].to(device)
            for name, x in (("motion", motion), ("jitter", jitter))
            if x is not None
        }
        with torch.inference_mode():
            frames, state = call(samples, known, state, **given)
        yield from frames[0, :count].cpu()


def baselines_by_name(names: Sequence[str]) -> dict[str, Method]:
    """The baselines of these names.

    Raises:
        InputError: a name is unknown, or a package that the baseline needs is missing.
    """
    for name in names:
        if name not in BASELINES:
            raise InputError(f"unknown baseline {name!r}: {expected_one_of(name, BASELINES)}")
        if missing := BASELINES[name].unavailable():
            raise InputError(f"baseline {name}: {missing}")
    return {name: BASELINES[name] for name in names}
