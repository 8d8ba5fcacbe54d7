"""How much the quality of `stream` changes if its convolutions are computed in 16 bits.

python benchmarks/half_precision.py DATA/val [--frames 24] [--size 320x480]

Prints a table. It needs no GPU: the same operations are computed on the CPU, only more slowly.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from deepfovea.checkpoint import load
from deepfovea.config import SCALE
from deepfovea.files_to_files import to_tensor
from deepfovea.fovea import downsample, jitter_sequence, sample
from deepfovea.metrics.pixel import psnr
from deepfovea.runtime.export import parse_size
from deepfovea.video import find_videos, read_clip

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def quality(model, truth, jitter, dtype):
    """Mean PSNR in dB of a clip [T, 3, H, W], gaze in the centre."""
    count, _, height, width = truth.shape
    offsets = jitter_sequence(jitter, 0, count)
    moves = [None if offsets is None else offsets[t : t + 1] for t in range(count)]
    low = torch.cat([downsample(truth[t : t + 1], SCALE, moves[t]) for t in range(count)])[None]
    gaze = torch.tensor([width / SCALE / 2, height / SCALE / 2]).expand(1, count, 2)
    samples, mask = sample(low, gaze, blue_noise=jitter != "none")
    told = None if offsets is None else offsets[None]
    half = dtype != torch.float32
    kind = dtype if half else torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", kind, enabled=half):
        frames, _ = model(samples, mask, None, None, told)
    pairs = zip(frames[0].float().clamp(0, 1), truth, strict=True)
    return np.mean([float(psnr(*pair)) for pair in pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", default="320x480", help="of the corner that is taken")
    options = parser.parse_args()
    height, width = parse_size(options.size, "--size")
    model = load("stream")
    names = [str(dtype).removeprefix("torch.") for dtype in TYPES]
    print(f"| clip | jitter | {names[0]}, dB | " + " | ".join(names[1:]) + " |")
    print("|---|---|" + "---:|" * len(TYPES))
    changes = []
    for clip in find_videos(options.root):
        images = read_clip(clip, options.frames)[:, :height, :width]
        truth = torch.stack([to_tensor(image) for image in images])
        for jitter in ("none", "quad"):
            full, *others = (quality(model, truth, jitter, dtype) for dtype in TYPES)
            changes.append([other - full for other in others])
            shown = " | ".join(f"{change:+.3f}" for change in changes[-1])
            print(f"| {clip.name} | {jitter} | {full:.2f} | {shown} |", flush=True)
    means = " | ".join(f"{mean:+.3f}" for mean in np.mean(changes, 0))
    print(f"| mean | | | {means} |")


if __name__ == "__main__":
    main()
