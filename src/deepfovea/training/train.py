"""Training: one chunk of frames per step, with checkpoints from which a run can be resumed.

Truncated back-propagation through time: the state is passed on through the whole clip, gradients
through one chunk. Accelerate runs the same loop in several processes, GPUs and machines.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ..config import SCALE, InputError, TrainConfig, to_json
from ..flow import FlowEstimator
from ..io.atomic import atomic_write
from ..io.decoded_cache import open_sources
from ..losses.flow import flow_estimator
from ..losses.perceptual import PerceptualLoss, load_backbone
from ..losses.terms import LOSSES, Term, deviations_from_published, loss_weights, make_terms
from ..reds.items import PublishedItems
from ..reds.splits import split_folder
from ..runtime.device import pick_device
from .chunks import iter_chunks
from .dataset import ClipDataset, find_photos
from .interrupt import StopSignals, TrainingInterrupted
from .logging import Log, explained_write_errors
from .progress import TrainingProgress
from .state import (
    State,
    TrainingState,
    init_run,
    last_checkpoint,
    restore_checkpoint,
    save_checkpoint,
    save_ema,
)
from .step import learning_rate_factor, train_step

_log = logging.getLogger(__name__)


def train(
    data: Path,
    run: Path,
    config: TrainConfig,
    resume: bool = False,
    cache: Path | None = None,
    start_from: str | Path | None = None,
    device: str = "auto",
    skip_unreadable: bool = False,
    on_epoch: Callable[[int, Path], None] | None = None,
) -> Path | None:
    """Train a generator, and write everything into the run folder.

    It contains ``config.json``, ``metrics.jsonl``, ``pictures``, ``tensorboard``,
    ``checkpoints/last.safetensors`` (from the first step on) and, at the end,
    ``model.safetensors``, which :func:`deepfovea.load` reads.

    Args:
        data: folder of videos or image folders, or a data set with a train split: see
            :func:`deepfovea.reds.splits.split_folder`.
        run: folder of this run, made if it is missing.
        config: the configuration; when a run is resumed, all but
            :data:`deepfovea.config.FIXED_ON_RESUME` may have changed.
        resume: continue from the last checkpoint.
        cache: folder for decoded frames; by default ``run / "frames"``.
        start_from: the name or path of a model whose weights a new run starts with.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        skip_unreadable: leave out frames that cannot be read, with a warning.
        on_epoch: called in the main process after every pass over the published items, with the
            number of the pass, from 1, and the model ``models/epoch-NN.safetensors``.

    Returns:
        The path of the model; None in all processes but the main one.

    Raises:
        InputError: the data, the configuration, the device or the run folder cannot be used, or a
            loss is not finite.
        TrainingInterrupted: after Ctrl-C or SIGTERM, when the current step is done and saved;
            ``on_epoch`` is ended at once.
    """
    last = last_checkpoint(run)
    if last.exists() and not resume:
        raise InputError(
            f"{run}: holds a run already; add --resume to go on with it, or give another folder"
        )
    if resume and not last.exists():
        raise InputError(
            f"{run}: received --resume, but there is no checkpoints/{last.name} to go on from; "
            "leave --resume out to begin"
        )
    accelerator, torch_device = _start_accelerator(device, config)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    training = init_run(config, torch_device, start_from)
    terms, logged_names = _make_objective(config, training, torch_device)
    if resume:  # last, as what is built above draws random numbers
        restore_checkpoint(last, training, config, rank, world_size)
    notes = deviations_from_published(terms, config.perceptual_backbone, config.flow_estimator)
    with accelerator.local_main_process_first():
        videos = split_folder(data, "train")
        sources = open_sources(videos, cache or run / "frames", skip_unreadable=skip_unreadable)
    dataset: ClipDataset | PublishedItems
    if config.preprocessing == "published":
        dataset = PublishedItems(sources, config.seed, config.size)
        if config.epochs:
            batches = math.ceil(config.epochs * len(dataset) / (config.batch * world_size))
            config = replace(config, steps=batches * (config.clip // config.chunk))
    else:
        dataset = ClipDataset(
            sources,
            config.clip,
            config.crop,
            config.seed,
            varied=config.sampling == "varied",
            flow=_flow_estimator(config) if _needs_motion(config) else None,
            photos=find_photos(config.photos),
            photo_share=config.photo_share,
            jittered=training.net.takes_jitter,
        )
    log = (
        _open_run(run, config, training, logged_names, notes)
        if accelerator.is_main_process
        else None
    )

    reduce_mean: Callable[[Tensor], Tensor] | None = None
    if world_size > 1:
        reduce_mean = lambda tensor: accelerator.reduce(tensor, "mean")  # noqa: E731

    def checkpoint(path: Path) -> None:
        state = _gather_state(training.state, accelerator)
        if accelerator.is_main_process:
            save_checkpoint(path, training, config, config.batch * world_size, state)

    started = saved = kept = time.monotonic()
    hours = training.hours
    timed_from, timed_step = started, training.step
    epochs_done, left_out = 0, ""
    if isinstance(dataset, PublishedItems):
        epochs_done = training.position.clip // len(dataset)
    feed = iter_chunks(dataset, config, torch_device, training.position, rank, world_size)
    with (
        closing(log) if log else nullcontext(),
        TrainingProgress(config.model, config.steps, training.step, log is not None) as progress,
        StopSignals() as stop,
    ):
        while training.step < config.steps:
            chunk = next(feed)
            rate = config.learning_rate * learning_rate_factor(training.step, config)
            values, output, target = train_step(training, terms, chunk, config, reduce_mean)
            training.hours = hours + (time.monotonic() - started) / 3600.0
            for name, value in values.items():
                training.sums[name] = training.sums.get(name, 0.0) + value
            done = training.step == config.steps
            if training.step % config.log_steps == 0 or done:
                steps = training.step - training.logged
                means = {name: total / steps for name, total in training.sums.items()}
                if log:
                    now = time.monotonic()
                    crops = (training.step - timed_step) * config.batch * world_size
                    row = {"hours": training.hours, "learning_rate": rate}
                    row["crops_per_second"] = crops / (now - timed_from)
                    log.row(training.step, row | means)
                    timed_from, timed_step = now, training.step
                training.logged, training.sums = training.step, {}
            begun = training.step == 1
            picture_due = begun or done or training.step % max(1, config.picture_steps) == 0
            if log and config.picture_steps and picture_due:
                samples = target.low * chunk.valid_region.crop(chunk.mask, SCALE)
                log.picture(training.step, samples[0], output.frames[0], target.frames[0])
            progress.update(training.step, {name: values[name] for name in terms})
            if isinstance(dataset, PublishedItems) and log:
                epoch = training.position.clip // len(dataset)
                if epoch > epochs_done:
                    epochs_done = epoch
                    model = run / "models" / f"epoch-{epoch:02d}.safetensors"
                    with explained_write_errors(run):
                        model.parent.mkdir(exist_ok=True)
                    save_ema(model, training, config, notes)
                    if on_epoch:
                        left_out = (
                            f"; epoch {epoch} is not validated: 'deepfovea validate --model "
                            f"{model}' does that"
                        )
                        with stop.cuts_short():
                            if not stop.received:
                                on_epoch(epoch, model)
                                left_out = ""
            now = time.monotonic()
            # The first step is saved at once, so that every run that has begun can be resumed.
            save_due = begun or now - saved > 60 * config.save_minutes
            keep_due = 0 < 60 * config.keep_minutes < now - kept
            stopping, save_due, keep_due = _agreed(
                (bool(stop.received), save_due, keep_due), accelerator
            )
            if save_due or stopping or done:
                checkpoint(last)
                saved = now
            if keep_due:
                checkpoint(last.with_name(f"step-{training.step:07d}.safetensors"))
                kept = now
            if stopping and not done:
                said = (
                    f"interrupted after step {training.step} of {config.steps}, which is saved in "
                    f"{last}; the same command with --resume goes on from there{left_out}"
                )
                raise TrainingInterrupted(
                    said if log else "interrupted; the first process saves the run",
                    128 + (stop.received or signal.SIGTERM),
                )
    accelerator.wait_for_everyone()
    if world_size > 1:
        accelerator.end_training()  # without it, processes may crash when Python ends
    if log is None:
        return None
    model = run / "model.safetensors"
    save_ema(model, training, config, notes)
    if left_out:
        raise TrainingInterrupted(f"interrupted; {model} is trained{left_out}", 128 + stop.received)
    return model


def _start_accelerator(device: str, config: TrainConfig) -> tuple[Accelerator, torch.device]:
    """Connect the processes that train together, and choose the device of this one."""
    picked = pick_device(device)
    # Without the argument, Accelerate treats several CPU processes as separate runs.
    accelerator = Accelerator(cpu=picked.type == "cpu")
    own: torch.device = picked if accelerator.num_processes == 1 else accelerator.device
    if own.index is not None and own.type == "cuda":
        torch.cuda.set_device(own)
    if config.precision == "fp16" and own.type == "cpu":
        raise InputError("--precision fp16: received a CPU, which has no use for it; expected bf16")
    return accelerator, own


def _make_objective(
    config: TrainConfig, training: TrainingState, device: torch.device
) -> tuple[dict[str, Term], dict[str, str]]:
    """Make the terms, and the names under which some are logged, which state backbone or flow."""
    names = loss_weights(config.losses)
    needed = {need for name in names for need in LOSSES[name].needs}
    perceptual = flow = None
    logged_names = {}
    if "perceptual" in needed:
        path = Path(config.perceptual_weights) if config.perceptual_weights else None
        backbone = load_backbone(config.perceptual_backbone, path).to(device)
        perceptual = PerceptualLoss(backbone, config.perceptual_resolution)
        logged_names["perceptual"] = f"perceptual/{perceptual.name}"
    if {"flow", "endpoint"} & set(names):
        logged_names |= {name: f"{name}/{config.flow_estimator}" for name in ("flow", "endpoint")}
    if "flow" in needed:
        flow = _flow_estimator(config)
    terms = make_terms(
        names,
        training.loss_modules,
        perceptual=perceptual,
        flow=flow,
        adversarial=config.adversarial_loss,
        shift=config.shift,
    )
    return terms, logged_names


def _flow_estimator(config: TrainConfig) -> FlowEstimator:
    path = Path(config.flow_weights) if config.flow_weights else None
    return flow_estimator(config.flow_estimator, path)


def _needs_motion(config: TrainConfig) -> bool:
    return "endpoint" in loss_weights(config.losses) or config.motion_given > 0


def _open_run(
    run: Path,
    config: TrainConfig,
    training: TrainingState,
    logged_names: dict[str, str],
    notes: list[str],
) -> Log:
    """Make the folder of a run and its log."""
    with explained_write_errors(run):
        last_checkpoint(run).parent.mkdir(parents=True, exist_ok=True)
    log = Log(run, training.step, logged_names)
    with explained_write_errors(run), atomic_write(run / "config.json") as file:
        file.write(to_json(config).encode() + b"\n")
    log.notes(notes)
    for note in notes:
        _log.warning("%s: %s", run, note)
    return log


def _gather_state(state: State | None, accelerator: Accelerator) -> State | None:
    """Concatenate the recurrent states of all processes."""
    if state is None or accelerator.num_processes == 1:
        return state
    return type(state)(*(accelerator.gather(tensor.contiguous()) for tensor in state))


def _agreed(flags: tuple[bool, ...], accelerator: Accelerator) -> list[bool]:
    """Agree on flags in all processes: stop if any process asks for it; the main process decides
    the others."""
    if accelerator.num_processes == 1:
        return list(flags)
    stop, *others = flags
    said = [stop, *(flag and accelerator.is_main_process for flag in others)]
    total = accelerator.reduce(torch.tensor(said, device=accelerator.device).float(), "sum")
    return [bool(value > 0) for value in total]
