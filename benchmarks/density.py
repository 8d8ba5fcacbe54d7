"""Measures PSNR against the share of sampled pixels, and makes a chart and a table of it.

python benchmarks/density.py DATA/val    evaluates, writes density.json and density.png beside
                                         this file
python benchmarks/density.py --draw      draws density.json again and prints the table

The density is the same everywhere in the frame; the first 24 frames of every clip are used; the
draws are independent (as published) or blue noise.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

PERCENTS = (5, 10, 20, 40, 60)
METHODS = ("fill", "accumulate", "stream")
HERE = Path(__file__).parent


def evaluate(data, percent, blue):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        words = ["--models", "stream", "--baselines", "fill,accumulate", "--frames", "24"]
        words += ["--metrics", "psnr", "--density", f"uniform:{percent}", "--json", str(path)]
        words += ["--noise", "blue" if blue else "independent"]
        command = [sys.executable, "-m", "deepfovea", "evaluate", str(data), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        mean = json.loads(path.read_text(encoding="utf-8"))["mean"]
    return {method: mean[method]["psnr"] for method in METHODS}


def measure(data):
    rows = []
    for blue in (False, True):
        for percent in PERCENTS:
            rows.append({"percent": percent, "blue_noise": blue, **evaluate(data, percent, blue)})
            print(rows[-1], flush=True)
    (HERE / "density.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def draw():
    rows = json.loads((HERE / "density.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, method in enumerate(METHODS):
        for blue in (False, True):
            chosen = [row for row in rows if row["blue_noise"] == blue]
            axes.plot(
                [row["percent"] for row in chosen],
                [row[method] for row in chosen],
                marker="o",
                color=f"C{number}",
                linestyle="--" if blue else "-",
                label=f"{method}, blue noise" if blue else method,
            )
    axes.set_xlabel("sampled pixels, %")
    axes.set_ylabel("PSNR, dB")
    axes.set_xlim(0, 65)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(HERE / "density.png", dpi=130)
    print("| sampled | draws | " + " | ".join(METHODS) + " |\n|---:|---|" + "---:|" * len(METHODS))
    for row in rows:
        draws = "blue noise" if row["blue_noise"] else "independent"
        values = " | ".join(f"{row[method]:.2f}" for method in METHODS)
        print(f"| {row['percent']} % | {draws} | {values} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        if options.data is None:
            parser.error("expected a folder of videos, or --draw")
        measure(options.data)
    draw()


if __name__ == "__main__":
    main()
