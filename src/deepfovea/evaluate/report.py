"""Results as JSON, which can be read back, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..config import InputError
from ..metrics import METRICS
from ..wording import pluralize
from .methods import SEES_ALL
from .result import COLUMNS, Cost, Result, Row
from .statistics import CONFIDENCE, Interval, difference, intervals, pairs

BEGIN_MARK, END_MARK = "<!-- deepfovea evaluate: begin -->", "<!-- deepfovea evaluate: end -->"

OVERVIEW = tuple(metric.name for metric in METRICS.values() if metric.table == "overview")
PUBLISHED_METRICS = tuple(metric.name for metric in METRICS.values() if metric.table == "published")
REGIONAL_METRICS = ("psnr", "ssim", "lpips", "st_lpips")
REGIONS = ("foveated", "fovea", "blend", "periphery", "sampled", "dropped")
COMPARED_METRICS = (*OVERVIEW, *(f"psnr_{region}" for region in REGIONS))
"""The metrics in which :func:`shortfalls` compares a model with a baseline."""


def to_json(result: Result) -> str:
    """Write a result as JSON; all but ``cost`` is reproducible."""
    rows = [json.dumps(row_record(row), ensure_ascii=False) for row in result.rows]
    others = {
        "mean": result.means(),
        "interval": _interval_record(result),
        "difference": _difference_record(result),
        "notes": result.notes,
        "failed": result.failed,
        "cost": {name: asdict(cost) for name, cost in result.cost.items()},
    }
    # A line per row, so that the file and its changes can be read.
    text = ",\n".join(rows)
    protocol = json.dumps(result.protocol, indent=1, ensure_ascii=False)
    rest = json.dumps(others, indent=1, ensure_ascii=False).removeprefix("{")
    return f'{{\n"protocol": {protocol},\n"rows": [\n{text}\n],{rest}'


def row_record(row: Row) -> dict[str, Any]:
    """Convert a row to a JSON object, in which the metrics are keys beside the other fields."""
    parts = asdict(row)
    values = parts.pop("values")
    return {**parts, **values}


def row_from(record: Mapping[str, Any]) -> Row:
    """The inverse of :func:`row_record`; raises KeyError, TypeError or ValueError."""
    values = {name: record[name] for name in COLUMNS if name in record}
    float(values["psnr"])
    return Row(
        record["method"],
        record["clip"],
        record["frames"],
        record["sampled"],
        values,
        tuple(record["psnr_by_frame"]),
        tuple(record["mse_by_eccentricity"]),
        tuple((x, y) for x, y in record["gaze_px"]),
    )


def from_json(text: str, source: str = "JSON") -> Result:
    """Read a result that :func:`to_json` wrote.

    Raises:
        InputError: the text is something else.
    """
    try:
        data = json.loads(text)
        rows = [row_from(record) for record in data["rows"]]
        cost = {name: Cost(**value) for name, value in data["cost"].items()}
        if not rows or not {"models", "eccentricity_bin"} <= data["protocol"].keys():
            raise ValueError("no rows or no protocol")
        return Result(data["protocol"], rows, data["notes"], data["failed"], cost)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(
            f"{source}: cannot be read ({type(e).__name__}: {' '.join(str(e).split())[:100]}); "
            "expected what 'deepfovea evaluate DIR --json FILE' wrote"
        ) from None


def to_markdown(result: Result) -> str:
    """Write a result as tables in Markdown; every heading says which direction is better."""
    means, methods = result.means(), result.methods
    clips = len(result.clips)
    parts = _overview(result)
    if clips > 1:
        parts += [
            f"{CONFIDENCE:.0%} confidence intervals of these means, by bootstrap over the clips:",
            _interval_table(result),
        ]
    if _present(means, "e_warp_original"):
        own = next(mean["e_warp_original"] for mean in means.values())
        parts.append(f"The original frames themselves have an E_warp of {own:.5f}.")
    for metric in REGIONAL_METRICS:
        names = [f"{metric}_{region}" for region in REGIONS]
        names = [name for name in names if _present(means, name)]
        if names:
            parts += [f"{COLUMNS[metric].label} by region:", _by_method(means, names)]
    parts += ["PSNR clip by clip:", _by_clip(result)]
    if clips > 1 and pairs(result):
        parts += _differences(result)
    if any(_present(means, name) for name in PUBLISHED_METRICS):
        parts += [
            "By the published definitions, which are comparable with nothing else (the peak is "
            "the prediction's own maximum, SSIM one global correlation, both pooled over six "
            "frames):",
            _by_method(means, PUBLISHED_METRICS, bold=False),
        ]
    if result.cost:
        parts += [
            f"Cost of one frame, {result.protocol['cost_of']}, on {_device_and_engines(result)}; "
            "it varies from run to run and from machine to machine, the figures above do not:",
            _cost_table(result),
        ]
    parts += _where_we_lose(result)
    if result.protocol.get("jod_info") and any(_present(means, "jod") for _ in methods):
        parts.append(f"JOD: {result.protocol['jod_info']}.")
    return "\n\n".join(parts + _remarks(result))


def to_summary(result: Result) -> str:
    """Write a summary in Markdown: where our models lose, means, intervals and cost."""
    parts = _where_we_lose(result) + _overview(result)
    if len(result.clips) > 1:
        parts += [f"{CONFIDENCE:.0%} confidence intervals of these means:", _interval_table(result)]
    if result.cost:
        parts += [
            f"Cost of one frame, {result.protocol['cost_of']}, on {_device_and_engines(result)}:",
            _cost_table(result),
        ]
    return "\n\n".join(parts + _remarks(result))


def _overview(result: Result) -> list[str]:
    means = result.means()
    return [
        f"{_protocol_line(result)}Means over {pluralize(len(result.clips), 'clip')}. "
        f"{describe_bold(result)}",
        _by_method(means, [name for name in OVERVIEW if _present(means, name)]),
    ]


def _where_we_lose(result: Result) -> list[str]:
    lost = all_shortfalls(result)
    return ["\n".join(["Where we lose:", "", *(f"- {line}" for line in lost)])] if lost else []


def _remarks(result: Result) -> list[str]:
    remarks = [*result.notes, *(f"left out: {line}" for line in result.failed)]
    return ["\n".join(f"- {line}" for line in remarks)] if remarks else []


def all_shortfalls(result: Result) -> list[str]:
    """Sentences that say where our models are behind the methods without training."""
    return [line for model in result.protocol["models"] for line in shortfalls(result, model)]


def shortfalls(result: Result, model: str) -> list[str]:
    """Sentences that say where a model is behind the baselines.

    The baselines that are ahead in nothing share the first sentence; each of the others has one.
    """
    means, nowhere, lines = result.means(), [], []
    psnr = {(row.clip, row.method): row.psnr for row in result.rows}
    for baseline in (*result.protocol["baselines"], *result.protocol.get("others", ())):
        ours, theirs = means[model], means[baseline]
        compared = [name for name in ours if name in COMPARED_METRICS and name in theirs]
        behind = [name for name in compared if _is_better(theirs[name], ours[name], name)]
        clips = [
            f"{clip} {psnr[clip, model]:.2f} against {psnr[clip, baseline]:.2f} dB"
            for clip in result.clips
            if psnr[clip, baseline] > psnr[clip, model]
        ]
        if not behind and not clips:
            nowhere.append(f"`{baseline}`")
            continue
        where = []
        if 2 * len(behind) > len(compared):
            others = [COLUMNS[name].label for name in compared if name not in behind]
            where.append("every mean" + (f" but {_listed(others)}" if others else ""))
        elif behind:
            values = [
                f"{COLUMNS[name].label} {_cell(ours[name], name)} against "
                f"{_cell(theirs[name], name)}"
                for name in behind
            ]
            where.append(f"the mean {'; '.join(values)}")
        if clips:
            found = f"PSNR on {len(clips)} of {pluralize(len(result.clips), 'clip')}"
            some = f" ({'; '.join(clips)})" if len(clips) < len(result.clips) else ""
            where.append(f"{found}{some}")
        lines.append(f"`{model}` is behind `{baseline}` in {'; and in '.join(where)}.")
    if nowhere:
        lines.insert(0, f"`{model}` is behind {_listed(nowhere, 'or')} in no mean and on no clip.")
    return lines


def _listed(names: Sequence[str], word: str = "and") -> str:
    """Names as a list in a sentence."""
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def insert_tables(document: str, tables: str) -> str:
    """Put the tables between :data:`BEGIN_MARK` and :data:`END_MARK` of a document.

    A document without these two marks is replaced by the tables.
    """
    before, begin, rest = document.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        return tables + "\n"
    return f"{before}{BEGIN_MARK}\n\n{tables}\n\n{END_MARK}{after}"


def _protocol_line(result: Result) -> str:
    protocol = result.protocol
    if "name" not in protocol:  # an older result
        return ""
    changed = ", ".join(f"{key} {protocol[key]}" for key in protocol["changed"])
    line = f"Protocol `{protocol['name']}`, version {protocol['version']}"
    return f"{line}{', changed: ' if changed else ''}{changed}. "


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """Name and version of a protocol, and the changed settings; empty for older results."""
    if "name" not in protocol:
        return ""
    changed = "".join(f", {key} {protocol[key]}" for key in protocol["changed"])
    return f"protocol {protocol['name']}, version {protocol['version']}{changed}"


def describe_bold(result: Result) -> str:
    """A sentence that says which methods see all low-resolution pixels and what is bold."""
    all_pixels = [f"`{name}`" for name in result.methods if name in SEES_ALL]
    others = [f"`{name}`" for name in result.protocol.get("others", ())]
    unknown = ""
    if others:
        unknown = (
            f" {_listed(others)}: frames of another tool, scored as they are; what it saw is "
            "not known here."
        )
    if not all_pixels:
        return f"The best is bold.{unknown}"
    names = f"{_listed(all_pixels)} {'see' if len(all_pixels) > 1 else 'sees'}"
    return (
        f"{names} all low-resolution pixels, the other methods only the samples. "
        f"The best of those is bold.{unknown}"
    )


def _present(means: Mapping[str, Mapping[str, float]], name: str) -> bool:
    return any(name in mean for mean in means.values())


def _is_better(one: float | None, other: float, name: str) -> bool:
    if one is None:
        return False
    return one > other if COLUMNS[name].better == "higher" else one < other


def _cell(value: float | None, name: str) -> str:
    return "–" if value is None else f"{value:.{COLUMNS[name].digits}f}"


def is_best(means: Mapping[str, Mapping[str, float]], method: str, name: str) -> bool:
    """Whether a method is the best of those that see only the samples; False if it is alone."""
    rivals = [mean[name] for k, mean in means.items() if k not in SEES_ALL and name in mean]
    value = means[method].get(name)
    return (
        method not in SEES_ALL
        and value is not None
        and len(rivals) > 1
        and not any(_is_better(rival, value, name) for rival in rivals)
    )


def _by_method(
    means: Mapping[str, Mapping[str, float]], names: Sequence[str], bold: bool = True
) -> str:
    lines = []
    for method, mean in means.items():
        cells = []
        for name in names:
            value = mean.get(name)
            best = bold and is_best(means, method, name)
            cells.append(f"**{_cell(value, name)}**" if best else _cell(value, name))
        lines.append([method, *cells])
    heads = [COLUMNS[name].heading for name in names]
    return _table(["method", *heads], lines)


def _by_clip(result: Result) -> str:
    score = {(row.clip, row.method): row.psnr for row in result.rows}
    lines = [
        [clip, *(f"{score[clip, method]:.2f}" for method in result.methods)]
        for clip in result.clips
    ]
    means = result.means()
    lines.append(["**mean**", *(f"**{means[m]['psnr']:.2f}**" for m in result.methods)])
    return _table(["PSNR ↑, dB", *result.methods], lines)


def shown_metrics(result: Result) -> list[str]:
    """The metrics of the overview that the result has."""
    means = result.means()
    return [name for name in OVERVIEW if _present(means, name)]


def _interval_table(result: Result) -> str:
    names, found = shown_metrics(result), intervals(result, shown_metrics(result))
    lines = [
        [method, *(_range(values[name], name) if name in values else "–" for name in names)]
        for method, values in found.items()
    ]
    return _table(["method", *(COLUMNS[name].heading for name in names)], lines)


def _range(found: Interval, name: str) -> str:
    return f"{_cell(found.low, name)} to {_cell(found.high, name)}"


def _differences(result: Result) -> list[str]:
    """A table of paired differences, and sentences about differences that are not shown."""
    names, lines, sentences = shown_metrics(result), [], []
    for one, other in pairs(result):
        found = {name: difference(result, one, result, other, name) for name in names}
        lines.append([f"{one} − {other}", *(_signed(found[name], name) for name in names)])
        none = [COLUMNS[name].label for name in names if (d := found[name]) and d.is_none]
        if none:
            sentences.append(
                f"- Between `{one}` and `{other}` no difference is shown in {', '.join(none)}."
            )
    parts = [
        f"Differences of the means, paired clip by clip, with their {CONFIDENCE:.0%} intervals; ≈ "
        "where the interval holds 0, so that no difference is shown:",
        _table(["difference", *(COLUMNS[name].heading for name in names)], lines),
    ]
    return [*parts, "\n".join(sentences)] if sentences else parts


def _signed(found: Interval | None, name: str) -> str:
    if found is None:
        return "–"
    digits = COLUMNS[name].digits
    low, high = (f"{end:+.{digits}f}" for end in (found.low, found.high))
    return f"{'≈ ' if found.is_none else ''}{found.mean:+.{digits}f} [{low}, {high}]"


def _interval_record(result: Result) -> dict[str, dict[str, list[float]]]:
    """The two ends of the intervals, by method and metric."""
    return {
        method: {name: [found.low, found.high] for name, found in values.items()}
        for method, values in intervals(result, COMPARED_METRICS).items()
    }


def _difference_record(result: Result) -> dict[str, dict[str, list[float]]]:
    """The means of the paired differences and their two ends, by pair and metric."""
    record: dict[str, dict[str, list[float]]] = {}
    for one, other in pairs(result):
        found = {name: difference(result, one, result, other, name) for name in COMPARED_METRICS}
        record[f"{one} - {other}"] = {
            name: [d.mean, d.low, d.high] for name, d in found.items() if d is not None
        }
    return record


def _device_and_engines(result: Result) -> str:
    threads = next(iter(result.cost.values())).threads
    engines = result.protocol.get("engine") or {}  # older results have none: PyTorch
    by = "; ".join(f"{name} in {engine}" for name, engine in engines.items() if name in result.cost)
    return f"{result.protocol['device']}, {pluralize(threads, 'thread')}" + (
        f" ({by})" if by else ""
    )


def _cost_table(result: Result) -> str:
    heads = ["ms per frame ↓", "processor ms ↓", "peak memory ↓, MiB", "parameters ↓"]
    lines = []
    for name, c in result.cost.items():
        memory = "–" if c.peak_memory_mib is None else f"{c.peak_memory_mib:.0f}"
        times = [f"{c.ms_per_frame:.1f}", f"{c.processor_ms_per_frame:.1f}"]
        lines.append([name, *times, memory, f"{c.parameters:,}"])
    return _table(["method", *heads], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(
        ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(li) + " |" for li in lines)]
    )
