"""Makes docs/failures.jpg: where `stream` fails, on a drawn scene.

python docs/failures.py [--model stream] [--output docs/failures.jpg]

The camera pans over the harbour of docs/screenshot.py faster and faster; the twelfth frame is
shown. In the last row the picture has been cut to another one frame before.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import deepfovea
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample
from deepfovea.images import contact_sheet, mark_gaze, resize_frame
from deepfovea.metrics.pixel import psnr
from deepfovea.resample import upsample_bicubic
from deepfovea.viewer.scene import skyline

HEIGHT, WIDTH, FRAMES = 432, 640, 12
SPEEDS = (4, 20, 60)  # pixels per frame
GAZE = (40.0, 60.0)  # low-resolution pixels


def pan(wide, speed):
    lefts = [speed * t for t in range(FRAMES)]
    crops = [np.asarray(wide.crop((x, 0, x + WIDTH, HEIGHT)), np.float32) for x in lefts]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def row(model, frames):
    """Draw samples, filling, reconstruction, truth and error of the last frame."""
    samples, mask = deepfovea.sample(downsample(frames)[None], torch.tensor([[GAZE] * FRAMES]))
    with torch.inference_mode():
        shown, _ = model(samples, mask)
    shown, truth = shown[0, -1].clamp(0, 1), frames[-1]
    filled = upsample_bicubic(pull_push(samples[0, -1], mask[0, -1]))
    print(f"fill {psnr(filled, truth):.2f} dB, reconstructed {psnr(shown, truth):.2f} dB")
    x, y = (4 * c + 1.5 for c in GAZE)
    seen = mark_gaze(resize_frame(samples[0, -1], HEIGHT, WIDTH), x, y, 12.0)
    error = (4 * (shown - truth).abs()).clamp(0, 1)
    return [seen, filled, shown, truth, error]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stream")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "failures.jpg")
    options = parser.parse_args()
    model = deepfovea.load(options.model)
    wide = skyline(HEIGHT, WIDTH + FRAMES * max(SPEEDS))
    clips = [pan(wide, speed) for speed in SPEEDS]
    clips.append(torch.cat([clips[0][:-1].flip(-1), clips[0][-1:]]))
    rows = [row(model, clip) for clip in clips]
    columns = ["samples", "fill", options.model, "original", "four times the error"]
    Image.fromarray(contact_sheet(rows, columns, width=320)).save(options.output, quality=88)


if __name__ == "__main__":
    main()
