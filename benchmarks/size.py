"""Measures the time for a frame against its size, up to 4K, and draws a chart of it.

python benchmarks/size.py            measures, writes size.json and size.png beside this file
python benchmarks/size.py --draw     draws size.json again
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

from deepfovea.runtime.bench import bench, to_json

SIZES = {  # low resolution: name of the output, four times as large
    (96, 128): "",
    (192, 256): "768×1024",
    (270, 480): "1080p",
    (360, 640): "1440p",
    (540, 960): "4K",
}
ENGINES = ("torch", "onnxruntime", "openvino")
HERE = Path(__file__).parent


def measure(rounds, frames):
    rows = []
    for size in SIZES:
        best, environment = bench(["stream"], ENGINES, sizes=[size], frames=frames, rounds=rounds)
        rows += best
        for row in best:
            print(size, row.engine, f"{row.ms_p50:.1f} ms", flush=True)
    (HERE / "size.json").write_text(to_json(rows, environment) + "\n", encoding="utf-8")


def draw():
    measured = json.loads((HERE / "size.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for engine in ENGINES:
        rows = [row for row in measured["rows"] if row["engine"] == engine]
        pixels = [16 * row["height"] * row["width"] / 1e6 for row in rows]
        times = [row["ms_p50"] for row in rows]
        axes.plot(pixels, times, marker="o", label=engine)
        axes.annotate(
            f"{times[-1]:.0f}", (pixels[-1], times[-1]), (6, -3), textcoords="offset points"
        )
    for (height, width), name in SIZES.items():
        axes.axvline(16 * height * width / 1e6, color="0.9", zorder=0)
        axes.annotate(
            name,
            (16 * height * width / 1e6, 1.0),
            (3, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            color="0.4",
            fontsize=9,
        )
    axes.axhline(1000 / 24, color="0.6", linestyle=":", zorder=0)
    axes.annotate("24 frames/s", (8.35, 1000 / 24), (0, 3), textcoords="offset points",
                  ha="right", color="0.4", fontsize=9)  # fmt: skip
    axes.set_xlim(0, 9)
    axes.set_ylim(0, 1.12 * max(row["ms_p50"] for row in measured["rows"]))
    axes.set_xlabel("output, megapixels")
    axes.set_ylabel("milliseconds per frame, median")
    axes.set_title(f"stream on {measured['threads']} CPU threads")
    axes.legend(loc="center left")
    figure.savefig(HERE / "size.png", dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args()
    if not options.draw:
        measure(options.rounds, options.frames)
    draw()


if __name__ == "__main__":
    main()
