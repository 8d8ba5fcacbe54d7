r"""Measures time and memory of a training step with one pass through the generator, or with four.

The published code computes one or two losses at a time, each time with its own pass through the
generator and its own optimiser step: L_sv and L_LPIPS, L_flow, L_adv, L_adv,fft. Ours computes all
losses from one pass (src/deepfovea/training/step.py). `sum` keeps one graph of all losses, for
which the authors lacked memory. The networks (DeepFovea++ and both published discriminators), the
five losses with their weights and the batch are the same.

    OMP_NUM_THREADS=1 python benchmarks/passes.py --size 384x512 --repeats 3 \
        --json benchmarks/passes.json

Each way runs in its own process, so that its peak memory can be measured. The seconds are processor
time, the shortest of the repeats, and so do not depend on what else runs.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from deepfovea.config import PUBLISHED_TRAINING
from deepfovea.fovea import downsample
from deepfovea.losses.flow import flow_estimator
from deepfovea.losses.perceptual import PerceptualLoss, load_backbone
from deepfovea.losses.terms import loss_weights, make_terms
from deepfovea.training.chunks import Chunk, Position, Region
from deepfovea.training.state import init_run
from deepfovea.training.step import (
    backward,
    crop_to_valid,
    discriminator_step,
    forward,
    output_gradients,
    train_step,
)

GROUPS = (("supervised", "perceptual"), ("flow",), ("adversarial",), ("adversarial-fft",))


def one(training, terms, chunk, config):
    train_step(training, terms, chunk, config)


def four(training, terms, chunk, config):
    generator = training.optimizers["generator"]
    parameters = generator.param_groups[0]["params"]
    for group in GROUPS:
        for optimizer in training.optimizers.values():
            optimizer.zero_grad()
        output, _ = forward(training.net, chunk, None)
        output, target = crop_to_valid(output, chunk, training.net.scale)
        chosen = {name: terms[name] for name in group}
        _, leaves = output_gradients(
            chosen, loss_weights(config.losses), output, target, parameters, config, training.scaler
        )
        backward(output, leaves)
        generator.step()
        for name in set(group) & set(training.loss_modules) - {"supervised"}:
            discriminator_step(training, name, target.frames, leaves.frames, config, None)


def summed(training, terms, chunk, config):
    for optimizer in training.optimizers.values():
        optimizer.zero_grad()
    output, _ = forward(training.net, chunk, None)
    output, target = crop_to_valid(output, chunk, training.net.scale)
    weights = loss_weights(config.losses)
    total = sum(weights[name] * term(output, target) for name, term in terms.items())
    generator = training.optimizers["generator"]
    torch.autograd.backward(total, inputs=generator.param_groups[0]["params"])
    generator.step()
    for name in ("adversarial", "adversarial-fft"):
        discriminator_step(training, name, target.frames, output.frames, config, None)


WAYS = {"one": one, "sum": summed, "four": four}


def measure(way, height, width, batch, repeats):
    torch.manual_seed(0)
    config = replace(PUBLISHED_TRAINING, batch=batch)
    training = init_run(config, torch.device("cpu"))
    backbone = load_backbone("efficientnet-lite0")
    terms = make_terms(
        loss_weights(config.losses),
        training.loss_modules,
        perceptual=PerceptualLoss(backbone),
        flow=flow_estimator("dis"),
    )
    frames = torch.rand(batch, 6, 3, height, width)
    low = downsample(frames)
    mask = (torch.rand(batch, 6, 1, *low.shape[-2:]) < 0.2).float()
    chunk = Chunk(
        frames,
        low,
        mask,
        samples=low * mask,
        jitter=None,
        previous_low=None,
        is_clip_start=torch.ones(batch, dtype=torch.bool),
        valid_region=Region(0, 0, height, width),
        next_position=Position(),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        WAYS[way](training, terms, chunk, config)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "way": way,
        "height": height,
        "width": width,
        "batch": batch,
        "seconds": round(min(seconds), 2),
        "all_seconds": [round(s, 2) for s in seconds],
        "peak_mib_above_networks": round((peak - before) / 1024),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="192x256", help="of the high-resolution frames")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    if options.way:
        print(json.dumps(measure(options.way, height, width, options.batch, options.repeats)))
        return
    rows = []
    for way in WAYS:
        command = [sys.executable, *sys.argv, f"--way={way}"]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        rows.append(row)
        print(f"{way:5} {row['seconds']:7.2f} s {row['peak_mib_above_networks']:6} MiB", flush=True)
    if options.json:
        about = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "perceptual": "efficientnet-lite0",
            "flow": "dis",
        }
        text = json.dumps({"about": about, "rows": rows}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
