"""Checkpoints of the authors of DeepFovea++: read, converted, and equal to their network.

The files are made here, by the names and shapes that the authors document (the printed modules in
results/*/metrics/hyperparameter.txt of their repository), and the expected frames come from an
implementation of its own, written from the description of the network and computed with
torchvision's deformable convolution.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from presets import preset_of
from safetensors.torch import save_file
from torchvision.ops import deform_conv2d

import deepfovea
from deepfovea.checkpoint import load_with_provenance
from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.convert import convert
from deepfovea.generators import PRESETS
from deepfovea.generators.unet.net import PAPER, PAPER_RELEASED, RecurrentUNet

ENCODER = [(18, 32), (32, 64), (64, 128), (128, 128), (128, 128)]
DECODER = [(384, 128), (384, 128), (256, 64), (112, 16)]
SUPER_RESOLUTION = [(48, 8), (40, 18)]
"""Input and output channels of the blocks, as documented."""


def shapes(norm_size=None):
    """Names and shapes of their state dict; ``norm_size``: size of the frames in training."""
    found = {}

    def conv(name, before, out, kernel):
        found[f"{name}.weight"] = (out, before, kernel, kernel)
        found[f"{name}.bias"] = (out,)

    for i, (before, out) in enumerate(ENCODER):
        conv(f"encoder_blocks.{i}.layer.0", before, before, 3)
        conv(f"encoder_blocks.{i}.layer.2", before, out, 3)
        if before != out:
            conv(f"encoder_blocks.{i}.residual_mapping", before, out, 1)
    for i, (before, out) in enumerate(DECODER):
        conv(f"decoder_blocks.{i}.convolution_1", before, out, 3)
        if norm_size:
            height, width = (side // 2 ** (4 - i) for side in norm_size)
            found[f"decoder_blocks.{i}.layer_norm.weight"] = (out, height, width)
            found[f"decoder_blocks.{i}.layer_norm.bias"] = (out, height, width)
        conv(f"decoder_blocks.{i}.convolution_2", out, out, 3)
        conv(f"decoder_blocks.{i}.residual_mapping", before, out, 1)
    for i, (before, out) in enumerate(SUPER_RESOLUTION):
        for layer, channels in ((0, before), (3, out)):
            conv(f"super_resolution_blocks.{i}.layers.{layer}", channels, out, 3)
            conv(f"super_resolution_blocks.{i}.layers.{layer}.conv_offset_mask", channels, 27, 3)
        conv(f"super_resolution_blocks.{i}.residual_mapping.0", before, out, 1)
    return found


def checkpoint(norm_size=None, prefix=""):
    """The authors' state dict, with random weights of a usual magnitude."""
    draw = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes(norm_size).items():
        tensor = torch.randn(shape, generator=draw)
        if ".layer_norm." in name:
            tensor = float(name.endswith("weight")) + 0.3 * tensor
        elif name.endswith("bias"):
            tensor *= 0.1
        else:
            tensor *= (shape[1] * shape[2] * shape[3]) ** -0.5
        state[prefix + name] = tensor
    return state


def their_network(state, item, recurrent):
    """Run the authors' network on one item, as their code does.

    Args:
        state: their state dict.
        item: [B, 18, h, w].
        recurrent: four tensors, deepest first.

    Returns:
        [B, 18, 4h, 4w] and the next four tensors.
    """

    def conv(name, x, padding):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def deformable(name, x):
        predicted = conv(f"{name}.conv_offset_mask", x, 1)
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        mask = predicted[:, 18:].sigmoid()
        return deform_conv2d(x, predicted[:, :18], weight, bias, padding=1, mask=mask)

    features, x = [], item
    for i, (before, out) in enumerate(ENCODER):
        name = f"encoder_blocks.{i}"
        y = F.elu(conv(f"{name}.layer.2", F.elu(conv(f"{name}.layer.0", x, 1)), 1))
        x = y + (x if before == out else conv(f"{name}.residual_mapping", x, 0))
        x = F.avg_pool2d(x, 2)
        features.append(x)

    kept, x = [], double(features.pop())
    for i, r in enumerate(recurrent):
        name = f"decoder_blocks.{i}"
        x = torch.cat((x, features[3 - i], r), 1)
        y = conv(f"{name}.convolution_1", x, 1)
        gain, bias = (state.get(f"{name}.layer_norm.{kind}") for kind in ("weight", "bias"))
        y = F.layer_norm(y, y.shape[1:], gain, bias)
        kept.append(y)
        y = F.elu(conv(f"{name}.convolution_2", y, 1))
        x = double(y + conv(f"{name}.residual_mapping", x, 0))

    for i in range(2):
        name = f"super_resolution_blocks.{i}"
        skip = F.interpolate(features[0], x.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat((x, skip), 1)
        y = F.elu(deformable(f"{name}.layers.0", x))
        y = F.elu(deformable(f"{name}.layers.3", double(y)))
        x = y + double(conv(f"{name}.residual_mapping.0", x, 0))
    return x, kept


def items(count=2, height=32, width=64):
    draw = torch.Generator().manual_seed(2)
    mask = (torch.rand(1, 6 * count, 1, height, width, generator=draw) < 0.3).float()
    return torch.rand(1, 6 * count, 3, height, width, generator=draw) * mask, mask


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- parity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("norm_size", [(32, 64), None])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "2018"])
@torch.no_grad()
def test_a_converted_checkpoint_is_their_network(tmp_path, capsys, prefix, norm_size, zipped):
    path, model = tmp_path / "generator_network_14.pt", tmp_path / "model.safetensors"
    torch.save(checkpoint(norm_size, prefix), path, _use_new_zipfile_serialization=zipped)
    code, out, _ = run(capsys, "convert", path, "-o", model)
    assert code == 0
    assert ("are not in the file" in out) == (norm_size is None)

    network, provenance = load_with_provenance(model)
    expected = dataclasses.replace(PAPER_RELEASED, norm_size=norm_size or ())
    assert network.config == expected
    assert provenance["converted_from"] == "generator_network_14.pt"
    theirs = checkpoint(norm_size)
    samples, mask = items()
    recurrent = list(network.initial_state(samples))
    state = None
    for first in (0, 6):
        item = samples[:, first : first + 6]
        frames, state = network(item, mask[:, first : first + 6], state)
        wanted, recurrent = their_network(theirs, item.flatten(1, 2), recurrent)
        torch.testing.assert_close(frames.flatten(1, 2), wanted, rtol=0, atol=2e-5)
        for ours, their in zip(state, recurrent, strict=True):
            torch.testing.assert_close(ours, their, rtol=0, atol=2e-5)
    assert wanted.std() > 0.05  # not a comparison of nothing


@torch.no_grad()
def test_each_of_the_four_differences_changes_the_frames():
    """If any of them is computed as in the paper instead, the frames differ."""
    theirs = checkpoint((32, 64))
    samples, mask = items(1)
    changed = dataclasses.replace(PAPER_RELEASED, norm_size=(32, 64))
    network, _ = convert_state(theirs)
    assert network.config == changed
    frames, _ = network(samples, mask)
    paper = {"recurrent_activation": "elu", "first_state_std": 0.0}
    for field, value in paper.items():
        other = RecurrentUNet(dataclasses.replace(changed, **{field: value}))
        other.load_state_dict(network.state_dict())
        assert (other(samples, mask)[0] - frames).abs().max() > 1e-3, field
    without, _ = convert_state(checkpoint(None))
    assert (without(samples, mask)[0] - frames).abs().max() > 1e-3
    third = RecurrentUNet(dataclasses.replace(changed, final_deform_conv=True))
    assert third.state_dict().keys() - network.state_dict().keys() == {
        f"super_resolution.1.conv3.{name}"
        for name in ("weight", "bias", "offset_and_mask.weight", "offset_and_mask.bias")
    }


def convert_state(state, **options):
    """Convert a state dict without a file of its own."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "generator_network_0.pt")
        return convert(Path(folder) / "generator_network_0.pt", **options)


def test_the_documented_shapes_are_the_preset():
    """192×256 ties 3.32 M parameters; without the normalisation 2,290,362."""
    documented = shapes((192, 256))
    count = sum(torch.Size(shape).numel() for shape in documented.values())
    with torch.device("meta"):
        preset = PRESETS["paper-released"].build()
    assert count == sum(p.numel() for p in preset.parameters()) == 3_322_554
    plain = sum(torch.Size(shape).numel() for shape in shapes().values())
    assert plain == 2_290_362
    network, _ = convert_state({name: torch.ones(shape) for name, shape in documented.items()})
    assert network.config == PRESETS["paper-released"].config == PAPER_RELEASED
    assert {name: t.shape for name, t in network.state_dict().items()} == {
        name: t.shape for name, t in preset.state_dict().items()
    }


def test_weights_keep_all_their_digits(tmp_path, capsys):
    state = checkpoint()
    torch.save(state, tmp_path / "a.pt")
    run(capsys, "convert", tmp_path / "a.pt", "-o", tmp_path / "model.safetensors")
    network = deepfovea.load(tmp_path / "model.safetensors")
    ours = network.state_dict()["encoder.0.conv1.weight"]
    assert torch.equal(ours, state["encoder_blocks.0.layer.0.weight"])


def test_wrapped_state_dicts_and_safetensors_are_read(tmp_path):
    state = checkpoint()
    expected, _ = convert_state(state)
    for name, content in (
        ("state_dict.pth", {"epoch": 3, "state_dict": state}),
        ("model.pt", {"model": state, "optimizer": {}}),
    ):
        torch.save(content, tmp_path / name)
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "same.safetensors")
    for path in tmp_path.iterdir():
        network, _ = convert(path)
        for name, tensor in expected.state_dict().items():
            assert torch.equal(network.state_dict()[name], tensor)


# --- the first state --------------------------------------------------------------------------


def test_the_first_state_is_seeded_noise_and_the_same_every_time():
    with torch.device("meta"):
        network = PRESETS["paper-released"].build()
    samples = torch.zeros(2, 6, 3, 192, 256)
    state = network.initial_state(samples)
    for tensor, again in zip(state, network.initial_state(samples), strict=True):
        assert torch.equal(tensor, again)
        assert torch.equal(tensor[0], tensor[1])  # a video of a batch starts as it would alone
        assert tensor.std().item() == pytest.approx(0.02, rel=0.02)
        assert tensor.mean().abs().item() < 0.0005
    assert not torch.equal(state.r1[0, 0], state.r1[0, 1])
    torch.manual_seed(5)  # PyTorch's own generator is neither read nor moved
    before = torch.random.get_rng_state()
    assert torch.equal(network.initial_state(samples).r4, state.r4)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.device("meta"):
        other = preset_of(dataclasses.replace(PAPER_RELEASED, first_state_seed=1)).build()
    assert not torch.equal(other.initial_state(samples).r1, state.r1)


def test_zeros_by_option(tmp_path, capsys):
    torch.save(checkpoint(), tmp_path / "a.pt")
    model = tmp_path / "model.safetensors"
    assert run(capsys, "convert", tmp_path / "a.pt", "-o", model, "--zero-state")[0] == 0
    network = deepfovea.load(model)
    assert network.config.first_state_std == 0.0
    assert not any(tensor.any() for tensor in network.initial_state(torch.zeros(1, 6, 3, 32, 32)))


def test_frames_of_another_size_are_refused_or_read():
    tied, _ = convert_state(checkpoint((32, 64)))
    free, _ = convert_state(checkpoint())
    for size in ((64, 64), (32, 96)):
        with pytest.raises(InputError, match="for every value of frames of 32x64"):
            tied(*items(1, *size))
    frames, _ = tied(*items(1, 30, 60))  # padded to it
    assert frames.shape == (1, 6, 3, 120, 240)
    frames, _ = free(*items(1, 64, 64))
    assert frames.shape == (1, 6, 3, 256, 256)


def test_impossible_numbers_are_refused():
    for change in (
        {"norm_size": (192,)},
        {"norm_size": (0, 256)},
        {"norm_size": (100, 256)},
        {"first_state_std": -1.0},
        {"first_state_std": float("nan")},
        {"first_state_seed": -1},
    ):
        with pytest.raises(InputError):
            dataclasses.replace(PAPER, **change)


# --- what is not one ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda s: s.pop("decoder_blocks.2.convolution_2.bias"), "decoder_blocks.2.convolution_2"),
        (lambda s: s.pop("decoder_blocks.1.layer_norm.bias"), "decoder_blocks.1.layer_norm.bias"),
        (lambda s: s.pop("decoder_blocks.3.layer_norm.weight"), "parameters are missing"),
        (lambda s: s.pop("encoder_blocks.0.layer.0.weight"), "parameters are missing"),
        (lambda s: s.update({"encoder_blocks.7.more.weight": torch.ones(1)}), "encoder_blocks.7"),
        (lambda s: s.update({"attention.weight": torch.ones(1)}), "attention.weight"),
        (
            lambda s: s.update({"decoder_blocks.0.convolution_1.weight": torch.ones(128, 9, 3, 3)}),
            "decoder_blocks.0.convolution_1.weight",
        ),
        (lambda s: s["encoder_blocks.1.layer.2.bias"].fill_(float("nan")), "is not finite"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, capsys, damage, named):
    state = checkpoint((32, 64))
    damage(state)
    torch.save(state, tmp_path / "a.pt")
    code, _, err = run(capsys, "convert", tmp_path / "a.pt", "-o", tmp_path / "m.safetensors")
    assert code == 2
    assert named in err and "a.pt" in err and err.count("\n") == 1
    assert not (tmp_path / "m.safetensors").exists()


def test_outputs_are_not_replaced_by_accident(tmp_path, capsys):
    torch.save(checkpoint(), tmp_path / "a.pt")
    output = tmp_path / "m.safetensors"
    output.write_text("precious", encoding="utf-8")
    words = ("convert", tmp_path / "a.pt", "-o")
    code, _, err = run(capsys, *words, output)
    assert code == 2 and "--overwrite" in err and output.read_text(encoding="utf-8") == "precious"
    assert run(capsys, *words, output, "--overwrite")[0] == 0
    code, _, err = run(capsys, *words, tmp_path / "m.pt")
    assert code == 2 and ".safetensors" in err


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_points_to_convert(tmp_path, prefix):
    path = tmp_path / "generator_network_15.pt"
    torch.save(checkpoint(prefix=prefix), path)
    command = r"deepfovea convert generator_network_15\.pt -o model\.safetensors"
    with pytest.raises(InputError, match=command) as error:
        deepfovea.load(path)
    assert "authors of DeepFovea++" in str(error.value)
    assert "\n" not in str(error.value)
