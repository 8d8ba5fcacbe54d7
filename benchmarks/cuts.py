"""What stays of a scene after a cut to another one: every clip cut into every other.

python benchmarks/cuts.py FOLDER…    writes cuts.json beside this file

Five frames of one clip, then the sixth of another; clips reduced to 640x480, gaze at the centre,
published density. The frame after the cut is compared with that of a network without a past, and
so are the frames of the clips themselves, which go on.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

import deepfovea
from deepfovea.fovea import reduce
from deepfovea.objective.metrics import psnr
from deepfovea.video.reader import find_videos, read_clip

HEIGHT, WIDTH, FRAMES, BEFORE = 480, 640, 24, 5
EQUAL = 0.001
"""Mean absolute difference in [0, 1] up to which two frames are the same to anyone's eyes."""


def clip(path):
    """The first frames [T, 3, 480, 640] of a video."""
    frames = torch.from_numpy(read_clip(path, FRAMES)).permute(0, 3, 1, 2) / 255.0
    return F.interpolate(frames, (HEIGHT, WIDTH), mode="bilinear", antialias=True)


def sampled(frames):
    """Samples and mask of each frame alone."""
    gaze = torch.tensor([[[WIDTH / 8 - 0.5, HEIGHT / 8 - 0.5]] * len(frames)])
    samples, mask = deepfovea.sample(reduce(frames[None]), gaze)
    return list(zip(samples.split(1, 1), mask.split(1, 1), strict=True))


def row(before, after, frame, fresh, truth):
    return {
        "before": before,
        "after": after,
        "difference": round(float((frame - fresh).abs().mean()), 5),
        "gain": round(float((psnr(frame, truth) - psnr(fresh, truth)).mean()), 3),
    }


def measure(model, clips):
    """Rows for the cuts, and the differences from a network without a past where there is none."""
    seen = {name: sampled(frames) for name, frames in clips.items()}
    past, fresh, going_on = {}, {}, []
    for name, pairs in seen.items():
        state = None
        for t, pair in enumerate(pairs):
            if t == BEFORE:
                past[name] = state
            alone, _ = model(*pair)
            frame, state = model(*pair, state)
            if t == BEFORE:
                fresh[name] = alone
            if t > 0:
                going_on.append(float((frame - alone).abs().mean()))
    cuts = []
    for after, pairs in seen.items():
        truth = clips[after][None, BEFORE : BEFORE + 1]
        for before, state in past.items():
            if before != after:
                frame, _ = model(*pairs[BEFORE], state)
                cuts.append(row(before, after, frame, fresh[after], truth))
    return cuts, going_on


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in find_videos(folder)]
    with torch.inference_mode():
        cuts, going_on = measure(
            deepfovea.load("stream"), {path.name: clip(path) for path in paths}
        )
    rest = [row for row in cuts if row["difference"] > EQUAL]
    summary = {
        "cuts": len(cuts),
        "equal": len(cuts) - len(rest),
        "gain_of_the_rest_db": sorted(round(row["gain"], 2) for row in rest),
        "frames_that_go_on": len(going_on),
        "taken_for_a_cut": sum(difference <= EQUAL for difference in going_on),
    }
    print(json.dumps(summary))
    (Path(__file__).parent / "cuts.json").write_text(
        json.dumps({**summary, "rest": rest}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
