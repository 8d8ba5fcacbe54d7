"""The subcommand check-motion."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..wording import pluralize
from .options import Subcommands, add_motion, local_path


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "check-motion",
        help="say whether motion vectors follow the contract",
        description="Warp each frame's predecessor by the motion vectors, and by what they would "
        "be after the usual mistakes; print the error of each and name the one that fits. Exit "
        "code 0: the contract (docs/renderer.md); 1: not; 2: cannot tell, or "
        "bad input. Alpha 0 marks pixels that were not sampled.",
        examples=(
            "deepfovea check-motion frames",
            "deepfovea check-motion frames --motion vectors --motion-unit ndc",
        ),
    )
    parser.add_argument(
        "input",
        type=local_path,
        metavar="FOLDER",
        help="folder of images: the frames, or their samples",
    )
    add_motion(parser, default="FOLDER")
    parser.add_argument(
        "--jitter",
        choices=["none", "quad", "halton"],
        help="the sequence of offsets of the images' sampling grid (default: what sampling.json in "
        "FOLDER says, else none)",
    )
    parser.set_defaults(handler=_check_motion)


def _check_motion(options: argparse.Namespace) -> int:
    import torch

    from .. import sampling_record
    from ..config import InputError
    from ..fovea import jitter_sequence
    from ..motion import find_motion, read_motion
    from ..motion_check import CONTRACT, check_motion, to_table
    from ..video import VideoReader, list_images

    images = list_images(options.input)
    # 16-bit PNGs of motion must be in their own folder, or they would be read as frames.
    fields = find_motion(images, Path(options.motion or options.input))
    with VideoReader(options.input) as reader:
        frames = [torch.from_numpy(frame.image).float() / 255 for frame in reader]
    if len(frames) != len(images):
        raise InputError(
            f"{options.input}: received {pluralize(len(images), 'file')} with "
            f"{pluralize(len(frames), 'frame')}; expected one frame in each image"
        )
    video = torch.stack(frames).permute(0, 3, 1, 2)
    mask = (video[:, 3:] > 0).float() if video.shape[1] == 4 else None
    size = (video.shape[-2], video.shape[-1])
    if options.jitter is None:
        record = sampling_record.read(options.input, len(video), *size)
        jitter = torch.tensor([frame.jitter for frame in record]) if record else None
    else:
        jitter = jitter_sequence(options.jitter, 0, len(video))
    offsets = [(0.0, 0.0)] * len(video) if jitter is None else jitter.tolist()
    motion = torch.stack(
        [
            torch.zeros(2, *size)
            if path is None
            else read_motion(
                path,
                size,
                unit=options.motion_unit,
                from_previous=options.motion_from_previous,
                jitter=(offset[0], offset[1]),
            )
            for path, offset in zip(fields, offsets, strict=True)
        ]
    )
    check = check_motion(video[:, :3], motion, mask, jitter)
    print(to_table(check))
    if check.fits is None:
        raise InputError(f"{options.input}: {check.why}")
    print(check.why)
    return 0 if check.fits == CONTRACT else 1
