r"""Trains the published network and losses on six frames of one video, to see whether they fit.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/overfit.py VIDEO --run FOLDER \
        --steps 800 --learning-rate 1e-3 \
        --json benchmarks/overfit.json --plot benchmarks/overfit.png

Six frames from the middle of the video, reduced to 128×128, become a data set of one item. Then
`deepfovea train` runs on it as on any other data set: DeepFovea++, all five losses, both
discriminators, new masks in every step. Options that this script does not know are passed on to
`train`. The run stays in FOLDER, with pictures to look at.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import deepfovea
from deepfovea.cli import main as command_line
from deepfovea.config import SCALE
from deepfovea.metrics.pixel import psnr
from deepfovea.video import read_clip

FRAMES, SIDE = 6, 128
LOSSES = ["supervised", "perceptual", "flow", "adversarial", "adversarial-fft"]
OPTIONS = [
    *("--model=paper", "--preprocessing=published", f"--size={SIDE}x{SIDE}", "--batch=1"),
    *(f"--losses={','.join(LOSSES)}", "--perceptual-backbone=efficientnet-lite0"),
    *("--flow-estimator=dis", "--workers=0", "--log-steps=1", "--picture-steps=50"),
]


def write_clip(video, folder):
    """Write six frames as PNGs: the largest square in the middle, reduced to 128×128."""
    frames = torch.from_numpy(read_clip(video, 60)[-FRAMES:].copy()).permute(0, 3, 1, 2).float()
    side = min(frames.shape[-2:])
    top, left = ((length - side) // 2 for length in frames.shape[-2:])
    square = frames[..., top : top + side, left : left + side]
    small = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
    folder.mkdir(parents=True)
    for number, image in enumerate(small.round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{number:08d}.png")
    return small / 255.0


def baseline(frames):
    """Mean PSNR, dB, of hole filling with bicubic upscaling on the same task over 20 draws."""
    low = deepfovea.downsample(frames[None])
    center = torch.tensor([SIDE / SCALE / 2 - 0.5] * 2).expand(1, FRAMES, 2)
    scores = []
    for seed in range(20):
        samples, mask = deepfovea.sample(low, center, seed=seed)
        filled = deepfovea.upsample_bicubic(deepfovea.pull_push(samples, mask), SCALE)
        scores.append(float(psnr(filled, frames[None]).mean()))
    return float(np.mean(scores))


def plot(rows, fill, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def smooth(values, window=10):
        kernel = np.ones(min(window, len(values)))
        return np.convolve(values, kernel, "same") / np.convolve(
            np.ones(len(values)), kernel, "same"
        )

    steps = [row["step"] for row in rows]
    # A term with a stand-in is logged as "perceptual/efficientnet-lite0".
    losses = [n for n in rows[0] if n.split("/")[0] in LOSSES and "discriminator" not in n]
    figure, axes = pyplot.subplots(2, 4, figsize=(16, 6.5))
    panels = [("psnr", ["psnr"]), *((name, [name]) for name in losses)]
    discriminators = [name for name in rows[0] if name.endswith("/discriminator")]
    panels += [("discriminators", discriminators), ("gradient norm", ["gradient_norm"])]
    for axis, (title, names) in zip(axes.flat, panels, strict=False):
        for name in names:
            values = np.array([row[name] for row in rows])
            axis.plot(steps, values, color="0.85", linewidth=0.8)
            axis.plot(steps, smooth(values), linewidth=1.6, label=name.split("/")[0])
        axis.set_title(title if title != "psnr" else "PSNR, dB")
        axis.set_xlabel("step")
        if title == "psnr":
            axis.axhline(fill, linestyle="--", color="0.4", linewidth=1, label="fill + bicubic")
        if len(names) > 1 or title == "psnr":
            axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options, more = parser.parse_known_args()
    frames = write_clip(options.video, options.run / "data" / "clip")
    words = [*OPTIONS, f"--steps={options.steps}", *more]
    run = options.run / "run"
    code = command_line(["train", f"--data={options.run / 'data'}", f"--run={run}", *words])
    if code:
        raise SystemExit(code)
    rows = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    fill = baseline(frames)
    result = {
        "clip": f"{options.video.stem}, six frames of {SIDE}x{SIDE}",
        "options": words,
        "hours": rows[-1]["hours"],
        "psnr_first_step": rows[0]["psnr"],
        "psnr_last_20_steps": float(np.mean([row["psnr"] for row in rows[-20:]])),
        "psnr_fill_and_bicubic": fill,
        "rows": rows[:: max(1, len(rows) // 100)],
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(rows, fill, options.plot)


if __name__ == "__main__":
    main()
