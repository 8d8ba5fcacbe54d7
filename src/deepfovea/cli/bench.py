"""The subcommand bench."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from ..config import InputError
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

ENGINES = {"cpu": ("torch", "onnxruntime", "openvino"), "cuda": ("torch", "cuda-graph")}
SIZES = {"cpu": ("192x256",), "cuda": ("192x256", "270x480", "360x640", "540x960")}
BATCHES = {"cpu": ("1",), "cuda": ("1", "2")}
"""What is measured if nothing else is asked for, by the type of the device."""


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
        metavar="NAME,…",
        help="torch, cuda-graph, onnxruntime, openvino, tensorrt or auto (default: "
        f"{','.join(ENGINES['cpu'])}; on CUDA {','.join(ENGINES['cuda'])})",
    )
    parser.add_argument(
        "--size",
        metavar="HxW,…",
        help=f"low resolutions of the frames (default: {SIZES['cpu'][0]}; on CUDA "
        f"{','.join(SIZES['cuda'])}, for outputs of 768x1024, 1080p, 1440p and 4K)",
    )
    parser.add_argument(
        "--batch",
        metavar="N,…",
        help="how many videos at a time, two for two eyes (default: 1; on CUDA 1,2)",
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
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..runtime.bench import bench, to_json
    from ..runtime.device import pick_device
    from ..runtime.export import parse_size

    protect_inputs(options, options.json)
    console = Console(highlight=False)
    device = pick_device(options.device)
    kind = device.type if device.type == "cuda" else "cpu"

    def words(given: str | None, usual: Mapping[str, Sequence[str]]) -> Sequence[str]:
        return usual[kind] if given is None else comma_separated(given)

    sizes = words(options.size, SIZES)
    rows, environment = bench(
        comma_separated(options.models),
        words(options.engines, ENGINES),
        sizes=[parse_size(size, "--size") for size in sizes],
        batches=[_batch(word) for word in words(options.batch, BATCHES)],
        frames=options.frames,
        rounds=options.rounds,
        device=device,
        on_row=lambda row: print(
            f"{row.model}  {row.engine}  {row.height}x{row.width}  {row.ms_p50:.1f} ms",
            file=sys.stderr,
        ),
    )
    table = Table(box=SIMPLE_HEAD, title=f"one frame on {device}")
    for column in ("model", "engine", "size", "ms p50", "ms p95", "MiB", "share", "limit"):
        left = column in ("model", "engine", "size", "limit")
        justify: Literal["left", "right"] = "left" if left else "right"
        table.add_column(column, justify=justify, no_wrap=column != "model", overflow="fold")
    digits = 1 if kind == "cpu" else 2
    for row in rows:
        table.add_row(
            escape(row.model),
            row.engine,
            f"{row.height}x{row.width}" + (f" x{row.batch}" if row.batch > 1 else ""),
            f"{row.ms_p50:.{digits}f}",
            f"{row.ms_p95:.{digits}f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            "" if row.matmul_share is None else f"{100 * row.matmul_share:.0f} %",
            row.limit,
        )
    console.print(table)
    if rates := environment["rates"]:
        print(
            f"{pluralize(environment['threads'], 'thread')}. Share of the "
            f"{rates['multiply_adds_per_second'] / 1e9:.0f} GMAC/s of matrix products. Limit: the "
            f"longest of the times for arithmetic, for memory at "
            f"{rates['bytes_per_second'] / 1e9:.0f} GB/s and for launches of "
            f"{1e6 * rates['launch_seconds']:.1f} µs each."
        )
    if options.json:
        write_text(options.json, to_json(rows, environment) + "\n")


def _batch(word: str) -> int:
    try:
        return positive(word)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--batch: {error}") from None
