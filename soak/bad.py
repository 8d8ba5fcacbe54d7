"""Runs the command line on hundreds of bad media, gaze files, configurations and checkpoints.

Every case must end within ten seconds, either in success or with one line on stderr and exit code
2. A refusal leaves no files behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import socket
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from deepfovea import checkpoint
from deepfovea.config import TrainConfig
from deepfovea.generators.stream.net import StreamConfig, StreamNet

from . import media as cases
from .worker import Outcome, Worker

TRAIN = ["--steps=1", "--crop=32", "--clip=2", "--chunk=1", "--batch=1", "--workers=0"]
TRAIN += ["--picture-steps=0", "--device=cpu"]
LARGE_TIMEOUT_SECONDS = 300.0  # seconds for an 8K file, which takes long but does not hang


def tiny_model(path: Path) -> Path:
    """Write a very small untrained network of the kind that the package contains."""
    torch.manual_seed(0)
    config = StreamConfig(4, 4, 4, 4, 4, (4, 4, 4))
    checkpoint.save_model(path, StreamNet(config), {"trained": "not at all"})
    return path


def commands(case: Path, folder: Path, model: Path) -> dict[str, list[object]]:
    """The command lines for each file, by subcommand; they write into the empty ``folder``."""
    output = ["-o", folder / "out.mp4"]
    data = folder.parent / "data"
    tiny = ["--model", model, "--engine=torch", "--device=cpu"]
    evaluate = ["evaluate", data, "--models=", "--baselines=fill", "--metrics=psnr"]
    return {
        "reconstruct": ["reconstruct", case, *output, "--simulate", *tiny],
        "sample": ["sample", case, *output],
        "evaluate": [*evaluate, "--frames=2", "--json", folder / "out.json"],
        "train": ["train", "--data", data, "--run", folder / "run", *TRAIN],
    }


def run_media(subcommands: list[str], *, large: bool, worker: Worker) -> dict[str, Any]:
    """Run these subcommands on every file of the corpus; return counts and wrong outcomes."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    wrong, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as name, Listener() as calls:
        root = Path(name)
        model = tiny_model(root / "tiny.safetensors")
        (root / "media").mkdir()
        for case in list(cases.corpus(root / "media", large=large)):
            for subcommand in subcommands:
                folder, data = root / "out", root / "data"
                for made in (folder, data):
                    made.mkdir()
                if case.path.suffix and case.path.parent == root / "media":
                    (data / f"clip{case.path.suffix}").symlink_to(case.path)
                outcome = worker.run(
                    *commands(case.path, folder, model)[subcommand],
                    timeout_seconds=LARGE_TIMEOUT_SECONDS if case.group == "8K" else None,
                )
                counts.setdefault(case.group, {}).setdefault(subcommand, Counter())[
                    outcome.kind
                ] += 1
                if case.group != "8K":
                    slowest = max(slowest, outcome.seconds)
                if complaint := complaint_about(case, subcommand, outcome, folder):
                    wrong.append(f"{case.group}, {case.name}, {subcommand}: {complaint}")
                for made in (folder, data):
                    remove(made)
        total = sum(sum(c.values()) for row in counts.values() for c in row.values())
        return {
            "cases": total,
            "counts": counts,
            "wrong": wrong,
            "slowest_seconds": round(slowest, 2),
            "connections": len(calls),
        }


def complaint_about(case: cases.Case, subcommand: str, outcome: Outcome, folder: Path) -> str:
    """Say what was wrong with an outcome; empty if nothing was."""
    if not outcome.fine:
        return f"{outcome.kind}: {' | '.join(outcome.lines[-3:])}"
    if subcommand == "reconstruct" and case.must and outcome.kind != case.must:
        return f"{outcome.kind}, expected {case.must}"
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    whole = {"reconstruct": ["out.mp4"], "sample": ["out.mp4"], "evaluate": ["out.json"]}
    if outcome.kind == "refused":
        left = [path for path in left if not path.startswith("run")]
        return f"refused, but left {left}" if left else ""
    if subcommand in whole and left != whole[subcommand]:
        return f"{outcome.kind} with {left}"
    if any(".deepfovea-" in path for path in left):
        return f"an unfinished file was left: {left}"
    return ""


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()


class Listener:
    """Listens on port 9 of this machine, which playlists of the corpus name; yields the callers."""

    def __enter__(self) -> list[object]:
        self.calls: list[object] = []
        self.socket = None
        try:
            self.socket = socket.create_server(("127.0.0.1", 9))
            self.socket.setblocking(False)
        except OSError:  # listening there is not permitted: the count stays 0
            self.calls = []
        return self.calls

    def __exit__(self, *_: object) -> None:
        if self.socket is not None:
            try:
                while True:
                    self.calls.append(self.socket.accept()[1])
            except BlockingIOError:
                pass
            self.socket.close()


# ---- fuzzed text, seeded so that a failure can be reproduced ----


def random_json(rng: random.Random, depth: int = 2) -> Any:
    """Draw a JSON value of any kind, often an extreme one."""
    kinds: list[Any] = [None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(10**30)]
    kinds += [0.0, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), "", "a"]
    kinds += ["\0", "\ud800", "💥" * 50, "a" * 5000, "../../etc/passwd", "%s%n", "[/b]", "1e9"]
    if depth and rng.random() < 0.3:
        size = rng.choice([0, 1, 2, 3, 5, 9])
        if rng.random() < 0.7:
            return [random_json(rng, depth - 1) for _ in range(size)]
        return {str(random_json(rng, 0)): random_json(rng, depth - 1) for _ in range(size)}
    return rng.choice(kinds)


def configurations(rng: random.Random) -> Iterator[bytes]:
    """Contents of files for ``train --config``."""
    usual = json.loads(json.dumps(dataclasses.asdict(TrainConfig())))
    usual["steps"] = 1
    names = [*usual, "model", "nonsuch", "Steps", ""]
    while True:
        values = dict(usual) if rng.random() < 0.7 else {}
        for name in rng.sample(names, rng.choice([0, 1, 1, 2, 4])):
            values[name] = random_json(rng)
        text = json.dumps(values).encode("utf-8", "surrogatepass")
        yield damaged_text(rng, text) if rng.random() < 0.3 else text


def tracks(rng: random.Random) -> Iterator[bytes]:
    """Contents of files for ``--gaze``."""
    headers = ["time,x,y", "frame;x;y", "time,x [norm],y [norm],confidence", "t\tx_px\ty_px"]
    headers += ["timestamp [ns],gaze x [px],gaze y [px],worn,blink id", "x,y", "time,time,x,y"]
    headers += ["gaze_timestamp,norm_pos_x,norm_pos_y,confidence", "", '"time,x,y', "time,x,y" * 99]
    cells = ["0", "1", "0.5", "20", "-1", "1e400", "nan", "-inf", "", " ", "x", "0x10", "1_0", '"']
    cells += ["9" * 400, "１", "1,5", "\0", "\r", "1e-320", "true", "\ufeff0"]
    while True:
        sound = rng.random() < 0.4  # a correct track, which is damaged below
        header = "time,x,y" if sound else rng.choice(headers)
        mark = max(",;\t", key=header.count)
        rows = [
            mark.join(rng.choice(cells) for _ in range(rng.choice([0, 1, 3, 3, 3, 5])))
            for _ in range(rng.choice([0, 1, 2, 20]))
        ]
        if sound:
            rows = [f"{t / 50},{rng.uniform(-5, 60)},{rng.uniform(0, 40)}" for t in range(9)]
        text = rng.choice(["\n", "\r\n", "\r"]).join([header, *rows]).encode("utf-8")
        yield damaged_text(rng, text) if rng.random() < 0.3 else text


def checkpoints(rng: random.Random, model: Path) -> Iterator[bytes]:
    """Contents of files for ``info``: a model with a changed header or description."""
    whole = model.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    tensors = [name for name in header if name != "__metadata__"]
    while True:
        changed = json.loads(json.dumps(header))
        kind = rng.randrange(5)
        if kind == 0:  # any value of any tensor
            for name in rng.sample(tensors, rng.choice([1, 2])):
                changed[name][rng.choice(["dtype", "shape", "data_offsets", "x"])] = random_json(
                    rng
                )
        elif kind == 1:  # any tensor, or the metadata
            changed[rng.choice([*tensors, "__metadata__", "new"])] = random_json(rng)
        elif kind in (2, 3):  # any value of the description, with a correct hash
            about = json.loads(changed["__metadata__"]["deepfovea"])
            inner = rng.choice([about, about["config"]])
            inner[rng.choice([*inner, "new"])] = random_json(rng)
            text = json.dumps(about)
            found, _ = checkpoint.read(model)
            changed["__metadata__"] = {"deepfovea": text}
            changed["__metadata__"]["sha256"] = checkpoint._digest(found, text)
        text = json.dumps(changed).encode()
        if kind == 4:
            text = damaged_text(rng, text)
        size = len(text) if rng.random() < 0.8 else rng.choice([0, 1, len(text) - 1, 2**63, 2**40])
        yield struct.pack("<Q", size) + text + data


def damaged_text(rng: random.Random, text: bytes) -> bytes:
    """Change some bytes, repeat or remove a piece, or insert something nested."""
    at = rng.randrange(len(text) + 1)
    until = min(len(text), at + rng.choice([1, 3, 20]))
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + bytes(rng.randrange(256) for _ in range(until - at)) + text[until:]
    if kind == 1:
        return text[:until] + text[at:]
    if kind == 2:
        return text[:at] + text[until:]
    return text[:at] + rng.choice([b"[" * 5000, b'{"a":' * 5000, b"9" * 5000]) + text[at:]


def run_fuzz(kind: str, count: int, seed: int, worker: Worker) -> dict[str, Any]:
    """Run the command line on ``count`` files of a kind."""
    rng = random.Random(f"{kind} {seed}")
    outcomes: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model(folder / "tiny.safetensors")
        from media import moving, write_video

        video = write_video(folder / "video.mp4", moving(2, 32, 48))
        contents = {
            "gaze files": tracks(rng),
            "configurations": configurations(rng),
            "checkpoints": checkpoints(rng, model),
        }[kind]
        output = folder / "out.mp4"
        (folder / "data").mkdir()
        write_video(folder / "data" / "video.mp4", moving(4, 48, 64))
        run = folder / "run"
        train = ["--data", folder / "data", "--cache", folder / "cache", "--run", run, *TRAIN]
        for number in range(count):
            path = folder / "case"
            path.write_bytes(next(contents))
            outcome = worker.run(
                *{
                    "gaze files": ["sample", video, "-o", output, "--gaze", path],
                    # The options limit training to one short step, whatever the file says.
                    "configurations": ["train", "--config", path, *train],
                    "checkpoints": ["info", path],
                }[kind]
            )
            outcomes[outcome.kind] += 1
            left = list(folder.glob(".deepfovea-*"))
            if not outcome.fine or left:
                said = " | ".join(outcome.lines[-3:])
                wrong.append(f"{kind} {number} of seed {seed}: {outcome.kind}: {said}")
                if keep := os.environ.get("SOAK_KEEP"):
                    Path(keep, f"{kind}-{number}").write_bytes(path.read_bytes())
            output.unlink(missing_ok=True)
            shutil.rmtree(run, ignore_errors=True)
    return {"cases": count, "counts": dict(outcomes), "wrong": wrong}
