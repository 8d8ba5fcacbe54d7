"""DeepFovea++ by its published command line: each argument becomes a command of deepfovea.

    python main.py --train --data REDS
    python main.py --val --data REDS --load_model runs/2026-01-01_12-00-00/model.safetensors

Reich, Memmel, Grebe 2020; their arguments with their defaults, and --data, which their code had
hard-wired. What is written goes into a folder of the date, as theirs did.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deepfovea.cli import main as deepfovea
from deepfovea.cli.options import Parser, positive

RUNS = Path("runs")
PUBLISHED_BATCH = 2  # items, over all devices
SECONDS_TO_SAVE = "600"
"""After Ctrl-C, before torchrun kills its processes: a step and a checkpoint. Its own 30 s are less
than a published step on a CPU."""

FORWARDED = ("epochs", "steps", "size", "perceptual_backbone", "perceptual_weights", "flow_weights")
"""What deepfovea train knows by the same name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands one after the other; returns the first exit code that is not 0."""
    parser = published_parser()
    options = parser.parse_args(arguments)
    if complaint := contradiction(options):
        parser.error(complaint)
    os.environ["CUDA_VISIBLE_DEVICES"] = options.cuda_devices  # before PyTorch is imported
    run = Path(options.resume) if options.resume else RUNS / time.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        return perform(options, parser, run)
    except KeyboardInterrupt:  # between the commands, which handle it themselves
        print("main.py: interrupted", file=sys.stderr)
        return 130
    finally:
        with contextlib.suppress(OSError):  # it is not there, or not empty
            run.rmdir()


def perform(options: argparse.Namespace, parser: Parser, run: Path) -> int:
    """What was asked, written into the folder ``run``."""
    import torch

    usable = torch.cuda.device_count()
    if 0 < usable < processes(options):
        parser.error(
            f"--cuda_devices: received {options.cuda_devices}, of which {usable} can be used; "
            "expected only such: name fewer"
        )
    if not usable:
        print("main.py: no CUDA device can be used; going on without", file=sys.stderr)
    run.mkdir(parents=True, exist_ok=True)
    for words in commands(options, run):
        if words[0] == "train":
            print(
                "main.py: this is the published training; 'deepfovea train' has recipes that take "
                "a small part of its time (docs/training.md)",
                file=sys.stderr,
            )
        if words[0] == "train" and options.data_parallel:
            code = train_in_parallel(words, processes(options))
        else:
            code = deepfovea(words)
        if code:
            if options.train and (said := how_to_go_on(words[0], code, run)):
                print(f"main.py: {said}", file=sys.stderr)
            return code
    return 0


def how_to_go_on(stopped: str, code: int, run: Path) -> str:
    """After ``train``, or a command behind it, was interrupted or failed; empty if it cannot."""
    last = run / "checkpoints" / "last.safetensors"
    if stopped != "train":
        model = run / "model.safetensors"
        return f"the training is done; --load_model {model} instead of --train goes on"
    if last.is_file():
        return f"--train --resume {run} goes on with this run; --load_model {last} uses it"
    return "nothing was saved yet; the same command begins anew" if code > 128 else ""


def train_in_parallel(words: Sequence[str], processes: int) -> int:
    """``torchrun -m deepfovea -- WORDS``, without its tracebacks: the processes say what is wrong.

    torchrun hands Ctrl-C and SIGTERM to its processes, which save the run.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SECONDS_TO_SAVE)
    torchrun = [f"--nproc_per_node={processes}", "-m", "deepfovea", "--", *words]
    logging.disable()  # of this process, which has nothing to say meanwhile
    try:
        run(parse_args(torchrun))
    except SignalException as signaled:
        return 128 + signaled.sigval
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode not in (1, 2):  # which have said why
            print(f"main.py: a process ended with {failure.exitcode}", file=sys.stderr)
        return abs(failure.exitcode)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def published_parser() -> Parser:
    """The published arguments, and those that a run of weeks needs."""
    parser = Parser(prog="main.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--train", action="store_true", help="train on the train videos of --data")
    parser.add_argument("--val", action="store_true", help="print the table of the val videos")
    parser.add_argument("--test", action="store_true", help="print the table of the test videos")
    parser.add_argument("--inference", action="store_true", help="reconstruct --inference_data")
    parser.add_argument("--inference_data", default="", help="folder of low-resolution videos")
    parser.add_argument(
        "--cuda_devices",
        default="0",
        help="indices of the CUDA devices, with commas between them (default: 0)",
    )
    parser.add_argument(
        "--data_parallel", action="store_true", help="train on all of the CUDA devices"
    )
    parser.add_argument(
        "--load_model", default="", help="path of a model, or of any checkpoint of a run"
    )
    parser.add_argument("--data", default="", help="folder of REDS, or of videos")
    more = parser.add_argument_group("not published")
    more.add_argument(
        "--epochs", type=positive, metavar="N", help="epochs of --train (published: 16)"
    )
    more.add_argument(
        "--steps", type=positive, metavar="N", help="steps of --train, instead of --epochs"
    )
    more.add_argument("--resume", default="", metavar="RUN", help="go on with the run of a folder")
    more.add_argument(
        "--state",
        choices=["reset", "carry"],
        default="reset",
        help="state of the network before a new video: the two published settings",
    )
    more.add_argument("--perceptual-backbone", default="", help="vgg19 or efficientnet-lite0")
    more.add_argument(
        "--perceptual-weights", default="", metavar="FILE", help="weights of the backbone"
    )
    more.add_argument("--flow-weights", default="", metavar="FILE", help="weights of PWC-Net")
    more.add_argument(
        "--size", default="", metavar="HxW", help="size of items (published: 768x1024)"
    )
    more.add_argument("--device", default="", help="auto | cpu | cuda | cuda:N | mps")
    return parser


def contradiction(options: argparse.Namespace) -> str:
    """What is missing or wrong, empty if nothing is."""
    measure = options.val or options.test
    if not (options.train or measure or options.inference):
        return "received nothing to do, expected --train, --val, --test or --inference"
    if (options.train or measure) and not options.data:
        return "--data: received none, expected the folder of REDS"
    if options.inference and not options.inference_data:
        return "--inference_data: received none, expected a folder of videos"
    if options.resume and not (options.train and Path(options.resume).is_dir()):
        return f"--resume: received {options.resume!r:.100}, expected --train and a run's folder"
    if options.epochs and options.steps:
        return "--epochs, --steps: received both, expected one"
    if not options.train and not options.load_model:
        return "--load_model: received none, expected a model.safetensors, as --train writes it"
    if not all(index.isdecimal() for index in options.cuda_devices.split(",")):
        return f"--cuda_devices: received {options.cuda_devices!r:.100}, expected as 0 or 0,1"
    return ""


def commands(options: argparse.Namespace, run: Path) -> list[list[str]]:
    """The command lines of ``deepfovea`` that do what was asked, in the published order."""
    words = []
    model = options.load_model
    device = [f"--device={options.device}"] if options.device else []
    size = [f"--size={options.size}"] if options.size else []
    if options.train:
        train = ["train", f"--data={options.data}", f"--run={run}", f"--cache={RUNS / 'frames'}"]
        if options.resume:
            train += ["--resume"]
        else:
            train += ["--model=paper", "--preprocessing=published", f"--state={options.state}"]
        train += ["--validate"]
        given = {
            name: value for name, value in vars(options).items() if name in FORWARDED and value
        }
        train += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        if options.flow_weights:
            train += ["--flow-estimator=pwcnet"]
        train += device
        if options.data_parallel:
            train += [f"--batch={max(1, PUBLISHED_BATCH // processes(options))}"]
        if model:
            train += [f"--start-from={model}"]
        words.append(train)
        model = str(run / "model.safetensors")
    for name, wanted in (("validate", options.val), ("test", options.test)):
        if wanted:
            files = [f"--json={run / name}.json", f"--markdown={run / name}.md"]
            files += [f"--pictures={run / name}"]
            scored = [name, f"--data={options.data}", f"--model={model}", *files]
            words.append([*scored, f"--state={options.state}", *size, *device])
    if options.inference:
        output = f"--output={run / 'inference'}"
        words.append(["infer", options.inference_data, output, f"--model={model}", "--gaze=random"])
        words[-1] += device
    return words


def processes(options: argparse.Namespace) -> int:
    """One for each device that was named."""
    return len(options.cuda_devices.split(","))


if __name__ == "__main__":
    sys.exit(main())
