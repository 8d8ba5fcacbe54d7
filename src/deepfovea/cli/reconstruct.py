"""The subcommand reconstruct."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..wording import pluralize
from .announce import (
    announce,
    describe_sampling,
    quality,
    refuse_folder_of_videos,
    refuse_unusable_outputs,
)
from .options import (
    ProgressBar,
    Subcommands,
    add_device,
    add_engine,
    add_gaze_and_density,
    add_hwaccel,
    add_input_output,
    add_jitter,
    add_model,
    add_motion,
    chosen_jitter,
    gaze_and_display,
    make_reconstructor,
    protect_inputs,
)

if TYPE_CHECKING:
    from ..motion import MotionFiles


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "reconstruct",
        help="a video or folder of images into a larger one",
        description="Sample a video where the eye looks and reconstruct it, four times larger. "
        "INPUT is the low resolution; with --simulate it is the full resolution, which is reduced "
        "by four first, so that OUTPUT has its size and is compared with it.",
        examples=(
            "deepfovea reconstruct video.mp4 -o out.mp4 --simulate --gaze synthetic --side-by-side",
            "deepfovea reconstruct low.mp4 -o large.mp4 --gaze 160,90",
            "deepfovea reconstruct video.mp4 -o out.mp4 --simulate --gaze gaze.csv --density "
            "budget:10",
            "deepfovea reconstruct rgba-frames -o out.mp4    # alpha 0: not sampled",
            "deepfovea reconstruct rgba-frames -o out.mp4 --motion vectors",
        ),
    )
    add_input_output(parser)
    add_model(parser)
    add_device(parser)
    add_engine(parser)
    add_gaze_and_density(parser)
    add_jitter(parser, None)
    add_motion(parser, default="files beside the images of INPUT, if any; none: no motion")
    add_hwaccel(parser)
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="INPUT is the full resolution: reduce it by four first and report the quality",
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="also write samples | reconstruction (| original), as OUTPUT-side-by-side",
    )
    parser.set_defaults(handler=_reconstruct)


def _reconstruct(options: argparse.Namespace) -> None:
    from ..files_to_files import reconstruct_file
    from ..video import VideoReader

    output, beside = options.output, None
    if options.side_by_side:
        beside = output.parent / f"{output.stem}-side-by-side{output.suffix}"
    protect_inputs(options, output, beside)
    refuse_unusable_outputs(options, output, beside)
    refuse_folder_of_videos(options.input)
    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = gaze_and_display(options, reader)
        reconstructor = make_reconstructor(options, geometry, total)
        announce(options, reader, output, reconstructor, total)
        sampled_here = not reader.has_alpha
    jitter = chosen_jitter(options, reconstructor)
    with ProgressBar(total) as advance:
        summary = reconstruct_file(
            options.input,
            output,
            reconstructor,
            gaze=gaze,
            simulate=options.simulate,
            jitter=jitter,
            motion=_motion_files(options),
            side_by_side=beside,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            audio_track=options.audio_track,
            hwaccel=options.hwaccel,
            on_frame=advance,
        )
    sampling = f" ({describe_sampling(options.noise, jitter)})" if sampled_here else ""
    print(
        f"{output}: {pluralize(summary.frames, 'frame')}, {100 * summary.sampled:.1f} % of the "
        f"low-resolution pixels sampled{sampling}, {summary.frames_per_second:.1f} frames/s by "
        f"{reconstructor.engine.summary()}{quality(summary)}"
    )
    if beside:
        panels = "samples | reconstruction" + " | original" * options.simulate
        print(f"{beside}: {panels}, side by side")


def _motion_files(options: argparse.Namespace) -> MotionFiles | None:
    from ..motion import MotionFiles

    convention = (options.motion_unit, options.motion_from_previous)
    if options.motion == Path("none"):
        return MotionFiles(None)
    if options.motion is None and convention == ("px", False):
        return None  # the motion beside the images, if there is any
    return MotionFiles(options.motion or options.input, *convention)
