"""The command line: it turns arguments into calls. Heavy imports happen inside the handlers."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from ..config import InputError
from . import (
    bench,
    check_motion,
    convert,
    demo,
    evaluate,
    export,
    infer,
    info,
    page,
    reconstruct,
    sample,
    train,
    validate,
    view,
)
from .options import Parser, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit code: 0; 1 if a part failed and the rest was done; 2 for bad input; 130 if
        interrupted; 143 if SIGTERM ended a training.
    """
    for stream in (sys.stdout, sys.stderr):  # file names may contain any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)  # this also prints --help and the lists
        handler: Callable[[argparse.Namespace], int | None] = options.handler
        code = handler(options) or 0
        sys.stdout.flush()  # here, where a full disk can still be reported
        return code
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        _discard_stdout()
        return 0
    except InputError as error:
        print(f"deepfovea: {one_line(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        reason = one_line(error) or "out of memory"
        if not isinstance(error, MemoryError) and "memory" not in reason:
            raise
        print(f"deepfovea: not enough memory ({reason:.200}); give smaller frames", file=sys.stderr)
        return 2
    # For example, the output cannot be written, or a socket cannot be opened.
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        print(f"deepfovea: {about}{one_line(error.strerror or error)}", file=sys.stderr)
        _discard_stdout()
        return 2
    except KeyboardInterrupt as interruption:  # training says what it saved
        said = one_line(interruption) or "interrupted; no unfinished output was left"
        print(f"deepfovea: {said}", file=sys.stderr)
        return getattr(interruption, "exit_code", 130)


def _discard_stdout() -> None:
    """Drop output that cannot be written, so that Python does not try again at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    from .. import __version__

    parser = Parser(
        prog="deepfovea",
        description="Foveated video: reconstruct and super-resolve by four what was sampled "
        "densely at the gaze and sparsely elsewhere.",
    )
    parser.add_argument("--version", action="version", version=f"deepfovea {__version__}")
    subcommands = parser.add_subparsers(
        dest="subcommand", required=True, metavar="COMMAND", parser_class=Parser
    )
    for subcommand in (
        reconstruct,
        sample,
        demo,
        view,
        page,
        info,
        convert,
        export,
        bench,
        evaluate,
        train,
        validate,
        infer,
        check_motion,
    ):
        subcommand.add(subcommands)
    return parser
