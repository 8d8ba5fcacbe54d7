"""Measures reconstruction from file to file: the stages alone and together, and memory.

python benchmarks/pipeline.py [--engine openvino] [--json benchmarks/pipeline.json]
python benchmarks/pipeline.py --memory 10000 [--json benchmarks/memory.json]

Stages and the whole take turns, and the figures are medians over the rounds. The whole is compared
with the slowest stage of the same round, as other load on the host changes from minute to minute.
The engine is compiled before. Needs the extra `demo` for its video. --memory measures the memory
over a long video.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from deepfovea.demo import demo_video
from deepfovea.files_to_files import reconstruct_file, to_tensor
from deepfovea.images import resize_frame, to_image
from deepfovea.reconstructor import Reconstructor
from deepfovea.runtime.engine import load_engine
from deepfovea.video import VideoReader, VideoWriter


def write_source(path, frames, height, width):
    """Write the demo video, forwards and backwards in turn, at the low resolution."""
    with VideoReader(demo_video()) as reader:
        images = [to_tensor(frame.image) for frame in islice(reader, 48)]
    images = [to_image(resize_frame(image, height, width)) for image in images]
    images += images[-2:0:-1]
    with VideoWriter(path, frame_rate=24) as writer:
        for number in range(frames):
            writer.write(images[number % len(images)], number / 24)


def seconds(call, *arguments):
    """Elapsed seconds and processor seconds of a call, and its result."""
    started = time.perf_counter(), time.process_time()
    result = call(*arguments)
    return (time.perf_counter() - started[0], time.process_time() - started[1]), result


def stages(folder, reconstructor, frames, rounds):
    source, output = folder / "source.mp4", folder / "output.mp4"
    gaze = (100.0, 80.0)

    def decode():
        with VideoReader(source) as reader:
            return [(to_tensor(frame.image), gaze) for frame in reader]

    def sample(pairs):
        return list(reconstructor._sampled(pairs))

    def generate(sampled):
        for group in sampled:
            yield from reconstructor._to_yuv(group)

    def run_through(sampled):
        for _ in generate(sampled):  # a list of them would need memory that the whole never needs
            pass

    def encode(filmed):
        with VideoWriter(output, frame_rate=24, overwrite=True) as writer:
            for number, result in enumerate(filmed):
                writer.write(result.planes, number / 24)

    def whole():
        reconstruct_file(source, output, reconstructor, overwrite=True)

    times, filmed = {}, []
    for _ in range(rounds):
        reconstructor.reset()
        taken, pairs = seconds(decode)
        times.setdefault("decoding", []).append(taken)
        taken, sampled = seconds(sample, pairs)
        times.setdefault("sampling", []).append(taken)
        filmed = filmed or list(generate(sampled))
        reconstructor.reset()
        taken, _ = seconds(run_through, sampled)
        times.setdefault("generator", []).append(taken)
        taken, _ = seconds(encode, filmed)
        times.setdefault("encoding", []).append(taken)
        times.setdefault("together", []).append(seconds(whole)[0])
    middle = {
        stage: [1e3 * median(t) / frames for t in zip(*taken, strict=True)]
        for stage, taken in times.items()
    }
    for stage, (milliseconds, busy) in middle.items():
        print(f"{stage}: {milliseconds:.1f} ms per frame, {busy:.1f} ms of processors")
    wall = {stage: [t for t, _ in taken] for stage, taken in times.items()}
    whole_ones = wall.pop("together")
    slowest = [max(one) for one in zip(*wall.values(), strict=True)]
    ratios = [one / most for one, most in zip(whole_ones, slowest, strict=True)]
    alone = [busy for stage, (_, busy) in middle.items() if stage != "together"]
    result = {
        "ms": {stage: milliseconds for stage, (milliseconds, _) in middle.items()},
        "core_ms": {stage: busy for stage, (_, busy) in middle.items()},
        "of_the_slowest": median(ratios),
        "of_the_slowest_by_round": ratios,
        # The time if all stages shared the processors evenly and without loss.
        "least_of_the_slowest": 1e-3 * frames * sum(alone) / os.cpu_count() / median(slowest),
    }
    print(f"together {result['of_the_slowest']:.2f} of the slowest, ", end="")
    print(f"{result['least_of_the_slowest']:.2f} if all processors were always busy")
    return result


def memory(folder, reconstructor, frames):
    source, seen = folder / "source.mp4", []

    def watch():
        seen.append(
            int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 2**20
        )
        if len(seen) % 1000 == 0:
            print(f"{len(seen)} frames: {seen[-1]:.1f} MiB")

    reconstruct_file(source, folder / "output.mp4", reconstructor, overwrite=True, on_frame=watch)
    settled = max(seen[frames // 20 : frames // 10])
    grown = max(seen[frames // 10 :]) / settled - 1
    print(f"largest after the first tenth against the end of that tenth: {100 * grown:+.1f} %")
    return {"frames": frames, "mib": seen[:: frames // 20], "grown": grown}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--size", default="192x256", help="low resolution, HxW")
    parser.add_argument("--frames", type=int, default=288)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, metavar="FRAMES", help="a long video, 32x32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    height, width = map(int, ("32x32" if options.memory else options.size).split("x"))
    model = load_engine("stream", options.engine)
    reconstructor = Reconstructor(model)
    blank = [(torch.zeros(3, height, width), (0.0, 0.0))] * 3
    list(reconstructor.stream_yuv(blank))  # compiles
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = options.memory or options.frames
        write_source(folder / "source.mp4", frames, height, width)
        if options.memory:
            result = memory(folder, reconstructor, frames)
        else:
            result = stages(folder, reconstructor, frames, options.rounds)
    if options.json:
        about = {"engine": options.engine, "size": f"{height}x{width}"}
        about["threads"] = torch.get_num_threads()
        options.json.write_text(json.dumps({**about, **result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
