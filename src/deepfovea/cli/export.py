"""The subcommand export."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import InputError
from ..io.outputs import ensure_folder
from .options import MODEL_HELP, Subcommands, output_path, positive, protect_inputs


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "export",
        help="a model as ONNX, one step per run, state in and out",
        description="Write one step of a model as ONNX, with its state as named inputs and "
        "outputs, once it is proven equal to PyTorch.",
        examples=(
            "deepfovea export stream -o stream.onnx",
            "deepfovea export stream -o stream.onnx --static 192x256 --fp16",
            "deepfovea export stream -o renderer.onnx --motion --jitter",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        required=True,
        metavar="FILE.onnx",
        help="the file to write; an existing one is replaced",
    )
    parser.add_argument(
        "--opset",
        type=positive,
        default=16,
        metavar="N",
        help="version of ONNX's operators, 16 to 20",
    )
    parser.add_argument(
        "--static",
        metavar="HxW",
        help="fix the low resolution (multiples of 8, U-Nets 32) and a batch of one (default: any)",
    )
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="compute convolutions in float16, and store the weights so",
    )
    parser.add_argument(
        "--motion",
        action="store_true",
        help="add an input for the motion that a renderer knows; the model then estimates none",
    )
    parser.add_argument(
        "--jitter", action="store_true", help="add an input for the shift of the sampling grid"
    )
    parser.set_defaults(handler=_export)


def _export(options: argparse.Namespace) -> None:
    from ..checkpoint import load
    from ..runtime.export import export_onnx, parse_size

    protect_inputs(options, options.output)
    if options.output.suffix.lower() != ".onnx":
        raise InputError(
            f"{options.output}: received the suffix {options.output.suffix!r}, expected .onnx"
        )
    with ensure_folder(options.output.parent):
        difference = export_onnx(
            load(options.model),
            options.output,
            name=Path(options.model).stem,
            opset=options.opset,
            static=parse_size(options.static) if options.static else None,
            half=options.fp16,
            motion=options.motion,
            jitter=options.jitter,
        )
    print(
        f"{options.output}: opset {options.opset}; frames differ from torch by at most "
        f"{difference:.1e}"
    )
