"""The subcommand train."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..config import PUBLISHED_LOSSES, PUBLISHED_TRAINING, InputError, TrainConfig
from .options import (
    DEVICE_HELP,
    MODEL_HELP,
    SKIP_HELP,
    PrintAndExit,
    Subcommands,
    comma_separated,
    local_path,
    output_path,
    protect_inputs,
    size,
    write_grid,
    write_text,
)

DESCRIPTION = (
    "Train a generator on a folder of videos or folders of images. Defaults are those of the "
    "recipe of stream; with another model, or with one of the published losses, those of the "
    "published recipe (in brackets where they differ). A resumed run goes on with its own "
    "config.json. Options that are given come before all of these. Ctrl-C saves the run."
)


def add(subcommands: Subcommands) -> None:
    """Add this subcommand to the command line."""
    parser = subcommands.add_parser(
        "train",
        help="train a generator on a folder of videos",
        description=DESCRIPTION,
        examples=(
            "deepfovea train --data videos --run runs/mine",
            "deepfovea train --data videos --run runs/mine --resume --steps 30000",
            "deepfovea train --data REDS --run runs/paper --model paper --losses charbonnier "
            "--optimizer muon",
            "deepfovea train --data videos --run runs/gan --losses charbonnier,motion,adversarial "
            "--start-from stream",
        ),
    )
    parser.add_argument(
        "--data",
        type=local_path,
        required=True,
        metavar="DIR",
        help="folder that holds the videos, or REDS",
    )
    parser.add_argument(
        "--run",
        type=output_path,
        required=True,
        metavar="FOLDER",
        help="where checkpoints, metrics, pictures and the model are written",
    )
    parser.add_argument(
        "--list-losses",
        action=PrintAndExit,
        lines=_loss_lines,
        help="print all terms of --losses and exit",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="a config.json whose values are the defaults instead (default: none)",
    )
    parser.add_argument(
        "--start-from",
        metavar="NAME|PATH",
        help=f"begin a new run with the weights of a model: {MODEL_HELP} (default: new weights)",
    )
    parser.add_argument(
        "--cache",
        type=output_path,
        metavar="FOLDER",
        help="folder for decoded frames, which runs may share (default: RUN/frames)",
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help="after every pass over the published items, write the published table and grids of "
        "input, prediction and label on the validation videos of --data",
    )
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--skip-unreadable", action="store_true", help=SKIP_HELP)
    hints = get_type_hints(TrainConfig)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        title = field.metadata["group"]
        group = groups.setdefault(title, None) or parser.add_argument_group(title)
        groups[title] = group
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=_help(field),
            **_argument_type(field.name, hints[field.name]),
        )
    parser.set_defaults(handler=_train)


def _loss_lines() -> Iterator[str]:
    from ..losses.terms import LOSSES

    for name, loss in LOSSES.items():
        yield f"{name}: weight {loss.weight:g}: {loss.definition}"


def _argument_type(name: str, hint: Any) -> dict[str, Any]:
    """The type of an option, for argparse."""
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
    text = "FILE" if name.endswith("_weights") else "FOLDER" if name == "photos" else "NAME"
    return {"type": hint, "metavar": {int: "N", float: "X"}.get(hint, text)}


def _help(field: dataclasses.Field[Any]) -> str:
    ours, published = (
        getattr(config, field.name) for config in (TrainConfig(), PUBLISHED_TRAINING)
    )
    default = _format(field.name, ours)
    if field.name != "preprocessing" and ours != published:
        default += f" [{_format(field.name, published)}]"
    return f"{field.metadata['help']} (default: {default})".replace("%", "%%")


def _format(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value) or "none"
    return ("x" if name == "size" else ",").join(map(str, value))


def _train(options: argparse.Namespace) -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(options).items() if name in fields}
    if "steps" in given:
        given.setdefault("epochs", 0)
    try:
        from ..training.interrupt import TrainingInterrupted
        from ..training.state import last_checkpoint, read_config
        from ..training.train import train
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs {error.name}, which is missing: pip install 'deepfovea[train]'"
        ) from None
    threading.excepthook = _ignore_failed_tensorboard_write
    file = options.config
    last = last_checkpoint(options.run)
    if options.resume and file is None and last.is_file():
        file = options.run / "config.json"
    config = read_config(file) if file else _default_config(given)
    _protect_inputs(options)
    try:
        model = train(
            options.data,
            options.run,
            dataclasses.replace(config, **given),
            options.resume,
            options.cache,
            options.start_from,
            options.device,
            options.skip_unreadable,
            functools.partial(_validate, options) if options.validate else None,
        )
    except TrainingInterrupted:
        raise
    except KeyboardInterrupt:  # before the first step, or a second Ctrl-C during one
        if last.is_file():
            said = (
                "interrupted; what was done since the last checkpoint is lost; the same command "
                f"with --resume goes on from {last}"
            )
        else:
            said = (
                "interrupted before a step was saved; the same command, without --resume, begins "
                "again with the videos that are decoded"
            )
        raise TrainingInterrupted(said) from None
    if model:  # only in the first process of this training
        print(f"{model}: trained; 'deepfovea reconstruct --model {model}' uses it")


def _validate(options: argparse.Namespace, epoch: int, model: Path) -> None:
    """Compute the published table and grids of the validation videos; print and save the table."""
    from ..checkpoint import load
    from ..reds.validate import to_json, to_markdown, validate
    from ..runtime.device import pick_device
    from ..training.state import read_config

    config = read_config(options.run / "config.json")
    folder = options.run / "validation"
    pictures = folder / f"epoch-{epoch:02d}"
    rows = validate(
        options.data,
        load(model, pick_device(options.device)),
        state=config.state,
        size=config.size,
        skip_unreadable=options.skip_unreadable,
        on_first_item=lambda name, *grid: write_grid(pictures / f"{name}.png", *grid),
    )
    table = to_markdown(rows, f"epoch {epoch}, state {config.state}")
    print(table, flush=True)
    protocol = {"epoch": epoch, "split": "val", "state": config.state, "size": config.size}
    write_text(folder / f"epoch-{epoch:02d}.md", table + "\n")
    write_text(folder / f"epoch-{epoch:02d}.json", to_json(rows, protocol) + "\n")


def _protect_inputs(options: argparse.Namespace) -> None:
    """Refuse a run folder or a cache that would overwrite the data."""
    files = ("config.json", "metrics.jsonl", "model.safetensors")
    folders = ("checkpoints", "models", "pictures", "tensorboard", "validation")
    outputs = [options.run / name for name in (*files, *folders)]
    config = [options.config] if options.config and not options.resume else []
    protect_inputs(options, *outputs, options.cache or options.run / "frames", inputs=config)


def _ignore_failed_tensorboard_write(failure: threading.ExceptHookArgs) -> None:
    """Print nothing: TensorBoard raises a failed write in its next call, which is then reported."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def _default_config(given: dict[str, Any]) -> TrainConfig:
    """The defaults for the model and the losses that the options state."""
    model = given.get("model", "stream")
    losses = {text.partition("=")[0] for text in given.get("losses", ())}
    if model == "stream" and not losses & set(PUBLISHED_LOSSES):
        return TrainConfig()
    return dataclasses.replace(PUBLISHED_TRAINING, model=model, preprocessing="modern")
