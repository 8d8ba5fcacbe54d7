"""Claims about training: clips are pure functions, runs resume, processes share the work."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import media
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import deepfovea
from deepfovea import checkpoint
from deepfovea.clips import Source, open_sources
from deepfovea.config import InputError, TrainConfig
from deepfovea.fovea import reduce
from deepfovea.generators.stream import StreamConfig, StreamNet
from deepfovea.training import train as training
from deepfovea.training.data import ClipDataset
from deepfovea.training.train import learning_rate, losses, train

SMALL = StreamConfig(8, 8, 4, 4)
TINY = TrainConfig(
    steps=6,
    clip=4,
    chunk=2,
    batch=1,
    crop=64,
    learning_rate=2e-3,
    warmup=2,
    cooldown=3,
    workers=0,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two videos of a texture that moves."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name, speed in (("a.mp4", 1), ("b.mp4", 3)):
        texture = rng.integers(0, 255, (24, 24, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        media.write_video(root / name, [np.roll(texture, speed * t, 1) for t in range(10)])
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(checkpoint.PRESETS, "stream", SMALL)


def contents(run):
    return checkpoint.read(run / "checkpoints" / "last.safetensors")


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in {*a, *b})


# --- clips ------------------------------------------------------------------------------------


def test_a_clip_is_a_function_of_index_and_seed(data, cache):
    def dataset(seed=1):
        return ClipDataset(open_sources(data, cache), frames=4, crop=64, seed=seed)

    first = dataset()
    clips = [first[index] for index in range(8)]
    for index in reversed(range(8)):
        assert same(first[index], clips[index])
        assert same(dataset()[index], clips[index])
    batches = DataLoader(dataset(), batch_size=2, sampler=range(8), num_workers=2)
    for number, batch in enumerate(batches):
        for key in ("frames", "mask"):
            pair = [clip[key] for clip in clips[2 * number : 2 * number + 2]]
            assert torch.equal(batch[key], torch.stack(pair))
    for index, clip in enumerate(clips):
        others = [*clips[:index], *clips[index + 1 :], dataset(seed=2)[index]]
        assert not any(torch.equal(clip["mask"], other["mask"]) for other in others)
        assert clip["frames"].shape == (4, 3, 64, 64)
        assert clip["mask"].shape == (4, 1, 16, 16)
        assert clip["frames"].dtype == clip["mask"].dtype == torch.uint8
        assert set(clip["mask"].unique().tolist()) == {0, 1}


def test_a_clip_is_a_window_in_space_and_time():
    # The pixels tell where they are from: red the frame, green the row, blue the column.
    axes = np.meshgrid(10 * np.arange(20), np.arange(80), np.arange(100), indexing="ij")
    source = Source("positions", np.stack(axes, -1).astype(np.uint8))
    dataset = ClipDataset([source], frames=5, crop=64, seed=0)
    seen = {"time": set(), "grow": set(), "flip": set(), "cuts": 0}
    for index in range(80):
        red, green, blue = dataset[index]["frames"].int().movedim(1, 0)
        times = red[:, 0, 0]
        assert torch.equal(red, times[:, None, None].expand_as(red))
        steps = times.diff().tolist()
        if len(set(steps)) > 1:
            seen["cuts"] += 1
            continue
        seen["time"].add(steps[0])
        assert torch.equal(green, green[:1, :, :1].expand_as(green))
        assert torch.equal(blue, blue[:1, :1].expand_as(blue))
        down, across = green[0, :, 0], blue[0, 0]
        seen["flip"].add(bool(across[0] > across[-1]))
        assert abs(int(across[-1] - across[0])) == pytest.approx(int(down[-1] - down[0]), abs=1)
        seen["grow"].add(round(4 * int(down[-1] - down[0]) / 63) / 4)
    assert seen["time"] == {10, -10, 20, -20}
    assert seen["flip"] == {True, False}
    assert seen["grow"] == {1.0, 1.25}  # 64 or 80 rows
    assert 0 < seen["cuts"] < 12


def test_videos_that_are_too_short_or_small_are_left_out(data, cache):
    sources = open_sources(data, cache)
    tiny = Source("tiny", np.zeros((9, 20, 99, 3), np.uint8))
    short = Source("short", np.zeros((3, 99, 99, 3), np.uint8))
    assert ClipDataset([tiny, short, *sources], 4, 64, 0).sources == sources
    for frames, crop, complaint in (
        (4, 64, "none of 2 videos has 4 frames of at least 32x32 pixels; lower"),
        (2, 72, "received 72, expected a positive multiple of 32"),
        (2, 0, "received 0, expected a positive multiple of 32"),
    ):
        with pytest.raises(InputError, match=complaint):
            ClipDataset([tiny, short], frames, crop, 0)


# --- steps ------------------------------------------------------------------------------------


def test_the_learning_rate_rises_stays_and_falls():
    config = TrainConfig(steps=30, warmup=4, cooldown=10, learning_rate=2.0)
    rates = [learning_rate(step, config) for step in range(31)]
    expected = [0.5, 1, 1.5, *[2] * 18, 1.8, 1.6, 1.4, 1.2, 1, 0.8, 0.6, 0.4, 0.2, 0]
    assert rates == pytest.approx(expected)
    flat = dataclasses.replace(config, warmup=0, cooldown=0)
    assert [learning_rate(step, flat) for step in (0, 15, 29)] == [2, 2, 2]


def test_the_losses_of_chunks_are_those_of_the_clip():
    torch.manual_seed(0)
    net = StreamNet(SMALL)
    frames = torch.rand(1, 5, 3, 32, 32)
    low, mask = reduce(frames), (torch.rand(1, 5, 1, 8, 8) < 0.5).float()
    with torch.no_grad():
        whole, _ = losses(net, frames, low, mask, None, None)
        one, state = losses(net, frames[:, :2], low[:, :2], mask[:, :2], None, None)
        two, _ = losses(net, frames[:, 2:], low[:, 2:], mask[:, 2:], low[:, 1], state)
        output, _ = net(low * mask, mask)
    expected = ((output - frames).double() ** 2 + 1e-6).sqrt().mean()
    assert float(whole["image"]) == pytest.approx(float(expected), rel=1e-5)
    for name, (a, b) in {"image": (2, 3), "motion": (1, 3)}.items():  # frames; pairs of frames
        mean = (a * one[name] + b * two[name]) / (a + b)
        assert float(whole[name]) == pytest.approx(float(mean), rel=1e-5)


def test_one_clip_is_learned(data, cache, tmp_path, small, monkeypatch):
    images = []

    def recorded(*arguments):
        terms, state = losses(*arguments)
        images.append(float(terms["image"].detach()))
        return terms, state

    item = ClipDataset.__getitem__
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda self, index: item(self, 0))
    monkeypatch.setattr(training, "losses", recorded)
    config = dataclasses.replace(TINY, steps=50, clip=2, learning_rate=4e-3, cooldown=10)
    train(data, tmp_path / "run", config, cache=cache)
    assert len(images) == 50
    assert np.mean(images[-5:]) < 0.85 * images[0]
    logged = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert logged["step"] == 50
    assert min(images) < logged["image"] < max(images)


# --- runs -------------------------------------------------------------------------------------


def test_an_interrupted_run_resumes_bit_for_bit(data, cache, tmp_path, small, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return losses(*arguments)

    train(data, tmp_path / "straight", TINY, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(training, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            saving = dataclasses.replace(TINY, save_minutes=0.0, workers=1)
            train(data, tmp_path / "halves", saving, cache=cache)
    assert contents(tmp_path / "halves")[1]["step"] == 2  # the first clip
    assert not (tmp_path / "halves" / "model.safetensors").exists()
    train(data, tmp_path / "halves", TINY, resume=True, cache=cache)
    (straight, about), (halves, about_halves) = (
        contents(tmp_path / name) for name in ("straight", "halves")
    )
    assert about["step"] == about_halves["step"] == 6
    assert about["next_clip"] == about_halves["next_clip"] == 3
    assert len(straight) > 100
    assert same(straight, halves)


def test_the_model_is_the_average_in_half_precision(data, cache, tmp_path, small):
    config = dataclasses.replace(TINY, steps=1, seed=5)
    path = train(data, tmp_path / "run", config, cache=cache)
    tensors, _ = contents(tmp_path / "run")
    torch.manual_seed(5)
    begin = StreamNet(SMALL).state_dict()
    model = deepfovea.load(path)
    for name, loaded in model.state_dict().items():
        average = begin[name] + 0.9 * (tensors[f"net.{name}"] - begin[name])  # decay 1 / 10
        torch.testing.assert_close(tensors[f"average.{name}"], average)
        assert torch.equal(loaded, tensors[f"average.{name}"].half().float())
    moved = [name for name in begin if not torch.equal(begin[name], tensors[f"net.{name}"])]
    assert len(moved) > 10
    provenance = checkpoint.load_with_provenance(path)[1]
    assert provenance["steps"] == 1
    assert TrainConfig(**provenance["train"]) == config


def test_a_loss_that_is_no_number_is_named_and_stops(data, cache, tmp_path, small, monkeypatch):
    def broken(*arguments):
        terms, state = losses(*arguments)
        if "motion" in terms and arguments[4] is not None:
            terms["motion"] = terms["motion"] * float("nan")
        return terms, state

    monkeypatch.setattr(training, "losses", broken)
    with pytest.raises(RuntimeError, match="'motion' is nan at step 1"):
        train(data, tmp_path / "run", TINY, cache=cache)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_runs_are_neither_overwritten_nor_invented(data, cache, tmp_path, small):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="there is no last"):
        train(data, run, TINY, resume=True, cache=cache)
    assert not run.exists()
    train(data, run, dataclasses.replace(TINY, steps=1), cache=cache)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a run already; give --resume or another folder"):
        train(data, run, TINY, cache=cache)
    with pytest.raises(InputError, match="checkpoint of a 'paper' run"):
        other = dataclasses.replace(TINY, model="paper", clip=6, chunk=6)
        train(data, run, other, resume=True, cache=cache)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_two_processes_are_one_with_twice_the_batch(data, cache, tmp_path):
    config = dataclasses.replace(TINY, steps=3, clip=2, warmup=1, cooldown=0, learning_rate=1e-3)
    command = [sys.executable, "-m", "deepfovea", "train", f"--data={data}", f"--cache={cache}"]
    command.append(f"--run={tmp_path / 'two'}")
    for name, value in dataclasses.asdict(config).items():
        command.append(f"--{name.replace('_', '-')}={value}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    shared |= os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=shared | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    train(data, tmp_path / "one", dataclasses.replace(config, batch=2), cache=cache)
    assert [process.wait() for process in both] == [0, 0]
    (tensors, about), (tensors_of_two, about_two) = (
        contents(tmp_path / name) for name in ("one", "two")
    )
    assert about["next_clip"] == about_two["next_clip"] == 6
    torch.manual_seed(config.seed)
    for name, begin in StreamNet().state_dict().items():
        trained = tensors[f"net.{name}"]
        torch.testing.assert_close(tensors_of_two[f"net.{name}"], trained, rtol=0, atol=1e-5)
        assert (trained - begin).abs().max() > 3e-5
