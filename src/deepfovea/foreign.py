"""Identify files of other programs, without running code from them.

Weights come in many wrappers under the same few suffixes. If a user gives the wrong one, the error
says which one it is, and what to do.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .config import InputError
from .wording import pluralize


class Foreign(NamedTuple):
    """A clause that says what a file is, and one that says what to do with it."""

    what: str
    advice: str


AUTHORS_GENERATOR = "a generator of the authors of DeepFovea++ (Reich, Memmel, Grebe 2020)"

_NOT_OURS = "it is another network; 'deepfovea convert' reads those of the authors of DeepFovea++"
_FLOW = "it estimates optical flow for training: give it with --flow-weights"

_NETWORKS = (
    (
        ("encoder_blocks.", "decoder_blocks.", "super_resolution_blocks."),
        AUTHORS_GENERATOR,
        "convert it once: deepfovea convert FILE -o model.safetensors",
    ),
    (
        ("input_block.learnable_downsampling.", "final_linear."),
        "a spectral discriminator of the authors of DeepFovea++",
        "only their generator_network_*.pt can be converted",
    ),
    (
        ("input_block.learnable_downsampling.",),
        "a discriminator of the authors of DeepFovea++",
        "only their generator_network_*.pt can be converted",
    ),
    (
        ("conv1a.", "conv1aa.", "dc_conv7."),
        "PWC-Net as NVlabs released it (keys conv1a, dc_conv7)",
        _FLOW,
    ),
    (
        ("conv1a.", "dc_conv7."),
        "PWC-Net as NVlabs first released it, without the layers conv1aa to conv6aa",
        "take the later pwc_net.pth.tar",
    ),
    (
        ("encoder.layers.", "decoder.flow_decoder."),
        "PWC-Net as MMFlow names it, which wants RGB and another scale",
        "take pwc_net.pth.tar of NVlabs",
    ),
    (
        ("moduleExtractor.", "moduleRefiner."),
        "PWC-Net as the port pytorch-pwc names it (keys moduleExtractor)",
        _FLOW,
    ),
    (
        ("netExtractor.", "netRefiner."),
        "PWC-Net as the port pytorch-pwc names it (keys netExtractor)",
        _FLOW,
    ),
    (("feature_encoder.", "update_block."), "RAFT of torchvision", _FLOW),
    (
        ("fnet.", "cnet.", "update_block."),
        "RAFT as its authors name it",
        "--flow-weights reads RAFT of torchvision",
    ),
    (
        ("features.", "classifier."),
        "a network of torchvision such as VGG",
        "VGG-19 judges images in training: give it with --perceptual-weights",
    ),
    (
        ("encoder.", "decoder.", "super_resolution."),
        "the bare state dict of a U-Net of this package",
        "write it with deepfovea.save_model, which stores its configuration too",
    ),
)
"""Prefixes of keys, the network that has them, and what to do; the first entry that fits counts."""

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", _NOT_OURS),
    (b"\x93NUMPY", "a NumPy array", _NOT_OURS),
    (b"GGUF", "a GGUF file", _NOT_OURS),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"<?xml", "an XML file, as OpenVINO keeps its networks", "give the model it was made of"),
)

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of files of torch.save before PyTorch 1.6: the pickled number
0x1950a86a20f9469cfc6c."""

_PLAIN_MODULES = ("torch", "collections", "numpy", "builtins", "__builtin__", "_codecs", "copyreg")
"""The modules whose classes and functions a checkpoint of plain data needs."""

_MAX_PICKLE_BYTES = 2**26  # that are read; our choice, names of tensors take far less

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
)
"""The exceptions that reading a file with arbitrary content may raise."""


def stand_in(head: bytes) -> Foreign | None:
    """What lies in the place of a file that was not fetched; None if its first bytes are others."""
    if head.startswith(b"version https://git-lfs"):
        return Foreign("a pointer of Git LFS instead of the file", "run: git lfs pull")
    if head.lstrip()[:1] == b"<" and b"<html" in head.lower():
        return Foreign("a web page", "download the file itself ('raw'), not the page that shows it")
    return None


def identify(path: Path) -> Foreign | None:
    """Recognise a file of another program; None if its kind is not known here.

    No code in the file is run: pickles are read with ``weights_only=True``, and if that fails, only
    the names of their classes are read.
    """
    try:
        return _identify(path)
    except UNREADABLE:
        return None


def _identify(path: Path) -> Foreign | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return Foreign("an empty file", "fetch it again")
    if instead := stand_in(head):
        return instead
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            return Foreign(what, advice)
    if head[257:262] == b"ustar":
        return Foreign("a tar archive", "unpack it first")
    if head[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if _is_torchscript(path):
            return Foreign("a TorchScript module", _NOT_OURS)
        if any(name.endswith(".npy") for name in names):
            return Foreign("an archive of NumPy arrays", _NOT_OURS)
        if not any(name.endswith("data.pkl") for name in names):
            return Foreign("a ZIP archive", "unpack it first")
        return _identify_pickle(path)
    if head[:1] == b"\x80" and head[1] in range(2, 6):
        return _identify_pickle(path)
    if _is_onnx(head):
        return Foreign("an ONNX file", "give the model it was exported from")
    return _identify_safetensors(path, size)


def _is_onnx(head: bytes) -> bool:
    """A ModelProto: field 1, the version, 1 to 30, and then another of its fields (2 to 8)."""
    return head[:1] == b"\x08" and 1 <= head[1] <= 30 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def _identify_safetensors(path: Path, size: int) -> Foreign | None:
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > min(size - 8, _MAX_PICKLE_BYTES):
            return None
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    if not header or "deepfovea" in metadata:
        return None
    if not all("data_offsets" in tensor for tensor in header.values()):
        return None
    what, advice = name_network(header)
    return Foreign(f"a safetensors file of another program with {what}", advice)


def _identify_pickle(path: Path) -> Foreign:
    try:
        content = load_pickle(path)
    except pickle.UnpicklingError:
        return _identify_objects(path)
    if isinstance(content, Tensor):
        what = f"one tensor of shape {tuple(content.shape)}, as a logged metric is"
        return Foreign(f"a PyTorch file with {what}", "give a model")
    if not isinstance(content, Mapping):
        return Foreign(f"a PyTorch file with a {type(content).__name__}", "give a model")
    wrapper, tensors = unwrap(content)
    if not tensors:
        return Foreign(f"a PyTorch file with the keys {_first(content)}", _NOT_OURS)
    what, advice = name_network(tensors)
    return Foreign(f"{wrapper} with {what}", advice)


def _identify_objects(path: Path) -> Foreign:
    """Describe a pickle that needs code by the names of its classes, without loading them."""
    found = [name for name in pickled_globals(path) if name.split(".")[0] not in _PLAIN_MODULES]
    if any(name.split(".")[0] in ("mmengine", "mmcv", "mmagic", "mmedit") for name in found):
        return Foreign("a checkpoint of MMEngine (mmagic and its kin)", _NOT_OURS)
    if not found and any("torch.optim" in name for name in pickled_globals(path)):
        return Foreign("a pickled optimiser of PyTorch", "give a generator_network_*.pt")
    found = found or [name for name in pickled_globals(path) if name.startswith("torch.nn")]
    classes = f" ({', '.join(found[:3])})" if found else ""
    return Foreign(
        f"a pickle of Python objects{classes:.120}, which only runs with the code that made it",
        "where that code is and the file is trusted, write its weights alone: "
        "torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pt')",
    )


def load_pickle(path: Path) -> Any:
    """Read a file of ``torch.save``, in either of its formats, to the CPU; runs no code of it.

    Raises:
        pickle.UnpicklingError: it contains more than tensors and plain values.
        Exception: one of :data:`UNREADABLE`, if it is another kind of file.
    """
    if _is_torchscript(path):  # torch.load would pass it to torch.jit.load
        raise pickle.UnpicklingError("a TorchScript module")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about pickles of other programs
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("/code/" in name or name.endswith("/constants.pkl") for name in names)


def pickled_globals(path: Path) -> list[str]:
    """The names of the classes and functions in a pickle, in order; none is loaded."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                stream = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    else:
        with path.open("rb") as raw:
            stream = io.BytesIO(raw.read(_MAX_PICKLE_BYTES))
    # Before PyTorch 1.6 a magic number, a version and facts about the machine came first.
    legacy = stream.getvalue().startswith(_LEGACY_TORCH)
    found: list[str] = []
    for _ in range(4 if legacy else 1):
        texts: list[str] = []
        for operation, argument, _position in pickletools.genops(stream):
            if operation.name == "GLOBAL":
                found.append(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    return list(dict.fromkeys(found))


def unwrap(content: Mapping[Any, Any]) -> tuple[str, dict[str, Tensor]]:
    """Name the kind of checkpoint that a dictionary is, and return its tensors by name.

    The prefix ``module.``, which DataParallel adds to every name, is removed.
    """
    wrapper, inner = "a PyTorch file", content
    for key, said in (
        ("params_ema", "a checkpoint of BasicSR (params_ema)"),
        ("params", "a checkpoint of BasicSR (params)"),
        ("state_dict", "a checkpoint (state_dict)"),
        ("model_state_dict", "a checkpoint (model_state_dict)"),
        ("model", "a checkpoint (model)"),
        ("generator", "a checkpoint (generator)"),
    ):
        if isinstance(content.get(key), Mapping):
            wrapper, inner = said, content[key]
            break
    if inner is not content and "meta" in content:
        wrapper = "a checkpoint of MMEngine (mmagic and its kin; state_dict and meta)"
    elif any(str(key).startswith("pytorch-lightning") for key in content):
        wrapper = "a checkpoint of PyTorch Lightning (state_dict)"
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return wrapper, tensors


def name_network(names: Iterable[str]) -> Foreign:
    """Recognise a network by the names of its parameters."""
    names = list(names)
    while names and all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    for prefixes, what, advice in _NETWORKS:
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return Foreign(what, advice)
    return Foreign(f"{pluralize(len(names), 'tensor')} ({_first(names)})", _NOT_OURS)


def refuse(path: Path, expected: str, otherwise: str) -> InputError:
    """Make the error for a file of another kind than expected.

    Args:
        path: path of the file.
        expected: the expected kind.
        otherwise: the description of a file that :func:`identify` does not recognise.
    """
    foreign = identify(path)
    if foreign is None:
        return InputError(f"{path}: {otherwise}; expected {expected}")
    advice = foreign.advice.replace("FILE", path.name)
    return InputError(f"{path}: received {foreign.what}; expected {expected}; {advice}")


def _first(names: Iterable[Any]) -> str:
    first, more = list(names)[:3], list(names)[3:]
    return ", ".join([f"{name!s:.60}" for name in first] + ["…"] * bool(more))
