"""Reconstruction from file to file: reader -> Reconstructor -> writer."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import sampling_record
from .arrays import levels_to_numbers
from .config import BEST_SAMPLING, LARGEST_SIDE, PUBLISHED_DENSITY, SCALE, Density, InputError
from .fill import pull_push
from .fovea import downsample, jitter_sequence, sample
from .gaze import DisplayGeometry, GazeTrack, center
from .images import side_by_side_panels, to_image
from .io.outputs import ensure_folder, refuse_overlap
from .metrics.pixel import psnr
from .motion import MotionFiles, fill_motion, find_motion, lies_beside, read_motion
from .reconstructor import Gaze, Input, Model, Reconstructed, Reconstructor, YuvFrame
from .resample import upsample_bicubic
from .video import ALPHA_SUFFIXES, Frame, VideoReader, VideoWriter, list_images

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The result of :func:`reconstruct_file`.

    frames: number of frames; sampled: share of the low-resolution pixels that were sampled; psnr:
    mean over the frames, dB, None if the true frames are not known; baseline_psnr: the same for
    hole filling and bicubic upsampling; seconds: elapsed time including decoding and encoding, but
    not ``on_result`` and the baseline.
    """

    frames: int
    sampled: float
    psnr: float | None
    baseline_psnr: float | None
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames per second of elapsed time."""
        return self.frames / self.seconds


def reconstruct_file(
    source: Path,
    output: Path,
    reconstructor: Reconstructor | Model,
    *,
    gaze: GazeTrack | None = None,
    simulate: bool = False,
    jitter: str = "none",
    motion: MotionFiles | None = None,
    side_by_side: Path | None = None,
    frame_rate: float | Fraction | None = None,
    max_frames: int | None = None,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    audio_track: int | None = None,
    hwaccel: str = "none",
    on_frame: Callable[[], None] = lambda: None,
    on_result: Callable[[Reconstructed, Tensor | None], None] | None = None,
) -> Summary:
    """Reconstruct a video file or a folder of images into another.

    Decoding, sampling, the generator and encoding overlap. The memory does not grow with the length
    of the video.

    Args:
        source: the low resolution. If it has alpha, pixels with alpha 0 are not sampled; if its
            alpha is compressed with loss (.webm), those below a half are not, with a warning.
        output: ``scale`` times larger, complete or absent.
        reconstructor: model, density and seed; it is reset first. A bare model is used with the
            published density.
        gaze: where the eye looks; by default the centre.
        simulate: ``source`` has the full resolution and is first downsampled, as published;
            ``output`` has its size and is compared with it.
        jitter: with ``simulate``, how the sampling grid is shifted from frame to frame, one of
            :data:`deepfovea.config.JITTERS`. A folder of samples states its own jitter in
            :data:`deepfovea.sampling_record.FILE`.
        motion: files of motion vectors for a folder of images; by default those in the same folder,
            if the generator can use them. Where the motion is unknown, it is filled from around.
        side_by_side: also write samples | reconstruction (| original) to this path.
        frame_rate: frame rate of a folder of images, 1/s.
        max_frames: stop after so many frames.
        overwrite: replace existing outputs.
        skip_unreadable: leave out frames that cannot be read, see :class:`VideoReader`.
        audio_track: number of the audio track of ``source``, from 1; None: the default one.
        hwaccel: ``cuda`` decodes and encodes videos on an NVIDIA GPU; where it cannot, the CPU
            does, and a warning says why.
        on_frame: called for every frame.
        on_result: called for every frame with the result and, with ``simulate``, the true frame
            [3, H, W].

    Raises:
        InputError: a file cannot be read, written or used, or an output is the input or lies inside
            it.
    """
    gaze = gaze or center()
    if not isinstance(reconstructor, Reconstructor):
        reconstructor = Reconstructor(reconstructor)
    scale = reconstructor.engine.scale
    reconstructor.reset()
    frames, sampled, quality, baseline = 0, 0.0, 0.0, 0.0
    started = time.perf_counter()
    outputs = [output, side_by_side] if side_by_side else [output]
    refuse_overlap(outputs, [source, *([motion.folder] if motion and motion.folder else [])])
    with ExitStack() as stack:
        reader = stack.enter_context(
            VideoReader(
                source, frame_rate=frame_rate, skip_unreadable=skip_unreadable, hwaccel=hwaccel
            )
        )
        pairs = read_inputs(
            reader,
            reconstructor,
            gaze,
            simulate=simulate,
            jitter=jitter,
            motion=motion,
            max_frames=max_frames,
        )
        audio = None if source.is_dir() else source
        for path in outputs:
            stack.enter_context(ensure_folder(path.parent))

        def open_writer(path: Path) -> VideoWriter:
            return stack.enter_context(
                VideoWriter(
                    path,
                    frame_rate=_output_rate(reader, path),
                    audio_from=audio,
                    audio_track=audio_track,
                    overwrite=overwrite,
                    pixel_aspect=reader.pixel_aspect,
                    hwaccel=hwaccel,
                )
            )

        writer = open_writer(output)
        beside = open_writer(side_by_side) if side_by_side else None
        waiting: deque[tuple[float, Tensor]] = deque()
        size = (reader.height, reader.width)

        def inputs() -> Iterator[Input]:
            for frame, truth, given in pairs:
                waiting.append((frame.pts_seconds, truth))
                yield given

        # If nobody needs RGB, frames are made as the encoder needs them.
        unseen = output.suffix and not (simulate or beside or on_result)
        begin = reconstructor.stream_yuv if unseen else reconstructor.stream_prefetched
        stream: Generator[YuvFrame | Reconstructed, None, None] = begin(inputs())
        # Entered last, so that its threads end before the files that they use are closed.
        for result in stack.enter_context(closing(stream)):
            pts_seconds, image = waiting.popleft()
            frames += 1
            # NumPy: see images.to_image.
            sampled += float(result.mask.cpu().numpy().mean())
            if isinstance(result, YuvFrame):
                writer.write(result.planes, pts_seconds)
            else:
                truth = image if simulate else None
                if truth is not None:
                    result = result._replace(frame=result.frame[..., : size[0], : size[1]])
                    quality += float(psnr(result.frame.cpu(), truth))
                    called = time.perf_counter()
                    samples = result.samples.cpu()
                    if jitter != "none":  # which hole filling cannot use
                        samples = samples_without_jitter(truth, result.mask.cpu(), scale)
                    baseline += float(psnr(_baseline(samples, result.mask, scale, size), truth))
                    started += time.perf_counter() - called
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
        if reader.has_alpha:
            _check_alpha(source, sampled / max(frames, 1))
    seconds = time.perf_counter() - started
    return Summary(
        frames=frames,
        sampled=sampled / frames,
        psnr=quality / frames if simulate else None,
        baseline_psnr=baseline / frames if simulate else None,
        seconds=seconds,
    )


def _check_alpha(source: Path, share: float) -> None:
    """Warn if the alpha of a source probably does not mark samples.

    Raises:
        InputError: it marks no pixel as sampled.
    """
    if share == 0:
        raise InputError(
            f"{source}: received alpha 0 in all pixels of all frames, which marks them as not "
            "sampled; expected other alpha at those that are, or none"
        )
    if share == 1:
        _log.warning(
            "%s: its alpha is 0 nowhere, so that all pixels were taken as sampled; give frames "
            "without alpha to sample them where the eye looks",
            source,
        )


def best_jitter(reconstructor: Reconstructor, simulate: bool) -> str:
    """The jitter of :data:`BEST_SAMPLING` if it can be used, else ``none``.

    It can be used if a full resolution is sampled, and if the generator takes jitter.
    """
    usable = simulate and reconstructor.engine.network.takes_jitter
    return BEST_SAMPLING.jitter if usable else "none"


def samples_without_jitter(truth: Tensor, mask: Tensor, scale: int = SCALE) -> Tensor:
    """The samples of a frame [3,H,W] at the pixels of a mask [1,h,w], without jitter."""
    return downsample(pad(truth[None], scale), scale)[0] * mask


def read_inputs(
    reader: VideoReader,
    reconstructor: Reconstructor,
    gaze: GazeTrack,
    *,
    simulate: bool = False,
    jitter: str = "none",
    motion: MotionFiles | None = None,
    max_frames: int | None = None,
) -> Iterator[tuple[Frame, Tensor, Input]]:
    """Read the inputs of a reconstructor from a file or folder, with the files beside its images.

    Args: see :func:`reconstruct_file`.

    Yields:
        The frame as it was read, the same as a tensor [3 or 4, H, W], float in [0, 1] with
        ``simulate`` and else uint8, and the input.

    Raises:
        InputError: at once if the source cannot be used; for motion, when its frame is read.
    """
    source, scale = reader.path, reconstructor.engine.scale
    if simulate and reader.has_alpha:
        raise InputError(
            f"{source}: received --simulate and an input with alpha, which brings its own "
            "samples; leave --simulate out, or give an input without alpha"
        )
    if jitter != "none" and not simulate:
        raise InputError(
            f"--jitter {jitter}: shifts the grid on which a full resolution is sampled; "
            "expected --simulate with it, or a folder of samples with its shifts in "
            f"{sampling_record.FILE}"
        )
    images = list_images(source) if source.is_dir() else []
    record = None
    if images:
        record = sampling_record.read(source, len(images), reader.height, reader.width)
    moves = record is not None and any(any(frame.jitter) for frame in record)
    low = [-(-side // scale) if simulate else side for side in (reader.height, reader.width)]
    fields = _find_motion(motion, reader, images, reconstructor, max_frames)
    if max(low) > LARGEST_SIDE:
        raise InputError(
            f"{source}: received a low resolution of {low[1]}x{low[0]}; expected at most "
            f"{LARGEST_SIDE} on a side: scale it down, or add --simulate if this is the "
            "full resolution"
        )
    if reader.lossy_alpha:
        _log.warning(
            "%s: its alpha and colours were compressed with loss; pixels of less than half "
            "opacity are taken for unknown; a folder of PNG, .mkv or .mov keeps samples",
            source,
        )

    def inputs() -> Iterator[tuple[Frame, Tensor, Input]]:
        last = 0
        for frame in islice(reader, max_frames):
            pixels, number = frame.image, frame.number
            if reader.lossy_alpha:
                pixels[..., 3] = np.where(pixels[..., 3] < 128, 0, 255)
            offset = jitter_sequence(jitter, number, 1)
            low = image = to_tensor(pixels) if simulate else to_planes(pixels)
            if simulate:
                low = downsample(pad(image[None], scale), scale, offset)[0]
            gaze_px = _gaze_px(gaze, number, frame.pts_seconds, image, scale if simulate else 1)
            shift = None if offset is None else (float(offset[0, 0]), float(offset[0, 1]))
            if record is not None and moves:
                shift = record[number].jitter
            field = fields(number, low, shift)
            if field is not None and number > last + 1:
                # If frames were left out, the motion since the last frame is assumed to be uniform.
                field = field * (number - last)
            last = number
            yield frame, image, Input(low, gaze_px, field, shift)

    return inputs()


def _find_motion(
    motion: MotionFiles | None,
    reader: VideoReader,
    images: list[Path],
    reconstructor: Reconstructor,
    count: int | None,
) -> Callable[[int, Tensor, tuple[float, float] | None], Tensor | None]:
    """Make a function that reads a frame's motion: (number, frame [·,h,w], jitter) -> [2,h,w] or
    None.

    Raises:
        InputError: the source is not a folder of images, or an image has no motion.
    """
    if motion is None:
        motion = MotionFiles(reader.path if lies_beside(images) else None)
        if motion.folder and not reconstructor.engine.network.takes_jitter:
            _log.warning(
                "%s: holds motion, which this model cannot use; it is left out", motion.folder
            )
            motion = MotionFiles(None)
    if motion.folder is None:
        return lambda index, low, jitter: None
    if not images:
        raise InputError(
            f"--motion {motion.folder}: received {reader.path} with it; expected a folder with one "
            "image for each frame"
        )
    files = find_motion(images if reader.skip_unreadable else images[:count], motion.folder)

    def read(index: int, low: Tensor, jitter: tuple[float, float] | None) -> Tensor:
        file, (height, width) = files[index], low.shape[-2:]
        if file is None:  # the first frame has no frame before it
            return torch.zeros(2, height, width)
        return fill_motion(
            read_motion(
                file,
                (height, width),
                unit=motion.unit,
                from_previous=motion.from_previous,
                jitter=jitter or (0.0, 0.0),
            )
        )

    return read


def _baseline(samples: Tensor, mask: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """Fill holes from their surroundings, then upsample (bicubic): [3, H, W] on the CPU."""
    filled = pull_push(samples.cpu()[None, None], mask.cpu()[None, None])
    frame = upsample_bicubic(filled, scale)[0, 0]
    return frame[:, : size[0], : size[1]].clamp(0.0, 1.0)


def to_planes(image: np.ndarray) -> Tensor:
    """Uint8 [H, W, C] to uint8 [C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_tensor(image: np.ndarray) -> Tensor:
    """Uint8 [H, W, C] to float [C, H, W] in [0, 1]."""
    return torch.from_numpy(levels_to_numbers(image.transpose(2, 0, 1)))


def pad(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until [N, C, H, W] are multiples of ``multiple``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def sample_file(
    source: Path,
    output: Path,
    density: Density = PUBLISHED_DENSITY,
    *,
    gaze: GazeTrack | None = None,
    geometry: DisplayGeometry | None = None,
    seed: int = 0,
    blue_noise: bool = BEST_SAMPLING.noise == "blue",
    simulate: bool = False,
    jitter: str = "none",
    frame_rate: float | Fraction | None = None,
    max_frames: int | None = None,
    overwrite: bool = False,
    audio_track: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> float:
    """Write the samples that a generator would receive.

    Args:
        source: the low resolution, or with ``simulate`` the full one, which is downsampled by four.
        output: RGBA if the format has alpha (a folder of PNGs, .mkv, .mov, .webm), with alpha 0
            where not sampled. :func:`reconstruct_file` can read such an output. Avoid .webm, which
            halves the resolution of colours. Other formats get RGB on black. A warning says what
            the format cannot store.
        density: see :class:`Reconstructor`, also for ``geometry``, ``seed`` and ``blue_noise``.
        jitter: see :func:`reconstruct_file`; only for a folder, which stores the jitter.
        audio_track: see :func:`reconstruct_file`.

    Returns:
        The share of pixels that were sampled.

    Raises:
        InputError: a file cannot be read, written or used.
    """
    gaze = gaze or center()
    scale = 4 if simulate else 1
    frames, sampled = 0, 0.0
    refuse_overlap([output], [source])
    if jitter != "none" and (not simulate or output.suffix):
        raise InputError(
            f"--jitter {jitter}: shifts the grid on which a full resolution is sampled, and is "
            "written down beside the samples; expected --simulate and a folder as output"
        )
    written = []
    with (
        VideoReader(source, frame_rate=frame_rate) as reader,
        ensure_folder(output.parent),
        VideoWriter(
            output,
            frame_rate=_output_rate(reader, output),
            audio_from=None if source.is_dir() else source,
            audio_track=audio_track,
            overwrite=overwrite,
            pixel_aspect=reader.pixel_aspect,
        ) as writer,
    ):
        if reader.has_alpha:
            raise InputError(
                f"{source}: received an input with alpha, which is sampled already; "
                "expected one without alpha"
            )
        suffix = output.suffix.lower()
        for frame in islice(reader, max_frames):
            image = to_tensor(frame.image)
            offset = jitter_sequence(jitter, frames, 1)
            low = downsample(pad(image[None], scale), scale, offset)[0] if simulate else image
            gaze_px = _gaze_px(gaze, frames, frame.pts_seconds, image, scale)
            x, y = (0.0, 0.0) if offset is None else offset[0].tolist()
            written.append(sampling_record.FrameSampling((x, y), gaze_px))
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
            if suffix in ALPHA_SUFFIXES:
                alpha = 255 * mask[0, 0].byte().permute(1, 2, 0).numpy()
                pixels = np.concatenate([pixels, alpha], -1)
            writer.write(pixels, frame.pts_seconds)
            frames += 1
            sampled += float(mask.mean())
            if on_frame:
                on_frame()
        if not output.suffix and written:
            height, width = low.shape[-2:]
            content = sampling_record.to_bytes(written, height, width, density)
            writer.attach(sampling_record.FILE, content)
    _warn_of_losses(output)
    return sampled / frames


def _warn_of_losses(output: Path) -> None:
    """Log a warning about what the format of an output of samples cannot store."""
    suffix = output.suffix.lower()
    if suffix not in ALPHA_SUFFIXES:
        _log.warning(
            "%s: %s has no alpha: what is not sampled is black and looks the same as black "
            "samples; a folder, .mkv or .mov keeps it",
            *(output, suffix),
        )
    elif suffix == ".webm":
        _log.warning(
            "%s: .webm halves the resolution of colours, those of samples too; a folder, .mkv "
            "or .mov keeps them",
            output,
        )


def _output_rate(reader: VideoReader, output: Path) -> Fraction:
    return reader.constant_rate if output.suffix.lower() == ".avi" else reader.frame_rate


def _gaze_px(
    gaze: GazeTrack, frame_index: int, pts_seconds: float, image: Tensor, scale: int
) -> Gaze:
    x, y = gaze.at(gaze.frame_times([frame_index], [pts_seconds]))[0]
    height, width = image.shape[-2:]
    return float(x * width / scale - 0.5), float(y * height / scale - 0.5)
