"""Compares two results of the same protocol clip by clip."""

from __future__ import annotations

from ..config import InputError
from ..wording import pluralize
from .report import shown_metrics
from .result import COLUMNS, Result
from .statistics import CONFIDENCE, difference, sentence

COMPARED_FIELDS = (
    *("name", "version", "frames", "gaze", "seed", "density", "blue_noise", "jitter", "fov_deg"),
    *("flow", "reduction", "eccentricity_bin", "motion"),
)
"""The fields of the protocol that must be equal in two results that are compared."""
EARLIER_DEFAULTS = {"name": "published", "version": 1, "jitter": "none", "motion": "none"}
"""The settings of older results, which do not state them."""


def compare(one: Result, two: Result, names: tuple[str, str] = ("A", "B")) -> str:
    """Compare two results; return tables and sentences about the differences in Markdown.

    Methods with the same name are compared. If each result has only one method, these two are
    compared, whatever their names. Only the clips that both results have count.

    Args:
        one: the earlier result.
        two: the later one.
        names: names of both for the text.

    Raises:
        InputError: the protocols differ, or there is no common clip or method.
    """
    for key in COMPARED_FIELDS:
        values = [result.protocol.get(key, EARLIER_DEFAULTS.get(key)) for result in (one, two)]
        if values[0] != values[1]:
            raise InputError(
                f"--compare: received results with {key} {values[0]} and {values[1]}; expected two "
                "of the same protocol"
            )
    clips = [clip for clip in one.clips if clip in two.clips]
    methods = [(name, name) for name in one.methods if name in two.methods]
    if len(one.methods) == len(two.methods) == 1:
        methods = [(one.methods[0], two.methods[0])]
    if not clips or not methods:
        raise InputError(
            f"--compare: received {names[0]} and {names[1]} without a common "
            f"{'method' if clips else 'clip'}; expected the same clips and methods"
        )
    shown = [name for name in shown_metrics(one) if name in shown_metrics(two)]
    parts = [
        f"{names[1]} (B) less {names[0]} (A), paired over "
        f"{pluralize(len(clips), 'clip')}, {CONFIDENCE:.0%} intervals."
    ]
    for first, second in methods:
        title = f"`{first}`" if first == second else f"`{first}` (A) and `{second}` (B)"
        parts.append(title + _other_weights(one, two, first, second) + ":")
        lines = ["| metric | A | B | B − A |", "|---|---:|---:|---:|"]
        said = []
        for name in shown:
            found = difference(two, second, one, first, name)
            digits, cells = COLUMNS[name].digits, []
            for result, method in ((one, first), (two, second)):
                scores = _values(result, method, name, clips)
                cells.append(f"{sum(scores) / len(scores):.{digits}f}" if scores else "–")
            if found is not None:
                low, high = (f"{end:+.{digits}f}" for end in (found.low, found.high))
                cells.append(f"{found.mean:+.{digits}f} [{low}, {high}]")
            else:
                cells.append("–")
            lines.append(f"| {COLUMNS[name].heading} | {' | '.join(cells)} |")
            said.append(f"- {sentence(found, name, 'B', 'A')}")
        parts += ["\n".join(lines), "\n".join(said)]
    alone = [*_only(one, two, "A"), *_only(two, one, "B")]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in alone)] if alone else parts)


def _values(result: Result, method: str, name: str, clips: list[str]) -> list[float]:
    rows = [row for row in result.rows if row.method == method and row.clip in clips]
    return [value for row in rows if (value := row.values.get(name)) is not None]


def _other_weights(one: Result, two: Result, first: str, second: str) -> str:
    hashes = [r.protocol["models"].get(m) for r, m in ((one, first), (two, second))]
    return ", of other weights" if all(hashes) and hashes[0] != hashes[1] else ""


def _only(one: Result, two: Result, label: str) -> list[str]:
    """Lines about the clips and methods that only one of the results has."""
    found = []
    for what, mine, theirs in (
        ("clips", one.clips, two.clips),
        ("methods", one.methods, two.methods),
    ):
        extra = [name for name in mine if name not in theirs]
        if extra:
            found.append(f"only {label} has the {what} {', '.join(extra)}: not compared")
    return found
