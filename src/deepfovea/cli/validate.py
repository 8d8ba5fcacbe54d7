"""The subcommands validate and test: the published table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import (
    SKIP_HELP,
    Subcommands,
    add_device,
    add_model,
    local_path,
    output_path,
    positive,
    protect_inputs,
    seed,
    shortened,
    size,
    write_grid,
    write_text,
)

if TYPE_CHECKING:
    from torch import Tensor


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    for name, split in (("validate", "val"), ("test", "test")):
        parser = subcommands.add_parser(
            name,
            help=f"the published table on the {split} videos, as published and correctly",
            description=f"Score a model on the {split} videos by the published protocol, and print "
            "L1, L2, PSNR and SSIM twice: as published, and computed correctly.",
            examples=(
                f"deepfovea {name} --data REDS --model paper",
                f"deepfovea {name} --data REDS --model runs/mine/model.safetensors --state carry "
                f"--json {name}.json",
            ),
        )
        parser.add_argument(
            "--data",
            type=local_path,
            required=True,
            metavar="DIR",
            help=f"REDS, of which {split}/{split}_sharp is used, or any folder of videos",
        )
        add_model(parser)
        add_device(parser)
        parser.add_argument(
            "--state",
            choices=["reset", "carry", "item"],
            default="reset",
            help="state of the network before a new video: new, or that of the last one; item: new "
            "before every item, as the published code on several GPUs",
        )
        parser.add_argument(
            "--frames",
            type=positive,
            default=100,
            metavar="N",
            help="how many frames of every video are scored",
        )
        parser.add_argument(
            "--size",
            type=size,
            default="768x1024",
            metavar="HxW",
            help="size to which videos are cropped or padded",
        )
        parser.add_argument(
            "--seed", type=seed, default=0, metavar="N", help="seed of gaze and masks"
        )
        parser.add_argument("--skip-unreadable", action="store_true", help=SKIP_HELP)
        parser.add_argument(
            "--json", type=output_path, metavar="FILE", help="write all figures to this file"
        )
        parser.add_argument(
            "--markdown", type=output_path, metavar="FILE", help="write the table to this file"
        )
        parser.add_argument(
            "--pictures",
            type=output_path,
            metavar="FOLDER",
            help="write a grid of input, prediction and label for the first item of every video",
        )
        parser.set_defaults(handler=_validate, split=split)


def _validate(options: argparse.Namespace) -> None:
    from ..checkpoint import load
    from ..reds.validate import to_json, to_markdown, validate
    from ..runtime.device import pick_device

    protect_inputs(options, options.json, options.markdown, options.pictures)

    def draw(name: str, *grid: Tensor) -> None:
        write_grid(options.pictures / f"{name}.png", *grid)

    rows = validate(
        options.data,
        load(options.model, pick_device(options.device)),
        split=options.split,
        state=options.state,
        frames=options.frames,
        size=options.size,
        seed=options.seed,
        skip_unreadable=options.skip_unreadable,
        on_row=lambda row: print(
            f"{shortened(row.video)}  {row.correct.psnr:.2f} dB, SSIM {row.correct.ssim:.4f}",
            file=sys.stderr,
        ),
        on_first_item=draw if options.pictures else None,
    )
    model = Path(options.model).name
    data = options.data.resolve().name
    table = to_markdown(rows, f"{data} {options.split}, {model}, state {options.state}")
    print(table)
    protocol = {
        "data": data,
        "split": options.split,
        "model": model,
        "state": options.state,
        "frames": options.frames,
        "size": options.size,
        "seed": options.seed,
    }
    for path, text in ((options.json, to_json(rows, protocol)), (options.markdown, table)):
        if path:
            write_text(path, text + "\n")
