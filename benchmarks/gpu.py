"""Makes all measurements and trainings on a CUDA device in one command.

PYTHONPATH=src python benchmarks/gpu.py [--pack pack] [--out out] [--train MINUTES]

Needs only PyTorch, NumPy, safetensors and OpenCV. Each part writes OUT/gpu.json row by row; a part
that fails is recorded there, and the next one starts. The same command with --resume skips the rows
that are there. --tiny tries everything on the CPU.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from deepfovea.checkpoint import load, multiply_adds, save_model
from deepfovea.config import TrainConfig
from deepfovea.flow import dis_flow
from deepfovea.fovea import sample
from deepfovea.generators import Preset
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.io.decoded_cache import Source
from deepfovea.losses.terms import loss_weights, make_terms
from deepfovea.runtime.cuda import CapturedGenerator, capture_graph
from deepfovea.runtime.roofline import Rates, matmul_rate, measure_rates, timed, work_of
from deepfovea.training.chunks import Position, iter_chunks
from deepfovea.training.dataset import ClipDataset
from deepfovea.training.state import init_run, restore_checkpoint, save_checkpoint
from deepfovea.training.step import train_step

ROOT = Path(__file__).parents[1]
SIZES = ((192, 256), (270, 480), (360, 640), (540, 960))
FALL = 0.2
"""Share of the time over which the learning rate falls to zero."""
COMMON = TrainConfig(
    losses=("charbonnier", "motion", "endpoint", "imprint"),
    steps=10**9,  # the clock ends the run
    cooldown=1,
    batch=64,
    precision="bf16",
    optimizer="muon",
    motion_given=0.15,
)
RECIPES = {
    "stream": (Preset(StreamNet, StreamConfig(blend_channels=8), None, ""), "stream", COMMON),
    # 19.5 GMAC per frame of 192 x 256 and 4.8 million parameters; the JSON has the exact counts.
    "stream-large": (
        Preset(StreamNet, StreamConfig(176, 256, 320, 96, 32, (96, 64, 48), 16), None, ""),
        None,
        replace(COMMON, learning_rate=5e-4),
    ),
}
"""Network, weights at the start (None: random), options."""


def replay_nothing(run):
    """A CUDA graph's stand-in on the CPU: the replay computes the step into the same tensors."""
    outputs = run()

    def again():
        for kept, new in zip(outputs, run(), strict=True):
            kept.copy_(new)

    return again, outputs


def run_tests(args):
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    files = [
        p
        for p in sorted((ROOT / "tests").glob("test_*.py"))
        if "mark.gpu" in p.read_text(encoding="utf-8")
    ]
    if args.tiny:
        files = [p for p in files if p.name == "test_cuda.py"]
    if not files:
        return {"skipped": "no tests in this checkout"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    return {"exit_code": done.returncode, "output": (done.stdout + done.stderr)[-4000:]}


def roofline(args):
    """Measure the device's limits for each type of the products."""
    side, count = (256, 2**16) if args.tiny else (8192, 2**28)
    measured, rates = measure_rates(args.device, side, count), {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        products = matmul_rate(args.device, side, dtype)
        row = measured._replace(multiply_adds_per_second=products)
        rates[str(dtype).removeprefix("torch.")] = row._asdict()
    return {"rates": rates}


def inference(args, report, before):
    sizes = ((32, 32),) if args.tiny else SIZES
    jobs = [("stream", 1, s, "graph", d) for s in sizes for d in ("bfloat16", "float16", "float32")]
    jobs += [("stream", 1, size, "eager", "float32") for size in sizes]
    for dtype in ("bfloat16", "float16"):
        jobs += [("stream", 1, size, "graph, channels-last", dtype) for size in sizes]
    jobs += [("stream", 2, size, "graph", "bfloat16") for size in sizes]
    jobs += [("stream", 2, size, "eager", "float32") for size in sizes]
    for engine in ("graph", "eager"):
        jobs += [("paper", 1, sizes[0], engine, d) for d in ("float32", "bfloat16")]
    if args.tiny:  # every engine and every network once
        jobs = [jobs[0], jobs[3], jobs[4], jobs[-4]]
    if args.compile:
        jobs.append(("stream", 1, sizes[len(sizes) // 3], "graph, compiled", "bfloat16"))
    deadline, costs = time.monotonic() + args.table, {}
    limits = {dtype: Rates(**rates) for dtype, rates in args.rates().items()}
    rows, skipped = [row for row in before.get("rows", []) if "error" not in row], []
    for job in jobs:
        model, batch, size, engine, dtype = job
        row = {"model": model, "batch": batch, "height": size[0], "width": size[1]}
        row |= {"engine": engine, "dtype": dtype}
        if any(row.items() <= done.items() for done in rows):
            continue
        if time.monotonic() > deadline:
            skipped.append(job)
            continue
        try:
            if (model, batch, size) not in costs:
                costs[model, batch, size] = work_of(load(model), *size, batch)
            work = costs[model, batch, size]
            row["gmac"] = work.multiply_adds / 1e9
            row["least_ms"] = work.least_times(limits[dtype], captured=engine != "eager")
            rows.append(row | one(args, model, batch, size, engine, dtype))
        except Exception as error:
            rows.append(row | {"error": f"{type(error).__name__}: {error}"[:500]})
        if args.device.type == "cuda":
            torch.cuda.empty_cache()
        report({"rows": rows, "skipped": skipped})
    return {"rows": rows, "skipped": skipped}


@torch.inference_mode()
def one(args, model, batch, size, engine, dtype):
    device, cuda = args.device, args.device.type == "cuda"
    kind = getattr(torch, dtype)
    network = load(model, device)
    steps, group = (2 if args.tiny else 40), network.frames_per_step
    texture = torch.rand(batch, 1, 3, *size, generator=torch.Generator().manual_seed(0))
    gaze = torch.tensor([size[1] / 2, size[0] / 2]).expand(batch, group, 2)
    clip = torch.cat([texture.roll(t, -1) for t in range(group)], 1)
    samples, mask = (x.to(device) for x in sample(clip, gaze))
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    reference = network(samples, mask)[0]
    torch.backends.cudnn.allow_tf32 = allowed
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    run = network
    if engine != "eager":
        capture, last = capture_graph if cuda else replay_nothing, "channels-last" in engine
        run = CapturedGenerator(network, kind, channels_last=last, capture=capture)
        if "compiled" in engine:
            run.network.compile(backend="eager" if args.tiny else "inductor")
    half = engine == "eager" and kind != torch.float32
    with torch.autocast(device.type, kind if half else torch.bfloat16, enabled=half):
        found, state = run(samples, mask)
        for _ in range(1 if args.tiny else 5):
            _, state = run(samples, mask, state)
        times = np.array(timed(lambda: run(samples, mask, state), device, steps)) / group
    error = (found.float().clamp(0, 1) - reference.clamp(0, 1)).square().mean()
    return {
        "ms_p50": float(np.median(times)),
        "ms_p95": float(np.percentile(times, 95)),
        "psnr_to_float32": float(-10 * torch.log10(error.clamp(min=1e-12))),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
    }


def read_pack(folder, workers):
    """Decode everything into memory: videos as sources, photographs as arrays."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))

    def video(entry):
        capture, frames = cv2.VideoCapture(str(folder / entry["file"])), []
        while True:
            found, image = capture.read()
            if not found:
                break
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        if not frames:
            raise ValueError(f"{entry['file']}: OpenCV decodes no frame")
        return Source(entry["name"], np.stack(frames))

    def photo(entry):
        return cv2.cvtColor(cv2.imread(str(folder / entry["file"])), cv2.COLOR_BGR2RGB)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        sources = list(pool.map(video, manifest["videos"]))
        return sources, list(pool.map(photo, manifest["photos"]))


def options(args, recipe):
    _, _, config = RECIPES[recipe]
    if args.tiny:
        config = replace(config, batch=2, crop=64, clip=8, precision="fp32")
    return replace(config, workers=args.workers, photo_share=0.3)


def dataset(args, config):
    sources, photos = args.frames
    return ClipDataset(
        sources, config.clip, config.crop, config.seed,
        flow=dis_flow, photos=photos, photo_share=config.photo_share,
    )  # fmt: skip


def feed_throughput(args, report, before):
    """Measure crops per second of the data alone, by the number of processes that make them."""
    rows, batch = [row for row in before.get("rows", []) if "error" not in row], 2
    for workers in sorted({min(args.workers, count) for count in (0, 1, 4, args.workers)}):
        if any(row["workers"] == workers for row in rows):
            continue
        config = replace(options(args, args.recipe), workers=workers, batch=batch)
        feed = iter_chunks(dataset(args, config), config, args.device)
        parts = config.clip // config.chunk
        for _ in range(max(workers, 1) * parts):  # each process starts from the beginning
            next(feed)
        rounds, started = (1 if args.tiny else 4 * max(workers, 1)), time.perf_counter()
        for _ in range(rounds * parts):
            next(feed)
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        rows.append({"workers": workers, "clips_per_second": rounds * batch / seconds})
        rows[-1]["crops_per_second"] = parts * rows[-1]["clips_per_second"]
        report({"rows": rows})
    return {"rows": rows}


def training_throughput(args, report, before):
    rows = [row for row in before.get("rows", []) if "error" not in row]
    batches = (2,) if args.tiny else (16, 64, 128)
    for precision in ("fp32",) if args.tiny else ("bf16", "fp32"):
        for batch in batches:
            config = replace(options(args, args.recipe), batch=batch, precision=precision)
            network, _, _ = RECIPES[args.recipe]
            row = {"recipe": args.recipe, "precision": precision, "batch": batch}
            if any(row.items() <= done.items() for done in rows):
                continue
            try:
                training = init_run(config, args.device, preset=network)
                terms = make_terms(loss_weights(config.losses), training.loss_modules)
                # The same chunk is repeated, to measure the device and not the data.
                small = replace(config, batch=2, workers=0)
                chunk = next(iter_chunks(dataset(args, small), small, args.device))
                many = batch // 2
                chunk = chunk._replace(
                    **{
                        name: value.repeat(many, *[1] * (value.ndim - 1))
                        for name, value in chunk._asdict().items()
                        if isinstance(value, torch.Tensor)
                    }
                )
                run = lambda t=training, m=terms, k=chunk, c=config: train_step(t, m, k, c)  # noqa: E731
                timed(run, args.device, 1 if args.tiny else 2)
                ms = float(np.median(timed(run, args.device, 1 if args.tiny else 4)))
                row |= {"ms": ms, "crops_per_second": 1e3 * batch / ms}
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:500]
            rows.append(row)
            report({"rows": rows})
    return {"rows": rows}


def rate_factor(share):
    """Share of the learning rate after a share of the time: constant, then a linear fall to 0."""
    return max(0.0, min(1.0, (1.0 - share) / FALL))


def train(args, report, before):
    network, start, _ = RECIPES[args.recipe]
    config = options(args, args.recipe)
    if args.tiny:
        config = replace(config, warmup=2)
    training = init_run(config, args.device, start, preset=network)
    terms = make_terms(loss_weights(config.losses), training.loss_modules)
    about = {
        "recipe": args.recipe,
        "gmac": multiply_adds(training.net, 192, 256) / 1e9,
        "parameters": sum(p.numel() for p in training.net.parameters()),
        "rows": [],
    }
    number, runs = 0, sorted(args.out.glob(f"{args.recipe}-*-run.safetensors"))
    if args.resume and runs:
        restore_checkpoint(runs[-1], training, config)
        if training.position.chunk:  # its recurrent state is not saved, see below
            training.position = Position(training.position.clip + config.batch)
        number = int(runs[-1].name.removeprefix(f"{args.recipe}-").partition("-")[0]) + 1
        rows = before.get("rows", [])
        about["rows"] = [row for row in rows if row["step"] <= training.step]
        about["resumed_at"] = [*before.get("resumed_at", []), training.step]
    seconds, started = 60 * args.train, time.monotonic() - 3600 * training.hours
    saved, sums, steps = time.monotonic(), {}, 0
    every = seconds / 3 if args.tiny else 60.0

    def save():
        model = StreamNet(training.net.config)
        model.load_state_dict(training.ema)
        name = f"{args.recipe}-{number:03d}"
        provenance = {"steps": training.step, "recipe": args.recipe, "device": args.name}
        save_model(args.out / f"{name}.safetensors", model, provenance)
        path = args.out / f"{name}-run.safetensors"
        # The recurrent state is left out, as it is larger than the rest: a started clip is lost.
        save_checkpoint(path, training, config, config.batch, None)
        for old in (f"{args.recipe}-{number - 2:03d}{end}" for end in ("", "-run")):
            (args.out / f"{old}.safetensors").unlink(missing_ok=True)

    for chunk in iter_chunks(dataset(args, config), config, args.device, training.position):
        share = (time.monotonic() - started) / seconds
        if share >= 1.0 and training.step:
            break
        rate = config.learning_rate * rate_factor(share)
        values, _, _ = train_step(training, terms, chunk, replace(config, learning_rate=rate))
        steps += 1
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
        now = time.monotonic()
        if now - saved > every:
            training.hours = (now - started) / 3600
            means = {name: total / steps for name, total in sums.items()}
            crops = steps * config.batch / (now - saved)
            row = {"step": training.step, "minutes": (now - started) / 60, "learning_rate": rate}
            about["rows"].append(row | {"crops_per_second": crops} | means)
            save()
            report(about)
            saved, sums, steps, number = now, {}, 0, number + 1
    training.hours = (time.monotonic() - started) / 3600
    save()
    about |= {"steps": training.step, "minutes": 60 * training.hours}
    return about | {"model": f"{args.recipe}-{number:03d}.safetensors"}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="made by benchmarks/pack.py")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--train", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--recipe", choices=RECIPES, default="stream")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 15))
    parser.add_argument("--table", type=float, default=90.0, help="seconds for the inference table")
    parser.add_argument("--compile", action="store_true", help="and a row by torch.compile")
    parser.add_argument("--only-train", action="store_true", help="leave out tests and tables")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
    parser.add_argument("--tiny", action="store_true", help="try everything on the CPU, briefly")
    args = parser.parse_args(arguments)
    cv2.setNumThreads(0)  # its threads do not survive the fork of the workers
    if args.tiny:
        args.device, args.workers, args.train = "cpu", min(args.workers, 1), args.train and 0.1
    if args.train and args.pack is None:
        parser.error("--train needs --pack")
    args.device = torch.device(args.device)
    cuda = args.device.type == "cuda"
    args.name = torch.cuda.get_device_name(args.device) if cuda else "CPU"
    args.out.mkdir(parents=True, exist_ok=True)
    result = {"device": args.name, "torch": torch.__version__, "tiny": args.tiny, "parts": {}}
    if args.resume and (args.out / "gpu.json").exists():
        found = json.loads((args.out / "gpu.json").read_text(encoding="utf-8"))
        if any(found[key] != result[key] for key in ("device", "torch", "tiny")):
            parser.error(f"--resume: {args.out} holds what {found['device']} measured")
        result = found

    def part(name, run, again=False):
        started, before = time.monotonic(), result["parts"].get(name, {})
        if before.get("complete") and not again:
            return

        def write(value):
            seconds = before.get("seconds", 0.0) + time.monotonic() - started
            value = {"seconds": seconds, **value}
            result["parts"][name] = value
            temporary = args.out / "gpu.json.part"
            temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
            temporary.replace(args.out / "gpu.json")

        try:
            made = run(write, before)
            failed = any("error" in row for row in made.get("rows", []))
            write(made | {"complete": not (failed or made.get("skipped"))})
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            write(result["parts"].get(name, {}) | said)
        print(name, f"{time.monotonic() - started:.0f} s", result["parts"][name].get("error", ""))

    def decode(report, before):
        args.frames = read_pack(args.pack, args.workers)
        return {"videos": len(args.frames[0]), "photos": len(args.frames[1])}

    if not args.only_train:
        part("tests", lambda report, before: run_tests(args))
        part("roofline", lambda report, before: roofline(args))
        args.rates = lambda: result["parts"]["roofline"]["rates"]
        part("inference", lambda report, before: inference(args, report, before))
    if args.pack is not None:
        part("decode", decode, again=True)  # the next parts need its result in memory
        if not args.only_train:
            part("feed", lambda report, before: feed_throughput(args, report, before))
            part("throughput", lambda report, before: training_throughput(args, report, before))
        if args.train:
            part("train", lambda report, before: train(args, report, before))
    return result


if __name__ == "__main__":
    main()
