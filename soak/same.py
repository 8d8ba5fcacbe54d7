"""Compares runs that must give equal results: repeated, resumed, with more workers or threads,
with other engines."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from media import moving, write_video

from deepfovea import checkpoint
from deepfovea.files_to_files import downsample, to_tensor
from deepfovea.gaze import synthetic
from deepfovea.reconstructor import Reconstructor
from deepfovea.runtime.engine import load_engine

from .bad import TRAIN, tiny_model
from .worker import Worker

TOLERANCES = {"torch": 0.0, "onnxruntime": 1e-3, "openvino": 1e-3}
"""The largest allowed difference of any value in [0, 1] of any frame from PyTorch in one thread, on
pictures whose motion is unambiguous; benchmarks/sensitivity.py measures real videos."""
THREAD_TOLERANCE = 1e-4
"""The same for PyTorch with two threads, which add in a different order."""


def run(worker: Worker, *, frames: int = 24) -> dict[str, Any]:
    """Make all comparisons and return their results."""
    compared: dict[str, Any] = {}
    wrong: list[str] = []

    def files(name: str, first: Path, second: Path) -> None:
        same = first.read_bytes() == second.read_bytes()
        compared[name] = "the same bytes" if same else "different"
        if not same:
            wrong.append(name)

    def weights(name: str, first: Path, second: Path) -> None:
        one, two = (checkpoint.read(path)[0] for path in (first, second))
        same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        compared[name] = "the same bits" if same else "different"
        if not same:
            wrong.append(name)

    def must(*words: object) -> None:
        outcome = worker.run(*words, timeout_seconds=120.0)
        assert outcome.kind == "success", (words, outcome)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, data = tiny_model(root / "tiny.safetensors"), root / "data"
        data.mkdir()
        for number in range(3):
            write_video(data / f"{number}.mp4", moving(12, 64, 96, seed=number))
        for name in ("one", "two"):
            must("reconstruct", data / "0.mp4", "-o", root / f"{name}.mp4", "--model", model,
                 "--engine=torch", "--gaze=synthetic", "--seed=3", "--noise=blue")  # fmt: skip
        files("two runs of reconstruct: video file", root / "one.mp4", root / "two.mp4")
        evaluate = ["evaluate", data, "--models", model, "--metrics=psnr,ssim", "--frames=4"]
        for workers in (0, 1, 2):
            must(*evaluate, f"--workers={workers}", "--json", root / f"{workers}.json")
        for workers in (1, 2):
            name = f"evaluate with {workers} workers and with none: JSON"
            files(name, root / "0.json", root / f"{workers}.json")
        train = ["train", "--data", data, "--cache", root / "cache", *TRAIN]
        train += ["--clip=4", "--chunk=2", "--batch=2", "--cooldown=2", "--save-minutes=0"]
        for name, more in {
            "a": ["--steps=6"],
            "b": ["--steps=6"],
            "workers1": ["--steps=6", "--workers=1"],
            "workers2": ["--steps=6", "--workers=2"],
        }.items():
            must(*train, "--run", root / name, *more)
        ends = "checkpoints/last.safetensors"
        weights("two runs of train: weights", root / "a" / ends, root / "b" / ends)
        for workers in (1, 2):
            name = f"train with {workers} workers and with none: weights"
            weights(name, root / "a" / ends, root / f"workers{workers}" / ends)
    compared |= engines(frames, wrong)
    return {
        "compared": compared,
        "tolerances": TOLERANCES | {"threads": THREAD_TOLERANCE},
        "wrong": wrong,
    }


def engines(frames: int, wrong: list[str]) -> dict[str, str]:
    """Compare the installed engines in float32 on a moving picture with the packaged network."""
    images = [downsample(to_tensor(image), 4) for image in moving(frames, 256, 384)]
    gaze = synthetic(0, frames / 24).pixels([t / 24 for t in range(frames)], 64, 96).tolist()
    pairs = [(image, (x, y)) for image, (x, y) in zip(images, gaze, strict=True)]

    def shown(engine: str) -> torch.Tensor:
        reconstructor = Reconstructor(load_engine("stream", engine, bfloat16=False))
        return torch.stack([result.frame for result in reconstructor.stream(pairs)])

    threads = torch.get_num_threads()
    results = {}
    try:
        torch.set_num_threads(1)
        truth = shown("torch")
        for engine, tolerance in TOLERANCES.items():
            if find_spec(engine) is None:
                results[f"{engine} and torch, {frames} frames"] = "not installed"
                continue
            difference = float((shown(engine) - truth).abs().max())
            results[f"{engine} and torch, {frames} frames"] = f"at most {difference:.1e}"
            if not difference <= tolerance:
                wrong.append(f"{engine}: {difference:.1e} from torch, allowed is {tolerance:.0e}")
        torch.set_num_threads(2)
        difference = float((shown("torch") - truth).abs().max())
        name = f"torch with two threads and with one, {frames} frames"
        results[name] = f"at most {difference:.1e}"
        if not difference <= THREAD_TOLERANCE:
            wrong.append(f"two threads: {difference:.1e}, allowed is {THREAD_TOLERANCE:.0e}")
    finally:
        torch.set_num_threads(threads)
    return results
