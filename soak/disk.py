"""Runs commands on full disks and in folders that cannot be written.

The disk is a small tmpfs if one may be mounted. Its free space grows until the command succeeds, so
that each write fails once. Without a tmpfs, the system's limit on the size of a file (RLIMIT_FSIZE)
takes its place.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from media import moving, write_video

from deepfovea import checkpoint

from .bad import TRAIN, tiny_model
from .worker import Worker

FREE_KIB = [4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096]
FREE_KIB += [6144, 8192, 12288, 16384, 24576, 32768, 49152]
"""Free space that is tried, KiB; the files here are small."""
DISK_KIB = 64 * 2**10  # KiB, size of the disk


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a tmpfs at ``folder`` for the block; yield False if it cannot be mounted."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(folder)]
    mounted = bool(mount) and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def limited(folder: Path) -> Iterator[bool]:
    """Use the limit on the size of a file, without a disk of its own."""
    folder.mkdir()
    yield False


def fill_up(folder: Path, leave: int) -> None:
    """Fill a disk so that only ``leave`` KiB are free."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free - leave * 1024
    with filler.open("wb") as file:
        file.write(bytes(max(0, free)))


def commands(video: Path, data: Path, model: Path, disk: Path) -> dict[str, list[object]]:
    """The command lines by subcommand, which write onto the disk."""
    tiny = ["--model", model, "--engine=torch", "--device=cpu", "--overwrite"]
    evaluate = ["evaluate", data, "--models=", "--baselines=fill", "--metrics=psnr", "--frames=2"]
    train = ["train", "--data", data, "--run", disk / "out", *TRAIN, "--steps=6"]
    train += ["--save-minutes=0", "--log-steps=1", "--picture-steps=1"]
    return {
        "reconstruct": ["reconstruct", video, "-o", disk / "out", *tiny],
        "reconstruct .mp4": ["reconstruct", video, "-o", disk / "out.mp4", *tiny],
        "sample": ["sample", video, "-o", disk / "out.webm", "--overwrite"],
        "evaluate": [*evaluate, "--json", disk / "out.json", "--plots", disk / "plots"],
        "export": ["export", model, "-o", disk / "out.onnx", "--static=16x16"],
        "train": train,
        "train --resume": [*train, "--resume", "--cache", data.parent / "cache"],
    }


def run_full(
    worker: Worker, rooms: list[int] = FREE_KIB, subcommands: list[str] | None = None
) -> dict[str, Any]:
    """Run each command with growing free space; old outputs must survive every refusal."""
    counts: dict[str, dict[str, int]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model, data = tiny_model(root / "tiny.safetensors"), root / "data"
        data.mkdir()
        video = write_video(data / "video.mp4", moving(6, 64, 96))
        with small_disk(root / "disk") as mounted:
            disk = root / "disk"
            for subcommand, words in commands(video, data, model, disk).items():
                if subcommands is not None and subcommand not in subcommands:
                    continue
                outcomes: Counter[str] = Counter()
                for room in rooms:
                    clear(disk)
                    old = prepare_outputs(subcommand, words, disk, worker)
                    if mounted:
                        fill_up(disk, room)
                    limit = None if mounted else room * 1024
                    outcome = worker.run(*words, file_limit=limit)
                    (disk / "filler").unlink(missing_ok=True)
                    outcomes[outcome.kind] += 1
                    complaint = ""
                    if not outcome.fine:
                        complaint = " | ".join([outcome.kind, *outcome.lines[-3:]])
                    elif outcome.kind == "refused":
                        complaint = complaint_about_outputs(subcommand, disk, old)
                    if complaint:
                        wrong.append(f"{subcommand}, {room} KiB: {complaint}")
                    if outcome.kind == "success":
                        break
                counts[subcommand] = dict(outcomes)
            worker.end()  # its open files would keep the disk mounted
    disk_is = "tmpfs" if mounted else "RLIMIT_FSIZE"
    return {"disk": disk_is, "counts": counts, "wrong": wrong}


def prepare_outputs(
    subcommand: str, words: list[object], disk: Path, worker: Worker
) -> dict[str, bytes]:
    """Write complete outputs that the command finds on the disk."""
    if subcommand == "train":
        return {}
    if subcommand == "train --resume":
        first = [word for word in words if word not in ("--resume", "--steps=6")]
        assert worker.run(*first, "--steps=2").kind == "success"
    elif subcommand == "reconstruct":
        (disk / "out").mkdir()
        (disk / "out" / "00000000.png").write_bytes(b"old")
    else:
        (disk / f"out{Path(str(words[words.index('-o') + 1])).suffix}").write_bytes(b"old") if (
            "-o" in words
        ) else (disk / "out.json").write_bytes(b"old")
    return files(disk)


def files(disk: Path) -> dict[str, bytes]:
    return {str(p.relative_to(disk)): p.read_bytes() for p in disk.rglob("*") if p.is_file()}


ROWS = r"\.deepfovea-rows-out\.json-\d+"
"""The rows of a stopped evaluation. They stay, as the same command continues from them."""


def complaint_about_outputs(subcommand: str, disk: Path, old: dict[str, bytes]) -> str:
    """Say which old file was lost and which unfinished file was left; empty if neither."""
    found = files(disk)
    unfinished = [n for n in found if ".deepfovea-" in n and not re.fullmatch(ROWS, n)]
    if unfinished:
        return f"left {unfinished}"
    if subcommand.startswith("train"):
        for path in disk.rglob("*.safetensors"):
            checkpoint.read(path)  # an InputError ends the tests
        if "out/checkpoints/last.safetensors" in old:
            assert (disk / "out/checkpoints/last.safetensors").exists()
        return ""
    changed = [name for name in old if found.get(name) != old[name]]
    if "out.json" in changed:  # written before the plots, which did not fit
        json.loads(found["out.json"])
        changed.remove("out.json")
    kept = re.compile(rf"plots.*|{ROWS}")
    more = [name for name in found if name not in old and not kept.fullmatch(name)]
    return f"changed {changed}, new {more}" if changed or more else ""


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_unwritable(worker: Worker) -> dict[str, Any]:
    """Run each command with its output where nobody can write, or below a file."""
    outcomes: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model, data = tiny_model(root / "tiny.safetensors"), root / "data"
        data.mkdir()
        video = write_video(data / "video.mp4", moving(6, 64, 96))
        (root / "file").write_text("", encoding="utf-8")
        places = [Path("/proc"), Path("/proc/self"), Path("/sys"), root / "file", root / "missing"]
        for place in places:
            for subcommand, words in commands(video, data, model, place).items():
                if subcommand == "train" and place == root / "missing":
                    continue  # it makes its folder
                outcome = worker.run(*words)
                outcomes[outcome.kind] += 1
                if outcome.kind != "refused":
                    said = " | ".join(outcome.lines[-3:])
                    wrong.append(f"{subcommand} into {place.name}: {outcome.kind}: {said}")
        left = sorted(path.name for path in root.iterdir())
        if left != ["data", "file", "tiny.safetensors"]:
            wrong.append(f"left {left}")
    return {"cases": sum(outcomes.values()), "counts": dict(outcomes), "wrong": wrong}
