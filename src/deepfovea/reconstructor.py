"""Reconstruction frame by frame: gaze -> fovea -> generator -> frame."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from .arrays import AnyFrame, check_range, like, to_tensor, to_unit_range
from .checkpoint import load
from .config import BEST_SAMPLING, PUBLISHED_DENSITY, Density, InputError
from .fovea import sample
from .gaze import DisplayGeometry
from .generators import Network
from .io.prefetch import few_processors, prefetch, prefetch_map
from .runtime.engine import Engine
from .runtime.transfer import OnItsWay, to_device
from .sampling_record import check_jitter
from .video import YUV420

Result = TypeVar("Result")


Model = Network | Engine
"""A generator, or an engine that runs one."""

Gaze = tuple[float, float]
"""(x, y) in low-resolution pixels."""


class Reconstructed(NamedTuple):
    """A frame [3,H,W], clamped to [0, 1], and the samples [3,h,w] and mask [1,h,w] behind it."""

    frame: Tensor
    samples: Tensor
    mask: Tensor
    gaze_px: Gaze | None


class YuvFrame(NamedTuple):
    """A frame in YCbCr, as video files store it, and the mask [1,h,w] of its samples."""

    planes: YUV420
    mask: Tensor


class Input(NamedTuple):
    """One frame to be reconstructed; only ``frame`` is always needed.

    frame [3,h,w], uint8 or float in [0, 1], or [4,h,w] with a last channel that is above 0 at the
    sampled pixels; gaze_px: (x, y) in low-resolution pixels, needed without that channel; motion
    [2,h,w]: from each pixel to where it was one frame ago, (x, y) in low-resolution pixels; jitter:
    the offset (x, y) of the grid on which the frame was sampled, low-resolution pixels.
    """

    frame: Tensor
    gaze_px: Gaze | None = None
    motion: Tensor | None = None
    jitter: tuple[float, float] | None = None


Frames = Input | tuple[Tensor, Gaze | None]
"""The items that a loop over frames takes: an Input, or a pair of frame and gaze."""


class Sampled(NamedTuple):
    """The input of one step: samples [1,k,3,h,w], mask [1,k,1,h,w], motion [1,k,2,h,w], jitter
    [1,k,2].

    ``gaze`` lists the gaze of the step's frames without padding, which may be fewer than k.
    """

    samples: Tensor
    mask: Tensor
    motion: Tensor | None
    jitter: Tensor | None
    gaze: list[Gaze | None]


class Reconstructor:
    """Samples frames at the gaze and reconstructs them, one by one.

        reconstructor = Reconstructor(deepfovea.load("stream"))
        for frame, gaze_px in ...:
            shown = reconstructor(frame, gaze_px)  # four times larger, of the type of frame

    Args:
        model: a generator, which stays on its device, or an engine that runs one; or the name or
            path of a generator.
        density: the density of the samples by distance from the gaze.
        seed: seed of the random masks.
        blue_noise: spread samples evenly in space and time; False: draw them independently, as
            published.
        geometry: the display, for a density in degrees.
    """

    def __init__(
        self,
        model: Model | str | Path,
        density: Density = PUBLISHED_DENSITY,
        *,
        seed: int = 0,
        blue_noise: bool = BEST_SAMPLING.noise == "blue",
        geometry: DisplayGeometry | None = None,
    ) -> None:
        model = load(model) if isinstance(model, str | Path) else model
        if not hasattr(model, "scale") or not hasattr(model, "frames_per_step"):
            raise InputError(
                f"model: received {type(model).__name__}, expected a generator, as "
                "deepfovea.load('stream') returns it, or its name"
            )
        self.engine = model if isinstance(model, Engine) else Engine(model)
        self.density = density
        self.seed = seed
        self.blue_noise = blue_noise
        self.geometry = geometry
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.state: Any = None
        self.frames_seen = 0
        self.size: tuple[int, int] | None = None

    def __call__(
        self,
        frame: AnyFrame,
        gaze_px: Gaze | None = None,
        *,
        motion: Tensor | np.ndarray | None = None,
        jitter: tuple[float, float] | None = None,
    ) -> AnyFrame:
        """Sample one frame and reconstruct it at once.

        Args:
            frame: the low resolution: torch [3, h, w], NumPy [h, w, 3] (uint8, or float in [0, 1])
                or a PIL image. If there is a fourth channel, pixels with values above 0 in it are
                the samples, and no further sampling takes place.
            gaze_px: (x, y) in low-resolution pixels; needed without a fourth channel.
            motion: [2, h, w], motion vectors of a renderer: from each pixel to where it was one
                frame ago, (x, y) in low-resolution pixels. Give it for all frames of a video or for
                none; that of the first frame has no effect.
            jitter: the offset (x, y) of the grid on which the frame was sampled, low-resolution
                pixels, at most 1. The result lies on the output grid in any case.

        Returns:
            The frame, ``scale`` times larger, of the type of ``frame``.

        Raises:
            InputError: values are outside [0, 1]; the size changes within a video; the gaze is
                missing or not finite; or motion or jitter does not fit, or the generator cannot use
                it.
            ValueError: the generator needs several frames at once (use :meth:`stream`).
        """
        if self.engine.frames_per_step != 1:
            raise ValueError(
                f"received one frame; this generator takes {self.engine.frames_per_step} frames "
                "at a time: use stream()"
            )
        field = None if motion is None else torch.as_tensor(motion)
        given = Input(to_tensor(frame), gaze_px, field, jitter)
        return like(next(self.stream([given])).frame, frame)

    def stream(self, frames: Iterable[Frames]) -> Iterator[Reconstructed]:
        """Reconstruct frame after frame, with any generator, in constant memory.

        A generator that takes n frames at a time returns n at a time; if the last group is too
        short, its last frame is repeated.

        Args:
            frames: pairs of frame and gaze, or items of :class:`Input`.
        """
        for group in self._sampled(frames):
            yield from self._reconstructed(group)

    def stream_prefetched(self, frames: Iterable[Frames]) -> Generator[Reconstructed, None, None]:
        """As :meth:`stream`, but reading, sampling and the generator overlap.

        Up to two frames, or groups of frames, wait before the generator and two after it. If you
        stop iterating early, close the iterator, which ends its threads.
        """
        with closing(self._overlapping(frames, self._reconstructed)) as groups:
            for results in groups:
                yield from results

    def stream_yuv(self, frames: Iterable[Frames]) -> Generator[YuvFrame, None, None]:
        """As :meth:`stream_prefetched`, but with frames in YCbCr for :meth:`VideoWriter.write`, in
        the host's memory. A GPU copies them there while it computes the next ones."""
        with closing(self._overlapping(frames, self._to_yuv)) as groups:
            for coming in groups:
                for luma, chroma, mask in zip(*coming.wait(), strict=True):
                    yield YuvFrame(YUV420(luma, chroma), mask)

    def _overlapping(
        self,
        frames: Iterable[Frames],
        generate: Callable[[Sampled], Result],
    ) -> Generator[Result, None, None]:
        with ExitStack() as stack:
            if self.engine.device.type == "cpu" and few_processors():
                # Further threads, which wake up often, would delay those of the generator.
                sampled: Iterable[Sampled] = self._sampled(frames)
            else:
                read = stack.enter_context(closing(prefetch(frames)))
                sampled = stack.enter_context(closing(prefetch(self._sampled(read))))
            yield from stack.enter_context(closing(prefetch_map(generate, sampled)))

    def _sampled(self, frames: Iterable[Frames]) -> Iterator[Sampled]:
        group = self.engine.frames_per_step
        source = iter(frames)
        while taken := list(islice(source, group)):
            inputs = [Input(*one) for one in taken]
            for one in inputs:
                self._check(one)
            count = len(inputs)
            inputs += [inputs[-1]] * (group - count)
            samples, mask = self._sample(inputs)
            motion, jitter = self._motion(inputs), self._jitter(inputs)
            self.frames_seen += count
            yield Sampled(samples, mask, motion, jitter, [one.gaze_px for one in inputs[:count]])

    def _reconstructed(self, group: Sampled) -> list[Reconstructed]:
        samples, mask, motion, jitter, gaze = group
        with torch.inference_mode():
            output, self.state = self.engine(samples, mask, self.state, motion, jitter)
            frames = _clamped(output[0])
        return [
            Reconstructed(frames[t], samples[0, t], mask[0, t], gaze_px)
            for t, gaze_px in enumerate(gaze)
        ]

    def _to_yuv(self, group: Sampled) -> OnItsWay:
        """Luma [k,1,H,W], chroma [k,2,H/2,W/2] and mask [k,1,h,w] of the step's frames."""
        samples, mask, motion, jitter, gaze = group
        with torch.inference_mode():
            (luma, chroma), self.state = self.engine.yuv420(
                samples, mask, self.state, motion, jitter
            )
            count = len(gaze)
            return OnItsWay((luma[0, :count], chroma[0, :count], mask[0, :count]))

    def _check(self, given: Input) -> None:
        """Check that a generator can use an input.

        Raises:
            InputError: see :meth:`__call__`.
        """
        frame, gaze_px, motion, jitter = given
        size = (frame.shape[-2], frame.shape[-1])
        if self.size not in (None, size):
            raise InputError(
                f"frame: received {size[1]}x{size[0]} in a video of "
                f"{self.size[1]}x{self.size[0]}; reset() begins another video"
            )
        self.size = size
        if frame.dtype != torch.uint8:
            check_range(frame)
        if jitter is not None:
            check_jitter(jitter)
        if motion is not None and motion.shape != (2, *size):
            raise InputError(
                f"motion: received {list(motion.shape)}, expected {[2, *size]}: (x, y) for every "
                "low-resolution pixel"
            )
        if motion is not None and not bool(torch.isfinite(motion).all()):
            raise InputError(
                "motion: received values that are not finite; expected 0 where nothing is known"
            )
        if len(frame) == 4:
            return
        if gaze_px is None:
            raise InputError(
                "gaze_px: received none for a frame without a mask; expected (x, y) in "
                "low-resolution pixels, or a fourth channel that says which pixels are known"
            )
        if not all(map(isfinite, gaze_px)):
            raise InputError(
                f"gaze_px: received {tuple(gaze_px)}, expected finite pixels; where the "
                "tracker was lost, hold the last position"
            )

    def _motion(self, inputs: list[Input]) -> Tensor | None:
        """The motion [1, k, 2, h, w]; None unless every frame has it."""
        fields = [one.motion for one in inputs if one.motion is not None]
        if len(fields) < len(inputs):
            return None
        return to_device(torch.stack(fields)[None].float(), self.engine.device)

    def _jitter(self, inputs: list[Input]) -> Tensor | None:
        """The jitter [1, k, 2], 0 for frames without one; None if no frame has one."""
        if all(one.jitter is None for one in inputs):
            return None
        offsets = [one.jitter or (0.0, 0.0) for one in inputs]
        return to_device(torch.tensor([offsets]), self.engine.device)

    def _sample(self, inputs: list[Input]) -> tuple[Tensor, Tensor]:
        # A single frame is not concatenated, as that would start PyTorch's threads: see fovea.
        images = [one.frame[None, None] for one in inputs]
        frames = torch.cat(images, 1) if len(images) > 1 else images[0]
        frames = to_unit_range(to_device(frames, self.engine.device))
        if frames.shape[2] == 4:
            mask = (frames[:, :, 3:] > 0).to(frames.dtype)
            return frames[:, :, :3] * mask, mask
        gaze = torch.tensor([[one.gaze_px for one in inputs]])
        return sample(
            frames,
            gaze,
            self.density,
            seed=self.seed,
            first_frame=self.frames_seen,
            blue_noise=self.blue_noise,
            geometry=self.geometry,
        )


def _clamped(frames: Tensor) -> Tensor:
    if frames.device.type != "cpu":
        return frames.clamp(0.0, 1.0)
    # NumPy: see images.to_image.
    return torch.from_numpy(frames.numpy().clip(0.0, 1.0))
