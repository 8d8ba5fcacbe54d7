"""The subcommand info."""

from __future__ import annotations

import argparse

from .options import Verbs, one_line


def add(verbs: Verbs) -> None:
    """Add this subcommand to the command line."""
    verb = verbs.add_parser("info", help="parameters, provenance and cost of a model")
    verb.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    verb.set_defaults(handler=_info)


def _info(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..checkpoint import describe

    table = Table(show_header=False, box=None)
    for name, value in describe(options.model).items():
        table.add_row(Text(one_line(name)), Text(one_line(value)))  # brackets are no markup
    Console(highlight=False).print(table)
