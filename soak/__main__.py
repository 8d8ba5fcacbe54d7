"""Runs the long tests, and writes their figures and tables.

python -m soak                          everything, about an hour
python -m soak --parts kill,disk        only these parts; the figures of the others stay
python -m soak --render                 only writes docs/reliability.md from docs/reliability.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepfovea.io.atomic import atomic_write

from . import bad, disk, load, same
from .table import render
from .worker import ROOT, Worker, environment

SUBCOMMANDS = ["reconstruct", "sample", "evaluate", "train"]


def kills(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "soak.kill", f"--times={options.kills}", "--operations"]
    command += [f"--seed={options.seed}"]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        return {"counts": {}, "wrong": done.stderr.splitlines()[-1:]}
    return {"counts": json.loads(done.stdout.splitlines()[-1]), "wrong": []}


def fuzz(options: argparse.Namespace, worker: Worker) -> dict[str, Any]:
    kinds = ("gaze files", "configurations", "checkpoints")
    found = {kind: bad.run_fuzz(kind, options.fuzz, options.seed, worker) for kind in kinds}
    return {"kinds": found, "wrong": [line for part in found.values() for line in part["wrong"]]}


def viewers(options: argparse.Namespace) -> dict[str, Any]:
    return load.run_viewer(options.seconds, [1, 4, 16], options.fuzz, options.seed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", help="some of kill,disk,folders,media,fuzz,same,race,memory,viewer"
    )
    parser.add_argument("--kills", type=int, default=50, help="per subcommand, default 50")
    parser.add_argument("--fuzz", type=int, default=1000, help="cases per kind, default 1000")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each number of viewers")
    parser.add_argument("--frames", type=int, default=10_000, help="length of the long video")
    parser.add_argument("--races", type=int, default=5, help="pairs per kind, default 5")
    parser.add_argument("--small", action="store_true", help="leave out the 8K files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--render", action="store_true", help="run nothing, only write the tables")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "reliability.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "reliability.md")
    options = parser.parse_args()
    results = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    wrong = []
    with Worker() as worker:
        parts: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
            "kill": (lambda: kills(options), f"--kills {options.kills}"),
            "disk": (lambda: disk.run_full(worker), ""),
            "folders": (lambda: disk.run_unwritable(worker), ""),
            "media": (
                lambda: bad.run_media(SUBCOMMANDS, large=not options.small, worker=worker),
                "--small" if options.small else "",
            ),
            "fuzz": (lambda: fuzz(options, worker), f"--fuzz {options.fuzz}"),
            "same": (lambda: same.run(worker), ""),
            "race": (lambda: load.run_races(options.races), f"--races {options.races}"),
            "memory": (lambda: load.run_memory(options.frames), f"--frames {options.frames}"),
            "viewer": (
                lambda: viewers(options),
                f"--seconds {options.seconds:g} --fuzz {options.fuzz}",
            ),
        }
        chosen = [] if options.render else list(parts)
        if options.parts:
            chosen = options.parts.split(",")
        for name in chosen:
            started = time.monotonic()
            run, words = parts[name]
            result = json.loads(json.dumps(run()))
            result["how"] = {
                "command": f"python -m soak --parts {name} {words} --seed {options.seed}",
                "date": time.strftime("%Y-%m-%d"),
                "minutes": round((time.monotonic() - started) / 60, 1),
                "processors": os.cpu_count(),
                "python": platform.python_version(),
                "torch": version("torch"),
                "av": version("av"),
            }
            print(
                f"{name}: {len(result['wrong'])} wrong, {result['how']['minutes']} min", flush=True
            )
            wrong += result["wrong"]
            results[name] = result
            write(options.json, json.dumps(results, indent=1) + "\n")
    text = options.markdown.read_text(encoding="utf-8") if options.markdown.exists() else ""
    write(options.markdown, render(results, text))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]


def write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


if __name__ == "__main__":
    sys.exit(main())
