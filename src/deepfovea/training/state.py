"""The state of a training run as plain values: how it is made, saved and restored."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..config import FIXED_ON_RESUME, InputError, TrainConfig, expected_one_of, from_json
from ..generators import PRESETS, Network, Preset
from ..losses.terms import (
    DISCRIMINATORS,
    LOW_RESOLUTION_TERMS,
    loss_weights,
    make_loss_modules,
    no_low_frames,
)
from .chunks import START, Position
from .muon import Muon

_log = logging.getLogger(__name__)

State = Any
"""The recurrent state of a generator: a NamedTuple of tensors."""


@dataclass
class TrainingState:
    """The state of a run: exactly what a checkpoint contains."""

    net: Network
    loss_modules: nn.ModuleDict
    """Parameters of losses and discriminators, by the name of their term."""
    ema: dict[str, Tensor]
    """Exponential moving averages of the generator's parameters."""
    optimizers: dict[str, torch.optim.Adam]
    """The generator's optimiser, and one for each discriminator by the name of its term."""
    scaler: torch.amp.GradScaler
    """Scales losses against underflow in half precision."""
    state: State | None = None
    """The recurrent state after the last chunk, without a graph."""
    step: int = 0
    position: Position = START
    hours: float = 0.0
    logged: int = 0
    """The step of the last row of metrics."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the metrics since then, by name."""


def init_run(
    config: TrainConfig,
    device: torch.device,
    start_from: str | Path | None = None,
    *,
    preset: Preset | None = None,
) -> TrainingState:
    """Make the state of a run before its first step; the seed decides all weights.

    Args:
        config: the configuration.
        device: the device of all tensors.
        start_from: the name or path of a model whose weights the generator starts with.
        preset: a preset to use instead of ``config.model``.

    Raises:
        InputError: a model is unknown, or ``start_from`` does not fit ``config.model``.
    """
    if config.model not in PRESETS:
        raise InputError(
            f"--model: received {config.model!r}, {expected_one_of(config.model, PRESETS)}"
        )
    torch.manual_seed(config.seed)
    net = (preset or PRESETS[config.model]).build()
    # Without kernels that start at zero, as the offsets of deformable convolutions: Muon would
    # change them too fast.
    kernels = [p for p in net.parameters() if p.ndim == 4 and bool(p.any())]
    if config.chunk % net.frames_per_step:
        raise InputError(
            f"--chunk: received {config.chunk} frames, but {config.model!r} takes "
            f"{net.frames_per_step} at a time; expected a multiple of that"
        )
    if start_from is not None:
        begun = checkpoint.load(start_from)
        weights, shapes = begun.state_dict(), {k: v.shape for k, v in net.state_dict().items()}
        if type(begun) is not type(net) or any(
            shapes.get(name) != tensor.shape for name, tensor in weights.items()
        ):
            raise InputError(
                f"--start-from: received {start_from}, weights of another network than "
                f"{config.model!r}; expected some that fit, or another --model"
            )
        new = sorted(shapes.keys() - weights.keys())
        if new:
            _log.warning("--start-from %s: it lacks %s, which begin untrained", start_from, new)
        net.load_state_dict(weights, strict=False)
    names = loss_weights(config.losses)
    for name in LOW_RESOLUTION_TERMS:
        if name in names and not net.makes_low_frames:
            raise InputError(no_low_frames(name))
    loss_modules = make_loss_modules(names, config.discriminator_channels)
    fast = is_gpu(device)
    for module in (net, loss_modules):
        module.to(device)
    if fast:  # the discriminators have kernels in space and time, for which there is no such layout
        net.to(memory_format=torch.channels_last)
    discriminators = {
        name: list(loss_modules[name].parameters())
        for name in DISCRIMINATORS
        if name in loss_modules
    }
    of_discriminators = {id(p) for group in discriminators.values() for p in group}
    rest = [p for p in loss_modules.parameters() if id(p) not in of_discriminators]
    groups = {"generator": [*net.parameters(), *rest], **discriminators}
    optimizers = {
        name: torch.optim.Adam(group, learning_rates(config)[name], betas=config.betas, fused=fast)
        for name, group in groups.items()
    }
    if config.optimizer == "muon":
        by_muon = {id(kernel) for kernel in kernels}
        others = [p for p in groups["generator"] if id(p) not in by_muon]
        optimizers["generator"] = Muon(
            kernels, others, config.learning_rate, config.betas, fused=fast
        )
    for optimizer in optimizers.values():  # moments, which Adam would make at its first step
        for group in optimizer.param_groups:
            kept = ("exp_avg",) if group.get("orthogonal") else ("exp_avg", "exp_avg_sq")
            for parameter in group["params"]:
                moments = {key: torch.zeros_like(parameter) for key in kept}
                count = torch.zeros((), device=parameter.device if fast else "cpu")
                optimizer.state[parameter] = {"step": count, **moments}
    return TrainingState(
        net=net,
        loss_modules=loss_modules,
        ema={name: p.detach().clone() for name, p in net.named_parameters()},
        optimizers=optimizers,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
    )


def is_gpu(device: torch.device) -> bool:
    """Whether to train with weights in the layout channels-last and with fused optimisers.

    Both are meant for CUDA, where neither was measured yet. On a CPU a fused optimiser rounds
    differently.
    """
    return device.type == "cuda"


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimiser."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def learning_rates(config: TrainConfig) -> dict[str, float]:
    """The full learning rate of each optimiser."""
    discriminators = dict.fromkeys(DISCRIMINATORS, config.discriminator_learning_rate)
    return {"generator": config.learning_rate, **discriminators}


def run_tensors(training: TrainingState) -> dict[str, Tensor]:
    """All tensors of a run by name, except the recurrent state and the random number state."""
    parts: dict[str, Tensor] = {f"net.{k}": v for k, v in training.net.state_dict().items()}
    parts |= {f"ema.{k}": v for k, v in training.ema.items()}
    parts |= {f"loss_modules.{k}": v for k, v in training.loss_modules.state_dict().items()}
    moments = {p: kept for o in training.optimizers.values() for p, kept in o.state.items()}
    for name, parameter in _parameters(training).items():
        parts |= {f"adam.{key}.{name}": value for key, value in moments[parameter].items()}
    return parts


def _parameters(training: TrainingState) -> dict[str, nn.Parameter]:
    named = dict(training.net.named_parameters())
    return named | {f"loss_modules.{k}": p for k, p in training.loss_modules.named_parameters()}


def last_checkpoint(run: Path) -> Path:
    """The path of the checkpoint from which a run is resumed."""
    return run / "checkpoints" / "last.safetensors"


def save_checkpoint(
    path: Path, training: TrainingState, config: TrainConfig, global_batch: int, state: Any
) -> None:
    """Write a checkpoint; an existing one stays until the new one is complete.

    Args:
        path: path of the file.
        training: the run.
        config: its configuration.
        global_batch: clips per step of all processes.
        state: the recurrent state for all these clips, None if there is none.
    """
    everything = run_tensors(training) | {"rng.cpu": torch.get_rng_state()}
    if state is not None:
        everything |= {f"state.{name}": value for name, value in state._asdict().items()}
    if torch.cuda.is_available():
        everything["rng.cuda"] = torch.cuda.get_rng_state()
    metadata = {
        "kind": "training",
        "generator": checkpoint.architecture(training.net),
        "config": asdict(config),
        "step": training.step,
        "next_clip": training.position.clip,
        "chunk": training.position.chunk,
        "global_batch": global_batch,
        "hours": training.hours,
        "logged": training.logged,
        "sums": training.sums,
        "scaler": training.scaler.state_dict(),
    }
    checkpoint.write(path, everything, metadata)


def restore_checkpoint(
    path: Path, training: TrainingState, config: TrainConfig, process: int = 0, processes: int = 1
) -> None:
    """Restore a run, made by :func:`init_run`, from a checkpoint.

    If size or number of the clips have changed, the rest of the current clip is skipped.

    Raises:
        InputError: the file is not a complete checkpoint of such a run.
    """
    found, metadata = checkpoint.read(path)
    if metadata.get("kind") != "training":
        raise InputError(
            f"{path}: received a file of kind {metadata.get('kind')!r:.100}, expected a checkpoint "
            "of a training run; --start-from takes models"
        )
    before = from_json(TrainConfig, metadata.get("config"), source=str(path))
    for name in FIXED_ON_RESUME:
        old, new = getattr(before, name), getattr(config, name)
        if name == "losses":
            old, new = tuple(loss_weights(before.losses)), tuple(loss_weights(config.losses))
        if old != new:
            raise InputError(
                f"--{name.replace('_', '-')}: received {new!r}, but {path} is of a run with "
                f"{old!r}; go on with that, or begin another run"
            )
    wanted = run_tensors(training)
    shapes = {name: found[name].shape for name in wanted.keys() & found.keys()}
    wrong = sorted(name for name, tensor in wanted.items() if shapes.get(name) != tensor.shape)
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} of {len(wanted)} entries are missing or of another shape, the "
            f"first is {wrong[0]!r}; give a complete checkpoint of this run"
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
    try:
        training.step, clip = metadata["step"], metadata["next_clip"]
        training.hours = metadata["hours"]
        chunk, global_batch = metadata["chunk"], metadata["global_batch"]
        training.logged, training.sums = metadata["logged"], metadata["sums"]
        # If the run had no scaler, this is empty, and the scaler keeps its initial scale.
        training.scaler.load_state_dict(metadata["scaler"] or training.scaler.state_dict())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: incomplete ({error}); give a checkpoint as written") from None
    torch.set_rng_state(found["rng.cpu"])
    if "rng.cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(found["rng.cuda"])
    same = global_batch == config.batch * processes
    if not same and config.preprocessing == "published":
        raise InputError(
            f"--batch: received {config.batch} in {processes} processes, but {path} has a "
            f"batch of {global_batch} over all processes; go on with as many"
        )
    sizes = ("clip", "chunk", "crop", "size")
    same = same and all(getattr(before, name) == getattr(config, name) for name in sizes)
    if same:
        device = next(training.net.parameters()).device
        own = slice(process * config.batch, (process + 1) * config.batch)
        kept = {k.removeprefix("state."): v[own] for k, v in found.items() if k[:6] == "state."}
        training.state = _state(training.net, kept, device, path)
        training.position = Position(clip, chunk)
    else:
        training.position = Position(clip + global_batch if chunk else clip)


def _state(
    net: Network, kept: Mapping[str, Tensor], device: torch.device, path: Path
) -> State | None:
    if not kept:
        return None
    kind = type(net.initial_state(torch.zeros(1, 3 * net.frames_per_step, *2 * (net.multiple,))))
    if set(kept) == set(kind._fields):
        return kind(**{name: value.to(device) for name, value in kept.items()})
    raise InputError(
        f"{path}: received a recurrent state of {', '.join(sorted(kept)):.100}; expected "
        f"{', '.join(kind._fields)}: the run may be of a newer deepfovea"
    )


def read_config(path: Path) -> TrainConfig:
    """Read a configuration from a JSON file, without tolerating unknown keys.

    Raises:
        InputError: the file is missing or not JSON, or a key is unknown or a value unusable.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error}); expected a config.json of a run") from None
    return from_json(TrainConfig, values, source=str(path))


def save_ema(path: Path, training: TrainingState, config: TrainConfig, notes: list[str]) -> None:
    """Write the averaged weights as a model, which :func:`deepfovea.load` reads."""
    net = PRESETS[config.model].build()
    net.load_state_dict(training.ema)
    provenance = {
        "steps": training.step,
        "hours": round(training.hours, 2),
        "train": asdict(replace(config, perceptual_weights="", flow_weights="")),
    }
    checkpoint.save_model(path, net, provenance | ({"objective": notes} if notes else {}))
