"""The subcommand reconstruct."""

from __future__ import annotations

import argparse

from .options import (
    ProgressBar,
    Subcommands,
    add_gaze_and_density,
    add_input_output,
    add_model,
    gaze_and_display,
    make_reconstructor,
    protect_inputs,
)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "reconstruct", help="a video or folder of images into a larger one"
    )
    add_input_output(parser)
    add_model(parser)
    add_gaze_and_density(parser)
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="INPUT is full resolution: reduce it first, report quality",
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="also write samples | reconstruction (| original) beside OUTPUT",
    )
    parser.set_defaults(handler=_reconstruct)


def _reconstruct(options: argparse.Namespace) -> None:
    from ..files_to_files import reconstruct_file
    from ..video import VideoReader

    output, beside = options.output, None
    if options.side_by_side:
        beside = output.parent / f"{output.stem}-side-by-side{output.suffix}"
    protect_inputs(options, output, beside)
    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = gaze_and_display(options, reader)
    with ProgressBar(total) as advance:
        summary = reconstruct_file(
            options.input,
            options.output,
            make_reconstructor(options, geometry),
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
