"""The command line: words to calls, nothing else. Heavy imports happen inside the handlers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ..config import InputError
from . import learning, models, published, quality, videos, viewer
from .words import Parser, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit code: 0; 1 where a part failed and the rest was done; 2 for bad input; 130 when
        interrupted.
    """
    options = _parser().parse_args(arguments)
    handler: Callable[[argparse.Namespace], int | None] = options.handler
    try:
        return handler(options) or 0
    except InputError as error:
        print(f"deepfovea: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deepfovea: interrupted; no unfinished output was left", file=sys.stderr)
        return 130


def _parser() -> Parser:
    from .. import __version__

    parser = Parser(
        prog="deepfovea",
        description="Foveated video: reconstruct and super-resolve by four what was sampled "
        "densely at the gaze and sparsely elsewhere.",
    )
    parser.add_argument("--version", action="version", version=f"deepfovea {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for group in (videos, viewer, models, quality, learning, published):
        group.add(verbs)
    return parser
