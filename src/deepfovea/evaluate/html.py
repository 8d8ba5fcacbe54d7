"""A report for the browser: a page with tables, charts, and frames to compare by wiping.

It needs no server and loads nothing from other sites.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from PIL import Image
from torch import Tensor

from ..config import SCALE
from ..metrics.regions import upsample_nearest
from ..wording import pluralize
from .contact_sheets import Panels
from .report import all_shortfalls, describe_bold, describe_protocol, is_best, shown_metrics
from .result import COLUMNS, Result
from .statistics import CONFIDENCE, Interval, difference, intervals, pairs

FRAMES = "frames"
SAMPLES, ORIGINAL = "samples", "original"


def frame_files(clip: str, panels: Sequence[Panels]) -> dict[str, bytes]:
    """The frame in the middle of a clip by every method: PNG files by their paths."""
    panel = panels[len(panels) // 2]
    images = {
        SAMPLES: upsample_nearest(panel.samples, SCALE),
        **panel.frames,
        ORIGINAL: panel.truth,
    }
    return {_path(clip, name): _png(image) for name, image in images.items()}


def _path(clip: str, method: str) -> str:
    """The path of a frame in the folder of the report; a method's name may be a path itself."""
    return f"{FRAMES}/{quote(clip)}/{quote(method, safe='')}.png"


def _png(image: Tensor) -> bytes:
    data = io.BytesIO()
    pixels = (image.clamp(0.0, 1.0) * 255.0 + 0.5).byte().permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(data, "PNG", compress_level=3)
    return data.getvalue()


def to_html(result: Result, charts: Sequence[str], folder: Path) -> str:
    """Make the page.

    Args:
        result: the result to show.
        charts: names of pictures in the same folder.
        folder: the folder of the page, in which the evaluation has written the frames.
    """
    names = shown_metrics(result)
    frames: dict[str, dict[str, str]] = {}
    for clip in result.clips:
        paths = {method: _path(clip, method) for method in (SAMPLES, *result.methods, ORIGINAL)}
        there = {method: quote(path) for method, path in paths.items() if (folder / path).is_file()}
        if there:
            frames[clip] = there
    protocol = result.protocol
    title = f"Evaluation of {protocol.get('data', 'clips')}"
    summary = (
        f"{pluralize(len(result.methods), 'method')} on {pluralize(len(result.clips), 'clip')}"
    )
    if words := describe_protocol(protocol):
        summary += f"; {words}"
    lost = all_shortfalls(result)
    pictures = [
        f'<figure><img src="{quote(name)}" alt="{escape(Path(name).stem)}"></figure>'
        for name in charts
    ]
    columns = [f"{COLUMNS[name].heading}: {COLUMNS[name].definition}" for name in names]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        summary=escape(summary + "."),
        shortfalls=_list(lost, "There is no model among the methods."),
        confidence=f"{CONFIDENCE:.0%}",
        bold=_marked(describe_bold(result)),
        means=_means(result, names),
        differences=_differences(result, names),
        charts="\n".join(pictures),
        clips=_clips(result, names),
        columns=_list(columns, ""),
        data=json.dumps(frames).replace("<", "\\u003c"),
    )


def _list(lines: Sequence[str], otherwise: str) -> str:
    if not lines:
        return f"<p>{escape(otherwise)}</p>"
    return "<ul>" + "".join(f"<li>{_marked(line)}</li>" for line in lines) + "</ul>"


def _marked(line: str) -> str:
    """Convert a line of Markdown to HTML; its only markup is code."""
    return re.sub("`(.*?)`", r"<code>\1</code>", escape(line))


def _means(result: Result, names: Sequence[str]) -> str:
    found, means = intervals(result, names), result.means()
    lines = []
    for method in result.methods:
        cells = [f"<td>{escape(method)}</td>"]
        for name in names:
            best = is_best(means, method, name)
            cells.append(_cell(found[method].get(name), f".{COLUMNS[name].digits}f", best))
        lines.append(cells)
    return _table(["method", *(COLUMNS[name].heading for name in names)], lines)


def _differences(result: Result, names: Sequence[str]) -> str:
    lines = []
    for one, other in pairs(result):
        cells = [f"<td>{escape(f'{one} − {other}')}</td>"]
        for name in names:
            found = difference(result, one, result, other, name)
            cells.append(_cell(found, f"+.{COLUMNS[name].digits}f", False, paired=True))
        lines.append(cells)
    return _table(["difference", *(COLUMNS[name].heading for name in names)], lines)


def _cell(found: Interval | None, format: str, best: bool, paired: bool = False) -> str:
    if found is None:
        return '<td data-value="">–</td>'
    text = f"{'≈ ' if paired and found.is_none else ''}{found.mean:{format}}"
    if best:
        text = f"<strong>{text}</strong>"
    if found.clips > 1:
        text += f"<small>{found.low:{format}} to {found.high:{format}}</small>"
    return f'<td data-value="{found.mean}">{text}</td>'


def _clips(result: Result, names: Sequence[str]) -> str:
    lines = []
    for row in result.rows:
        cells = [f"<td>{escape(row.clip)}</td>", f'<td class="text">{escape(row.method)}</td>']
        for name in names:
            value = row.values.get(name)
            text = "–" if value is None else f"{value:.{COLUMNS[name].digits}f}"
            cells.append(f'<td data-value="{"" if value is None else value}">{text}</td>')
        lines.append(cells)
    return _table(["clip", "method", *(COLUMNS[name].heading for name in names)], lines)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th><button>{escape(text)}</button></th>" for text in heads)
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return (
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    )
