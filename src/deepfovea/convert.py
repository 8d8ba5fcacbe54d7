"""Converts checkpoints of the authors of DeepFovea++ (Reich, Memmel, Grebe 2020) to our models.

Their files are state dicts that ``torch.save`` wrote (``generator_network_EPOCH.pt``). Each of
their parameters has a counterpart here; the configuration follows from the shapes. The names and
shapes are those that ``results/*/metrics/hyperparameter.txt`` of their repository prints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .config import InputError
from .foreign import AUTHORS_GENERATOR, UNREADABLE, load_pickle, refuse, unwrap
from .generators.unet.net import PAPER_RELEASED, RecurrentUNet

_NAMES = {
    "encoder_blocks": (
        "encoder",
        {"layer.0": "conv1", "layer.2": "conv2", "residual_mapping": "shortcut"},
    ),
    "decoder_blocks": (
        "decoder",
        {
            "convolution_1": "conv1",
            "layer_norm": "norm",
            "convolution_2": "conv2",
            "residual_mapping": "shortcut",
        },
    ),
    "super_resolution_blocks": (
        "super_resolution",
        {
            "layers.0.conv_offset_mask": "conv1.offset_and_mask",
            "layers.0": "conv1",
            "layers.3.conv_offset_mask": "conv2.offset_and_mask",
            "layers.3": "conv2",
            "residual_mapping.0": "shortcut",
            "output_layer.conv_offset_mask": "conv3.offset_and_mask",
            "output_layer": "conv3",
        },
    ),
}
"""The authors' names of blocks and layers, with our names."""

_EXPECTED = f"{AUTHORS_GENERATOR}: the state dict in generator_network_*.pt"


def convert(path: Path, *, zero_state: bool = False) -> tuple[RecurrentUNet, dict[str, Any]]:
    """Read the network from one of the authors' checkpoints.

    Args:
        path: a file by ``torch.save``, or a safetensors file with the same tensors. No code in it
            is run.
        zero_state: start videos with zeros instead of noise from N(0, 0.02²).

    Returns:
        The network, with float32 weights, and its provenance. Runs on several GPUs lost the
        parameters of the normalisation and used a gain of 1 and a bias of 0. A network from a file
        without these parameters does the same and takes frames of any size;
        ``provenance["normalisation"]`` says so.

    Raises:
        InputError: the file is missing or of another kind.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {_EXPECTED}")
    theirs = _read(path)
    config = replace(PAPER_RELEASED, **_numbers(theirs, path))
    if zero_state:
        config = replace(config, first_state_std=0.0)
    ours = {_our_name(name, path): tensor.float() for name, tensor in theirs.items()}
    network = RecurrentUNet(config)
    wanted = network.state_dict()
    if not config.norm_size:  # a gain of 1 and a bias of 0
        ours |= {name: tensor for name, tensor in wanted.items() if ".norm." in name}
    wrong = sorted(
        name
        for name in wanted | ours
        if name not in wanted or name not in ours or wanted[name].shape != ours[name].shape
    )
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} parameters are missing, unknown or of another shape than the "
            f"published code gives them, as {_their_name(wrong[0])}; expected {_EXPECTED}"
        )
    infinite = [name for name, tensor in ours.items() if not tensor.isfinite().all()]
    if infinite:
        raise InputError(
            f"{path}: {_their_name(infinite[0])} is not finite; the training diverged, take the "
            "checkpoint of an earlier epoch"
        )
    network.load_state_dict(ours)
    normalisation = (
        "a gain and bias for every value of frames of {}x{}, from the file".format(
            *config.norm_size
        )
        if config.norm_size
        else "not in the file: gain 1 and bias 0, as computed on several GPUs; frames of any size"
    )
    return network.eval(), {
        "converted_from": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "authors": "Reich, Memmel, Grebe 2020",
        "normalisation": normalisation,
        "first_state": f"noise of deviation {config.first_state_std:g}"
        if config.first_state_std
        else "zeros",
    }


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read the authors' tensors by name, from any kind of file that may hold them."""
    try:
        content = load_file(path)
    except (SafetensorError, *UNREADABLE):
        try:
            content = load_pickle(path)
        except UNREADABLE:
            raise refuse(path, _EXPECTED, "not a checkpoint of PyTorch") from None
    tensors = unwrap(content)[1] if isinstance(content, Mapping) else {}
    if not all(any(name.startswith(f"{block}.") for name in tensors) for block in _NAMES):
        raise refuse(path, _EXPECTED, "another checkpoint")
    return tensors


def _numbers(theirs: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The fields of the configuration, which follow from the shapes."""

    def channels(pattern: str) -> tuple[int, ...]:
        found: list[int] = []
        while (name := pattern.format(len(found))) in theirs:
            found.append(theirs[name].shape[0])
        return tuple(found)

    decoder = channels("decoder_blocks.{}.convolution_1.weight")
    super_resolution = channels("super_resolution_blocks.{}.layers.3.weight")
    last = f"super_resolution_blocks.{len(super_resolution) - 1}.output_layer."
    norms = [name for name in theirs if ".layer_norm." in name]
    finest = theirs.get(f"decoder_blocks.{len(decoder) - 1}.layer_norm.weight")
    first = theirs.get("encoder_blocks.0.layer.0.weight")
    if first is None or first.ndim != 4 or (norms and (finest is None or finest.ndim != 3)):
        raise InputError(f"{path}: parameters are missing from it; expected {_EXPECTED}")
    return {
        "frames_per_step": first.shape[1] // 3,
        "encoder": channels("encoder_blocks.{}.layer.2.weight"),
        "decoder": decoder,
        "super_resolution": super_resolution,
        "norm_size": () if finest is None else tuple(2 * side for side in finest.shape[1:]),
        "final_deform_conv": any(name.startswith(last) for name in theirs),
    }


def _our_name(theirs: str, path: Path) -> str:
    """decoder_blocks.0.layer_norm.weight -> decoder.0.norm.weight."""
    block, _, rest = theirs.partition(".")
    number, _, rest = rest.partition(".")
    layer, _, kind = rest.rpartition(".")
    ours, layers = _NAMES.get(block, ("", {}))
    if layer not in layers:
        raise InputError(f"{path}: received the parameter {theirs!r:.100}; expected {_EXPECTED}")
    return f"{ours}.{number}.{layers[layer]}.{kind}"


def _their_name(ours: str) -> str:
    """The authors' name of one of our parameters, for messages."""
    block, number, rest = ours.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    for theirs, (name, layers) in _NAMES.items():
        for their_layer, our_layer in layers.items():
            if (name, our_layer) == (block, layer):
                return f"{theirs}.{number}.{their_layer}.{kind}"
    return ours
