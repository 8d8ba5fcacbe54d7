"""Writes cli.md, a page of every subcommand and option: python docs/cli.py

The parser of the command line is the only source, so that the page says what --help says.
"""

import argparse
import sys
from pathlib import Path

from deepfovea.cli import _parser

HEAD = """# Command line

This page lists every option of every subcommand, as `--help` prints them. `python docs/cli.py`
writes the page.
"""


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def row(parser, action):
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{cell(action.metavar)}`"
    if action.choices:
        names += " " + " \\| ".join(map(str, action.choices))
    elif action.nargs != 0 and action.option_strings:
        metavar = action.metavar or action.dest.upper()
        names += f" `{cell(metavar if isinstance(metavar, str) else ' '.join(metavar))}`"
    formatter = parser._get_formatter()
    help = formatter._expand_help(action)
    required = " **required**" if action.required and action.option_strings else ""
    return f"| {names} | {cell(help)}{required} |"


def section(name, parser):
    lines = [f"## {name}", "", parser.description or "", ""]
    lines += ["```sh", *(line.strip() for line in parser.epilog.splitlines()[1:]), "```"]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.dest != "help"]
        if actions:
            title = {"positional arguments": "", "options": ""}.get(group.title, group.title)
            lines += ["", f"### {name}: {title}", ""] if title else [""]
            lines += ["| option | meaning |", "|---|---|", *(row(parser, a) for a in actions)]
    return "\n".join(lines)


def page():
    parser = _parser()
    (subcommands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = [section(*item) for item in subcommands.choices.items()]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(page())
    else:
        Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
