"""Models in one safetensors file: weights, configuration and provenance, checked by a hash.

Nothing is pickled or unpickled.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from .config import InputError, did_you_mean, from_json
from .foreign import refuse
from .generators import NETWORKS, PRESETS, Config, Network, Preset
from .io.atomic import atomic_write

FORMAT = 1  # version of the metadata; files of other versions are refused
WEIGHTS = Path(__file__).parent / "weights"

_MAX_HEADER_BYTES = 2**20  # our choice; the longest header that training writes has 94 kB
_MAX_AXES = 8  # of a tensor; our choice, a 3-D convolution has 5
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}
_BYTES |= {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Bytes per value, by safetensors' names of types."""
_UNREADABLE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    MemoryError,
    SafetensorError,
    OSError,
)


def bundled_models() -> list[str]:
    """Names of the presets whose trained weights are part of the package."""
    return sorted(
        name for name, preset in PRESETS.items() if (path := _weights(preset)) and path.is_file()
    )


def _weights(preset: Preset) -> Path | None:
    return WEIGHTS / preset.weights if preset.weights else None


def load(model: str | Path, device: str | torch.device = "cpu") -> Network:
    """Load a trained generator (evaluation mode, float32).

    Args:
        model: a name from :func:`bundled_models`, or the path of a ``.safetensors`` file.
        device: the device to load it to.

    Raises:
        InputError: the name is unknown, or the file is missing, damaged or of another kind.
    """
    network, _ = load_with_provenance(model)
    return network.to(device).eval()


def load_with_provenance(model: str | Path) -> tuple[Network, dict[str, Any]]:
    """As :func:`load`, and also return the provenance in the file (empty if there is none)."""
    path = resolve_path(model)
    tensors, metadata = read(path)
    if metadata.get("kind") == "training" and isinstance(metadata.get("generator"), dict):
        tensors, metadata = _ema_generator(tensors, metadata)
    if metadata.get("kind") != "generator":
        raise InputError(
            f"{path}: received a file of kind {metadata.get('kind')!r:.100}; expected a "
            "model, or a checkpoint of a training run"
        )
    kind = metadata.get("network")
    network_type = NETWORKS.get(kind) if isinstance(kind, str) else None
    if network_type is None:
        raise InputError(
            f"{path}: received a network of type {kind!r:.100}; expected "
            f"{' or '.join(map(repr, NETWORKS))}; a newer deepfovea may know it"
        )
    config = cast(
        Config, from_json(network_type.config_type, metadata.get("config"), source=str(path))
    )
    preset = Preset(network_type, config, None, str(path))
    try:
        # First without memory, so that a configuration that does not fit allocates nothing.
        with torch.device("meta"):
            shapes = {name: t.shape for name, t in preset.build().state_dict().items()}
        if shapes != {name: t.shape for name, t in tensors.items()}:
            raise RuntimeError("other names or shapes")
        network = preset.build()
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: the weights do not fit the configuration stored beside them ({reason}); "
            "use the file as it was written"
        ) from None
    provenance = metadata.get("provenance")
    return network, provenance if isinstance(provenance, dict) else {}


def _ema_generator(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights of a training run's checkpoint, as a model."""
    weights = {name[4:]: tensor for name, tensor in tensors.items() if name.startswith("ema.")}
    provenance = {"steps": metadata.get("step"), "checkpoint of a run": True}
    return weights, {**metadata["generator"], "kind": "generator", "provenance": provenance}


def describe(model: str | Path, height: int = 192, width: int = 256) -> dict[str, Any]:
    """Describe a model: its network, its cost, its configuration and its provenance.

    Args:
        model: as for :func:`load`.
        height: h of the low-resolution frame for which the cost is computed.
        width: w of that frame.

    Returns:
        Names and values: for a preset its summary and source; file, network, parameters, scale,
        frames per step, multiply-adds per frame (convolutions and matrix products, counted by
        PyTorch), configuration, provenance.
    """
    network, provenance = load_with_provenance(model)
    path = resolve_path(model)
    scale = network.scale
    macs = multiply_adds(network, height, width)
    preset = PRESETS.get(str(model))
    return {
        **({"summary": preset.summary, "source": preset.source} if preset else {}),
        "file": f"{path} ({path.stat().st_size / 2**20:.2f} MiB)",
        "network": type(network).__name__,
        "parameters": sum(p.numel() for p in network.parameters()),
        "scale": scale,
        "frames per step": network.frames_per_step,
        f"multiply-adds per frame, {height}x{width} -> {scale * height}x{scale * width}": (
            f"{macs / 1e9:.2f} G"
        ),
        **{f"config: {key}": value for key, value in asdict(network.config).items()},
        **{f"provenance: {key}": value for key, value in provenance.items()},
    }


def multiply_adds(network: Network, height: int, width: int) -> float:
    """Multiply-adds per frame h × w, of convolutions and matrix products, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode  # here, as it imports Triton

    network = copy.deepcopy(network).to("meta")  # shapes alone, without computing values
    samples = torch.empty(1, network.frames_per_step, 3, height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(samples, samples[:, :, :1])
    flops: int = counter.get_total_flops()
    return flops / 2 / network.frames_per_step


def resolve_path(model: str | Path) -> Path:
    """The file of a model, given its name or path.

    Raises:
        InputError: there is no such model or file.
    """
    if str(model) in bundled_models():
        return WEIGHTS / str(PRESETS[str(model)].weights)
    path = Path(model)
    with contextlib.suppress(OSError):  # the name is too long for a path
        if path.is_file():
            return path
    if path.suffix or len(path.parts) > 1:
        raise InputError(
            f"{path}: no such file; expected a .safetensors file or one of "
            f"{', '.join(bundled_models())}"
        )
    hint = (
        f"its weights do not come with the package: train it with "
        f"'deepfovea train --model {model}' and give the path of its model.safetensors"
        if str(model) in PRESETS
        else f"expected {', '.join(bundled_models())} or the path of a .safetensors file"
        + did_you_mean(str(model), bundled_models())
    )
    raise InputError(f"unknown model {str(model)[:80]!r}: {hint}")


def architecture(network: Network) -> dict[str, Any]:
    """The metadata that describes a network: its type and its configuration."""
    return {"network": network.kind, "config": asdict(network.config)}


def save_model(
    path: Path,
    network: Network,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the weights and the configuration of a generator to a file, atomically.

    Args:
        path: the file, which ends in ``.safetensors``.
        network: the generator.
        provenance: how it was trained (data, time, command), as JSON values.
        dtype: type of the weights in the file.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    write(
        path,
        tensors,
        {
            "kind": "generator",
            **architecture(network),
            "provenance": dict(provenance),
        },
    )


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON description under a temporary name, then rename.

    Raises:
        InputError: the file cannot be written (an existing one stays as it is).
    """
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    description = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    header = {"deepfovea": description, "sha256": _digest(contiguous, description)}
    try:
        # Not by safetensors' own function, whose files only their owner can read.
        with atomic_write(path) as file:
            file.write(save(contiguous, header))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}); choose a folder with space and write permission"
        ) from None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the description from a file that :func:`write` made.

    Even for a malicious file, nothing larger than the file is allocated, except for parsing its
    header of at most 1 MiB.

    Raises:
        InputError: the file is damaged or of another kind.
    """
    reason = ""
    try:
        with path.open("rb") as file:  # only once, as a training run may replace the file
            size = os.fstat(file.fileno()).st_size
            texts = _header(file, size)["__metadata__"]
            metadata = json.loads(texts["deepfovea"], object_pairs_hook=_distinct)
            if metadata["format"] != FORMAT:
                raise InputError(
                    f"{path}: received format {metadata['format']!r:.100}, expected {FORMAT}; "
                    "a newer deepfovea may read it"
                )
            file.seek(0)
            tensors = load_tensors(file.read(size))
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    if reason:  # outside the handler, which would keep the parsed parts in memory
        expected = "a .safetensors file written by deepfovea"
        raise refuse(path, expected, f"cannot be read ({reason})")
    if texts.get("sha256") != _digest(tensors, texts["deepfovea"]):
        raise InputError(f"{path}: damaged (its hash does not match); fetch or train it again")
    return tensors, metadata


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    """Read and check the header of a file of this size, before memory for tensors is allocated.

    safetensors checks most of this, too, but which checks it makes depends on its version.

    Raises:
        ValueError, KeyError or TypeError: the header is invalid, or lacks our description.
    """
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > size - 8:
        raise ValueError("its header is longer than the file")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, at most {_MAX_HEADER_BYTES} are read")
    header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_distinct)
    texts = header["__metadata__"]
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("no description inside")
    spans = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        shape, offsets = tensor["shape"], tensor["data_offsets"]
        numbers = [*shape, *offsets]
        if len(shape) > _MAX_AXES or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"tensor {name!r:.80} has an impossible shape or place")
        begin, end = offsets
        if tensor.keys() - {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r:.80} has unknown properties")
        if math.prod(shape) * _BYTES[tensor["dtype"]] != end - begin:
            raise ValueError(f"tensor {name!r:.80} has a shape that does not fit its bytes")
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError("its tensors overlap, or leave bytes between them")
        reached = end
    if reached != size - 8 - length:
        raise ValueError("its tensors end before or after the end of the file")
    return header


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of a JSON object; refuse repeated keys, which readers treat differently."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name in it comes twice")
    return values


def _digest(tensors: Mapping[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
