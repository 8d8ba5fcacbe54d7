"""Random clips for training; a clip depends only on its index and the seed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ..config import JITTERS, PUBLISHED_DENSITY, SCALE, Density, InputError
from ..flow import FlowEstimator, backward_warp
from ..fovea import HALTON_LENGTH, density_map, downsample, draw_mask, jitter_sequence
from ..io.decoded_cache import Source
from ..wording import pluralize
from .animate import animate

TRUSTED_DIFFERENCE = 0.1
"""Colour difference in [0, 1] along an estimated motion at which its trust has fallen to 1 / e."""

# The variety of the clips. All of it is our choice, wide enough for what occurs in use; no
# experiment of docs/research/log.md varies it.
MAX_COUNTED_FRAMES = 200
"""Longer videos are drawn as often as one with so many frames."""
CUT_SHARE = 0.05
"""Share of clips with a cut to another video."""
DOUBLE_SPEED_SHARE = 0.15
"""Share of clips that take every second frame, if the video is long enough."""
SCALES = (1.0, 1.0, 1.35, 2.0)
"""Factors by which the video is made smaller, antialiased; each is equally frequent."""
JITTER_SHARES = (0.35, 0.45, 0.2)
"""Shares of clips with each of :data:`deepfovea.config.JITTERS`."""
SHUFFLED_SHARE = 0.5
"""Share of the clips with jitter ``quad`` whose phases come in a random order, a new one every four
frames, so that no motion always meets the same phases. Our choice."""
FIXATION_END = 0.08
"""Probability per frame that the eye jumps: fixations of 12 frames on average, half a second."""
GAZE_RANGE = (-0.5, 1.5)
"""Range of the gaze after a jump, in sides of the crop; 0 to 1 is inside."""
GAZE_DRIFT_PX = 0.3
"""Standard deviation of the gaze's drift per frame and axis, low-resolution pixels."""
BUDGET_SHARE, UNIFORM_SHARE = 0.2, 0.15
"""Shares of clips with a budget and with a uniform density; the others have the published one."""
BUDGETS, UNIFORM_DENSITIES = (0.05, 0.6), (0.05, 0.4)
"""Ranges of the budget and of the uniform density, as shares of the low-resolution pixels."""
ALL_PIXELS_SHARE = 0.25
"""Share of the clips of uniform density in which every pixel is sampled."""
BLUE_NOISE_SHARE = 0.6
"""Share of clips with blue-noise sampling."""
MAX_FIRST_FRAME = 10_000
"""The number of the first frame, which decides the phase of blue noise, is drawn below it."""

_log = logging.getLogger(__name__)


class TrainingClip(TypedDict):
    """One clip; PyTorch stacks it to [B,T,…].

    frames uint8 [T,3,H,W]; mask uint8 [T,1,h,w]; jitter [T,2], low-resolution pixels; motion
    [T,2,h,w], from a pixel to where it was one frame ago, low-resolution pixels; motion_trust
    [T,1,h,w] in [0, 1], how reliable the motion is, 0 where it is not known.
    """

    frames: Tensor
    mask: Tensor
    jitter: Tensor
    motion: Tensor
    motion_trust: Tensor


class ClipDataset(Dataset[TrainingClip]):
    """Random crops in space and time, with masks for a moving gaze.

    For each clip it draws scale (down to 1/2, antialiased), crop, flip, and direction and stride of
    time; a few clips have a cut to another video. The gaze fixates and jumps, inside or outside the
    crop. The density is the published one, a budget, or uniform, sometimes of all pixels. Draws are
    independent or blue noise, and the jitter is one of :data:`deepfovea.config.JITTERS`.

    Args:
        sources: the videos; those too short or too small for a clip are left out, with a warning.
        frames: T, number of frames of a clip.
        crop: side of the high-resolution square, pixels, a multiple of 32.
        seed: decides, together with the index, all random choices.
        varied: vary the sampling as above; otherwise use the published density, independent draws
            and one gaze point per clip.
        flow: estimates the motion of videos from their frames; None: their motion is unknown.
        photos: photographs, as files or uint8 [H, W, 3], which :func:`.animate.animate` turns into
            clips of known motion.
        photo_share: share of the clips that are made from photographs.
        jittered: whether to use jitter; False for a network that does not take it.
    """

    def __init__(
        self,
        sources: list[Source],
        frames: int,
        crop: int,
        seed: int,
        varied: bool = True,
        flow: FlowEstimator | None = None,
        photos: Sequence[Path | np.ndarray] = (),
        photo_share: float = 0.0,
        jittered: bool = True,
    ) -> None:
        usable = []
        for source in sources:
            count, height, width = source.frames.shape[:3]
            if count >= frames and min(height, width) >= crop // 2:
                usable.append(source)
            else:
                _log.warning(
                    "%s: left out; %d frames of %dx%d pixels are too short or too small for a clip",
                    *(source.name, count, height, width),
                )
        if not usable and not photos:
            raise InputError(
                f"none of {pluralize(len(sources), 'video')} has "
                f"{pluralize(frames, 'frame')} of at least {crop // 2}x{crop // 2} pixels; "
                "lower --clip or --crop"
            )
        if crop < 32 or crop % 32:
            raise InputError(f"--crop: received {crop}, expected a positive multiple of 32")
        self.sources = usable
        self.frames = frames
        self.crop = crop
        self.seed = seed
        self.varied = varied
        self.flow = flow
        self.photos = list(photos)
        self.photo_share = photo_share
        self.jittered = jittered
        # By square roots, as the frames of a long video resemble each other.
        weights = np.sqrt([min(len(s.frames), MAX_COUNTED_FRAMES) for s in usable])
        self.video_probability = weights / weights.sum()

    def __getitem__(self, index: int) -> TrainingClip:
        rng = np.random.default_rng((self.seed, index))
        if self.photos and (not self.sources or rng.random() < self.photo_share):
            frames, motion = self._animated(rng)
            trust = torch.ones(self.frames, 1, *motion.shape[-2:])
            trust[0] = 0.0  # as the generator has not seen a frame before
        else:
            frames = self._clip(rng)
            if rng.random() < CUT_SHARE and self.frames > 1:
                cut = int(rng.integers(1, self.frames))
                frames = torch.cat([frames[:cut], self._clip(rng)[cut:]])
            motion, trust = self._estimated(frames)
        return TrainingClip(
            frames=frames,
            mask=self._mask(rng),
            jitter=self._jitter(rng),
            motion=motion,
            motion_trust=trust,
        )

    def _animated(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        photos = [self.photos[int(rng.integers(len(self.photos)))] for _ in range(2)]
        background, foreground = map(_picture, photos)
        clip = animate(background, foreground, self.frames, self.crop, rng, SCALE)
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).contiguous()
        return frames, torch.from_numpy(clip.motion)

    def _estimated(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        side = self.crop // SCALE
        motion, trust = (
            torch.zeros(self.frames, 2, side, side),
            torch.zeros(self.frames, 1, side, side),
        )
        if self.flow is not None and self.frames > 1:
            images = frames.float() / 255.0
            fine = self.flow(images[:-1], images[1:])
            motion[1:] = F.avg_pool2d(fine, SCALE) / SCALE
            low = downsample(images)
            missed = (backward_warp(low[:-1], motion[1:]) - low[1:]).abs().mean(1, keepdim=True)
            trust[1:] = torch.exp(-(missed / TRUSTED_DIFFERENCE).square())
        return motion, trust

    def _jitter(self, rng: np.random.Generator) -> Tensor:
        varied = self.varied and self.jittered
        kind = rng.choice(JITTERS, p=JITTER_SHARES) if varied else "none"
        offsets = jitter_sequence(str(kind), int(rng.integers(HALTON_LENGTH)), self.frames)
        if offsets is None:
            return torch.zeros(self.frames, 2)
        if kind == "quad" and rng.random() < SHUFFLED_SHARE:
            orders = [rng.permutation(4) for _ in range(0, self.frames, 4)]
            phases = jitter_sequence("quad", 0, 4)
            assert phases is not None
            offsets = phases[np.concatenate(orders)[: self.frames]]
        return offsets

    def _clip(self, rng: np.random.Generator) -> Tensor:
        video = self.sources[rng.choice(len(self.sources), p=self.video_probability)].frames
        count, height, width = video.shape[:3]
        long = count >= 2 * self.frames
        stride = 2 if long and rng.random() < DOUBLE_SPEED_SHARE else 1
        start = int(rng.integers(0, count - stride * (self.frames - 1)))
        times = start + stride * np.arange(self.frames)
        if rng.random() < 0.5:
            times = times[::-1]
        side = min(height, width, round(self.crop * rng.choice(SCALES)))
        top = int(rng.integers(0, height - side + 1))
        left = int(rng.integers(0, width - side + 1))
        window = np.stack([video[t, top : top + side, left : left + side] for t in times])
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        if side != self.crop:
            frames = F.interpolate(
                frames, size=(self.crop, self.crop), mode="bilinear", antialias=True
            )
        return frames.flip(-1) if rng.random() < 0.5 else frames.contiguous()

    def _mask(self, rng: np.random.Generator) -> Tensor:
        side = self.crop // SCALE
        gaze = np.empty((self.frames, 2))
        for t in range(self.frames):
            if t == 0 or (self.varied and rng.random() < FIXATION_END):
                position = rng.uniform(GAZE_RANGE[0] * side, GAZE_RANGE[1] * side, 2)
            if self.varied:
                position = position + rng.normal(0.0, GAZE_DRIFT_PX, 2)
            gaze[t] = position
        kind = rng.random() if self.varied else 1.0
        density = PUBLISHED_DENSITY
        if kind < BUDGET_SHARE:
            density = Density(budget=float(rng.uniform(*BUDGETS)))
        elif kind < BUDGET_SHARE + UNIFORM_SHARE:
            choices = [rng.uniform(*UNIFORM_DENSITIES), 1.0]
            p = float(rng.choice(choices, p=[1.0 - ALL_PIXELS_SHARE, ALL_PIXELS_SHARE]))
            density = Density(center=p, periphery=p)
        probability = density_map(torch.from_numpy(gaze).float(), side, side, density)
        mask = draw_mask(
            probability[None],
            seed=int(rng.integers(2**32)),
            first_frame=int(rng.integers(MAX_FIRST_FRAME)),
            blue_noise=self.varied and rng.random() < BLUE_NOISE_SHARE,
        )
        return mask[0].to(torch.uint8)


def _picture(photo: Path | np.ndarray) -> np.ndarray:
    if isinstance(photo, np.ndarray):
        return photo
    from ..images import read_picture  # here, as it imports Pillow

    return read_picture(photo)


PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_photos(folder: str | Path) -> list[Path]:
    """Find the photographs in a folder and below it; none for an empty name.

    Raises:
        InputError: there is no such folder, or no photograph in it.
    """
    if not str(folder):
        return []
    paths = sorted(p for p in Path(folder).glob("**/*") if p.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise InputError(
            f"--photos {folder}: received no photograph; expected a folder with files that end in "
            + ", ".join(PHOTO_SUFFIXES)
        )
    return paths
