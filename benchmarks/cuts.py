"""Measures how much of a scene remains visible after a cut, with a cut from every clip to every
other clip.

python benchmarks/cuts.py FOLDER…    writes cuts.json beside this file

Each sequence has five frames of one clip, then the sixth of another; clips are reduced to 640x480,
the gaze is at the centre, the density is the published one. The frame after the cut is compared
with that of a network that starts there. The same is done with sequences without a cut.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

import deepfovea
from deepfovea.fovea import downsample
from deepfovea.metrics.pixel import psnr
from deepfovea.video.reader import find_videos, read_clip

HEIGHT, WIDTH, FRAMES, BEFORE = 480, 640, 24, 5
EQUAL = 0.001
"""Mean absolute difference in [0, 1] up to which two frames count as equal. Our choice."""


def clip(path):
    """The first frames [T, 3, 480, 640] of a video."""
    frames = torch.from_numpy(read_clip(path, FRAMES)).permute(0, 3, 1, 2) / 255.0
    return F.interpolate(frames, (HEIGHT, WIDTH), mode="bilinear", antialias=True)


def sampled(frames):
    """The samples and the mask of each frame."""
    gaze = torch.tensor([[[WIDTH / 8 - 0.5, HEIGHT / 8 - 0.5]] * len(frames)])
    samples, mask = deepfovea.sample(downsample(frames[None]), gaze)
    return list(zip(samples.split(1, 1), mask.split(1, 1), strict=True))


def apart(frame, other):
    return float((frame - other).abs().mean())


def measure(model, clips):
    """A row for each cut, and the differences without a cut from a network that starts there."""
    seen = {name: sampled(frames) for name, frames in clips.items()}
    past, going_on, cuts = {}, [], []
    for name, pairs in seen.items():
        _, state = model(*pairs[0])
        for t, pair in enumerate(pairs[1:], 1):
            if t == BEFORE:
                past[name] = state
            frame, state = model(*pair, state)
            going_on.append(apart(frame, model(*pair)[0]))
    for after, pairs in seen.items():
        pair, truth = pairs[BEFORE], clips[after][None, BEFORE : BEFORE + 1]
        fresh, _ = model(*pair)
        for before in past.keys() - {after}:
            frame, _ = model(*pair, past[before])
            gain = float((psnr(frame, truth) - psnr(fresh, truth)).mean())
            cuts.append(
                {
                    "before": before,
                    "after": after,
                    "difference": round(apart(frame, fresh), 5),
                    "gain": round(gain, 3),
                }
            )
    return sorted(cuts, key=lambda cut: cut["gain"]), going_on


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in find_videos(folder)]
    with torch.inference_mode():
        cuts, going_on = measure(
            deepfovea.load("stream"), {path.name: clip(path) for path in paths}
        )
    rest = [cut for cut in cuts if cut["difference"] > EQUAL]
    summary = {
        "cuts": len(cuts),
        "equal": len(cuts) - len(rest),
        "gain_of_the_rest_db": [round(cut["gain"], 2) for cut in rest],
        "frames_that_go_on": len(going_on),
        "taken_for_a_cut": sum(difference <= EQUAL for difference in going_on),
    }
    print(json.dumps(summary))
    (Path(__file__).parent / "cuts.json").write_text(
        json.dumps({**summary, "rest": rest}, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
