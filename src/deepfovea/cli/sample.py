"""The subcommand sample."""

from __future__ import annotations

import argparse

from ..config import BEST_SAMPLING
from .announce import describe_sampling, refuse_folder_of_videos
from .options import (
    ProgressBar,
    Subcommands,
    add_gaze_and_density,
    add_input_output,
    add_jitter,
    gaze_and_display,
    protect_inputs,
)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "sample",
        help="write the samples that a generator sees",
        description="Write the samples that a generator sees: the low resolution with most "
        "pixels dropped. In a folder of PNGs, .webm or .mov alpha 0 marks dropped pixels, which "
        "reconstruct reads back; elsewhere they are black.",
        examples=(
            "deepfovea sample video.mp4 -o samples --simulate --gaze 320,180",
            "deepfovea sample low.mp4 -o samples.mp4 --density uniform:20 --noise independent",
        ),
    )
    add_input_output(parser)
    add_gaze_and_density(parser)
    add_jitter(parser, None)
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="INPUT is the full resolution: reduce it by four first",
    )
    parser.set_defaults(handler=_sample)


def _sample(options: argparse.Namespace) -> None:
    from ..files_to_files import sample_file
    from ..video import VideoReader

    protect_inputs(options, options.output)
    refuse_folder_of_videos(options.input)
    with VideoReader(options.input, frame_rate=options.frame_rate) as reader:
        gaze, geometry, total = gaze_and_display(options, reader)
    jitter = options.jitter
    if jitter is None:  # only a folder can record the shifts
        keeps = options.simulate and not options.output.suffix
        jitter = BEST_SAMPLING.jitter if keeps else "none"
    with ProgressBar(total) as advance:
        share = sample_file(
            options.input,
            options.output,
            options.density,
            gaze=gaze,
            geometry=geometry,
            seed=options.seed,
            blue_noise=options.noise == "blue",
            simulate=options.simulate,
            jitter=jitter,
            frame_rate=options.frame_rate,
            max_frames=options.frames,
            overwrite=options.overwrite,
            audio_track=options.audio_track,
            on_frame=advance,
        )
    print(
        f"{options.output}: {100 * share:.1f} % of the low-resolution pixels sampled, "
        f"{describe_sampling(options.noise, jitter)}"
    )
