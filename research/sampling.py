"""Compares where to sample at equal numbers of samples: PSNR, and JOD if pyfvvdp is installed.

python research/sampling.py DATA/val [--clips 3] [--frames 12] [--jitter none] [--model stream]
    [--kinds published,around-0.5]

published: the published density. unknown-S: the density times 1 - S c, where c is the confidence of
the previous frame's canvas at that pixel, scaled to the same number of samples. around-S: the same,
but only outside the fovea. inset-R: a disc with a radius of R low-resolution pixels around the gaze
is sampled at the full resolution, with sixteen samples a pixel, and drawn over the frame with a
soft edge; the density outside it is reduced so that the total number of samples is the same. All
kinds use blue noise. The middle 512x640 pixels of each clip are used, with the gaze at the centre.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from deepfovea.checkpoint import load
from deepfovea.config import InputError
from deepfovea.files_to_files import to_tensor
from deepfovea.fovea import density_map, downsample, draw_mask, jitter_sequence
from deepfovea.metrics.jod import load_jod
from deepfovea.metrics.pixel import psnr, psnr_from_mse
from deepfovea.video import VideoReader, find_videos

HEIGHT, WIDTH = 512, 640
SCALE = 4
EDGE = 1.0
"""Width of the soft edge of an inset, low-resolution pixels."""


def to_mean(weight, mean, most=1.0):
    """Scale a weight, clamped to ``most``, so that its mean is ``mean``."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high) if (middle * weight).clamp(max=most).mean() < mean else (low, middle)
        )
    return (low * weight).clamp(max=most)


def distance(height, width):
    """The distance from the centre in pixels, [height, width]."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    return torch.hypot(y - (height - 1) / 2, x - (width - 1) / 2)


def run(net, truth, probability, jitter, unknown=0.0, inset=0.0, around=False):
    """Reconstruct a clip: frames [T,3,H,W], and the mean number of samples of a frame."""
    height, width = probability.shape[-2:]
    mean = probability.mean()
    here = distance(height, width) <= inset
    if inset:
        outside = probability * ~here
        left = mean - 16.0 * here.float().mean()
        probability = to_mean(outside, left)
    state, frames, count = None, [], 0.0
    for t in range(len(truth)):
        weight = probability
        if unknown and state is not None:
            confidence = state.canvas[:, 3:, ::2, ::2][..., :height, :width]
            kept = probability * (probability > 0.9) * around
            free = (probability - kept) * (1.0 - unknown * confidence)
            weight = kept + to_mean(free, mean - kept.mean())
        mask = draw_mask(weight.expand(1, 1, 1, height, width), 0, t, True)
        offset = jitter_sequence(jitter, t, 1)
        low = downsample(truth[t : t + 1], SCALE, offset)[None]
        count += float(mask.sum()) + 16.0 * float(here.sum()) * bool(inset)
        if inset:  # the network also receives the pixels of the inset
            mask = torch.maximum(mask, here.float())
        given = None if offset is None else offset[None]
        frame, state = net(low * mask, mask, state, jitter=given)
        frame = frame[0, 0].clamp(0, 1)
        if inset:
            far = distance(SCALE * height, SCALE * width) / SCALE
            share = ((inset - far) / EDGE).clamp(0, 1)
            frame = frame + share * (truth[t] - frame)
        frames.append(frame)
    return torch.stack(frames), count / len(truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--jitter", default="none")
    parser.add_argument("--model", default="stream")
    parser.add_argument("--kinds", help="some of them; all unless given")
    options = parser.parse_args()
    net = load(options.model)
    kinds = {
        "published": {},
        "unknown-0.5": {"unknown": 0.5},
        "unknown-0.9": {"unknown": 0.9},
        "around-0.5": {"unknown": 0.5, "around": True},
        "around-0.9": {"unknown": 0.9, "around": True},
        "inset-3": {"inset": 3.0},
        "inset-6": {"inset": 6.0},
    }
    if options.kinds:
        kinds = {kind: kinds[kind] for kind in options.kinds.split(",")}
    try:
        jod, _ = load_jod(HEIGHT, WIDTH)
    except InputError:
        jod = None
    figures = {}
    for path in find_videos(options.data)[: options.clips]:
        with VideoReader(path) as reader:
            video = torch.stack([to_tensor(f.image) for f in islice(reader, options.frames)])
        height, width = (
            min(video.shape[-2], HEIGHT) // 4 * 4,
            min(video.shape[-1], WIDTH) // 4 * 4,
        )
        top, left = (video.shape[-2] - height) // 2, (video.shape[-1] - width) // 2
        truth = video[..., top : top + height, left : left + width]
        gaze = torch.tensor([(width / 4 - 1) / 2, (height / 4 - 1) / 2])
        probability = density_map(gaze, height // 4, width // 4)[0]
        fovea = distance(height, width) < 18 * SCALE
        for kind, given in kinds.items():
            with torch.inference_mode():
                frames, count = run(net, truth, probability, options.jitter, **given)
            square = (frames - truth).square().mean(1)[len(frames) // 2 :]
            row = {
                "PSNR": float(psnr(frames, truth).mean()),
                "fovea": float(psnr_from_mse(square[:, fovea].mean(1)).mean()),
                "samples": count,
            }
            if jod:
                fixations = ((gaze + 0.5) * SCALE - 0.5).expand(len(truth), 2)
                row["JOD"] = jod(frames, truth, fixations, 25.0)
            print(path.name, kind, {k: round(v, 2) for k, v in row.items()}, flush=True)
            figures.setdefault(kind, []).append(row)
    for kind, rows in figures.items():
        print(kind.ljust(12), {k: round(float(np.mean([r[k] for r in rows])), 2) for k in rows[0]})


if __name__ == "__main__":
    main()
