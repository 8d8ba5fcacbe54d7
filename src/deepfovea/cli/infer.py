"""The subcommand infer."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..config import InputError
from ..wording import pluralize
from .announce import announce, quality
from .options import (
    SKIP_HELP,
    ProgressBar,
    Subcommands,
    add_device,
    add_engine,
    add_gaze_and_density,
    add_jitter,
    add_model,
    chosen_jitter,
    gaze_and_display,
    local_path,
    make_reconstructor,
    output_path,
    positive,
    protect_inputs,
    rate,
)

_log = logging.getLogger(__name__)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "infer",
        help="reconstruct every video of a folder",
        description="As reconstruct, for every video and folder of images in a folder and below.",
        examples=(
            "deepfovea infer videos -o reconstructed --simulate --gaze random",
            "deepfovea infer low-resolution -o large --skip-unreadable",
        ),
    )
    parser.add_argument(
        "root", type=local_path, metavar="DIR", help="folder that holds videos or folders of images"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        required=True,
        metavar="FOLDER",
        help="where each video becomes a video, and each folder of images a folder",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument(
        "--frames",
        type=positive,
        metavar="N",
        help="stop after N frames of every video (default: all)",
    )
    parser.add_argument(
        "--frame-rate",
        type=rate,
        metavar="FPS",
        help="frame rate of folders of images (default: 24)",
    )
    add_model(parser)
    add_device(parser)
    add_engine(parser)
    add_gaze_and_density(parser)
    add_jitter(parser, None)
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="the videos are the full resolution: reduce them by four first and report the quality",
    )
    parser.add_argument("--skip-unreadable", action="store_true", help=SKIP_HELP)
    parser.set_defaults(handler=_infer)


def _infer(options: argparse.Namespace) -> None:
    from ..files_to_files import reconstruct_file
    from ..video import VideoReader, find_videos

    outputs = {video: _output(video, options) for video in find_videos(options.root)}
    protect_inputs(options, *outputs.values(), inputs=outputs)  # links may point outside the folder
    for output in outputs.values():
        if output.exists() and not options.overwrite:
            raise InputError(f"{output}: exists already; choose another folder or --overwrite")
    first_seed, frame_rate, done = options.seed, options.frame_rate, 0
    for number, (video, output) in enumerate(outputs.items()):
        options.seed = (first_seed + number) % 2**32
        options.frame_rate = frame_rate if video.is_dir() else None
        try:
            reader = VideoReader(
                video, frame_rate=options.frame_rate, skip_unreadable=options.skip_unreadable
            )
        except InputError as error:
            if not options.skip_unreadable:
                raise
            _log.warning("%s; the video is left out", error)
            continue
        gaze, geometry, total = gaze_and_display(options, reader)
        made = make_reconstructor(options, geometry, total)
        announce(options, reader, output, made, total)
        with ProgressBar(total) as advance:
            summary = reconstruct_file(
                video,
                output,
                made,
                gaze=gaze,
                simulate=options.simulate,
                jitter=chosen_jitter(options, made),
                frame_rate=options.frame_rate,
                max_frames=options.frames,
                overwrite=options.overwrite,
                skip_unreadable=options.skip_unreadable,
                on_frame=advance,
            )
        print(
            f"{output}: {pluralize(summary.frames, 'frame')} by {made.engine.summary()}"
            f"{quality(summary)}"
        )
        done += 1
    if not done:
        raise InputError(f"{options.root}: no video that can be read; expected one at least")


def _output(video: Path, options: argparse.Namespace) -> Path:
    """The output of a video of the folder, with the same name or a suffix that can be written."""
    from ..video import VIDEO_SUFFIXES

    inside = video.relative_to(options.root)
    name = inside.name or options.root.resolve().name
    if video.is_dir():
        name = name.replace(".", "_")  # with a suffix it would be a file
    elif video.suffix.lower() not in VIDEO_SUFFIXES:
        name += ".mp4"
    output: Path = options.output / inside.parent / name
    return output
