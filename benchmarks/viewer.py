"""Measures gaze-to-photon latency and frame rate of the viewer, in Chromium on the same machine.

python benchmarks/viewer.py [--size 768x1024] [--engine openvino] [--rounds 3]

The pointer moves at 60 Hz while a drawn scene plays. The page measures the latency: median and 95th
percentile over ten seconds, from the pointer event to the screen refresh with the first frame made
with it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import media  # noqa: E402
from viewing import chromium, running_viewer  # noqa: E402

from deepfovea.viewer.scene import skyline  # noqa: E402

FRAMES, PAN, SECONDS = 96, 2, 12.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="768x1024", help="HxW of the video")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="stream")
    parser.add_argument("--views", default="wipe", choices=["wipe", "alone", "beside"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    wide = skyline(height, width + PAN * FRAMES)
    lefts = range(0, PAN * FRAMES, PAN)
    frames = [np.asarray(wide.crop((left, 0, left + width, height))) for left in lefts]
    words = ["--engine", options.engine, "--model", options.model]
    with tempfile.TemporaryDirectory() as folder:
        video = media.write_video(Path(folder, "scene.mp4"), frames, rate=24)
        with running_viewer(video, *words, threads=None) as url, chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(url)
            page.locator("#notice").wait_for(state="hidden", timeout=60_000)
            page.check(f"input[value={options.views}]", force=True)
            rounds = [measure(page) for _ in range(options.rounds)]
            engine = page.inner_text("#engine")
    summary = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    print(json.dumps({"engine": engine, "size": options.size, "median": summary, "rounds": rounds}))


def measure(page):
    box = page.locator("#stage").bounding_box()
    until, step = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < until:
        step += 1
        x = 0.5 + 0.3 * np.sin(step / 40)
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * 0.5)
        page.wait_for_timeout(1000 / 60)
    number = {name: float(page.inner_text(f"#{name}")) for name in ("fps", "latency", "latency95")}
    network, server = (float(word.split()[-1]) for word in page.inner_text("#server").split(", "))
    return number | {"network_ms": network, "server_ms": server}


if __name__ == "__main__":
    main()
