"""benchmarks/gpu.py runs completely on a CPU, with only the packages that it names."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import deepfovea
from deepfovea.video import VideoWriter

ROOT = Path(__file__).parents[1]
BARE = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"av", "rich", "PIL", "tensorboard", "torchvision", "accelerate"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_script_measures_trains_and_saves(tmp_path):
    texture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    texture = cv2.resize(texture, (128, 96), interpolation=cv2.INTER_LINEAR)
    (tmp_path / "videos").mkdir()
    with VideoWriter(tmp_path / "videos" / "a.mp4", frame_rate=24) as out:
        for t in range(12):
            out.write(np.roll(texture, 2 * t, 1), t / 24)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "b.png"), texture)
    pack = tmp_path / "pack"
    runpy.run_path(str(ROOT / "benchmarks" / "pack.py"))["main"](
        [str(tmp_path / "videos"), "-o", str(pack), "--photos", str(tmp_path / "photos")]
    )
    manifest = json.loads((pack / "manifest.json").read_text(encoding="utf-8"))
    assert [(v["frames"], v["size"]) for v in manifest["videos"]] == [(12, [96, 128])]
    capture = cv2.VideoCapture(str(pack / manifest["videos"][0]["file"]))
    decoded = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(float) - texture).mean() < 5  # colours are those of the video

    out = tmp_path / "out"
    command = [sys.executable, "-c", BARE, str(ROOT / "benchmarks" / "gpu.py"), "--tiny"]
    command += ["--compile", "--pack", str(pack), "--out", str(out), "--train", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    parts = measured["parts"]
    names = ["tests", "roofline", "inference", "decode", "feed", "throughput", "train"]
    assert list(parts) == names
    assert not any("error" in part for part in parts.values()), parts
    assert not any("error" in row for row in parts["inference"]["rows"]), parts["inference"]
    assert not any("error" in row for row in parts["throughput"]["rows"]), parts["throughput"]
    assert parts["train"]["steps"] > 0
    assert len(list(out.glob("*-run.safetensors"))) <= 2
    # Interrupted before the last row of the table, and while it trained.
    parts["inference"]["rows"].pop()
    for name in ("inference", "train"):
        parts[name].pop("complete")
    (out / "gpu.json").write_text(json.dumps(measured), encoding="utf-8")
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    words = ["--tiny", "--compile", "--resume", "--train", "1"]
    words += ["--pack", str(pack), "--out", str(out)]
    resumed = script["main"](words)["parts"]
    assert all(part["complete"] for part in resumed.values())
    assert resumed["inference"]["rows"][:-1] == parts["inference"]["rows"]
    assert resumed["train"]["resumed_at"] == [parts["train"]["steps"]]
    assert resumed["throughput"] == parts["throughput"]
    measured, parts = script["main"](words), resumed

    network = deepfovea.load(out / parts["train"]["model"])
    assert network.config.blend_channels == 8

    tables = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))["gpu_tables"](measured)
    assert "`stream`, graph, bfloat16" in tables
    assert "`stream`, graph, channels-last, bfloat16" in tables
    assert "`stream`, graph, compiled, bfloat16" in tables
    assert "Measured limits" in tables and "processes that make data" in tables
