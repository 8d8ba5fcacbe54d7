"""The subcommand info."""

from __future__ import annotations

import argparse

from .options import MODEL_HELP, Subcommands, one_line


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "info",
        help="parameters, provenance and cost of a model",
        description="Print what a model is: its network and parameters, what it was trained on, "
        "and what a frame costs.",
        examples=("deepfovea info stream", "deepfovea info runs/mine/model.safetensors"),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.set_defaults(handler=_info)


def _info(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..checkpoint import describe

    table = Table(show_header=False, box=None)
    for name, value in describe(options.model).items():
        table.add_row(Text(one_line(name)), Text(one_line(value)))  # in a str, brackets are markup
    Console(highlight=False).print(table)
