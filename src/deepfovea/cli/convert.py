"""The subcommand convert."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import InputError
from ..io.outputs import ensure_folder
from .options import Subcommands, local_path, output_path, protect_inputs


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "convert",
        help="a checkpoint of the authors of DeepFovea++ as a model of this package",
        description="Read the generator of the published repository, as its training saved it, "
        "and write it as a model of this package.",
        examples=("deepfovea convert generator_network_12.pt -o released.safetensors",),
    )
    parser.add_argument(
        "checkpoint",
        type=local_path,
        metavar="CHECKPOINT",
        help="generator_network_*.pt of the published repository",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        required=True,
        metavar="model.safetensors",
        help="where to write the model",
    )
    parser.add_argument(
        "--zero-state",
        action="store_true",
        help="begin videos with zeros instead of the noise of their code",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.set_defaults(handler=_convert)


def _convert(options: argparse.Namespace) -> None:
    output: Path = options.output
    if output.suffix != ".safetensors":
        raise InputError(
            f"{output}: received the suffix {output.suffix!r:.20}, expected .safetensors"
        )
    protect_inputs(options, output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: exists already; choose another name or --overwrite")
    import torch

    from ..checkpoint import save_model
    from ..convert import convert

    network, provenance = convert(options.checkpoint, zero_state=options.zero_state)
    with ensure_folder(output.parent):
        save_model(output, network, provenance, torch.float32)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{output}: {parameters:,} parameters")
    for name, value in provenance.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    if not network.config.norm_size:
        print(
            "  The parameters of the normalisation are not in the file. Runs on several GPUs "
            "never kept them and computed with gain 1 and bias 0, and so does this model. If it "
            "was trained on one GPU, the file is not complete: save the state dict again after "
            "a forward pass."
        )
