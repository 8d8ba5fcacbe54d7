"""Compares kinds of noise by the PSNR of stream and accumulate at several densities.

python research/noise.py DATA/val [--clips 4] [--frames 16] [--densities uniform:5,uniform:20]

independent: as published; golden: one frame of the ranks, advanced by the golden ratio from frame
to frame, so that each pixel is sampled at even intervals; blue: the packaged noise. accumulate runs
without optical flow. The middle 384x512 pixels of each clip are used, with the gaze at the centre.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from deepfovea.checkpoint import load
from deepfovea.config import Density
from deepfovea.files_to_files import to_tensor
from deepfovea.fill import accumulate
from deepfovea.fovea import blue_noise_ranks, density_map, downsample, draw_mask
from deepfovea.metrics.pixel import psnr
from deepfovea.resample import upsample_bicubic
from deepfovea.video import VideoReader, find_videos

HEIGHT, WIDTH = 384, 512
KINDS = ("independent", "golden", "blue")


def golden(probability):
    """Thresholds of one texture, shifted by the golden ratio from frame to frame."""
    _, frames, _, height, width = probability.shape
    ranks = blue_noise_ranks()[0]
    tile = (ranks[np.arange(height)[:, None] % 64, np.arange(width) % 64] + 0.5) / ranks.size
    times = np.arange(frames)[:, None, None] * (5**0.5 - 1) / 2
    thresholds = torch.from_numpy((tile + times) % 1.0)
    return (thresholds[None, :, None] < probability).float()


def still(samples, mask, canvas):
    """The baseline accumulate without its optical flow."""
    frames, canvas = accumulate(samples, mask, canvas)
    return upsample_bicubic(frames, 4), canvas


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument(
        "--densities", default="uniform:5,uniform:10,uniform:20,uniform:40,published"
    )
    options = parser.parse_args()
    stream = load("stream")
    methods = {"stream": stream, "accumulate": still}
    figures = {}
    for path in find_videos(options.data)[: options.clips]:
        with VideoReader(path) as reader:
            frames = [to_tensor(frame.image) for frame in islice(reader, options.frames)]
        video = torch.stack(frames)
        top, left = (video.shape[-2] - HEIGHT) // 2, (video.shape[-1] - WIDTH) // 2
        truth = video[..., top : top + HEIGHT, left : left + WIDTH]
        low = downsample(truth)[None]
        height, width = low.shape[-2:]
        gaze = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(1, len(truth), 2)
        for density in options.densities.split(","):
            probability = density_map(gaze, height, width, Density.parse(density))
            for kind in KINDS:
                if kind == "golden":
                    mask = golden(probability)
                else:
                    mask = draw_mask(probability, blue_noise=kind == "blue")
                for name, method in methods.items():
                    with torch.inference_mode():
                        result, _ = method(low * mask, mask, None)
                    values = psnr(result[0].clamp(0, 1), truth)
                    figures.setdefault((density, kind, name), []).append(float(values.mean()))
        print(path.name, flush=True)
    for density in options.densities.split(","):
        for kind in KINDS:
            means = [f"{name} {np.mean(figures[density, kind, name]):.2f}" for name in methods]
            print(f"{density:12s} {kind:12s} {'  '.join(means)}")


if __name__ == "__main__":
    main()
