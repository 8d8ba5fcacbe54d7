"""Traces a fifth of the low-resolution pixels, and lets `stream` reconstruct the frames.

    python -m examples.path_tracing -o out/path-tracing

writes a video, an animated picture and a contact sheet of the methods, and prints rays, seconds,
PSNR and FovVideoVDP against a fully traced reference. --paths 16,4,64 also measures samples of 4
and 64 paths. Needs Mitsuba: pip install 'deepfovea[render]'.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track
from torch import Tensor

import deepfovea
from deepfovea.config import SCALE, Density
from deepfovea.evaluate.methods import accumulate_frames, bicubic_frames
from deepfovea.fovea import QUAD, density_map, draw_mask
from deepfovea.metrics.pixel import psnr
from deepfovea.video import VideoWriter

RATE = 24
"""Frames per second of the video, and for FovVideoVDP."""
WARM_UP = 4
"""Frames at the start that are not scored, for any method."""
PUBLISHED_HEIGHT = 192
"""Low-resolution height, in pixels, for which the radii of the published density are stated."""
CROP = 96
"""Side of the enlarged crops of the contact sheet, output pixels."""


def encode(radiance: np.ndarray) -> np.ndarray:
    """Linear radiance to sRGB-encoded values in [0, 1): see docs/renderer.md."""
    linear = radiance / (1.0 + radiance)
    encoded: np.ndarray = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded.astype(np.float32)


class Clip:
    """Traces the frames of one camera path: in full, at the low resolution, and at the samples.

    ``kept`` is a folder for the frames of the reference, which are not traced again if they are
    there. ``like`` is another clip of this size: then only the samples are traced, and the full and
    the low-resolution frames are taken from it.
    """

    def __init__(
        self,
        height: int,
        width: int,
        count: int,
        paths: int,
        reference: int,
        kept: Path,
        like: Clip | None = None,
    ) -> None:
        from . import scene, trace

        self.size, self.count, self.paths = (height, width), count, paths
        self.gaze_px = torch.tensor([(width - 1) / 2, 0.45 * height]).expand(1, count, 2)
        density = density_for(height)
        self.mask = draw_mask(density_map(self.gaze_px, height, width, density), blue_noise=True)
        self.jitter = torch.tensor([[QUAD[t % len(QUAD)] for t in range(count)]])
        self.seconds = dict.fromkeys(("full", "low", "samples", "motion"), 0.0)
        room = scene.load_scene()
        cameras = {scale: scene.load_camera(scale * height, scale * width) for scale in (1, SCALE)}
        frames: dict[str, list[np.ndarray]] = {}

        def timed(name: str, function: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
            started = time.perf_counter()
            result = function(*arguments)
            if name in self.seconds:
                self.seconds[name] += time.perf_counter() - started
            frames.setdefault(name, []).append(result)
            return result

        def image(scale: int, side: float, paths: int, jitter: Any, seed: int) -> np.ndarray:
            """Trace all pixels of a frame of size scale · (h, w): [3, H, W], sRGB-encoded."""
            shape = (scale * height, scale * width)
            places = _places(np.ones(shape, bool)) + np.asarray(jitter)
            color = trace.radiance(room, cameras[scale], places, paths, side, seed)
            pixels: np.ndarray = encode(color).T.reshape(3, *shape)
            return pixels

        def samples(t: int, mask: np.ndarray, jitter: Any) -> np.ndarray:
            """Trace the low-resolution pixels that the mask selects: [3, h, w], the others 0."""
            places = _places(mask) + np.asarray(jitter)
            color = trace.radiance(room, cameras[1], places, paths, trace.AREA, 3 * t)
            frame = np.zeros((3, height, width), np.float32)
            frame[:, mask] = encode(color).T
            return frame

        for t in track(range(count), "tracing", transient=True):
            scene.place_ball(room, t)
            for camera in cameras.values():
                scene.place_camera(camera, t)
            offset, mask = QUAD[t % len(QUAD)], self.mask[0, t, 0].numpy() > 0
            if like is None:
                file = kept / f"{SCALE * height}x{SCALE * width}-{reference}-{t}.npy"
                timed("reference", keep, file, image, SCALE, 1.0, reference, 0.0, 3 * t + 1)
                timed("full", image, SCALE, 1.0, paths, 0.0, 3 * t + 2)
                timed("low", image, 1, trace.AREA, paths, 0.0, 3 * t)
            timed("still", samples, t, mask, (0.0, 0.0))
            timed("samples", samples, t, mask, offset)
            timed("motion", trace.motion, room, cameras[1], t, offset)
        self.frames = {
            name: torch.from_numpy(np.stack(of))[None] for name, of in frames.items()
        }  # [1, T, ·, ·, ·] each
        if like is not None:
            self.frames["reference"] = like.frames["reference"]


def density_for(height: int) -> Density:
    """The published density for a display with this many low-resolution rows: its radii grow with
    the frame, so that about a fifth of the pixels are sampled at every size."""
    share, published = height / PUBLISHED_HEIGHT, Density()
    return replace(published, inner=share * published.inner, outer=share * published.outer)


def keep(file: Path, trace: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """The array in a file; it is made, and kept there, if the file is missing."""
    if file.exists():
        array: np.ndarray = np.load(file)
        return array
    array = trace(*arguments)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as opened:
        np.save(opened, array)
    unfinished.replace(file)
    return array


def reconstructions(clip: Clip, name: str) -> dict[str, tuple[Tensor, float, float]]:
    """Per method: frames [T, 3, H, W], and the rays and the seconds of tracing all frames."""
    pixels = clip.count * clip.size[0] * clip.size[1]
    known = float(clip.mask.sum())
    model = deepfovea.load(name, device="cpu")
    traced = clip.seconds
    frames = clip.frames

    def made(
        function: Callable[[], Any], rays: float, seconds: float
    ) -> tuple[Tensor, float, float]:
        started = time.perf_counter()
        with torch.inference_mode():
            result = function()[0]
        return result[0].clamp(0, 1), rays, seconds + time.perf_counter() - started

    paths = clip.paths
    whole = {}
    if "full" in frames:
        whole = {
            "all pixels": (frames["full"][0], SCALE**2 * pixels * paths, traced["full"]),
            "low resolution, bicubic": made(
                lambda: bicubic_frames(frames["low"], clip.mask), pixels * paths, traced["low"]
            ),
        }
    return whole | {
        "samples, accumulate": made(
            lambda: accumulate_frames(frames["still"], clip.mask), known * paths, traced["samples"]
        ),
        f"samples, {name}": made(
            lambda: model(frames["still"], clip.mask), known * paths, traced["samples"]
        ),
        f"samples, {name}, motion and jitter": made(
            lambda: model(frames["samples"], clip.mask, None, frames["motion"], clip.jitter),
            known * paths + pixels,
            traced["samples"] + traced["motion"],
        ),
    }


def scores(clip: Clip, frames: Tensor) -> tuple[float, float | None]:
    """PSNR in dB, the mean over frames, and FovVideoVDP in JOD where it is installed."""
    truth = clip.frames["reference"][0]
    pairs = zip(frames[WARM_UP:], truth[WARM_UP:], strict=True)
    decibels = float(np.mean([float(psnr(*pair)) for pair in pairs]))
    try:
        from deepfovea.metrics.jod import load_jod

        metric, _ = load_jod(*truth.shape[-2:])
    except deepfovea.InputError:
        return decibels, None
    gaze_px = ((clip.gaze_px[0] + 0.5) * SCALE - 0.5)[WARM_UP:]
    made, true = ((255 * x[WARM_UP:]).round().byte() for x in (frames, truth))
    return decibels, metric(made, true, gaze_px, RATE)


def contact_sheet(clip: Clip, methods: dict[str, tuple[Tensor, float, float]]) -> Image.Image:
    """Draw the last frame of each method and, below, the gazed-at part and a corner, enlarged."""
    shown = {"reference": clip.frames["reference"][0], **{k: v[0] for k, v in methods.items()}}
    height, width = shown["reference"].shape[-2:]
    x, y = (round(SCALE * float(side)) for side in clip.gaze_px[0, -1])
    corners = [(x - CROP // 2, y - CROP // 2), (width // 8, height - CROP - height // 16)]
    side = 3 * CROP
    across = max(width, 2 * side + 8)
    sheet = Image.new("RGB", (len(shown) * (across + 8), 30 + height + 8 + side), (18, 18, 18))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, (name, frames) in enumerate(shown.items()):
        picture, left = to_image(frames[-1]), column * (across + 8)
        draw.text((left + 4, 4), name, (235, 235, 235), font)
        sheet.paste(picture, (left, 30))
        for k, (a, b) in enumerate(corners):
            crop = picture.crop((a, b, a + CROP, b + CROP))
            sheet.paste(
                crop.resize((side, side), Image.Resampling.NEAREST),
                (left + k * (side + 8), 38 + height),
            )
    return sheet


def to_image(frame: Tensor) -> Image.Image:
    """A frame [3, H, W] in [0, 1] as a picture."""
    return Image.fromarray((255 * frame.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy())


def _places(chosen: np.ndarray) -> np.ndarray:
    """The positions (x, y) [N, 2] of the selected pixels in [h, w], row by row."""
    rows, columns = np.nonzero(chosen)
    return np.stack([columns, rows], -1).astype(np.float64)


def main() -> None:
    """Trace, reconstruct, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", "-o", type=Path, default=Path("out/path-tracing"))
    parser.add_argument("--height", type=int, default=96, help="low resolution (default 96)")
    parser.add_argument("--width", type=int, default=128, help="low resolution (default 128)")
    parser.add_argument("--frames", type=int, default=24, help="default 24")
    parser.add_argument(
        "--paths",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[16],
        metavar="N,…",
        help="per pixel (default 16); of further numbers only the samples are traced",
    )
    parser.add_argument("--reference-paths", type=int, default=128, help="default 128")
    parser.add_argument("--model", default="stream", help="name or file (default stream)")
    options = parser.parse_args()
    try:
        import mitsuba as mi

        mi.set_variant("llvm_ad_rgb")
    except ImportError as error:
        sys.exit(
            f"Mitsuba cannot be used ({error}): pip install 'deepfovea[render]'; it needs LLVM"
        )
    options.output.mkdir(parents=True, exist_ok=True)
    size = options.height, options.width, options.frames
    kept = options.output / "reference"
    clip = Clip(*size, options.paths[0], options.reference_paths, kept)
    methods = reconstructions(clip, options.model)
    rows = []
    heads = "| | paths | rays per frame | s per frame | PSNR, dB | JOD |"
    print(f"{heads}\n|---|---:|---:|---:|---:|---:|")
    for paths in options.paths:
        traced, made = clip, methods
        if paths != clip.paths:
            traced = Clip(*size, paths, options.reference_paths, kept, clip)
            made = reconstructions(traced, options.model)
        for name, (frames, rays, seconds) in made.items():
            decibels, jod = scores(clip, frames)
            rays, seconds = rays / clip.count, seconds / clip.count
            row = {"method": name, "paths": paths, "rays": rays, "seconds": seconds}
            rows.append(row | {"psnr_db": decibels, "jod": jod})
            quality = f"{decibels:.2f} | {'not measured' if jod is None else f'{jod:.2f}'}"
            print(f"| {name} | {paths} | {rays:,.0f} | {seconds:.2f} | {quality} |", flush=True)
    settings = {key: str(value) for key, value in vars(options).items()}
    report = {"settings": settings, "share": float(clip.mask.mean()), "rows": rows}
    (options.output / "result.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    contact_sheet(clip, methods).save(options.output / "sheet.png")
    pictures = [clip.frames["samples"][0].repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)]
    pictures += [of[0] for name, of in methods.items() if "motion" in name or "bicubic" in name]
    pictures.append(clip.frames["reference"][0])
    with VideoWriter(options.output / "video.mp4", frame_rate=RATE, overwrite=True) as writer:
        for t in range(clip.count):
            side_by_side = np.concatenate([np.asarray(to_image(of[t])) for of in pictures], 1)
            writer.write(side_by_side, t / RATE)
    del pictures[1]  # leaves the samples, the result and the truth
    shown = [
        Image.fromarray(np.concatenate([np.asarray(to_image(of[t])) for of in pictures], 1))
        for t in range(clip.count)
    ]
    shown[0].save(
        options.output / "figure.webp",
        save_all=True,
        append_images=shown[1:],
        duration=1000 // RATE,
        loop=0,
        quality=60,
    )
    print(f"wrote sheet.png, video.mp4, figure.webp and result.json in {options.output}")


if __name__ == "__main__":
    main()
