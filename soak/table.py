"""Writes docs/reliability.md from docs/reliability.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
OUTCOMES = ("success", "refused", "part failed", "traceback", "crash", "hang", "unclear")

Result = dict[str, Any]


def render(results: Result, text: str) -> str:
    """Return the document with new tables between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    parts = [
        f"## {title}\n\n{how(results[name])}\n\n{draw(results[name])}"
        + verdict(results[name]["wrong"])
        for name, (title, draw) in PARTS.items()
        if name in results
    ]
    tables = "\n\n".join([BEGIN, *parts, END])
    return before + tables + (after if begin and end else "\n")


def how(result: Result) -> str:
    run = result["how"]
    return (
        f"`{' '.join(run['command'].split())}`, {run['date']}, {run['minutes']} min on "
        f"{run['processors']} processors shared with other work; Python {run['python']}, "
        f"torch {run['torch']}, PyAV {run['av']}."
    )


def verdict(wrong: list[str]) -> str:
    if not wrong:
        return "\n\nEvery case ended as it should."
    return "\n\n**Wrong:**\n\n" + "\n".join(f"- {line}" for line in wrong)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES if counts.get(kind))


def kill(result: Result) -> str:
    counts = dict(result["counts"])
    training = counts.pop("train", None)
    head = ["killed", "times", "whole new output", "old or none", "left a temporary file"]
    head += ["had already finished"]
    names = ("times", "complete", "nothing", "leftovers", "ended first")
    text = (
        "At random moments, and before each operation on a file or folder (half of them over an "
        "earlier output):\n\n"
    )
    text += table(
        head, [[subcommand, *(row[name] for name in names)] for subcommand, row in counts.items()]
    )
    if training:
        text += (
            f"\n\n`train` was killed {training['times']} times in {training['runs']} runs and "
            f"resumed each time, {training['before the first checkpoint']} times from the start "
            "because there was no checkpoint yet. Weights, optimisers, model and rows of metrics "
            "are bit-equal to those of a run that was not killed. All "
            f"{training['checkpoints read']} checkpoints found after the kills could be read, and "
            f"their hashes were right. At most {training['largest loss, steps']} step was lost, "
            "with a checkpoint after each step."
        )
    return text


def disk(result: Result) -> str:
    rows = [[f"`{subcommand}`", outcomes(row)] for subcommand, row in result["counts"].items()]
    return f"The disk: {result['disk']}.\n\n" + table(
        ["command", "while the free space grows"], rows
    )


def folders(result: Result) -> str:
    return f"{result['cases']} commands: {outcomes(result['counts'])}."


def media(result: Result) -> str:
    subcommands = list(next(iter(result["counts"].values())))
    rows = [
        [group, *(outcomes(row.get(subcommand, {})) for subcommand in subcommands)]
        for group, row in result["counts"].items()
    ]
    return (
        table(["files", *subcommands], rows)
        + f"\n\n{result['cases']} cases. Apart from 8K, the slowest took "
        f"{result['slowest_seconds']} s. Hosts named in playlists were contacted "
        f"{result['connections']} times."
    )


def fuzz(result: Result) -> str:
    rows = [[kind, row["cases"], outcomes(row["counts"])] for kind, row in result["kinds"].items()]
    return table(["files", "cases", "outcomes"], rows)


def same(result: Result) -> str:
    limits = result["tolerances"]
    return (
        table(["compared", "difference"], result["compared"].items())
        + "\n\nThe difference is the largest of any value in [0, 1] of any frame of `stream`, from "
        "PyTorch in one thread, on smooth pictures that move, where no motion is in doubt. On real "
        "videos single pixels differ by more: [Equal frames](speed.md#equal-frames). Allowed are "
        f"{limits['onnxruntime']:g} for ONNX Runtime, {limits['openvino']:g} for OpenVINO and "
        f"{limits['threads']:g} for PyTorch with two threads. Everything else, which is by PyTorch "
        "with one number of threads, must be equal to the last bit."
    )


def race(result: Result) -> str:
    rows = [[f"`{title}`", outcomes(row)] for title, row in result["counts"].items()]
    return f"{result['times']} pairs of each.\n\n" + table(["both at once", "outcomes"], rows)


def memory(result: Result) -> str:
    mib = result["mib"]
    return (
        f"{result['frames']} frames: {mib[len(mib) // 10]:.0f} MiB after a tenth, {mib[-1]:.0f} at "
        f"the end. The largest value after the first tenth is {100 * result['growth']:+.1f} % "
        "above the largest in it."
    )


def viewer(result: Result) -> str:
    head = ["clients", "seconds", "frames/s of all", "Jain's index", "latency p50, ms", "p95, ms"]
    head += ["MiB at the start, end", "growth"]
    rows = [
        [
            crowd["clients"],
            f"{crowd['seconds']:g}",
            crowd["frames_per_second"],
            crowd["jain"],
            crowd["latency_ms_p50"],
            crowd["latency_ms_p95"],
            f"{crowd['rss_mib'][0]:.0f}, {crowd['rss_mib'][-1]:.0f}",
            f"{100 * crowd['rss_growth']:+.1f} %",
        ]
        for crowd in result["crowds"]
    ]
    fuzzed = result["fuzzed"]
    return (
        table(head, rows)
        + "\n\nLatency is the time from sending a gaze to receiving the frame made with it. Growth "
        "compares the largest memory after the first third with the largest in it. One client "
        f'more than `--max-clients` receives "{result["refusal"]}" and is closed with 1013. '
        f"{fuzzed['messages']} fuzzed messages: {fuzzed.get('error', 0)} answered with an error, "
        f"{fuzzed.get('closed', 0)} connections closed after too many. The server kept serving and "
        "wrote nothing to stderr."
    )


PARTS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "kill": ("Killed", kill),
    "disk": ("Full disks", disk),
    "folders": ("Folders that cannot be written", folders),
    "media": ("Broken, odd and hostile media", media),
    "fuzz": ("Fuzzed files", fuzz),
    "viewer": ("Viewers", viewer),
    "memory": ("A long video", memory),
    "race": ("Two programs, one output", race),
    "same": ("Same in, same out", same),
}
