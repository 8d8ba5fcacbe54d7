"""The subcommand bench."""

from __future__ import annotations

import argparse
import sys
from typing import Literal

from ..wording import pluralize
from .options import (
    DEVICE_HELP,
    MODEL_HELP,
    Subcommands,
    comma_separated,
    output_path,
    positive,
    protect_inputs,
    write_text,
)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "bench",
        help="how long a frame takes, by model and engine",
        description="Measure how long one frame takes in each engine, beside the rate of matrix "
        "products of this machine. Each model and engine runs in a process of its own.",
        examples=(
            "deepfovea bench --models stream,paper --engines torch,openvino",
            "deepfovea bench --device cuda --engines torch --size 270x480 --json bench.json",
        ),
    )
    parser.add_argument("--models", default="stream", metavar="NAME|PATH,…", help=MODEL_HELP)
    parser.add_argument(
        "--engines",
        default="torch,onnxruntime,openvino",
        metavar="NAME,…",
        help="torch, cuda-graph, onnxruntime, openvino, tensorrt or auto",
    )
    parser.add_argument(
        "--size", default="192x256", metavar="HxW", help="low resolution of the frames"
    )
    parser.add_argument(
        "--frames", type=positive, default=60, metavar="N", help="how many frames are timed"
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=1,
        metavar="N",
        help="how often everything is timed; the fastest round counts",
    )
    parser.add_argument(
        "--device", default="auto", help=f"device that torch runs on: {DEVICE_HELP}"
    )
    parser.add_argument(
        "--json", type=output_path, metavar="FILE", help="write the table to this file"
    )
    parser.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..runtime.bench import bench, to_json
    from ..runtime.device import pick_device
    from ..runtime.export import parse_size

    protect_inputs(options, options.json)
    console = Console(highlight=False)
    rows, environment = bench(
        comma_separated(options.models),
        comma_separated(options.engines),
        size=parse_size(options.size, "--size"),
        frames=options.frames,
        rounds=options.rounds,
        device=pick_device(options.device),
        on_row=lambda row: print(
            f"{row.model}  {row.engine}  {row.ms_p50:.1f} ms", file=sys.stderr
        ),
    )
    columns = (
        "model",
        "engine",
        "ms p50",
        "ms p95",
        "frames/s",
        "MiB",
        "GMAC",
        "share",
    )
    table = Table(
        title=f"one frame of {options.size}, {pluralize(environment['threads'], 'thread')}; "
        f"share of the {environment['matmul_gmac_per_second']:.0f} GMAC/s of matrix products"
    )
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if number < 2 else "right"
        table.add_column(column, justify=justify, no_wrap=number > 0, min_width=6, overflow="fold")
    for row in rows:
        table.add_row(
            escape(row.model),
            row.engine,
            f"{row.ms_p50:.1f}",
            f"{row.ms_p95:.1f}",
            f"{row.frames_per_second:.1f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            f"{row.gmac:.2f}",
            "" if row.matmul_share is None else f"{100 * row.matmul_share:.0f} %",
        )
    console.print(table)
    if options.json:
        write_text(options.json, to_json(rows, environment) + "\n")
