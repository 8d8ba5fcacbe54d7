"""The whole package in one call: load a model by its name; reconstruct a video or an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .arrays import Frame, like, to_tensor
from .checkpoint import load as load_network
from .config import BEST_SAMPLING, PUBLISHED_DENSITY, Density, InputError
from .files_to_files import best_jitter, pad, read_inputs, reconstruct_file
from .fovea import downsample, jitter_sequence
from .gaze import GazeTrack, center, from_pixels
from .generators import Network
from .images import to_image
from .io.outputs import ensure_folder
from .reconstructor import Gaze, Input, Model, Reconstructor
from .runtime.device import pick_device
from .runtime.engine import Engine, load_engine
from .video import VideoReader, VideoWriter
from .video.container import MAX_DENOMINATOR

FRAME_RATE = 24
"""Default frame rate of a file that is written from frames in memory, frames per second."""


def load(
    model: str | Path, device: str | torch.device = "auto", engine: str = "torch"
) -> Network | Engine:
    """Load a trained generator (evaluation mode, float32).

    Args:
        model: the name of a bundled model, or the path of a ``.safetensors`` file.
        device: ``auto`` (CUDA, else MPS, else the CPU), or a device.
        engine: ``torch`` returns the network itself; ``onnxruntime``, ``openvino`` or ``auto``
            returns an engine that runs it, which is faster on a CPU. PSNR is the same; single
            pixels of ``stream`` can differ (docs/speed.md).

    Returns:
        The generator; call it as ``frames, state = model(samples, mask, state)``.

    Raises:
        InputError: the name is unknown; the file is missing, damaged or of another kind; or this
            machine has no such device or engine.
    """
    picked = pick_device(str(device))
    return load_network(model, picked) if engine == "torch" else load_engine(model, engine, picked)


def reconstruct(
    source: Any,
    output: str | Path | None = None,
    *,
    model: str | Path | Model = "stream",
    gaze: GazeTrack | Gaze | Sequence[Gaze] | np.ndarray | Tensor | None = None,
    simulate: bool = False,
    density: Density = PUBLISHED_DENSITY,
    seed: int = 0,
    blue_noise: bool = BEST_SAMPLING.noise == "blue",
    jitter: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    frame_rate: float | None = None,
    overwrite: bool = False,
) -> Any:
    """Sample a video where the eye looks and reconstruct it, four times larger.

        deepfovea.reconstruct("low.mp4", "large.mp4")
        frames = deepfovea.reconstruct(array)  # uint8 [T, h, w, 3] -> [T, 4h, 4w, 3]

    Args:
        source: path of a video or of a folder of images; frames as NumPy [T, h, w, 3 or 4] (uint8,
            or float in [0, 1]), torch [T, 3 or 4, h, w], or any list or iterator of frames
            (NumPy, PIL or torch); or one frame. If there is a fourth channel, pixels with values
            above 0 in it are the samples, and no further sampling takes place.
        output: path of a video to write instead of returning frames, or without a suffix of a
            folder of images.
        model: a name, a path, or the result of :func:`load`.
        gaze: where the eye looks, in pixels of ``source`` (x right, y down, origin at the centre of
            the top-left pixel): one point, or one for each frame [T, 2]; or a
            :class:`GazeTrack`. The default is the centre.
        simulate: ``source`` has the full resolution; it is first downsampled by four, and the
            result has its size.
        density: the density of the samples by distance from the gaze.
        seed: seed of the random masks.
        blue_noise: spread samples evenly in space and time; False: draw them independently, as
            published.
        jitter: with ``simulate``, how the sampling grid is shifted from frame to frame, one of
            :data:`deepfovea.config.JITTERS`; None: the best that the model can use.
        device: the device, if ``model`` is a name or path.
        engine: the engine, if ``model`` is a name or path; see :func:`load`.
        frame_rate: frame rate of frames in memory and of folders of images, 1/s.
        overwrite: replace an existing ``output``.

    Returns:
        The path of ``output``. Without ``output``, frames of the same type as ``source``: an array
        for an array, a list for a list, an iterator for an iterator; for a path NumPy uint8
        [T, H, W, 3].

    Raises:
        InputError: an input, output or option cannot be read, written or used.
    """
    if jitter not in (None, "none") and not simulate:
        raise InputError(
            f"jitter: received {jitter!r:.100} without simulate; it shifts the grid on which a "
            "full resolution is sampled: expected simulate=True with it"
        )

    def prepare(frames: int | None) -> tuple[Reconstructor, str]:
        """Make the reconstructor for a number of frames, and choose the jitter."""
        loaded = model
        if isinstance(model, str | Path):
            loaded = load_engine(model, engine, pick_device(str(device)), frames=frames)
        reconstructor = Reconstructor(loaded, density, seed=seed, blue_noise=blue_noise)
        return reconstructor, jitter or best_jitter(reconstructor, simulate)

    if isinstance(source, str | Path):
        with VideoReader(source, frame_rate=frame_rate) as reader:
            reconstructor, grid = prepare(reader.frame_count)
            track = _track(gaze, reader.height, reader.width, float(reader.frame_rate))
            if output is not None:
                target = Path(output)
                reconstruct_file(
                    Path(source),
                    target,
                    reconstructor,
                    gaze=track,
                    simulate=simulate,
                    jitter=grid,
                    frame_rate=frame_rate,
                    overwrite=overwrite,
                )
                return target
            read = read_inputs(reader, reconstructor, track, simulate=simulate, jitter=grid)
            triples = ((frame.image, image.shape[-2:], given) for frame, image, given in read)
            return np.stack(list(_frames(triples, reconstructor, simulate)))

    single = _is_single(source)
    if not single and not isinstance(source, Iterable):
        raise InputError(
            f"source: received {type(source).__name__}, expected a path, a frame or several: "
            "NumPy, PIL or torch"
        )
    reconstructor, grid = prepare(_number_of_frames(source))
    stacked = isinstance(source, np.ndarray | Tensor) and not single
    if isinstance(source, Tensor) and source.ndim == 5 and len(source) == 1:
        source = source[0]
    given = iter([source] if single else source)
    first = next(given, None)
    if first is None:
        raise InputError("source: received no frames, expected one at least")
    height, width = to_tensor(first).shape[-2:]
    rate = frame_rate or FRAME_RATE
    times = (number / rate for number in count())
    track = _track(gaze, height, width, rate)
    inputs = _inputs(chain([first], given), reconstructor, track, simulate, grid, times)
    made = _frames(inputs, reconstructor, simulate)
    if output is not None:
        return _write(made, Path(output), rate, overwrite)
    if single:
        return next(made)
    if stacked:
        parts = list(made)
        return torch.stack(parts) if isinstance(source, Tensor) else np.stack(parts)
    return list(made) if isinstance(source, Sequence) else made


def _number_of_frames(source: Any) -> int | None:
    """The number of frames in memory; None for an iterator."""
    if _is_single(source):
        return 1
    if isinstance(source, Tensor) and source.ndim == 5:
        return source.shape[1]
    return len(source) if hasattr(source, "__len__") else None


def _is_single(source: Any) -> bool:
    """Whether the source is a single frame."""
    if isinstance(source, Image.Image):
        return True
    return isinstance(source, np.ndarray | Tensor) and source.ndim == 3


def _track(gaze: Any, height: int, width: int, frame_rate: float) -> GazeTrack:
    """Convert a gaze to a track, for frames of this size and rate."""
    if gaze is None:
        return center()
    if isinstance(gaze, GazeTrack):
        return gaze
    points = np.asarray(gaze.cpu() if isinstance(gaze, Tensor) else gaze, dtype=np.float64)
    if points.shape == (2,):
        points = points[None]
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(
            f"gaze: received the shape {list(points.shape)}, expected (x, y) or [T, 2], pixels"
        )
    if not np.isfinite(points).all():
        raise InputError(
            "gaze: received a position that is nan or infinite, expected finite pixels; a "
            "GazeTrack says with valid=False where the tracker was lost"
        )
    times = np.arange(len(points)) / frame_rate
    return GazeTrack(times, from_pixels(points, height, width), np.ones(len(points), dtype=bool))


def _inputs(
    images: Iterable[Frame],
    reconstructor: Reconstructor,
    track: GazeTrack,
    simulate: bool,
    jitter: str,
    times: Iterable[float],
) -> Iterator[tuple[Frame, Sequence[int], Input]]:
    """For each frame in memory: the frame, its (height, width), and the reconstructor's input."""
    scale = reconstructor.engine.scale
    for index, (image, time) in enumerate(zip(images, times, strict=False)):  # times never end
        frame = to_tensor(image)
        height, width = frame.shape[-2:]
        x, y = track.at([time])[0]
        reduced_by, shift = scale if simulate else 1, None
        if simulate:
            if len(frame) == 4:
                raise InputError(
                    "source: received frames with a mask and simulate=True; expected one of "
                    "the two: leave simulate out"
                )
            offset = jitter_sequence(jitter, index, 1)
            frame = downsample(pad(frame, scale), scale, offset)
            shift = None if offset is None else (float(offset[0, 0]), float(offset[0, 1]))
        gaze_px = (x * width / reduced_by - 0.5, y * height / reduced_by - 0.5)
        yield image, (height, width), Input(frame, gaze_px, jitter=shift)


def _frames(
    inputs: Iterable[tuple[Frame, Sequence[int], Input]],
    reconstructor: Reconstructor,
    simulate: bool,
) -> Iterator[Any]:
    """Reconstruct frame after frame; each result has the type of its source frame."""
    waiting: list[tuple[Frame, Sequence[int]]] = []

    def given() -> Iterator[Input]:
        for image, size, one in inputs:
            waiting.append((image, size))
            yield one

    with closing(reconstructor.stream(given())) as stream:  # type: ignore[type-var]
        for result in stream:
            image, (height, width) = waiting.pop(0)
            frame = result.frame[:, :height, :width] if simulate else result.frame
            yield like(frame, cast(Any, image))


def _write(frames: Iterator[Any], output: Path, frame_rate: float, overwrite: bool) -> Path:
    rate = Fraction(frame_rate).limit_denominator(MAX_DENOMINATOR)
    with (
        ensure_folder(output.parent),
        VideoWriter(output, frame_rate=rate, overwrite=overwrite) as writer,
    ):
        for number, frame in enumerate(frames):
            image = to_image(to_tensor(frame).clamp(0.0, 1.0))
            writer.write(np.ascontiguousarray(image), float(number / rate))
    return output
