"""Times steps that must not be the bottleneck: reading clips, filling holes, drawing a frame.

python benchmarks/speed.py DATA/train --cache runs/frames
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import deepfovea
from deepfovea.io.decoded_cache import open_sources
from deepfovea.training.dataset import ClipDataset


def median_ms(call, repeats):
    call(0)
    times = []
    for number in range(1, repeats + 1):
        start = time.perf_counter()
        call(number)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()

    dataset = ClipDataset(open_sources(options.data, options.cache), 16, 384, seed=0)
    print(f"reading a clip, 16 frames of 384x384: {median_ms(dataset.__getitem__, 20):.1f} ms")

    frames = torch.rand(1, 1, 3, 192, 256)
    samples, mask = deepfovea.sample(frames, torch.tensor([[[127.5, 95.5]]]))
    with torch.inference_mode():
        fill = median_ms(lambda _: deepfovea.pull_push(samples, mask), 30)
        print(f"filling holes at 192x256: {fill:.1f} ms")
        model = deepfovea.load("stream")
        _, state = model(samples, mask)
        frame = median_ms(lambda _: model(samples, mask, state), 20)
        print(f"stream, 192x256 -> 768x1024, {torch.get_num_threads()} threads: {frame:.0f} ms")


if __name__ == "__main__":
    main()
