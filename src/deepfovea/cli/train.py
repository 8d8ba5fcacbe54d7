"""The subcommand train."""

from __future__ import annotations

import argparse
import dataclasses
import threading
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..config import LOSS_WEIGHTS, PUBLISHED_LOSSES, PUBLISHED_TRAINING, InputError, TrainConfig
from ..io.outputs import refuse_overlap
from .options import SKIP_HELP, Subcommands, comma_separated, protect_inputs, size

RECIPE_HELP = (
    "Defaults are those of the recipe of stream; with another model, or with one of the published "
    "losses, those of the published recipe (in brackets where they differ). A resumed run goes on "
    "with its own config.json. Options that are given come before all of these."
)


HELP = {
    "model": "stream | paper | deepfovea",
    "steps": "of the optimisers, one per chunk",
    "clip": "frames through which the state is carried",
    "chunk": "frames through which gradients flow",
    "batch": "clips per step and process",
    "crop": "side of the high-resolution square, a multiple of 32",
    "learning_rate": "of the generator",
    "warmup": "steps of rising rates",
    "cooldown": "steps of falling rates at the end",
    "motion_weight": "weight of the loss 'motion'",
    "clip_gradient": "largest norm of the gradient, 0 for no limit",
    "ema": "decay of the averaged weights, which become the model",
    "workers": "processes that read clips",
    "save_minutes": "between checkpoints",
    "keep_minutes": "between checkpoints that are kept for good, 0 for none",
    "losses": "NAME or NAME=WEIGHT of " + ", ".join(LOSS_WEIGHTS),
    "optimizer": "of the generator; muon: Muon for convolutions, Adam for the rest",
    "betas": "of Adam",
    "discriminator_channels": "of the five blocks",
    "r1": "weight of the R1 penalty on the discriminators",
    "shift": "pixels by which what these and perceptual see is shifted at random",
    "perceptual_backbone": "vgg19 | efficientnet-lite0",
    "perceptual_resolution": "of the frames that it sees, at most 1",
    "perceptual_weights": "file of its weights, where they cannot be downloaded",
    "flow_estimator": "dis | raft | raft-large | pwcnet",
    "flow_weights": "file of its weights",
    "preprocessing": "random clips, or the items of the paper",
    "sampling": "of random clips: many densities and moving gaze, or as published",
    "size": "of these items",
    "state": "at the first item of a video: new, or carried on from the video before",
    "log_steps": "between rows of metrics",
    "picture_steps": "between pictures, 0 for none",
}
"""What an option means, where its name does not say it."""


def add(subcommands: Subcommands) -> None:
    """Add these subcommands to the command line."""
    parser = subcommands.add_parser(
        "train", help="train a generator on a folder of videos", epilog=RECIPE_HELP
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a config.json with the defaults instead"
    )
    parser.add_argument(
        "--start-from", metavar="NAME|PATH", help="begin a new run with the weights of a model"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="of decoded frames, shared by runs (default: RUN/frames)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (default) | cpu | cuda | cuda:N | mps"
    )
    parser.add_argument("--skip-unreadable", action="store_true", help=SKIP_HELP)
    hints = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=_help(field.name),
            **_argument_type(field.name, hints[field.name]),
        )
    parser.set_defaults(handler=_train)


def _argument_type(name: str, hint: Any) -> dict[str, Any]:
    """How argparse reads the value of an option."""
    if name == "size":
        return {"type": size, "metavar": "HxW"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]

        def read(text: str) -> tuple[Any, ...]:
            return tuple(item(part) for part in comma_separated(text))

        read.__name__ = f"list of {item.__name__}"  # for argparse's message
        return {"type": read, "metavar": "A,B,…"}
    return {"type": hint, "metavar": {int: "N", float: "X"}.get(hint, "NAME")}


def _help(name: str) -> str:
    ours, theirs = (getattr(config, name) for config in (TrainConfig(), PUBLISHED_TRAINING))
    default = f"default {_format(name, ours)}"
    if name != "preprocessing" and ours != theirs:
        default += f" [{_format(name, theirs)}]"
    return f"{HELP[name]}; {default}" if name in HELP else default


def _format(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value) or "none"
    return ("x" if name == "size" else ",").join(map(str, value))


def _train(options: argparse.Namespace) -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(options).items() if name in fields}
    try:
        from ..training.state import read_config
        from ..training.train import train
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs {error.name}, which is missing: pip install 'deepfovea[train]'"
        ) from None
    threading.excepthook = _ignore_failed_tensorboard_write
    file = options.config
    if options.resume and file is None and options.run.is_dir():
        file = options.run / "config.json"
    config = read_config(file) if file else _default_config(given)
    _protect_inputs(options)
    model = train(
        options.data,
        options.run,
        dataclasses.replace(config, **given),
        options.resume,
        options.cache,
        options.start_from,
        options.device,
        options.skip_unreadable,
    )
    if model:  # not in the other processes of this training
        print(f"{model}: trained; 'deepfovea reconstruct --model {model}' uses it")


def _protect_inputs(options: argparse.Namespace) -> None:
    """Refuse a run folder, or a cache, that would write into what is read."""
    files = ("config.json", "metrics.jsonl", "model.safetensors")
    folders = ("checkpoints", "pictures", "tensorboard")
    outputs = [options.run / name for name in (*files, *folders)]
    protect_inputs(options, *outputs, options.cache or options.run / "frames")
    if options.config and not options.resume:
        refuse_overlap(outputs, [options.config])


def _ignore_failed_tensorboard_write(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands a failed write to the next call, which reports it in one line."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def _default_config(given: dict[str, Any]) -> TrainConfig:
    """The defaults that suit the model and the losses that were asked for."""
    model = given.get("model", "stream")
    losses = {text.partition("=")[0] for text in given.get("losses", ())}
    if model == "stream" and not losses & set(PUBLISHED_LOSSES):
        return TrainConfig()
    return dataclasses.replace(PUBLISHED_TRAINING, model=model, preprocessing="modern")
