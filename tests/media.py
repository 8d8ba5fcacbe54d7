"""Small media files for tests, made with PyAV and plain arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PATCHES = np.array(
    [
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)],
        [(0, 255, 255), (255, 0, 255), (255, 255, 255), (0, 0, 0)],
        [(128, 128, 128), (200, 30, 77), (20, 90, 180), (240, 160, 60)],
    ],
    np.uint8,
)
"""[3, 4, 3] colours, most of them at the corners of the RGB cube."""

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Red and blue luma weights by the code point of the matrix: BT.709, BT.601, BT.2020."""


def patches(height: int, width: int, colours: np.ndarray = PATCHES) -> np.ndarray:
    """A picture [height, width, C] of flat patches."""
    rows = np.arange(height) * colours.shape[0] // height
    columns = np.arange(width) * colours.shape[1] // width
    return np.ascontiguousarray(colours[rows][:, columns])


def patch_centres(image: np.ndarray, rows: int = 3, columns: int = 4) -> np.ndarray:
    """The colours in the middle of the patches, int [rows, columns, C]."""
    height, width = image.shape[:2]
    y = (2 * np.arange(rows) + 1) * height // (2 * rows)
    x = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return image[y][:, x].astype(int)


def moving(count: int, height: int = 32, width: int = 48, seed: int = 0) -> list[np.ndarray]:
    """``count`` smooth pictures that differ, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return [
        np.stack(
            [127 + 100 * np.sin(x / 25 + y / (20 + c) + phase[c] + t / 5) for c in range(3)], -1
        ).astype(np.uint8)
        for t in range(count)
    ]


def to_yuv444(image: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    """Textbook conversion of RGB [H, W, 3] to uint8 planes [3, H, W]."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(image / 255.0, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)])
    if full_range:
        planes = planes * 255 + np.array([0, 128, 128])[:, None, None]
    else:
        scale, offset = np.array([219, 224, 224]), np.array([16, 128, 128])
        planes = planes * scale[:, None, None] + offset[:, None, None]
    return planes.round().clip(0, 255).astype(np.uint8)


def write_video(
    path: Path,
    images: list[np.ndarray],
    *,
    rate: Fraction | int = 25,
    times: list[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    frame_format: str = "rgb24",
    rotation: tuple[float, bool] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    tags: dict[str, int | Fraction] | None = None,
) -> Path:
    """Encode ``images`` at a constant ``rate`` or at ``times``, s, to the millisecond.

    ``rotation`` is (degrees, mirrored).
    """
    with av.open(str(path), "w", container_options=container_options) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        first = av.VideoFrame.from_ndarray(images[0], format=frame_format)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=frame_format)
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_clapper(
    path: Path,
    *,
    clap: float,
    video_start: float = 0.0,
    audio_start: float = 0.0,
    seconds: float = 2.0,
    codec: str = "aac",
    rate: int = 48000,
) -> Path:
    """A video at 25 Hz that turns white at the time ``clap`` of the file, when a tone begins."""
    samples = np.arange(int(seconds * rate)) / rate + audio_start
    tone = np.where(samples >= clap, np.sin(2 * np.pi * 1000 * samples) * 20000, 0)
    tone = np.repeat(tone.astype(np.int16), 2)[None]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="stereo")
        events = [(video_start + i / 25, "video", i) for i in range(int(seconds * 25))]
        blocks = range(tone.shape[1] // 2048)
        events += [(audio_start + i * 1024 / rate, "audio", i) for i in blocks]
        for time, kind, i in sorted(events):
            if kind == "video":
                level = 255 if time >= clap - 1e-6 else 0
                picture = np.full((32, 32, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            else:
                block = np.ascontiguousarray(tone[:, 2048 * i : 2048 * (i + 1)])
                sound = av.AudioFrame.from_ndarray(block, format="s16", layout="stereo")
                sound.sample_rate = rate
                sound.pts, sound.time_base = round(time * rate), Fraction(1, rate)
                container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def sound_onset(path: Path) -> float:
    """The time in the file at which its sound becomes loud."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            if frame.format.is_planar:
                samples = frame.to_ndarray().astype(float)
            else:
                samples = frame.to_ndarray().astype(float).reshape(frame.samples, -1).T
            scale = 32768 if frame.format.name.startswith("s16") else 1
            loud = np.flatnonzero(np.abs(samples).max(0) / scale > 0.1)
            if len(loud):
                return float(frame.pts * frame.time_base) + int(loud[0]) / frame.sample_rate
    raise AssertionError("no sound")
