"""Times `paper` on six frames with three implementations of the deformable convolution.

python benchmarks/deform_conv.py [--json benchmarks/deform_conv.json]

Also compares their results. The implementations take turns, and the shortest time of each counts,
as other programs can only make it longer.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torchvision.ops import deform_conv2d

from deepfovea.generators.unet import blocks, deform
from deepfovea.generators.unet.net import PAPER, RecurrentUNet


def by_torchvision(x, offset, weight, bias, mask):
    return deform_conv2d(x, offset, weight, bias, padding=weight.shape[-1] // 2, mask=mask)


WAYS = {
    "torchvision": by_torchvision,
    "grid_sample": deform.deform_conv_by_sampling,
    "kernels": deform.DeformConv.apply,
}


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="192x256", help="low resolution, HxW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = RecurrentUNet(PAPER)
    for module in network.modules():
        if isinstance(module, blocks.ModulatedDeformConv):  # those of a trained network deform
            torch.nn.init.normal_(module.offset_and_mask.weight, std=0.05)
    height, width = map(int, options.size.split("x"))
    mask = (torch.rand(1, 6, 1, height, width) < 0.2).float()
    samples = torch.rand(1, 6, 3, height, width) * mask

    @torch.inference_mode()
    def forward():
        return network(samples, mask)[0]

    def train():
        network.zero_grad()
        network(samples, mask)[0].square().mean().backward()

    ways = options.ways.split(",")
    times = {way: {"forward": [], "forward and backward": []} for way in ways}
    frames = {}
    small = torch.zeros(1, 6, 3, 32, 32)
    for way in ways:
        blocks.deform_conv = WAYS[way]
        network(small, small[:, :, :1])[0].sum().backward()  # compiles
    for number in range(max(options.rounds, options.train_rounds)):
        for way in ways:
            blocks.deform_conv = WAYS[way]
            if number < options.rounds:
                taken, frames[way] = seconds(forward)
                times[way]["forward"].append(taken)
            if number < options.train_rounds:
                times[way]["forward and backward"].append(seconds(train)[0])

    first = ways[0]
    rows = []
    for way in ways:
        row = {"way": way, "difference": float((frames[way] - frames[first]).abs().max())}
        for what, taken in times[way].items():
            if taken:
                row[what] = min(taken)
                row[f"{what}, times faster"] = min(times[first][what]) / min(taken)
        rows.append(row)
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else v for k, v in row.items()))
    if options.json:
        about = {"size": options.size, "threads": options.threads, "torch": torch.__version__}
        options.json.write_text(
            json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
