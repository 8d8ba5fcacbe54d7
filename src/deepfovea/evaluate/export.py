"""Writes a result for other tools: comma-separated rows, and a LaTeX table."""

from __future__ import annotations

import csv
import io

from ..wording import pluralize
from .report import describe_bold, describe_protocol, is_best, shown_metrics
from .result import COLUMNS, Result
from .statistics import CONFIDENCE, intervals


def to_csv(result: Result) -> str:
    """Make a line per clip and method, and a column per metric, named as in the JSON.

    An empty cell means that there is no value.
    """
    names = [name for name in COLUMNS if any(name in row.values for row in result.rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "clip", "frames", "sampled", *names])
    for row in result.rows:
        values = [row.values.get(name) for name in names]
        writer.writerow([row.method, row.clip, row.frames, row.sampled, *values])
    return text.getvalue()


def to_latex(result: Result) -> str:
    """Make a table of the means with their intervals, for LaTeX's package booktabs."""
    names, means = shown_metrics(result), result.means()
    found = intervals(result, names)
    heads = " & ".join(["method", *(_escape(COLUMNS[name].heading) for name in names)])
    lines = []
    for method in result.methods:
        cells = [_escape(method)]
        for name in names:
            if name not in found[method]:
                cells.append("--")
                continue
            mean, low, high, clips = found[method][name]
            digits = COLUMNS[name].digits
            text = f"{mean:.{digits}f}"
            text = rf"\textbf{{{text}}}" if is_best(means, method, name) else text
            ends = rf" {{\scriptsize [{low:.{digits}f}, {high:.{digits}f}]}}" if clips > 1 else ""
            cells.append(text + ends)
        lines.append(" & ".join(cells) + r" \\")
    clips = len(result.clips)
    caption = f"Means over {pluralize(clips, 'clip')}"
    if clips > 1:
        caption += f" and their {CONFIDENCE:.0%} bootstrap intervals"
    if words := describe_protocol(result.protocol):
        caption += f"; {words}"
    caption += f". {describe_bold(result).replace('`', '')}"
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
            r"\toprule",
            heads + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "°": r"$^\circ$",
}


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
