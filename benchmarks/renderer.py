"""Measures how much a renderer's motion vectors and jitter improve frames, with the toy renderer.

    python benchmarks/renderer.py                 # the bundled stream, a table on the screen
    python benchmarks/renderer.py --model FILE    # other weights
    python benchmarks/renderer.py --write DIR     # scenes for evaluate --protocol renderer DIR

PSNR against the fully rendered frames, the mean over all frames but the first four. Every row has
the same masks: the published density on a frame of 64 × 96 low-resolution pixels, blue noise.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import deepfovea
from deepfovea.fill import pull_push
from deepfovea.fovea import QUAD, density_map, draw_mask
from deepfovea.metrics.pixel import psnr
from deepfovea.motion import write_flo
from deepfovea.resample import upsample_bicubic
from deepfovea.toy_renderer import ToyRenderer

HEIGHT, WIDTH, WARM_UP = 64, 96, 4
MISTAKES = {
    "sign flipped": lambda v: -v,
    "twice too long": lambda v: 2 * v,
    "zero": lambda v: 0 * v,
}


def render(speed, count, jittered):
    """Samples, mask, motion and jitter [1,T,...] as a generator takes them, truth [T,3,H,W]."""
    scene = ToyRenderer(HEIGHT, WIDTH, speed)
    gaze_px = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).expand(1, count, 2)
    mask = draw_mask(density_map(gaze_px, HEIGHT, WIDTH), blue_noise=True)
    offsets = [QUAD[t % 4] if jittered else (0.0, 0.0) for t in range(count)]
    samples = [scene.samples(t, mask[0, t, 0].numpy(), offsets[t])[:3] for t in range(count)]
    motion = [scene.motion(t, offsets[t]) for t in range(count)]
    truth = torch.from_numpy(np.stack([scene.truth(t) for t in range(count)]))
    stack = (torch.from_numpy(np.stack(x))[None] for x in (samples, motion))
    samples, motion = stack
    return samples, mask, motion, torch.tensor([offsets]), truth


def score(frames, truth):
    pairs = zip(frames[0, WARM_UP:].clamp(0, 1), truth[WARM_UP:], strict=True)
    return float(np.mean([float(psnr(frame, one)) for frame, one in pairs]))


@torch.inference_mode()
def measure(model, speed, count):
    """PSNR by what the network receives beside the samples, and PSNR with wrong motion."""
    samples, mask, motion, _, truth = render(speed, count, jittered=False)
    moved, _, motion_there, jitter, _ = render(speed, count, jittered=True)
    rows = {
        "hole filling + bicubic": upsample_bicubic(pull_push(samples, mask)),
        "nothing": model(samples, mask)[0],
        "motion": model(samples, mask, None, motion)[0],
        "jitter": model(moved, mask, None, None, jitter)[0],
        "motion and jitter": model(moved, mask, None, motion_there, jitter)[0],
    }
    for name, mistake in MISTAKES.items():
        rows[f"motion, {name}"] = model(samples, mask, None, mistake(motion))[0]
    return {name: score(frames, truth) for name, frames in rows.items()}


def write(folder, count, speeds):
    """Write a folder of full frames with their exact motion for each speed."""
    for speed in speeds:
        scene, clip = ToyRenderer(HEIGHT, WIDTH, speed), folder / f"toy-{speed:g}"
        clip.mkdir(parents=True)
        for t in range(count):
            frame = (255 * scene.truth(t).transpose(1, 2, 0) + 0.5).astype(np.uint8)
            Image.fromarray(frame).save(clip / f"{t:05d}.png")
            # In pixels of the full frame.
            write_flo(clip / f"{t:05d}.flo", 4 * scene.motion(t, scale=4))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stream")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--speeds", type=float, nargs="+", default=[0.0, 1.0, 3.0])
    parser.add_argument("--write", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.write:
        write(options.write, options.frames, options.speeds)
        return
    model = deepfovea.load(options.model, device="cpu")
    columns = [measure(model, speed, options.frames) for speed in options.speeds]
    print("| told | " + " | ".join(f"{speed:g} px/frame" for speed in options.speeds) + " |")
    print("|---|" + "---:|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{column[name]:.2f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
