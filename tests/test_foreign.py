"""Files of other programs are recognised, and no code in them is run."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import deepfovea
from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.foreign import identify

WEIGHTS = {"body.0.weight": torch.zeros(2, 2), "body.0.bias": torch.zeros(2)}


def saved(content):
    return lambda path: torch.save(content, path)


def legacy(content):
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=False)


def keys(*names):
    return {name: torch.zeros(1) for name in names}


def onnx_file(path):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [1]) for n in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), path)


def optimiser():
    return torch.optim.Adam([nn.Parameter(torch.zeros(1))])


CASES = {
    "basicsr": (saved({"params": WEIGHTS}), "a checkpoint of BasicSR (params) with 2 tensors"),
    "basicsr ema": (
        saved({"params": WEIGHTS, "params_ema": WEIGHTS}),
        "a checkpoint of BasicSR (params_ema) with 2 tensors (body.0.weight",
    ),
    "mmagic": (
        saved({"meta": {"epoch": 1, "mmagic_version": "1.2"}, "state_dict": WEIGHTS}),
        "a checkpoint of MMEngine (mmagic and its kin; state_dict and meta)",
    ),
    "lightning": (
        saved({"pytorch-lightning_version": "2.0", "state_dict": WEIGHTS}),
        "a checkpoint of PyTorch Lightning",
    ),
    "single": (saved({"a": torch.zeros(2)}), "a PyTorch file with 1 tensor (a)"),
    "plain": (saved(WEIGHTS), "a PyTorch file with 2 tensors (body.0.weight, body.0.bias"),
    "plain 2018": (legacy(WEIGHTS), "a PyTorch file with 2 tensors (body.0.weight"),
    "nested": (saved({"epoch": 1, "loss": 0.5}), "a PyTorch file with the keys epoch, loss"),
    "safetensors": (
        lambda path: save_file(WEIGHTS, path, {"format": "pt"}),
        "a safetensors file of another program with 2 tensors (body.0.",
    ),
    "safetensors without metadata": (
        lambda path: save_file(WEIGHTS, path),
        "a safetensors file of another program",
    ),
    "onnx": (onnx_file, "an ONNX file"),
    "module": (saved(nn.Linear(2, 2)), "a pickle of Python objects (torch.nn.modules.linear"),
    "module 2018": (legacy(nn.Linear(2, 2)), "a pickle of Python objects (torch.nn.modules.linear"),
    "module in DataParallel": (saved(nn.DataParallel(nn.Linear(2, 2))), "a pickle of Python"),
    "optimiser": (saved(optimiser()), "a pickled optimiser of PyTorch"),
    "optimiser 2018": (legacy(optimiser()), "a pickled optimiser of PyTorch"),
    "torchscript": (
        lambda path: torch.jit.script(nn.ReLU()).save(path),
        "a TorchScript module",
    ),
    "metric": (saved(torch.zeros(5)), "one tensor of shape (5,), as a logged metric is"),
    "list": (saved([1, 2]), "a PyTorch file with a list"),
    "discriminator": (
        saved(keys("module.input_block.learnable_downsampling.weight", "module.blocks.0.w")),
        "a discriminator of the authors of DeepFovea++",
    ),
    "spectral discriminator": (
        saved(keys("input_block.learnable_downsampling.weight", "final_linear.weight")),
        "a spectral discriminator of the authors of DeepFovea++",
    ),
    "pwc-net": (
        saved(keys("conv1a.0.weight", "conv1aa.0.weight", "dc_conv7.weight")),
        "PWC-Net as NVlabs released it",
    ),
    "first pwc-net": (
        saved(keys("conv1a.0.weight", "conv1b.0.weight", "dc_conv7.weight")),
        "PWC-Net as NVlabs first released it, without the layers conv1aa",
    ),
    "pytorch-pwc": (
        saved(keys("moduleExtractor.moduleOne.0.weight", "moduleRefiner.moduleMain.0.weight")),
        "PWC-Net as the port pytorch-pwc names it",
    ),
    "vgg": (saved(keys("features.0.weight", "classifier.6.weight")), "torchvision such as VGG"),
    "raft": (saved(keys("feature_encoder.conv.weight", "update_block.w")), "RAFT of torchvision"),
    "ours, bare": (
        saved(keys("encoder.0.conv1.weight", "decoder.0.w", "super_resolution.0.w")),
        "the bare state dict of a U-Net of this package",
    ),
    "git lfs": (
        lambda path: path.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8"
        ),
        "a pointer of Git LFS",
    ),
    "web page": (
        lambda path: path.write_text("\n<!DOCTYPE html>\n<HTML>", encoding="utf-8"),
        "a web page",
    ),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "an HDF5 file"),
    "array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "a NumPy array"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), "an archive of NumPy arrays"),
}


def one_line(error):
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    return str(error.value)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_it_is_named_wherever_a_model_is_expected(tmp_path, capsys, case, name):
    make, what = CASES[case]
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError) as error:
        deepfovea.load(path)
    message = one_line(error)
    assert f"{path}: received " in message and what in message
    assert "expected a .safetensors file written by deepfovea" in message
    # The converter accepts only the authors' generators, and describes others in the same way.
    assert main(["convert", str(path), "-o", str(tmp_path / "out.safetensors")]) == 2
    said = capsys.readouterr().err
    assert what in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_model_of_ours_is_not_foreign(tmp_path):
    path = tmp_path / "model.safetensors"
    deepfovea.save_model(path, deepfovea.load("stream"), {})
    assert identify(path) is None


def test_classes_are_named_and_no_code_is_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was run",)

    for number, write in enumerate((saved, legacy, None)):
        path = tmp_path / f"{number}.pt"
        if write:
            write({"payload": Payload(), **WEIGHTS})(path)
        else:
            path.write_bytes(pickle.dumps(Payload()))
        found = identify(path)
        assert "pickle of Python objects (pathlib" in found.what
        assert main(["convert", str(path), "-o", str(tmp_path / "m.safetensors")]) == 2
    assert not (tmp_path / "was run").exists()


def test_a_checkpoint_of_mmengine_with_objects_in_it(tmp_path):
    """The message hub in it is an object of a class that is not installed here."""
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n)R.")
    assert "MMEngine" in identify(path).what


def test_anything_is_survived(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(WEIGHTS, path)
    whole, draw = path.read_bytes(), random.Random(0)
    contents = [whole[:length] for length in range(0, len(whole), 97)]
    contents += [draw.randbytes(draw.randrange(200)) for _ in range(100)]
    contents += [start + draw.randbytes(40) for start in (b"\x80\x02", b"PK\x03\x04", b"\x08\x07")]
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        contents.append(bytes(damaged))
    for content in contents:
        path.write_bytes(content)
        identify(path)
        with pytest.raises(InputError):
            deepfovea.load(path)
    assert identify(tmp_path) is None
    assert identify(tmp_path / "missing") is None
