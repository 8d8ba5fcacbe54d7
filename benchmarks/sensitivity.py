"""Measures how much frames change with things that should not matter: engine, threads, rounding.

python benchmarks/sensitivity.py DATA/val

Writes sensitivity.json beside this file, for page.py.

All rows are in float32 except one, which shows the effect of bfloat16 in every operation. Each run
carries its own state through the clip, so differences can grow. Runs are compared with PyTorch in
one thread on the same samples: published sampling, synthetic gaze.
"""

import argparse
import json
import math
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from deepfovea import load
from deepfovea.evaluate.clips import Unreadable, read
from deepfovea.fovea import sample
from deepfovea.gaze import synthetic
from deepfovea.runtime.engine import Engine
from deepfovea.video import find_videos

HERE = Path(__file__).parent
ENGINES = [name for name in ("torch", "onnxruntime", "openvino") if find_spec(name)]
PERTURBATION = 1e-7
"""Standard deviation of the noise added to the samples: about the rounding of float32."""


class Bfloat16(TorchDispatchMode):
    """Emulates an engine that computes in bfloat16: rounds the result of every operation."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        made = operation(*arguments, **(options or {}))
        if any(returned.alias_info for returned in operation._schema.returns):
            return made  # a view of a rounded tensor, or one changed in place
        return tree_map_only(torch.Tensor, rounded, made)


def rounded(x):
    return x.bfloat16().float() if x.dtype == torch.float32 else x


def reconstruct(network, engine, threads, samples, mask):
    """Frames [T, 3, H, W], clamped."""
    torch.set_num_threads(threads)
    made, state, frames = Engine(network, engine), None, []
    for t in range(0, samples.shape[1], network.frames_per_step):
        part = slice(t, t + network.frames_per_step)
        some, state = made(samples[:, part], mask[:, part], state)
        frames.append(some[0].clamp(0.0, 1.0))
    return torch.cat(frames)


def psnr(a, b):
    return -10.0 * math.log10(max(float((a - b).square().mean()), 1e-20))


def compare(run, other, truth):
    differences = (run - other).abs().flatten()
    rank = max(1, differences.numel() // 10_000)  # torch.quantile refuses so many values
    return {
        "largest": float(differences.max()),
        "percentile_99_99": float(differences.topk(rank).values[-1]),
        "psnr_between": psnr(run, other),
        "psnr_change": psnr(run, truth) - psnr(other, truth),
    }


def clip_rows(network, video, frames, threads):
    clip = read(video, video.name, frames)
    if isinstance(clip, Unreadable):
        raise SystemExit(f"{video}: {clip.reason}")
    low = clip.low()
    count = len(low) - len(low) % network.frames_per_step
    low = low[:count]
    gaze = synthetic(0, 60.0).pixels(list(clip.times[:count]), *low.shape[-2:])
    samples, mask = sample(low[None], gaze[None].float())
    # An engine needs sides that are multiples of a number, so all get the same crop.
    height, width = (s - s % network.multiple for s in low.shape[-2:])
    samples, mask = samples[..., :height, :width], mask[..., :height, :width]
    truth = torch.stack([clip.frame(t) for t in range(count)])
    truth = truth[..., : network.scale * height, : network.scale * width]
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    perturbed = samples + PERTURBATION * noise * mask
    reference = reconstruct(network, "torch", 1, samples, mask)
    rows = {}

    def add(name, run):
        rows[name] = compare(run, reference, truth)

    add("PyTorch again", reconstruct(network, "torch", 1, samples, mask))
    add("PyTorch, samples changed by 1e-7", reconstruct(network, "torch", 1, perturbed, mask))
    add(f"PyTorch, {threads} threads", reconstruct(network, "torch", threads, samples, mask))
    with Bfloat16():
        weights_too = deepcopy(network).bfloat16().float()
        low = reconstruct(weights_too, "torch", 1, samples, mask)
    add("PyTorch, all rounded to bfloat16", low)
    for engine in ENGINES[1:]:
        once = reconstruct(network, engine, 1, samples, mask)
        add(engine, once)
        more = reconstruct(network, engine, threads, samples, mask)
        rows[f"{engine}, {threads} threads against 1"] = compare(more, once, truth)
    return rows


def measure(options):
    networks = {name: load(name, "cpu") for name in options.models.split(",")}
    result = {"frames": options.frames, "torch": torch.__version__, "models": {}}
    for name, network in networks.items():
        clips = {}
        for video in find_videos(options.data):
            with torch.inference_mode():
                clips[video.name] = clip_rows(network, video, options.frames, options.threads)
            print(name, video.name, json.dumps(clips[video.name]), flush=True)
        result["models"][name] = clips
    (HERE / "sensitivity.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", default="stream,paper")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
