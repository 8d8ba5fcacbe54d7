"""The verb that makes models: train."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import get_type_hints

from ..config import InputError, TrainConfig
from .words import Verbs


def add(verbs: Verbs) -> None:
    """Add these verbs to the command line."""
    verb = verbs.add_parser("train", help="train a generator on a folder of videos")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR")
    verb.add_argument("--run", type=Path, required=True, metavar="FOLDER")
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    verb.add_argument(
        "--start-from", metavar="NAME|PATH", help="begin a new run with the weights of a model"
    )
    verb.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="of decoded frames, shared by runs (default: RUN/frames)",
    )
    hints = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        verb.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=hints[field.name],
            default=field.default,
            help=f"default {field.default}",
        )
    verb.set_defaults(handler=_train)


def _train(options: argparse.Namespace) -> None:
    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainConfig)}
    try:
        from ..training.train import train
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs {error.name}, which is missing: pip install 'deepfovea[train]'"
        ) from None
    model = train(
        options.data,
        options.run,
        TrainConfig(**fields),
        options.resume,
        options.cache,
        options.start_from,
    )
    print(f"{model}: trained; 'deepfovea reconstruct --model {model}' uses it")
