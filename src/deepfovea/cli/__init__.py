"""The command line: words to calls, nothing else. Heavy imports happen inside the handlers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ..config import InputError
from . import learning, models, quality, videos, viewer
from .words import Parser, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    handler: Callable[[argparse.Namespace], None] = options.handler
    try:
        handler(options)
    except InputError as error:
        print(f"deepfovea: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deepfovea: interrupted; no unfinished output was left", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    from .. import __version__

    parser = Parser(
        prog="deepfovea",
        description="Foveated video: reconstruct and super-resolve by four what was sampled "
        "densely at the gaze and sparsely elsewhere.",
    )
    parser.add_argument("--version", action="version", version=f"deepfovea {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for group in (videos, viewer, models, quality, learning):
        group.add(verbs)
    return parser
