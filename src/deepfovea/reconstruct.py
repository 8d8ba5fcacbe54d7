"""The product as one loop: reader -> gaze -> fovea -> generator -> writer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import PUBLISHED_DENSITY, Density, InputError
from .fovea import reduce, sample
from .gaze import DisplayGeometry, GazeTrack, center
from .objective.metrics import psnr
from .pictures import side_by_side_panels, to_image
from .pipeline import ahead, apply_ahead, few_processors
from .video import Planes, VideoReader, VideoWriter, colorspace_of, to_planes

Result = TypeVar("Result")


class State(Protocol):
    """What a generator leaves for its next call: a NamedTuple of tensors."""


class Model(Protocol):
    """What the loop asks of a generator (see :class:`deepfovea.generators.stream.StreamNet`)."""

    scale: int
    frames_per_step: int

    def __call__(self, samples: Tensor, mask: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Samples [B,T,3,h,w] and mask [B,T,1,h,w] to frames [B,T,3,s·h,s·w] and state."""
        ...


LARGEST_SIDE = 4096
"""Of h and w; the sides of the output, four times as long, are then the longest of H.264."""

Gaze = tuple[float, float]
"""(x, y) in low-resolution pixels."""


class Reconstructed(NamedTuple):
    """frame [3,H,W] clamped to [0, 1]; samples [3,h,w] and mask [1,h,w] it was made from."""

    frame: Tensor
    samples: Tensor
    mask: Tensor
    gaze_px: Gaze


class Filmed(NamedTuple):
    """A frame as a video file holds it, and the mask [1,h,w] of the samples it was made from."""

    planes: Planes
    mask: Tensor


class Sampled(NamedTuple):
    """One step's samples [1,k,3,h,w] and mask [1,k,1,h,w], and the gaze of its real frames."""

    samples: Tensor
    mask: Tensor
    gaze: list[Gaze]


class Reconstructor:
    """Samples frames at the gaze and reconstructs them, one by one.

        reconstructor = Reconstructor(deepfovea.load("stream"))
        for frame, gaze_px in ...:
            shown = reconstructor(frame, gaze_px)  # [3, 4h, 4w]

    Args:
        model: a generator; it is used on the device where it is.
        density: how densely to sample, by distance from the gaze.
        seed: of the random draws.
        blue_noise: even rather than independent draws.
        geometry: of the display, for a density in degrees.
    """

    def __init__(
        self,
        model: Model,
        density: Density = PUBLISHED_DENSITY,
        *,
        seed: int = 0,
        blue_noise: bool = False,
        geometry: DisplayGeometry | None = None,
    ) -> None:
        self.model = model
        self.density = density
        self.seed = seed
        self.blue_noise = blue_noise
        self.geometry = geometry
        parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.state: State | None = None
        self.frames_seen = 0

    def __call__(self, frame: Tensor, gaze_px: Gaze) -> Tensor:
        """Sample one frame and reconstruct it at once.

        Args:
            frame: [3, h, w] in [0, 1], low resolution; or [4, h, w], whose last channel says
                which pixels are known (above 0), and then nothing more is dropped.
            gaze_px: (x, y) in low-resolution pixels.

        Returns:
            [3, scale · h, scale · w] in [0, 1].

        Raises:
            ValueError: the generator needs several frames at once (use :meth:`stream`).
        """
        if self.model.frames_per_step != 1:
            raise ValueError(
                f"this generator takes {self.model.frames_per_step} frames at a time; use stream()"
            )
        return next(self.stream([(frame, gaze_px)])).frame

    def stream(self, frames: Iterable[tuple[Tensor, Gaze]]) -> Iterator[Reconstructed]:
        """Reconstruct frame after frame, for any generator, in constant memory.

        A generator that takes n frames at a time yields them n by n; a last group that is too
        short is filled by repeating its last frame.

        Args:
            frames: pairs of frame and gaze as in :meth:`__call__`.
        """
        for group in self._sampled(frames):
            yield from self._reconstructed(group)

    def stream_ahead(
        self, frames: Iterable[tuple[Tensor, Gaze]]
    ) -> Generator[Reconstructed, None, None]:
        """As :meth:`stream`, but reading, sampling and the generator overlap.

        Up to two frames, or groups of frames, wait for the generator and two behind it. Close
        the iterator when it is left early, which ends its threads.
        """
        yield from self._overlapping(frames, self._reconstructed)

    def film_ahead(self, frames: Iterable[tuple[Tensor, Gaze]]) -> Generator[Filmed, None, None]:
        """As :meth:`stream_ahead`, with frames ready for :meth:`VideoWriter.write`."""
        yield from self._overlapping(frames, self._filmed)

    def _overlapping(
        self, frames: Iterable[tuple[Tensor, Gaze]], generate: Callable[[Sampled], list[Result]]
    ) -> Generator[Result, None, None]:
        with ExitStack() as stack:
            if self.device.type == "cpu" and few_processors():
                # Threads that wake up often would make those of the generator wait.
                sampled: Iterable[Sampled] = self._sampled(frames)
            else:
                read = stack.enter_context(closing(ahead(frames)))
                sampled = stack.enter_context(closing(ahead(self._sampled(read))))
            for results in stack.enter_context(closing(apply_ahead(generate, sampled))):
                yield from results

    def _sampled(self, frames: Iterable[tuple[Tensor, Gaze]]) -> Iterator[Sampled]:
        group = self.model.frames_per_step
        source = iter(frames)
        while pairs := list(islice(source, group)):
            count = len(pairs)
            pairs += [pairs[-1]] * (group - count)
            samples, mask = self._sample(pairs)
            self.frames_seen += count
            yield Sampled(samples, mask, [gaze_px for _, gaze_px in pairs[:count]])

    def _reconstructed(self, group: Sampled) -> list[Reconstructed]:
        samples, mask, gaze = group
        with torch.inference_mode():
            output, self.state = self.model(samples, mask, self.state)
            frames = _clamped(output[0])
        return [
            Reconstructed(frames[t], samples[0, t], mask[0, t], gaze_px)
            for t, gaze_px in enumerate(gaze)
        ]

    def _filmed(self, group: Sampled) -> list[Filmed]:
        samples, mask, gaze = group
        with torch.inference_mode():
            # Compiled generators make them in their graph.
            planes_of = getattr(self.model, "planes", self._planes)
            (luma, chroma), self.state = planes_of(samples, mask, self.state)
        times = range(len(gaze))
        return [Filmed(Planes(luma[0, t], chroma[0, t]), mask[0, t]) for t in times]

    def _planes(self, samples: Tensor, mask: Tensor, state: State | None) -> tuple[Planes, State]:
        frames, state = self.model(samples, mask, state)
        return to_planes(frames, colorspace_of(frames.shape[-1], frames.shape[-2])), state

    def _sample(self, pairs: list[tuple[Tensor, Gaze]]) -> tuple[Tensor, Tensor]:
        # A single one is not copied, which would be work for PyTorch's threads: see fovea.
        images = [frame[None, None] for frame, _ in pairs]
        frames = (torch.cat(images, 1) if len(images) > 1 else images[0]).to(self.device)
        if frames.shape[2] == 4:
            mask = (frames[:, :, 3:] > 0).to(frames.dtype)
            return frames[:, :, :3] * mask, mask
        gaze = torch.tensor([[gaze for _, gaze in pairs]])
        return sample(
            frames,
            gaze,
            self.density,
            seed=self.seed,
            first_frame=self.frames_seen,
            blue_noise=self.blue_noise,
            geometry=self.geometry,
        )


@dataclass(frozen=True)
class Summary:
    """What a run over a file did.

    frames; sampled: share of known low-resolution pixels; psnr: mean over frames, dB, None
    without a truth; seconds: wall time, decoding and encoding included, ``on_result`` not.
    """

    frames: int
    sampled: float
    psnr: float | None
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.seconds


def reconstruct_file(
    source: Path,
    output: Path,
    reconstructor: Reconstructor,
    *,
    gaze: GazeTrack | None = None,
    simulate: bool = False,
    side_by_side: Path | None = None,
    frame_rate: float | None = None,
    max_frames: int | None = None,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    on_frame: Callable[[], None] = lambda: None,
    on_result: Callable[[Reconstructed, Tensor | None], None] | None = None,
) -> Summary:
    """Reconstruct a video file or a folder of images into another.

    Decoding, sampling, the generator and encoding overlap; memory does not grow with the length.

    Args:
        source: low resolution; with alpha, alpha 0 marks the pixels that are not known.
        output: ``scale`` times larger, complete or absent.
        reconstructor: model, density and seed; it is reset first.
        gaze: where the eye looks; the centre by default.
        simulate: ``source`` is full resolution and is first reduced, as published; ``output``
            has its size and is compared with it.
        side_by_side: also write samples | reconstruction (| original) here.
        frame_rate: of a folder of images, 1/s.
        max_frames: stop after so many.
        overwrite: replace existing outputs.
        skip_unreadable: leave out frames that cannot be read, see :class:`VideoReader`.
        on_frame: called for every frame.
        on_result: called for every frame with the result and, when simulating, the truth
            [3, H, W].

    Raises:
        InputError: what cannot be read, written or used.
    """
    gaze = gaze or center()
    scale = reconstructor.model.scale
    reconstructor.reset()
    frames, sampled, quality = 0, 0.0, 0.0
    started = time.perf_counter()
    with ExitStack() as stack:
        reader = stack.enter_context(
            VideoReader(source, frame_rate=frame_rate, skip_unreadable=skip_unreadable)
        )
        if simulate and reader.has_alpha:
            raise InputError(
                f"{source}: received --simulate and an input with alpha, which brings its own "
                "samples; leave --simulate out, or give an input without alpha"
            )
        low = [-(-side // scale) if simulate else side for side in (reader.height, reader.width)]
        if max(low) > LARGEST_SIDE:
            raise InputError(
                f"{source}: received a low resolution of {low[1]}x{low[0]}; expected at most "
                f"{LARGEST_SIDE} on a side: scale it down, or add --simulate if this is the "
                "full resolution"
            )
        audio = None if source.is_dir() else source

        def open_writer(path: Path) -> VideoWriter:
            return stack.enter_context(
                VideoWriter(
                    path,
                    frame_rate=reader.frame_rate,
                    audio_from=audio if path.suffix else None,
                    overwrite=overwrite,
                    pixel_aspect=reader.pixel_aspect,
                )
            )

        writer = open_writer(output)
        beside = open_writer(side_by_side) if side_by_side else None
        waiting: deque[tuple[float, Tensor]] = deque()
        size = (reader.height, reader.width)

        def pairs() -> Iterator[tuple[Tensor, Gaze]]:
            for frame in islice(reader, max_frames):
                image = to_tensor(frame.image)
                low = reduce(pad(image, scale), scale) if simulate else image
                waiting.append((frame.pts_seconds, image))
                yield low, _gaze_px(gaze, frame.pts_seconds, image, scale if simulate else 1)

        # Unless somebody looks at RGB, frames are made as the encoder takes them.
        unseen = output.suffix and not (simulate or beside or on_result)
        begin = reconstructor.film_ahead if unseen else reconstructor.stream_ahead
        stream: Generator[Filmed | Reconstructed, None, None] = begin(pairs())
        # The last to be entered, so that its threads end before what they use is closed.
        for result in stack.enter_context(closing(stream)):
            pts_seconds, image = waiting.popleft()
            frames += 1
            # NumPy: see pictures.to_image.
            sampled += float(result.mask.cpu().numpy().mean())
            if isinstance(result, Filmed):
                writer.write(result.planes, pts_seconds)
            else:
                truth = image if simulate else None
                if truth is not None:
                    result = result._replace(frame=result.frame[..., : size[0], : size[1]])
                    quality += float(psnr(result.frame.cpu(), truth))
                shown = result.frame
                writer.write(to_image(shown), pts_seconds)
                if beside:
                    panels = side_by_side_panels(result.samples, shown, truth, result.gaze_px)
                    beside.write(panels, pts_seconds)
                if on_result:
                    called = time.perf_counter()
                    on_result(result, truth)
                    started += time.perf_counter() - called
            on_frame()
    seconds = time.perf_counter() - started
    return Summary(frames, sampled / frames, quality / frames if simulate else None, seconds)


def to_tensor(image: np.ndarray) -> Tensor:
    """Uint8 [H, W, C] to float [C, H, W] in [0, 1]."""
    planes = image.transpose(2, 0, 1).astype(np.float32, order="C")
    planes /= np.float32(255.0)
    return torch.from_numpy(planes)


def _clamped(frames: Tensor) -> Tensor:
    if frames.device.type != "cpu":
        return frames.clamp(0.0, 1.0)
    # NumPy: see pictures.to_image.
    return torch.from_numpy(frames.numpy().clip(0.0, 1.0))


def pad(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until [C, H, W] are multiples of ``multiple``."""
    height, width = image.shape[-2:]
    return F.pad(image[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")[0]


def sample_file(
    source: Path,
    output: Path,
    density: Density = PUBLISHED_DENSITY,
    *,
    gaze: GazeTrack | None = None,
    geometry: DisplayGeometry | None = None,
    seed: int = 0,
    blue_noise: bool = False,
    simulate: bool = False,
    frame_rate: float | None = None,
    max_frames: int | None = None,
    overwrite: bool = False,
    on_frame: Callable[[], None] | None = None,
) -> float:
    """Write what the network sees.

    Args:
        source: low resolution, or with ``simulate`` full resolution, which is reduced by four.
        output: RGBA where the format has alpha (a folder of PNGs, .webm, .mov): alpha 0 = not
            sampled; such a folder is an input of :func:`reconstruct_file`. Else RGB on black.
        density: see :class:`Reconstructor`, as for ``geometry``, ``seed``, ``blue_noise``.

    Returns:
        The share of pixels that were sampled.

    Raises:
        InputError: what cannot be read, written or used.
    """
    gaze = gaze or center()
    scale = 4 if simulate else 1
    frames, sampled = 0, 0.0
    with (
        VideoReader(source, frame_rate=frame_rate) as reader,
        VideoWriter(
            output,
            frame_rate=reader.frame_rate,
            audio_from=source if output.suffix and not source.is_dir() else None,
            overwrite=overwrite,
            pixel_aspect=reader.pixel_aspect,
        ) as writer,
    ):
        if reader.has_alpha:
            raise InputError(
                f"{source}: received an input with alpha, which is sampled already; "
                "expected one without alpha"
            )
        for frame in islice(reader, max_frames):
            image = to_tensor(frame.image)
            low = reduce(pad(image, scale), scale) if simulate else image
            gaze_px = _gaze_px(gaze, frame.pts_seconds, image, scale)
            samples, mask = sample(
                low[None, None],
                torch.tensor([[gaze_px]]),
                density,
                seed=seed,
                first_frame=frames,
                blue_noise=blue_noise,
                geometry=geometry,
            )
            pixels = to_image(samples[0, 0])
            if output.suffix.lower() in ("", ".webm", ".mov"):
                alpha = 255 * mask[0, 0].byte().permute(1, 2, 0).numpy()
                pixels = np.concatenate([pixels, alpha], -1)
            writer.write(pixels, frame.pts_seconds)
            frames += 1
            sampled += float(mask.mean())
            if on_frame:
                on_frame()
    return sampled / frames


def pick_device(name: str) -> torch.device:
    """``auto`` (CUDA, else MPS, else the CPU) or a device that is there.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise InputError(
            f"--device: received {name!r}, which is not usable here ({reason}); "
            "expected auto, cpu, cuda, cuda:N or mps"
        ) from None
    return device


def _gaze_px(gaze: GazeTrack, pts_seconds: float, image: Tensor, scale: int) -> Gaze:
    x, y = gaze.at([pts_seconds])[0]
    height, width = image.shape[-2:]
    return float(x * width / scale - 0.5), float(y * height / scale - 0.5)
