"""Training, written out: clips in, one chunk of frames per step, checkpoints that resume.

Accelerate carries the same loop to several processes and GPUs. Truncated back-propagation
through time: the state runs through the whole clip, gradients through one chunk.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from .. import checkpoint
from ..checkpoint import PRESETS, Generator, build
from ..clips import open_sources
from ..config import InputError, TrainConfig, from_json, to_json
from ..fill import backward_warp
from ..fovea import reduce
from ..generators.stream import StreamNet, StreamState
from .data import SCALE, Clip, ClipDataset


def train(
    data: Path,
    run: Path,
    config: TrainConfig,
    resume: bool = False,
    cache: Path | None = None,
    start_from: str | Path | None = None,
) -> Path:
    """Train a generator; the run folder holds everything.

    ``config.json``, ``metrics.jsonl``, ``checkpoints/last.safetensors`` and, at the end,
    ``model.safetensors``, which :func:`deepfovea.load` reads.

    Args:
        data: folder of videos or image folders.
        run: folder of this run, made if it is missing.
        config: what to do; on resuming, ``steps``, ``cooldown``, ``learning_rate``, ``clip``,
            ``chunk`` and ``batch`` may differ from what the run began with.
        resume: go on from the last checkpoint.
        cache: where decoded frames lie; by default ``run / "frames"``.
        start_from: a model, by name or path, whose weights a new run begins with.

    Raises:
        InputError: unusable data, configuration or run folder.
    """
    if config.model not in PRESETS:
        raise InputError(f"unknown model {config.model!r}: expected one of {sorted(PRESETS)}")
    _check(config)
    # Without a word, Accelerate runs several CPU processes as so many separate runs.
    no_gpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(cpu=no_gpu)
    torch.manual_seed(config.seed)
    last = run / "checkpoints" / "last.safetensors"
    if last.exists() and not resume:
        raise InputError(f"{run}: holds a run already; give --resume or another folder")
    if resume and not last.exists():
        raise InputError(f"{run}: received --resume, but there is no {last.name} to go on from")

    net = build(PRESETS[config.model]).to(accelerator.device)
    if net.scale != SCALE:
        raise InputError(f"--model: {config.model!r} does not enlarge by {SCALE}; expected another")
    if config.chunk % net.frames_per_step:
        raise InputError(
            f"--chunk: received {config.chunk} frames, but {config.model!r} takes "
            f"{net.frames_per_step} at a time; expected a multiple of that"
        )
    if start_from is not None:
        begun = checkpoint.load(start_from, accelerator.device)
        if begun.config != net.config:
            raise InputError(f"--start-from {start_from}: another network than {config.model!r}")
        net.load_state_dict(begun.state_dict())
    averaged = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters(), config.learning_rate, betas=(0.9, 0.99))
    step, next_clip, hours = 0, 0, 0.0
    if resume:
        step, next_clip, hours = _restore(last, net, averaged, optimizer, config)
    with accelerator.local_main_process_first():
        sources = open_sources(data, cache or run / "frames")
    dataset = ClipDataset(sources, config.clip, config.crop, config.seed)
    try:
        last.parent.mkdir(parents=True, exist_ok=True)
        if accelerator.is_main_process:
            (run / "config.json").write_text(to_json(config) + "\n")
    except OSError as error:
        raise InputError(f"{run}: cannot be written ({error.strerror}); choose another") from None
    clips = _clips(dataset, config, accelerator, next_clip)

    def save() -> None:
        about = {"step": step, "next_clip": next_clip, "hours": hours + _hours_since(started)}
        _save(last, net, averaged, optimizer, config, about)

    started = saved = time.monotonic()
    running: dict[str, float] = {}
    with _progress(accelerator.is_main_process) as progress:
        task = progress.add_task(config.model, total=config.steps, completed=step, loss="")
        while step < config.steps:
            batch = next(clips)
            next_clip += config.batch * accelerator.num_processes
            frames = batch["frames"].to(accelerator.device, non_blocking=True).float() / 255.0
            mask = batch["mask"].to(accelerator.device, non_blocking=True).float()
            low = reduce(frames)
            state: Any = None
            for t in range(0, config.clip - config.chunk + 1, config.chunk):
                if step == config.steps:
                    break
                part = slice(t, t + config.chunk)
                before = low[:, t - 1] if t else None
                terms, state = losses(
                    net, frames[:, part], low[:, part], mask[:, part], before, state
                )
                total = terms["image"] + config.motion_weight * terms.get("motion", 0.0)
                for name, value in terms.items():
                    if not torch.isfinite(value):
                        raise RuntimeError(
                            f"the loss term {name!r} is {value.item()} at step {step}"
                        )
                optimizer.zero_grad()
                torch.autograd.backward(total)
                _average_gradients(net, accelerator)
                torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_gradient)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, config)
                optimizer.step()
                with torch.no_grad():
                    decay = min(config.ema, (1 + step) / (10 + step))
                    for name, parameter in net.named_parameters():
                        averaged[name].lerp_(parameter, 1.0 - decay)
                state = type(state)(*(tensor.detach() for tensor in state))
                step += 1
                for name, value in terms.items():
                    running[name] = 0.98 * running.get(name, value.item()) + 0.02 * value.item()
                if step % 50 == 0 and accelerator.is_main_process:
                    _log(run, step, hours + _hours_since(started), running, config)
            progress.update(task, completed=step, loss=f"{running['image']:.4f}")
            if accelerator.is_main_process and time.monotonic() - saved > 60 * config.save_minutes:
                save()
                saved = time.monotonic()
    accelerator.wait_for_everyone()
    model = run / "model.safetensors"
    if accelerator.is_main_process:
        save()
        export(last, model)
    return model


def losses(
    net: Generator, frames: Tensor, low: Tensor, mask: Tensor, before: Tensor | None, state: Any
) -> tuple[dict[str, Tensor], Any]:
    """The named terms of one chunk.

    image: Charbonnier distance (epsilon 1e-3) to the truth. motion: how well the motion that
    the network found warps the last true low-resolution frame into this one; it guides the
    motion where the image loss cannot yet see it.

    Args:
        net: the generator.
        frames: [B, T, 3, H, W] truth.
        low: [B, T, 3, h, w], reduced truth, from which the mask takes samples.
        mask: [B, T, 1, h, w].
        before: [B, 3, h, w] the low-resolution frame before the chunk, None at a clip's start.
        state: of the generator.
    """
    if not isinstance(net, StreamNet):
        output, state = net(low * mask, mask, state)
        return {"image": charbonnier(output - frames)}, state
    image, motion = [], []
    for t in range(frames.shape[1]):
        here = slice(t, t + 1)
        output, state = net(low[:, here] * mask[:, here], mask[:, here], state)
        image.append(charbonnier(output - frames[:, here]))
        previous = low[:, t - 1] if t else before
        if previous is not None:
            assert isinstance(state, StreamState)
            motion.append(charbonnier(backward_warp(previous, state.flow) - low[:, t]))
    terms = {"image": torch.stack(image).mean()}
    if motion:
        terms["motion"] = torch.stack(motion).mean()
    return terms, state


def charbonnier(difference: Tensor) -> Tensor:
    """Mean of sqrt(d² + 1e-6): L1 with a rounded tip."""
    return (difference.square() + 1e-6).sqrt().mean()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear rise, constant, linear fall: the run can be cut short or prolonged at will."""
    rise = (step + 1) / max(config.warmup, 1)
    fall = (config.steps - step) / max(config.cooldown, 1)
    return config.learning_rate * max(0.0, min(1.0, rise, fall))


def export(last: Path, model: Path) -> None:
    """Write the averaged weights of a training checkpoint as a model."""
    tensors, about = checkpoint.read(last)
    config = from_json(TrainConfig, about["config"], source=str(last))
    net = build(PRESETS[config.model])
    net.load_state_dict(_part(tensors, "average."), strict=False)
    provenance = {
        "steps": about["step"],
        "hours": round(about["hours"], 2),
        "train": asdict(config),
    }
    checkpoint.save_model(model, net, provenance)


def _check(config: TrainConfig) -> None:
    least = {"steps": 1, "clip": 1, "chunk": 1, "batch": 1, "workers": 0, "seed": 0}
    for name, value in least.items():
        received = getattr(config, name)
        if received < value:
            raise InputError(f"--{name}: received {received}, expected at least {value}")
    if config.chunk > config.clip:
        raise InputError(
            f"--chunk: received {config.chunk} frames of clips of {config.clip}; "
            "lower it or raise --clip"
        )


def _clips(
    dataset: ClipDataset, config: TrainConfig, accelerator: Accelerator, start: int
) -> Iterator[Clip]:
    """Batches without end; what comes after clip number ``start`` depends on nothing before."""
    share = config.batch
    everyone = share * accelerator.num_processes
    first = start + share * accelerator.process_index

    def indices() -> Iterator[list[int]]:
        at = first
        while True:
            yield list(range(at, at + share))
            at += everyone

    return iter(
        DataLoader(
            dataset,
            batch_sampler=indices(),
            num_workers=config.workers,  # type: ignore[arg-type]
            pin_memory=accelerator.device.type == "cuda",
        )
    )


def _average_gradients(net: Generator, accelerator: Accelerator) -> None:
    # One reduction of everything, instead of a wrapper around the network that would have to
    # know of the several calls that one backward pass goes through.
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    flat = accelerator.reduce(flat, "mean")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _save(
    path: Path,
    net: Generator,
    averaged: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    about: dict[str, Any],
) -> None:
    tensors = {f"net.{name}": p for name, p in net.state_dict().items()}
    tensors |= {f"average.{name}": p for name, p in averaged.items()}
    for name, parameter in net.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam.{key}.{name}"] = value
    checkpoint.write(path, tensors, {"kind": "training", "config": asdict(config), **about})


def _restore(
    path: Path,
    net: Generator,
    averaged: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> tuple[int, int, float]:
    tensors, about = checkpoint.read(path)
    if about.get("kind") != "training" or about["config"]["model"] != config.model:
        raise InputError(f"{path}: expected the training checkpoint of a {config.model!r} run")
    net.load_state_dict(_part(tensors, "net."))
    for name, value in _part(tensors, "average.").items():
        averaged[name].copy_(value)
    for name, parameter in net.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[parameter] = {
            key: tensors[f"adam.{key}.{name}"].to("cpu" if key == "step" else parameter.device)
            for key in keys
        }
    return about["step"], about["next_clip"], about["hours"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _hours_since(started: float) -> float:
    return (time.monotonic() - started) / 3600.0


def _log(run: Path, step: int, hours: float, terms: dict[str, float], config: TrainConfig) -> None:
    row = {"step": step, "hours": round(hours, 4), "learning_rate": learning_rate(step, config)}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row | {k: round(v, 6) for k, v in terms.items()}) + "\n")


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
        disable=not shown or not os.isatty(2),
    )
