"""Makes docs/perceptual.jpg: `stream` and `stream-perceptual`, a part of the periphery enlarged.

python docs/perceptual.py [--output docs/perceptual.jpg]

The twelfth frame of a slow pan over the harbour of docs/screenshot.py, gaze at the left. Prints
how much of the fine detail there is in its right half: the energy of the Laplacian, in parts of
the original's.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from failures import FRAMES, GAZE, HEIGHT, SPEEDS, WIDTH, pan
from PIL import Image

import deepfovea
from deepfovea.fovea import downsample
from deepfovea.images import contact_sheet
from deepfovea.metrics.pixel import psnr
from deepfovea.viewer.scene import skyline

LAPLACIAN = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
PARTS = (slice(60, 180), slice(470, 630)), (slice(230, 350), slice(330, 490))  # rows, columns


def detail(image):
    right = image.mean(0)[None, None, :, WIDTH // 2 :]
    return F.conv2d(right, LAPLACIAN[None, None]).square().mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "perceptual.jpg")
    options = parser.parse_args()
    frames = pan(skyline(HEIGHT, WIDTH + FRAMES * SPEEDS[0]), SPEEDS[0])
    samples, mask = deepfovea.sample(downsample(frames)[None], torch.tensor([[GAZE] * FRAMES]))
    names = ["stream", "stream-perceptual"]
    shown = []
    for name in names:
        with torch.inference_mode():
            shown.append(deepfovea.load(name)(samples, mask)[0][0, -1].clamp(0, 1))
    for name, image in zip(names, shown, strict=True):
        part, decibels = detail(image) / detail(frames[-1]), psnr(image, frames[-1])
        print(f"{name}: {part:.2f} of the detail, {decibels:.2f} dB")
    rows = [[image[:, y, x] for image in (*shown, frames[-1])] for y, x in PARTS]
    sheet = contact_sheet(rows, [*names, "original"], width=480)
    Image.fromarray(sheet).save(options.output, quality=90)


if __name__ == "__main__":
    main()
