"""Sends SIGKILL at random moments, and checks the files on the disk and that the next run resumes.

python -m soak.kill --times 50

This process imports everything and forks a child for each command line, so that a kill hits the
work and not the imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from media import moving, write_video

from deepfovea import checkpoint
from deepfovea.cli import main as deepfovea

from .bad import tiny_model

CLOCKED = ("hours", "crops_per_second")  # columns of the metrics that depend on the clock
MAX_OPERATIONS = 60  # operations on files; each command has fewer

TRAIN = ["--steps=10", "--crop=32", "--clip=4", "--chunk=2", "--batch=1", "--workers=0"]
TRAIN += ["--device=cpu", "--log-steps=1", "--picture-steps=2", "--cooldown=2", "--warmup=2"]
TRAIN += ["--save-minutes=0", "--keep-minutes=1e-4"]  # a checkpoint after each step


def child(
    words: list[object],
    after: float | None = None,
    operation: int | None = None,
    folder: Path | None = None,
) -> bool:
    """Run a command line in a child process and kill it.

    It is killed after ``after`` seconds, or before operation number ``operation`` of Python on a
    file or folder below ``folder``: opening, renaming, removing.

    Returns:
        True if the child ended with exit code 0 before the kill.
    """
    process = os.fork()
    if process == 0:
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 1)
        if "SOAK_LOUD" not in os.environ:
            os.dup2(quiet, 2)
        code = 99
        if operation is not None:
            kill_before(operation, str(folder))
        try:
            code = deepfovea([str(word) for word in words])
        finally:
            os._exit(code)
    until = None if after is None else time.monotonic() + after
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if until is not None and time.monotonic() >= until:
            os.kill(process, signal.SIGKILL)
            break
        time.sleep(0.0005)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: code {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def kill_before(operation: int, folder: str) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.")):
            paths = [os.fspath(a) for a in arguments[:2] if isinstance(a, str | os.PathLike)]
            if any(path.startswith(folder) for path in paths):
                seen += 1
                if seen > operation:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def timed(words: list[object]) -> float:
    started = time.monotonic()
    assert child(words)
    return time.monotonic() - started


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of all files in a folder that are not hidden."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder) for path in paths}
    return {
        str(name): path.read_bytes()
        for path, name in names.items()
        if not any(part.startswith(".deepfovea-") for part in name.parts)
    }


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".deepfovea-*")]


def kill_writers(
    words: list[object], folder: Path, times: int, rng: random.Random, operations: bool
) -> dict[str, Any]:
    """Kill a command that writes into ``folder``, half of the times over complete earlier outputs.

    It is killed at random moments. With ``operations`` it is also killed before each operation on
    a file, because the moments in which a file replaces another one are short.

    Each output must be as it was before, or as an undisturbed run makes it.
    """
    seconds = timed(words)
    whole = contents(folder)
    assert whole
    counts = {"times": 0, "ended first": 0, "nothing": 0, "complete": 0, "leftovers": 0}
    moments: list[dict[str, Any]] = [{"after": rng.uniform(0, 1.1 * seconds)} for _ in range(times)]
    if operations:
        moments += [
            {"operation": n, "folder": folder} for n in range(MAX_OPERATIONS) for _ in range(2)
        ]
    for number, moment in enumerate(moments):
        old = dict.fromkeys(whole, b"old") if number % 2 else {}
        if any("/" in name for name in whole):
            old = whole if old else {}  # a folder is replaced only if deepfovea wrote it
        clear(folder)
        for name, data in old.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        ended = child(words, **moment)
        if ended and "operation" in moment:  # there are no more
            break
        counts["times"] += 1
        counts["ended first"] += ended
        found = contents(folder)
        for name, data in whole.items():
            assert found.get(name) in (old.get(name), data), f"{name} is neither old nor new"
        assert found.keys() <= whole.keys(), f"unexpected: {found.keys() - whole.keys()}"
        counts["complete" if found == whole and found != old else "nothing"] += 1
        counts["leftovers"] += bool(hidden(folder))
        if hidden(folder):
            assert child(words)
            assert contents(folder) == whole
            assert not hidden(folder), "the next run has not removed what was left"
    return counts | {"seconds": round(seconds, 2)}


def clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def kill_training(data: Path, folder: Path, times: int, rng: random.Random) -> dict[str, Any]:
    """Kill and resume training runs until they end; start new ones until there are enough kills."""
    words = ["train", "--data", data, *TRAIN]
    whole = folder / "whole"
    seconds = timed([*words, "--run", whole])
    expected, about = checkpoint.read(whole / "checkpoints" / "last.safetensors")
    model, _ = checkpoint.read(whole / "model.safetensors")
    counts = {"times": 0, "runs": 0, "before the first checkpoint": 0, "checkpoints read": 0}
    lost: list[int] = []
    while counts["times"] < times:
        run = folder / f"run{counts['runs']}"
        counts["runs"] += 1
        last = run / "checkpoints" / "last.safetensors"
        while True:
            resume = ["--resume"] if last.exists() else []
            limit = rng.uniform(0.0, 0.7 * seconds) if counts["times"] < times else None
            if child([*words, "--run", run, *resume], limit):
                break
            counts["times"] += 1
            for path in run.rglob("[!.]*.safetensors"):
                checkpoint.read(path)  # an InputError ends this
                counts["checkpoints read"] += 1
            if last.exists():
                lost.append(max(0, logged(run) - checkpoint.read(last)[1]["step"]))
            else:
                counts["before the first checkpoint"] += 1
        received, mine = checkpoint.read(last)
        same = received.keys() == expected.keys()
        same = same and all(torch.equal(received[name], expected[name]) for name in expected)
        assert same, "the weights of the resumed run are others"
        assert mine["step"] == about["step"] and mine["sums"] == about["sums"]
        made, _ = checkpoint.read(run / "model.safetensors")
        assert all(torch.equal(made[name], model[name]) for name in model)
        assert rows(run) == rows(whole), "the metrics of the resumed run are others"
        assert not hidden(run), "an unfinished file was left"
    assert max(lost, default=0) <= 1, "more than one checkpoint interval was lost"
    return counts | {"largest loss, steps": max(lost, default=0), "seconds": round(seconds, 2)}


def rows(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKED} for line in lines]


def logged(run: Path) -> int:
    """The last step that has a complete row of metrics."""
    step = 0
    with contextlib.suppress(OSError, ValueError):
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            step = json.loads(line)["step"]
    return step


def run(times: int, seed: int, subcommands: list[str], operations: bool) -> dict[str, Any]:
    """Kill each subcommand ``times`` times."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = tiny_model(root / "tiny.safetensors")
        data = root / "data"
        data.mkdir()
        for number in range(2):
            write_video(data / f"{number}.mp4", moving(12, 64, 96, seed=number))
        video = data / "0.mp4"
        tiny = ["--model", model, "--engine=torch", "--device=cpu", "--overwrite"]
        for subcommand, words in commands(video, data, model, tiny, root).items():
            if subcommand.split()[0] in subcommands:
                folder = root / subcommand.replace(" ", "-")
                folder.mkdir()
                results[subcommand] = kill_writers(words, folder, times, rng, operations)
        if "train" in subcommands:
            (root / "train").mkdir()
            results["train"] = kill_training(data, root / "train", times, rng)
    return results


def commands(
    video: Path, data: Path, model: Path, tiny: list[object], root: Path
) -> dict[str, list[object]]:
    def output(subcommand: str, name: str) -> Path:
        return root / subcommand.replace(" ", "-") / name

    made: dict[str, list[object]] = {}
    for subcommand, name in (("reconstruct", "out.mp4"), ("reconstruct folder", "out")):
        made[subcommand] = ["reconstruct", video, "-o", output(subcommand, name), *tiny]
    made["evaluate"] = ["evaluate", data, "--models=", "--baselines=fill", "--metrics=psnr"]
    made["evaluate"] += ["--frames=3", "--device=cpu", "--json", output("evaluate", "a.json")]
    made["evaluate"] += ["--markdown", output("evaluate", "a.md")]
    made["export"] = ["export", model, "-o", output("export", "a.onnx"), "--static=16x16"]
    return made


def imports() -> Iterator[str]:
    """Import what the subcommands import while they run, so that the children inherit it."""

    for package in ("onnx", "onnxruntime", "matplotlib.pyplot"):
        with contextlib.suppress(ImportError):
            yield __import__(package).__name__


def main() -> int:
    """Print the counts as JSON; the exit code is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--operations", action="store_true", help="also before each of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subcommands", default="reconstruct,evaluate,export,train")
    options = parser.parse_args()
    list(imports())
    subcommands = options.subcommands.split(",")
    try:
        print(json.dumps(run(options.times, options.seed, subcommands, options.operations)))
    except (AssertionError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
