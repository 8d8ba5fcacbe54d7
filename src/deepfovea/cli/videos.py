"""Verbs that turn videos into videos: reconstruct, sample, demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import Density
from .words import (
    ProgressBar,
    Verbs,
    add_gaze_and_density,
    add_input_output,
    add_model,
    frame_total,
    positive,
    reconstructor,
    seed,
    where,
)


def add(verbs: Verbs) -> None:
    """Add these verbs to the command line."""
    verb = verbs.add_parser("reconstruct", help="a video or folder of images into a larger one")
    add_input_output(verb)
    add_model(verb)
    add_gaze_and_density(verb)
    verb.add_argument(
        "--simulate",
        action="store_true",
        help="INPUT is full resolution: reduce it first, report quality",
    )
    verb.add_argument(
        "--side-by-side",
        action="store_true",
        help="also write samples | reconstruction (| original) beside OUTPUT",
    )
    verb.set_defaults(handler=_reconstruct)

    verb = verbs.add_parser("sample", help="write what the network sees")
    add_input_output(verb)
    add_gaze_and_density(verb)
    verb.add_argument(
        "--simulate", action="store_true", help="INPUT is full resolution: reduce it by four first"
    )
    verb.set_defaults(handler=_sample)

    verb = verbs.add_parser("demo", help="reconstruct a real video and compare")
    verb.add_argument("-o", "--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    verb.add_argument("--video", type=Path, help="instead of the demo video")
    verb.add_argument("--frames", type=positive, metavar="N", help="stop after N frames")
    verb.add_argument("--seed", type=seed, default=0)
    add_model(verb)
    verb.set_defaults(handler=_demo)


def _reconstruct(options: argparse.Namespace) -> None:
    from ..reconstruct import reconstruct_file
    from ..video import VideoReader

    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = where(options, reader)
    beside = None
    if options.side_by_side:
        output = options.output
        beside = output.parent / f"{output.stem}-side-by-side{output.suffix}"
    with ProgressBar(total) as advance:
        summary = reconstruct_file(
            options.input,
            options.output,
            reconstructor(options, geometry),
            gaze=gaze,
            simulate=options.simulate,
            side_by_side=beside,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            on_frame=advance,
        )
    quality = "" if summary.psnr is None else f", PSNR {summary.psnr:.2f} dB against the input"
    print(
        f"{options.output}: {summary.frames} frames, {100 * summary.sampled:.1f} % of the "
        f"low-resolution pixels sampled, {summary.frames_per_second:.1f} frames/s{quality}"
    )


def _sample(options: argparse.Namespace) -> None:
    from ..reconstruct import sample_file
    from ..video import VideoReader

    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = where(options, reader)
    with ProgressBar(total) as advance:
        share = sample_file(
            options.input,
            options.output,
            options.density,
            gaze=gaze,
            geometry=geometry,
            seed=options.seed,
            blue_noise=options.blue_noise,
            simulate=options.simulate,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            on_frame=advance,
        )
    print(f"{options.output}: {100 * share:.1f} % of the low-resolution pixels sampled")


def _demo(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..demo import demo_video, run_demo
    from ..video import VideoReader

    video = options.video or demo_video()
    with VideoReader(video) as reader:
        total = frame_total(reader, options.frames)
    options.density, options.blue_noise = Density(), False
    with ProgressBar(total) as advance:
        demo = run_demo(
            video,
            options.output,
            reconstructor(options, None),
            max_frames=options.frames,
            on_frame=advance,
        )
    table = Table(
        title=f"{escape(video.name)}, {demo.summary.frames} frames: PSNR against the original"
    )
    table.add_column("method")
    table.add_column("dB", justify="right")
    for name, value in demo.psnr.items():
        table.add_row(escape(options.model) if name == "reconstruction" else name, f"{value:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"sampled: {100 * demo.summary.sampled:.1f} % of the low-resolution pixels, "
        f"{100 * demo.summary.sampled / 16:.2f} % of the output's\n"
        f"speed: {demo.summary.frames_per_second:.1f} frames/s, decoding and encoding included"
    )
    for file in demo.files:
        console.print(f"look at {file}", markup=False)
