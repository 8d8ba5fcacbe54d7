"""Claims about model files: they return what was written, or one line says why they cannot."""

import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from presets import preset_of
from safetensors.torch import save_file

import deepfovea
from deepfovea import checkpoint
from deepfovea.checkpoint import (
    bundled_models,
    describe,
    load,
    load_with_provenance,
    read,
    resolve_path,
    save_model,
    write,
)
from deepfovea.config import InputError
from deepfovea.generators import PRESETS
from deepfovea.generators.stream.net import StreamConfig
from deepfovea.generators.unet.net import UNetConfig

TINY = StreamConfig(
    channels=8,
    deep_channels=8,
    deepest_channels=8,
    hidden_channels=4,
    head_channels=4,
    motion_channels=(4, 4, 4),
)
CONFIGS = {
    "stream": TINY,
    "2020": UNetConfig(2, False, True, (4, 4, 4, 4, 4), (4, 4, 4, 4), (4, 6)),
    "2019": UNetConfig(1, True, False, (4, 4, 4, 4, 4), (4, 4, 4, 4, 4), ()),
}
PROVENANCE = {"data": "none", "steps": 3, "nested": {"rate": 1e-4, "clips": ["a", "ü"]}}


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, preset_of(TINY).build(), PROVENANCE)
    return path


@pytest.fixture
def little(tmp_path):
    """The smallest file that is not empty."""
    path = tmp_path / "little.safetensors"
    write(path, {"w": torch.tensor([1.0, 2.0])}, {"kind": "test"})
    return path


def refused(call, *args):
    """The message of the InputError, which is one short line."""
    with pytest.raises(InputError) as error:
        call(*args)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 800
    return message


def raw(path, header, data=b"", length=None):
    """A file of the safetensors layout: length of the header, header, data."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def describing(path, about):
    """A model file without tensors, with this description and a correct hash."""
    text = about if isinstance(about, str) else json.dumps(about)
    digest = checkpoint._digest({}, text)
    return raw(path, {"__metadata__": {"deepfovea": text, "sha256": digest}})


# --- round trip -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_network_comes_back(tmp_path, config):
    path, network = tmp_path / "model.safetensors", preset_of(config).build()
    save_model(path, network, PROVENANCE)
    again, provenance = load_with_provenance(path)
    assert type(again) is type(network)
    assert again.config == config
    assert provenance == PROVENANCE
    saved, loaded = network.state_dict(), again.state_dict()
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor.half().float())
    rounded = preset_of(config).build().eval()
    rounded.load_state_dict({name: tensor.half().float() for name, tensor in saved.items()})
    samples = torch.rand(1, config_frames(config), 3, 32, 32)
    with torch.no_grad():
        expected, _ = rounded(samples, torch.ones_like(samples[:, :, :1]))
        received, _ = load(path)(samples, torch.ones_like(samples[:, :, :1]))
    assert torch.equal(received, expected)


def config_frames(config):
    return getattr(config, "frames_per_step", 1)


def test_a_loaded_network_is_ready_to_use(model):
    network = deepfovea.load(str(model))
    assert not network.training
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_a_file_is_about_two_bytes_for_each_parameter(tmp_path):
    network = preset_of(StreamConfig(channels=64)).build()
    save_model(tmp_path / "model.safetensors", network, {})
    parameters = sum(p.numel() for p in network.parameters())
    size = (tmp_path / "model.safetensors").stat().st_size
    assert 2 * parameters <= size < 2 * parameters + 20_000


def test_tensors_of_any_kind_come_back(tmp_path):
    tensors = {
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "bfloat": torch.rand(3).bfloat16(),
        "whole": torch.arange(5),
        "turned": torch.rand(3, 4).T,
        "graph": torch.rand(2, requires_grad=True),
    }
    about = {"kind": "test", "list": [1, None, "é"]}
    write(tmp_path / "a.safetensors", tensors, about)
    received, description = read(tmp_path / "a.safetensors")
    assert description == {"format": 1, **about}
    assert received.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert received[name].dtype == tensor.dtype
        assert torch.equal(received[name], tensor)


def test_the_same_contents_are_the_same_file(tmp_path):
    a, b = torch.rand(2, 3), torch.rand(4)
    write(tmp_path / "1", {"a": a, "b": b}, {"x": 1, "y": 2})
    write(tmp_path / "2", {"b": b, "a": a}, {"y": 2, "x": 1})
    first, second = (read(tmp_path / name) for name in "12")
    assert first[1] == second[1]
    headers = []
    for name in "12":
        with (tmp_path / name).open("rb") as file:
            headers.append(checkpoint._header(file, (tmp_path / name).stat().st_size))
    assert headers[0] == headers[1]


# --- damage -----------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(little):
    whole = little.read_bytes()
    tensors, about = read(little)
    harmless = 0
    for bit in range(0, 8 * len(whole), 7):  # of every byte one bit at least
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        little.write_bytes(damaged)
        try:
            received, description = read(little)
        except InputError as error:
            assert len(str(error).splitlines()) == 1
        else:
            harmless += 1
            assert description == about
            assert received.keys() == tensors.keys()
            assert torch.equal(received["w"], tensors["w"])
    assert harmless <= 8  # white space behind the header


def test_numbers_declared_as_another_type_are_damage(little):
    whole = little.read_bytes()
    assert whole.count(b'"F32"') == 1
    little.write_bytes(whole.replace(b'"F32"', b'"I32"'))
    assert "its hash does not match" in refused(read, little)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.999])
def test_a_flipped_byte_of_the_weights_is_damage(model, position):
    whole = bytearray(model.read_bytes())
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    whole[start + int(position * (len(whole) - start))] ^= 0x10
    model.write_bytes(whole)
    message = refused(load, model)
    assert "its hash does not match" in message
    assert str(model) in message


def test_a_truncated_file_is_refused_at_every_length(little):
    whole = little.read_bytes()
    for length in range(len(whole)):
        little.write_bytes(whole[:length])
        refused(read, little)
    little.write_bytes(whole + b"\0")
    refused(read, little)
    little.write_bytes(whole)
    read(little)


def test_a_model_cut_short_is_refused(model):
    whole = model.read_bytes()
    for share in (0.0, 0.01, 0.5, 0.99):
        model.write_bytes(whole[: int(share * len(whole))])
        assert "expected a .safetensors file written by deepfovea" in refused(load, model)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was run",)

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    refused(load, path)
    torch.save({"state": preset_of(TINY).build().state_dict(), "payload": Payload()}, path)
    refused(load, path)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0" * 8,
        b"\0" * 100,
        b"this is not a model, it is a letter",
        "これはモデルではない".encode() * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"\xff" * 64,
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    message = refused(load, path)
    assert str(path) in message
    assert "expected a .safetensors file written by deepfovea" in message


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 10**8, 100])
def test_a_header_longer_than_the_file_allocates_nothing(tmp_path, length):
    path = raw(tmp_path / "model.safetensors", b"{}", length=length)
    tracemalloc.start()
    refused(load, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b'{"__metadata__":null}',
        b'{"__metadata__":3}',
        b'{"__metadata__":"deepfovea"}',
        b'{"__metadata__":{}}',
        b'{"__metadata__":{"deepfovea":3}}',
        b'{"__metadata__":{"deepfovea":{"format":1}}}',
        b'{"__metadata__":{"deepfovea":"{"}}',
        b'{"__metadata__":{"deepfovea":"3"}}',
        b'{"__metadata__":{"deepfovea":"[1]"}}',
        b'{"__metadata__":{"deepfovea":"{}"}}',
        b'{"__metadata__":{"deepfovea":"{\\"format\\":1}"}}',
        b'{"__metadata__":{"deepfovea":"{\\"format\\":1}","sha256":"0"}}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"__metadata__":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\xff\xfe\xff",
    ],
)
def test_headers_of_any_shape_are_refused(tmp_path, header):
    refused(load, raw(tmp_path / "model.safetensors", header))


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
    ],
)
def test_impossible_tensors_are_refused(tmp_path, tensor):
    about = {"deepfovea": '{"format":1}', "sha256": ""}
    refused(read, raw(tmp_path / "a", {"__metadata__": about, "w": tensor}, bytes(8)))


def test_a_description_nested_deeply_is_refused(tmp_path):
    refused(load, describing(tmp_path / "a", '{"format":1,"a":' + "[" * 50_000))


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"w": torch.zeros(3)}, path, metadata)
        refused(load, path)


# --- foreign or newer contents ------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 2, "1", None, [1]])
def test_another_format_is_refused(tmp_path, number):
    message = refused(load, describing(tmp_path / "a", {"format": number}))
    assert f"received format {number!r}, expected 1" in message


@pytest.mark.parametrize("kind", [None, "training", 3, ["generator"]])
def test_another_kind_of_file_is_refused(tmp_path, kind):
    message = refused(load, describing(tmp_path / "a", {"format": 1, "kind": kind}))
    assert f"{kind!r}; expected a model, or a checkpoint of a training run" in message


@pytest.mark.parametrize("network", [None, "transformer", 3, {}])
def test_another_network_is_refused(tmp_path, network):
    about = {"format": 1, "kind": "generator", "network": network, "config": {}}
    assert "'stream' or 'unet'" in refused(load, describing(tmp_path / "a", about))


def with_config(path, config, network="stream"):
    about = {"kind": "generator", "network": network, "config": config}
    write(path, {"w": torch.zeros(1)}, about)
    return path


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"chanels": 3}, "did you mean 'channels'"),
        ({"channels": "3"}, "expected int"),
        ({"channels": 3.0}, "expected int"),
        (None, "expected a JSON object"),
        ([], "expected a JSON object"),
    ],
)
def test_a_config_of_another_shape_is_refused(tmp_path, config, named):
    path = with_config(tmp_path / "a.safetensors", config)
    message = refused(load, path)
    assert named in message
    assert str(path) in message


@pytest.mark.parametrize(
    "config",
    [
        {"channels": -1},
        {"head_channels": 0},
        {"motion_channels": [1, 2]},
        {"motion_channels": "abc"},
        {"motion_channels": None},
        {"channels": 10**12},
        {"channels": 10**30},
    ],
)
def test_a_config_that_cannot_be_built_is_refused(tmp_path, config):
    refused(load, with_config(tmp_path / "a.safetensors", config))


@pytest.mark.parametrize("change", ["channels", "more", "fewer", "renamed", "shape"])
def test_weights_that_do_not_fit_the_config_are_refused(model, change):
    tensors, about = read(model)
    first = next(iter(tensors))
    if change == "channels":
        about["config"]["channels"] = 9
    elif change == "more":
        tensors["extra"] = torch.zeros(1)
    elif change == "fewer":
        del tensors[first]
    elif change == "renamed":
        tensors["other"] = tensors.pop(first)
    else:
        tensors[first] = torch.zeros(1, 2, 3)
    write(model, tensors, about)
    assert "do not fit the configuration" in refused(load, model)


# --- names ------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path, monkeypatch, model):
    """The package as if it contained only one model, named tiny."""
    folder = tmp_path / "weights"
    folder.mkdir()
    model.rename(folder / "tiny.safetensors")
    monkeypatch.setattr(checkpoint, "WEIGHTS", folder)
    monkeypatch.setitem(PRESETS, "tiny", preset_of(TINY, "tiny.safetensors"))
    return folder


def test_what_is_shipped_is_loaded_by_name(shelf):
    assert bundled_models() == ["tiny"]
    assert resolve_path("tiny") == shelf / "tiny.safetensors"
    assert load("tiny").config == TINY
    assert load(shelf / "tiny.safetensors").config == TINY


@pytest.mark.parametrize("name", ["tony", "", "Tiny", "a\0b", "\n"])
def test_an_unknown_name_is_refused_with_those_that_exist(shelf, name):
    message = refused(load, name)
    assert repr(name) in message
    assert "expected tiny or the path of a .safetensors file" in message


@pytest.mark.parametrize("name", PRESETS)
def test_a_known_network_that_is_not_shipped_says_how_to_train_it(shelf, name):
    assert f"deepfovea train --model {name}" in refused(load, name)


@pytest.mark.parametrize("path", ["tiny.safetensors", "runs/model.safetensors", "/nowhere/tiny"])
def test_a_path_that_is_not_there_is_refused(shelf, path):
    message = refused(load, path)
    assert f"{path}: no such file" in message
    assert "expected a .safetensors file or one of tiny" in message


def test_a_folder_is_not_a_model(shelf):
    refused(load, shelf)
    refused(read, shelf)


def test_a_name_that_no_file_can_have_is_refused(shelf):
    refused(load, "a" * 5000)


@pytest.mark.parametrize("name", bundled_models())
def test_what_ships_can_be_loaded(name):
    network, provenance = load_with_provenance(name)
    assert network.config == PRESETS[name].config
    assert provenance
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    assert resolve_path(name).stat().st_size <= (4e6 if name == "stream" else 7e6)


# --- writing ----------------------------------------------------------------------------------


def fail_while_saving(monkeypatch, error):
    def save(tensors, metadata):
        raise error

    monkeypatch.setattr(checkpoint, "save", save)


def fail_while_syncing(monkeypatch, error):
    def fsync(handle):
        raise error

    monkeypatch.setattr(os, "fsync", fsync)


def fail_while_renaming(monkeypatch, error):
    def replace(self, target):
        raise error

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("fail", [fail_while_saving, fail_while_syncing, fail_while_renaming])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(monkeypatch, tmp_path, little, fail):
    before = little.read_bytes()
    fail(monkeypatch, OSError(28, "No space left on device"))
    message = refused(write, little, {"w": torch.ones(9)}, {"kind": "test"})
    assert "No space left on device" in message
    assert [path.name for path in tmp_path.iterdir()] == [little.name]
    assert little.read_bytes() == before


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(monkeypatch, tmp_path, little):
    before = little.read_bytes()
    fail_while_syncing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(little, {"w": torch.ones(9)}, {"kind": "test"})
    assert little.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [little.name]


def test_a_new_file_replaces_the_old_one(tmp_path, little):
    write(little, {"w": torch.ones(9)}, {"kind": "new"})
    tensors, about = read(little)
    assert about["kind"] == "new"
    assert torch.equal(tensors["w"], torch.ones(9))
    assert [path.name for path in tmp_path.iterdir()] == [little.name]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path, little):
    (tmp_path / "any").write_text("", encoding="utf-8")
    assert little.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "a.safetensors", tmp_path / "folder"):
        assert str(path) in refused(write, path, {"w": torch.ones(2)}, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(write, tmp_path / "file" / "a.safetensors", {"w": torch.ones(2)}, {})


# --- what a model costs -------------------------------------------------------------------------


def cost(about):
    (value,) = (value for key, value in about.items() if key.startswith("multiply-adds"))
    return value


def test_describe_counts_parameters_and_multiply_adds(tmp_path):
    config = StreamConfig()
    path, network = tmp_path / "stream.safetensors", preset_of(config).build()
    save_model(path, network, PROVENANCE)
    about = describe(path, 64, 96)

    c, d, e, hidden, head = 48, 64, 80, 32, 14
    low, half, quarter, eighth = (64 * 96 // n**2 for n in (1, 2, 4, 8))  # pixels of the levels
    tent = 2 * 13 * 8  # two passes of 13 pixels over eight channels
    motion = eighth * (3 * tent + 2 * 2 * 5 + 9 * (14 * 48 + 48 * 48 + 48 * 2))
    motion += quarter * (2 * tent + 9 * ((14 + 48) * 32 + 32 * 32 + 32 * 2))
    motion += half * (tent + 9 * ((14 + 32) * 24 + 24 * 24 + 24 * 3))
    gate = half * 9 * (8 * 16 + 16)
    inputs = 16 * (3 + 3 + 1) + 4 * (3 + 1) + 2 + hidden
    refine = half * (inputs * c + 9 * c * c + 2 * 9 * c * c + c * hidden + c * 4 * head)
    refine += quarter * (4 * c * d + 2 * 9 * d * d + d * c)
    refine += eighth * (4 * d * e + 2 * 9 * e * e + e * d)
    refine += low * (9 * head * 48 + 9 * 4 * 48)  # painting and bicubic interpolation
    assert cost(about) == f"{(motion + gate + refine) / 1e9:.2f} G"

    learned = 3 + 1  # rigidities and tolerance
    learned += 9 * (14 * 48 + 48 * 48 + 48 * 2) + 48 + 48 + 2
    learned += 9 * ((14 + 48) * 32 + 32 * 32 + 32 * 2) + 32 + 32 + 2
    learned += 9 * ((14 + 32) * 24 + 24 * 24 + 24 * 3) + 24 + 24 + 3
    learned += 9 * (8 * 16 + 16) + 16 + 1
    learned += inputs * c + c + 9 * c * c + c + 4 * c * d + d + 2 * (9 * d * d + d)
    learned += 4 * d * e + e + 2 * (9 * e * e + e) + e * d + d + d * c + c + 2 * (9 * c * c + c)
    learned += c * hidden + hidden + c * 4 * head + 4 * head + 9 * head * 48 + 48
    assert about["parameters"] == learned == sum(p.numel() for p in network.parameters())
    assert about["scale"] == 4
    assert about["config: channels"] == 48
    assert about["provenance: steps"] == 3
    assert str(path) in about["file"]


def test_the_cost_grows_with_the_pixels_and_is_that_of_one_frame(tmp_path):
    path = tmp_path / "unet.safetensors"
    save_model(path, preset_of(CONFIGS["2019"]).build(), {})

    def conv(i, o, k, size):
        return i * o * k * k * (32 * 64 * 64 // 2 ** (2 * size))

    about = describe(path, 512, 256)
    assert about["frames per step"] == 1
    assert about["scale"] == 1
    # Five levels of two 3×3 convolutions, the second with stride 2; two more at the bottom;
    # five levels of two, the second of which reads its own last output; one 1×1.
    down = sum(conv(4, 4, 3, s) + conv(4, 4, 3, s + 1) for s in range(5))
    bottom = 2 * conv(4, 4, 3, 5)
    up = sum(conv(4 + 4, 4, 3, s) + conv(4 + 4, 4, 3, s) for s in range(5))
    assert cost(about) == f"{(down + bottom + up + conv(4, 3, 1, 0)) / 1e9:.2f} G"
