"""The subcommand demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import BEST_SAMPLING, Density
from ..wording import pluralize
from .announce import describe_sampling
from .options import (
    ProgressBar,
    Subcommands,
    add_device,
    add_engine,
    add_model,
    chosen_jitter,
    frame_total,
    local_path,
    make_reconstructor,
    output_path,
    positive,
    seed,
)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "demo",
        help="reconstruct a real video and compare",
        description="Reduce a video by four, sample it along a synthetic gaze, reconstruct it and "
        "compare with methods that need no training. FOLDER gets reconstruction.mp4, "
        "side-by-side.mp4 and contact-sheet.png; earlier ones are replaced.",
        examples=("deepfovea demo", "deepfovea demo --video my.mp4 --frames 48 -o my-demo"),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        default=Path("demo-output"),
        metavar="FOLDER",
        help="where the results go",
    )
    parser.add_argument(
        "--video",
        type=local_path,
        metavar="FILE",
        help="a video of your own (default: the demo video)",
    )
    parser.add_argument(
        "--frames", type=positive, metavar="N", help="stop after N frames (default: all)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of the random draws"
    )
    add_model(parser)
    add_device(parser)
    add_engine(parser)
    parser.set_defaults(handler=_demo)


def _demo(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..demo import demo_video, run_demo
    from ..video import VideoReader

    video = options.video or demo_video()
    with VideoReader(video) as reader:
        total = frame_total(reader, options.frames)
    options.density, options.noise = Density(), BEST_SAMPLING.noise
    options.simulate, options.jitter = True, None
    reconstructor = make_reconstructor(options, None, total)
    jitter = chosen_jitter(options, reconstructor)
    with ProgressBar(total) as advance:
        demo = run_demo(
            video,
            options.output,
            reconstructor,
            jitter=jitter,
            model_name=Path(options.model).stem,
            max_frames=options.frames,
            on_frame=advance,
        )
    table = Table(
        title=f"{escape(video.name)}, {pluralize(demo.summary.frames, 'frame')}: "
        "PSNR against the original"
    )
    table.add_column("method")
    table.add_column("dB", justify="right")
    for name, value in demo.psnr.items():
        table.add_row(escape(options.model) if name == "reconstruction" else name, f"{value:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"sampled: {100 * demo.summary.sampled:.1f} % of the low-resolution pixels, "
        f"{100 * demo.summary.sampled / 16:.2f} % of the output's, by "
        f"{describe_sampling(options.noise, jitter)}\n"
        f"speed: {demo.summary.frames_per_second:.1f} frames/s, decoding and encoding included, by "
        f"{reconstructor.engine.summary()}"
    )
    for file in demo.files:
        console.print(f"look at {file}", markup=False)
