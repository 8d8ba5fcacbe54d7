"""The subcommand export."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Subcommands, positive, protect_inputs


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "export", help="a model as ONNX, one step per run, state in and out"
    )
    parser.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--opset", type=positive, default=16, metavar="N", help="16 (default) to 20"
    )
    parser.add_argument(
        "--static",
        metavar="HxW",
        help="fix the low resolution (multiples of 8, U-Nets 32) and a batch of one",
    )
    parser.add_argument("--fp16", action="store_true", help="float16 weights and convolutions")
    parser.set_defaults(handler=_export)


def _export(options: argparse.Namespace) -> None:
    from ..checkpoint import load
    from ..runtime.export import export_onnx, parse_size

    protect_inputs(options, options.output)
    difference = export_onnx(
        load(options.model),
        options.output,
        name=Path(options.model).stem,
        opset=options.opset,
        static=parse_size(options.static) if options.static else None,
        half=options.fp16,
    )
    print(
        f"{options.output}: opset {options.opset}; frames differ from torch by at most "
        f"{difference:.1e}"
    )
