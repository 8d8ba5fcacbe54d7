"""Claims about training: clips are pure functions, runs resume, processes share the work."""

import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path
from time import sleep

import media
import numpy as np
import pytest
import torch
from PIL import Image
from presets import preset_of
from torch.utils.data import DataLoader

import deepfovea
from deepfovea import checkpoint
from deepfovea.cli import main
from deepfovea.config import PUBLISHED_LOSSES, InputError, TrainConfig, to_json
from deepfovea.fovea import downsample, jitter_sequence
from deepfovea.generators import PRESETS
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import UNetConfig
from deepfovea.io.decoded_cache import Source, open_sources
from deepfovea.losses.terms import charbonnier, make_terms
from deepfovea.reds.items import PublishedItems
from deepfovea.training import progress, state
from deepfovea.training import train as training
from deepfovea.training.chunks import Position, iter_chunks
from deepfovea.training.dataset import ClipDataset
from deepfovea.training.interrupt import StopSignals, TrainingInterrupted, outlive_signals
from deepfovea.training.logging import Log
from deepfovea.training.progress import TrainingProgress
from deepfovea.training.state import init_run, restore_checkpoint
from deepfovea.training.step import (
    crop_to_valid,
    forward,
    learning_rate_factor,
    reset_starting_clips,
    train_step,
)
from deepfovea.training.train import train

SMALL = StreamConfig(8, 8, 4, 4)
UNET = UNetConfig(2, False, True, (4, 4, 4, 4, 4), (4, 4, 4, 4), (4, 6))
CPU = torch.device("cpu")
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
    picture_steps=0,
)
MUON = dataclasses.replace(TINY, optimizer="muon", sampling="published")
ADVERSARIAL = dataclasses.replace(
    TINY,
    losses=PUBLISHED_LOSSES,
    betas=(0.1, 0.95),
    discriminator_channels=(2, 3, 3, 2, 1),
    perceptual_backbone="efficientnet-lite0",
)
SHIFTED = dataclasses.replace(ADVERSARIAL, shift=16, perceptual_resolution=1.0)
ITEMS = dataclasses.replace(
    ADVERSARIAL,
    model="paper",
    clip=6,
    chunk=2,
    batch=2,
    preprocessing="published",
    size=(64, 96),
    state="carry",
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
    monkeypatch.setitem(PRESETS, "stream", preset_of(SMALL))
    monkeypatch.setitem(PRESETS, "paper", preset_of(UNET))


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


def test_published_sampling_of_clips():
    still = Source("still", np.zeros((9, 256, 256, 3), np.uint8))
    near_and_far = []
    for index in range(60):
        dataset = ClipDataset([still], frames=8, crop=256, seed=0, varied=False)
        share = dataset[index]["mask"].float().mean((0, 1))
        # Far from the gaze, which rests, the mean of eight draws of 0.15; within 20 pixels 0.98.
        near_and_far += [share[share > 0.95].numel(), share[share < 0.6].mean()]
        steady = (share == 1.0).float()
        if steady.sum() > 400:  # a fovea in the crop: the pixels that all frames have are one disc
            rows, columns = steady.nonzero().T
            assert rows.float().std() < 20 and columns.float().std() < 20
    assert max(near_and_far[::2]) > 1000 and min(near_and_far[::2]) == 0
    assert float(np.mean(near_and_far[1::2])) == pytest.approx(0.17, abs=0.03)


def test_jitter_of_clips_has_every_kind_and_order():
    still = Source("still", np.zeros((9, 64, 64, 3), np.uint8))
    dataset = ClipDataset([still], frames=8, crop=64, seed=0)
    quads = {tuple(offset) for offset in jitter_sequence("quad", 0, 4).tolist()}
    usual, shuffled = 0, 0
    for index in range(60):
        offsets = [tuple(offset) for offset in dataset[index]["jitter"].tolist()]
        if set(offsets) == quads:
            # Each four frames see every phase once where they are shuffled, too.
            assert set(offsets[:4]) == set(offsets[4:]) == quads
            orders = {tuple(jitter_sequence("quad", t, 8).flatten().tolist()) for t in range(4)}
            if tuple(x for offset in offsets for x in offset) in orders:
                usual += 1
            else:
                shuffled += 1
    assert usual > 5 and shuffled > 5


def test_noise_of_renders_is_where_motion_is_given_and_light():
    gray = np.full((64, 64, 3), 128, np.uint8)
    gray[:, 32:] = 0
    dataset = ClipDataset([], 4, 64, 0, photos=[gray], photo_share=1.0)
    for share, given in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        config = dataclasses.replace(TINY, motion_given=given, render_noise=share)
        first, again = (list(islice(iter_chunks(dataset, config, CPU), 2))[-1] for _ in range(2))
        assert torch.equal(first.samples, again.samples)
        assert not first.samples[(first.mask == 0).expand_as(first.samples)].any()
        light = downsample(first.frames, jitter=first.jitter)
        noise = (first.samples - first.mask * light).abs()
        assert (noise.max() > 0.02) == (share == given == 1.0)
        assert noise[light == 0].max() == 0


def test_a_clip_is_a_window_in_space_and_time():
    # Pixels encode their origin: red the frame, green the row, blue the column.
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


# --- order ------------------------------------------------------------------------------------


def of_clips(config, sources):
    return ClipDataset(sources, config.clip, config.crop, config.seed)


def of_items(config, sources):
    return PublishedItems(sources, config.seed, config.size)


@pytest.mark.parametrize(("config", "dataset"), [(TINY, of_clips), (ITEMS, of_items)])
def test_what_comes_depends_on_the_position_alone(data, cache, config, dataset):
    dataset = dataset(config, open_sources(data, cache))
    straight = list(islice(iter_chunks(dataset, config, CPU), 9))
    position = Position()
    for number, chunk in enumerate(straight):
        again = next(iter_chunks(dataset, config, CPU, position))
        for name in ("frames", "low", "mask", "previous_low", "is_clip_start"):
            mine, other = getattr(chunk, name), getattr(again, name)
            assert (mine is None and other is None) or torch.equal(mine, other), (number, name)
        position = chunk.next_position
    assert position == Position(
        9 // (config.clip // config.chunk) * config.batch, chunk=9 % 2 * 1 if config is TINY else 0
    )


@pytest.mark.parametrize(("config", "dataset"), [(TINY, of_clips), (ITEMS, of_items)])
def test_two_processes_share_what_one_takes(data, cache, config, dataset):
    dataset = dataset(config, open_sources(data, cache))
    twice = dataclasses.replace(config, batch=2 * config.batch)
    parts = [iter_chunks(dataset, config, CPU, Position(), rank, 2) for rank in (0, 1)]
    for whole, *shares in islice(zip(iter_chunks(dataset, twice, CPU), *parts, strict=True), 5):
        for name in ("frames", "mask", "is_clip_start"):
            assert torch.equal(
                getattr(whole, name), torch.cat([getattr(share, name) for share in shares])
            )
        assert {share.next_position for share in shares} == {whole.next_position}


def test_a_new_video_begins_with_a_new_state_or_not(data, cache):
    """These are the two published settings; within a video, both keep the state."""
    dataset = of_items(ITEMS, open_sources(data, cache))  # two videos of two items
    carried = list(islice(iter_chunks(dataset, ITEMS, CPU), 12))
    assert not any(chunk.is_clip_start.any() for chunk in carried)
    config = dataclasses.replace(ITEMS, state="reset")
    reset = list(islice(iter_chunks(dataset, config, CPU), 12))
    # A chunk of two frames, three to an item, two items to a video.
    assert [chunk.is_clip_start.tolist() for chunk in reset] == 2 * [[True] * 2, *5 * [[False] * 2]]


def test_only_the_clips_that_start_get_a_new_state():
    torch.manual_seed(0)
    noisy = dataclasses.replace(UNET, first_state_std=0.5)
    for config, time in ((SMALL, 1), (UNET, 2), (noisy, 2)):
        net = preset_of(config).build()
        samples, mask = torch.rand(2, 2, time, 3, 32, 32), torch.ones(2, 2, time, 1, 32, 32)
        with torch.no_grad():
            _, state = net(samples[0], mask[0])
            _, other = net(samples[0].flip(0), mask[0])
            assert reset_starting_clips(None, torch.zeros(2, dtype=torch.bool)) is None
            assert reset_starting_clips(state, torch.ones(2, dtype=torch.bool)) is None
            assert reset_starting_clips(state, torch.zeros(2, dtype=torch.bool)) is state
            first = net.initial_state(samples[0]) if config is noisy else None
            mixed = reset_starting_clips(state, torch.tensor([True, False]), first)
            frames, _ = net(samples[1], mask[1], mixed)
            new, _ = net(samples[1, :1], mask[1, :1])
            kept, _ = net(samples[1, 1:], mask[1, 1:], type(state)(*(t[1:] for t in state)))
        torch.testing.assert_close(frames, torch.cat([new, kept]))
        assert not torch.allclose(state[0], other[0])


# --- steps ------------------------------------------------------------------------------------


def test_the_learning_rate_rises_stays_and_falls():
    config = TrainConfig(steps=30, warmup=4, cooldown=10)
    rates = [learning_rate_factor(step, config) for step in range(31)]
    expected = [0.25, 0.5, 0.75, *[1] * 18, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]
    assert rates == pytest.approx(expected)
    flat = dataclasses.replace(config, warmup=0, cooldown=0)
    assert [learning_rate_factor(step, flat) for step in (0, 15, 29)] == [1, 1, 1]
    short = dataclasses.replace(config, steps=4, warmup=0, cooldown=4000)
    assert [learning_rate_factor(step, short) for step in range(4)] == [1, 1, 1, 0.5]


def test_the_losses_of_chunks_are_those_of_the_clip(data, cache, small):
    config = dataclasses.replace(TINY, clip=5, chunk=5)
    dataset = of_clips(config, open_sources(data, cache))
    net = init_run(config, CPU)
    terms = make_terms(["charbonnier", "motion"], net.loss_modules)

    def losses_of(config):
        state, values = None, []
        for chunk in islice(iter_chunks(dataset, config, CPU), 5 // config.chunk):
            with torch.no_grad():
                output, state = forward(net.net, chunk, state)
            output, target = crop_to_valid(output, chunk, 4)
            values.append({name: float(term(output, target)) for name, term in terms.items()})
        return values, output

    (whole,), output = losses_of(config)
    chunks, _ = losses_of(dataclasses.replace(config, chunk=1))
    image = np.mean([chunk["charbonnier"] for chunk in chunks])
    motion = np.mean([chunk["motion"] for chunk in chunks[1:]])  # pairs of frames
    assert whole["charbonnier"] == pytest.approx(image, rel=1e-5)
    assert whole["motion"] == pytest.approx(motion, rel=1e-5)
    assert chunks[0]["motion"] == 0
    frames = next(iter_chunks(dataset, config, CPU)).frames
    assert whole["charbonnier"] == pytest.approx(float(charbonnier(output.frames - frames)))


def test_gradients_end_at_the_border_of_a_chunk(data, cache, small):
    config = dataclasses.replace(TINY, clip=4, chunk=2)
    feed = iter_chunks(of_clips(config, open_sources(data, cache)), config, CPU)
    run = init_run(config, CPU)
    terms = make_terms(["charbonnier", "motion"], run.loss_modules)
    train_step(run, terms, next(feed), config)
    assert not any(tensor.requires_grad for tensor in run.state)
    assert any(tensor.abs().sum() > 0 for tensor in run.state)


@pytest.mark.parametrize("model", ["stream", "paper"])
def test_half_precision_is_near_the_full_one(data, cache, small, model):
    config = dataclasses.replace(TINY, model=model, losses=("supervised", "adversarial"))
    config = dataclasses.replace(config, discriminator_channels=(2, 3, 3, 2, 1))
    values = {}
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(config, precision=precision)
        feed = iter_chunks(of_clips(config, open_sources(data, cache)), config, CPU)
        run = init_run(config, CPU)
        terms = make_terms(["supervised", "adversarial"], run.loss_modules)
        for chunk in islice(feed, 3):
            values[precision], output, _ = train_step(run, terms, chunk, config)
        assert output.frames.dtype == torch.float32
        assert all(p.dtype == torch.float32 for p in run.net.parameters())
    for name in ("supervised", "adversarial"):
        assert values["bf16"][name] != values["fp32"][name]
        assert values["bf16"][name] == pytest.approx(values["fp32"][name], rel=0.02)


def test_one_clip_is_learned(data, cache, tmp_path, small, monkeypatch):
    images = []

    def recorded(*arguments):
        values, output, target = train_step(*arguments)
        images.append(values["charbonnier"])
        return values, output, target

    item = ClipDataset.__getitem__
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda self, index: item(self, 0))
    monkeypatch.setattr(training, "train_step", recorded)
    config = dataclasses.replace(TINY, steps=50, clip=2, learning_rate=4e-3, cooldown=10)
    train(data, tmp_path / "run", config, cache=cache)
    assert len(images) == 50
    assert np.mean(images[-5:]) < 0.85 * images[0]
    (logged,) = rows(tmp_path / "run")
    assert logged["step"] == 50
    assert logged["charbonnier"] == pytest.approx(np.mean(images), rel=1e-5)
    assert {"motion", "psnr", "gradient_norm", "learning_rate", "hours", "crops_per_second"} <= set(
        logged
    )


# --- runs -------------------------------------------------------------------------------------


def rows(run):
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def interrupted(monkeypatch, after):
    """Interrupt training as by Ctrl-C after this many steps."""
    calls = []

    def until(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return train_step(*arguments)

    monkeypatch.setattr(training, "train_step", until)


@pytest.mark.parametrize(
    ("config", "after"),
    [(TINY, 3), (TINY, 4), (ADVERSARIAL, 3), (SHIFTED, 3), (ITEMS, 4), (MUON, 3)],
    ids=["within a clip", "between clips", "all losses", "shifted", "items", "muon"],
)
def test_an_interrupted_run_resumes_bit_for_bit(
    data, cache, tmp_path, small, monkeypatch, config, after
):
    config = dataclasses.replace(config, log_steps=1)
    train(data, tmp_path / "straight", config, cache=cache)
    with monkeypatch.context() as patch:
        interrupted(patch, after)
        with pytest.raises(KeyboardInterrupt):
            saving = dataclasses.replace(config, save_minutes=0.0, workers=1)
            train(data, tmp_path / "halves", saving, cache=cache)
    assert contents(tmp_path / "halves")[1]["step"] == after
    assert not (tmp_path / "halves" / "model.safetensors").exists()
    torch.manual_seed(99)  # as a new process would
    train(data, tmp_path / "halves", config, resume=True, cache=cache)
    (straight, about), (halves, about_halves) = (
        contents(tmp_path / name) for name in ("straight", "halves")
    )
    for same_about in ("step", "next_clip", "chunk", "logged", "sums"):
        assert about[same_about] == about_halves[same_about]
    assert about["step"] == 6
    assert len(straight) > 100
    assert same(straight, halves)
    logged, logged_halves = (rows(tmp_path / name) for name in ("straight", "halves"))
    for clocked in ("hours", "crops_per_second"):
        assert [row.pop(clocked) for row in logged] != [row.pop(clocked) for row in logged_halves]
    assert logged == logged_halves and [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("config", [MUON, ADVERSARIAL], ids=["muon", "all losses"])
def test_the_layout_and_the_optimisers_of_a_gpu_train_the_same(
    data, cache, tmp_path, small, monkeypatch, config
):
    """They also work on a CPU. They round differently; a run that resumes has the same bits."""
    train(data, tmp_path / "usual", config, cache=cache)
    monkeypatch.setattr(state, "is_gpu", lambda device: True)
    train(data, tmp_path / "straight", config, cache=cache)
    with monkeypatch.context() as patch:
        interrupted(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(
                data,
                tmp_path / "halves",
                dataclasses.replace(config, save_minutes=0.0),
                cache=cache,
            )
    train(data, tmp_path / "halves", config, resume=True, cache=cache)
    usual, straight, halves = (
        contents(tmp_path / name)[0] for name in ("usual", "straight", "halves")
    )
    assert same(straight, halves)
    assert not same(usual, straight)
    weights = [name for name in usual if name.startswith("net.")]
    moved = torch.cat([(straight[name] - usual[name]).flatten() for name in weights])
    assert moved.abs().mean() < 0.02 * config.learning_rate * config.steps


def test_a_longer_run_is_the_same_run(data, cache, tmp_path, small):
    flat = dataclasses.replace(TINY, cooldown=0)
    train(data, tmp_path / "long", dataclasses.replace(flat, steps=5), cache=cache)
    train(data, tmp_path / "short", dataclasses.replace(flat, steps=3), cache=cache)
    train(data, tmp_path / "short", dataclasses.replace(flat, steps=5), True, cache)
    assert same(contents(tmp_path / "long")[0], contents(tmp_path / "short")[0])


def test_the_model_is_the_average_in_half_precision(data, cache, tmp_path, small):
    config = dataclasses.replace(TINY, steps=1, seed=5)
    path = train(data, tmp_path / "run", config, cache=cache)
    tensors, _ = contents(tmp_path / "run")
    torch.manual_seed(5)
    begins = StreamNet(SMALL).state_dict()
    model = deepfovea.load(path)
    for name, loaded in model.state_dict().items():
        average = begins[name] + 0.9 * (tensors[f"net.{name}"] - begins[name])  # decay 1 / 10
        torch.testing.assert_close(tensors[f"ema.{name}"], average)
        assert torch.equal(loaded, tensors[f"ema.{name}"].half().float())
    moved = [name for name in begins if not torch.equal(begins[name], tensors[f"net.{name}"])]
    assert len(moved) > 10
    provenance = checkpoint.load_with_provenance(path)[1]
    assert provenance["steps"] == 1
    assert provenance["train"]["losses"] == ["charbonnier", "motion", "endpoint"]
    assert "objective" not in provenance


def test_a_stand_in_is_named_wherever_its_value_appears(data, cache, tmp_path, small, caplog):
    config = dataclasses.replace(ADVERSARIAL, steps=1, losses=("supervised", "perceptual", "flow"))
    path = train(data, tmp_path / "run", config, cache=cache)
    (row,) = rows(tmp_path / "run")
    assert {"supervised", "perceptual/efficientnet-lite0", "flow/dis"} <= set(row)
    said = checkpoint.load_with_provenance(path)[1]["objective"]
    assert len(said) == 4  # two stand-ins, two terms left out
    assert all(any(line in record.message for record in caplog.records) for line in said)


@pytest.mark.parametrize("model", ["stream", "paper", "deepfovea"])
def test_every_network_can_be_trained_with_every_loss(data, cache, tmp_path, monkeypatch, model):
    shrunk = {"encoder": (4, 4, 4, 4, 4), "decoder": (4, 4, 4, 4, 4)}
    monkeypatch.setitem(PRESETS, "stream", preset_of(SMALL))
    monkeypatch.setitem(
        PRESETS, "paper", preset_of(dataclasses.replace(UNET, low_resolution_output=True))
    )
    ancestor = dataclasses.replace(PRESETS["deepfovea"].config, **shrunk)
    monkeypatch.setitem(PRESETS, "deepfovea", preset_of(ancestor))
    extra = {
        "stream": ("charbonnier", "motion"),
        "paper": ("low-resolution", "low-perceptual"),
        "deepfovea": (),
    }
    losses = (*PUBLISHED_LOSSES, *extra[model])
    config = dataclasses.replace(ADVERSARIAL, model=model, steps=1, crop=128, losses=losses, r1=1.0)
    path = train(data, tmp_path / model, config, cache=cache)
    assert deepfovea.load(path).config == PRESETS[model].config


def test_a_loss_that_is_not_finite_stops_with_one_line(
    data, cache, tmp_path, small, monkeypatch, capsys
):
    def broken(*arguments, **keywords):
        terms = make_terms(*arguments, **keywords)
        motion = terms["motion"]
        terms["motion"] = lambda o, t: motion(o, t) * (float("nan") if t.before is not None else 1)
        return terms

    monkeypatch.setattr(training, "make_terms", broken)
    command = ["train", f"--data={data}", f"--cache={cache}", f"--run={tmp_path / 'run'}"]
    command += ["--crop=64", "--clip=4", "--chunk=2", "--batch=1", "--workers=0"]
    assert main(command) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("deepfovea: 'motion' is nan at step 1")
    assert contents(tmp_path / "run")[1]["step"] == 1  # and nothing of the step that failed
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_leaves_the_last_checkpoint(data, cache, tmp_path, small, monkeypatch):
    run = tmp_path / "run"
    train(data, run, dataclasses.replace(TINY, steps=2), cache=cache)
    last = run / "checkpoints" / "last.safetensors"
    good = last.read_bytes()
    path_open = Path.open

    class Full:
        """A file on a disk that has room for only a few bytes."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path, mode="r", *rest, **keywords):
        file = path_open(path, mode, *rest, **keywords)
        return Full(file) if "w" in mode and "b" in mode and ".safetensors" in path.name else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
            train(data, run, dataclasses.replace(TINY, save_minutes=0.0), True, cache)
    assert last.read_bytes() == good
    assert [path.name for path in last.parent.iterdir()] == [last.name]  # nothing half-written
    train(data, run, TINY, True, cache)
    assert contents(run)[1]["step"] == 6


def test_a_signal_saves_the_step_under_way_and_says_how_to_go_on(
    data, cache, tmp_path, small, monkeypatch, capsys
):
    """After Ctrl-C or SIGTERM in step 2 of 6, step 2 is saved, and --resume changes no result."""
    command = ["train", f"--data={data}", f"--cache={cache}", "--crop=64", "--clip=4", "--chunk=2"]
    command += ["--batch=1", "--workers=1", "--steps=3", "--cooldown=0", "--picture-steps=0"]
    assert main([*command, f"--run={tmp_path / 'straight'}"]) == 0
    for number, name, code in ((signal.SIGINT, "int", 130), (signal.SIGTERM, "term", 143)):
        run = tmp_path / name

        def struck(*arguments, number=number):
            result = train_step(*arguments)
            if arguments[0].step == 2:
                os.kill(os.getpid(), number)
            return result

        before = signal.getsignal(number)
        with monkeypatch.context() as patch:
            patch.setattr(training, "train_step", struck)
            assert main([*command, f"--run={run}"]) == code
        assert signal.getsignal(number) == before
        *_, said = capsys.readouterr().err.splitlines()
        last = run / "checkpoints" / "last.safetensors"
        assert said.startswith(
            f"deepfovea: interrupted after step 2 of 3, which is saved in {last};"
        )
        assert "--resume" in said
        assert contents(run)[1]["step"] == 2
        assert main([*command, f"--run={run}"]) == 2  # no run starts again by mistake
        assert "add --resume to go on" in capsys.readouterr().err
        assert main([*command, f"--run={run}", "--resume"]) == 0
        assert same(contents(run)[0], contents(tmp_path / "straight")[0])


def test_before_the_first_step_an_interruption_says_to_begin_again(
    data, tmp_path, monkeypatch, capsys
):
    """Nothing is saved, so --resume is not recommended, and reports that there is no checkpoint."""

    def decoding(*_, **__):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    run.mkdir()
    command = ["train", f"--data={data}", f"--run={run}"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_sources", decoding)
        assert main(command) == 130
    assert "the same command, without --resume, begins again" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 2
    assert "leave --resume out to begin" in capsys.readouterr().err
    last = run / "checkpoints" / "last.safetensors"
    last.parent.mkdir()
    last.touch()  # of a run that goes on, with a configuration of its own
    (run / "config.json").write_text(to_json(TINY), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(training, "restore_checkpoint", decoding)
        assert main([*command, "--resume"]) == 130
    assert f"with --resume goes on from {last}" in capsys.readouterr().err


def test_a_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one was not raised")


def test_a_step_that_fails_after_a_signal_is_an_interruption():
    said = pytest.raises(TrainingInterrupted, match=r"not saved \(closed by peer\)")
    with said as raised, StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("closed\n by peer")
    assert raised.value.exit_code == 143
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError("of its own")


@pytest.mark.parametrize("epoch", [1, 2], ids=["on the way", "at the end"])
def test_a_signal_cuts_a_validation_short_and_saves(data, cache, tmp_path, small, epoch):

    def validate(number, model):
        assert model.is_file()
        if number == epoch:
            os.kill(os.getpid(), signal.SIGINT)
            sleep(1)
            pytest.fail("the validation went on")

    config = dataclasses.replace(ITEMS, losses=("supervised",), epochs=2, batch=1, chunk=6)
    run, said = tmp_path / "run", rf"epoch {epoch} is not validated: .*epoch-0{epoch}\.safetensors"
    with pytest.raises(TrainingInterrupted, match=said) as stopped:
        train(data, run, config, cache=cache, on_epoch=validate)
    assert stopped.value.exit_code == 130
    assert (run / "model.safetensors").exists() == (epoch == 2)
    steps = contents(run)[1]["step"]
    assert train(data, run, config, True, cache) == run / "model.safetensors"
    assert contents(run)[1]["step"] == steps * 2 // epoch


class ProcessGroup(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, _):
        return os.getpgrp()


@pytest.mark.skipif(not hasattr(os, "getpgrp"), reason="no process groups here")
def test_what_is_sent_to_the_group_does_not_end_the_processes_that_read():
    (group,) = DataLoader(ProcessGroup(), None, num_workers=1, worker_init_fn=outlive_signals)
    assert group != os.getpgrp()


def test_the_first_step_is_saved_at_once(data, cache, tmp_path, small, monkeypatch):
    interrupted(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", TINY, cache=cache)
    assert contents(tmp_path / "run")[1]["step"] == 1


def test_without_a_terminal_lines_say_the_losses(data, cache, tmp_path, small, capsys):
    train(data, tmp_path / "run", TINY, cache=cache)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/6  charbonnier 0.")
    assert "  motion 0" in lines[0] and "  endpoint 0" in lines[0]
    assert lines[-1].startswith("step 6/6") and lines[-1].endswith("0 s left")
    assert lines[1].startswith("step 3/6") and lines[1].endswith(" left")  # as soon as it is known
    assert len(lines) == 3


def test_the_time_left_is_that_of_the_usual_step(monkeypatch):
    """A first step of a minute, which compiles and fills caches, does not count."""
    clock = iter([60.0, 61.0, 62.0, 75.0, 76.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = TrainingProgress("stream", 3604, 0, visible=False)
    left = []
    for step in range(1, 6):
        shown.update(step, {"loss": 1.0})
        left.append(shown.time_left(step))
    assert left[:2] == ["", ""]
    assert left[2:] == ["1 s/step, 60 min left"] * 3
    texts = [progress.format_duration(seconds) for seconds in (5, 100, 5000, 7200, 200000, 5.9e6)]
    assert texts == ["5 s", "1.7 min", "83 min", "2.0 h", "2.3 days", "68 days"]


def test_checkpoints_are_kept_when_asked(data, cache, tmp_path, small):
    config = dataclasses.replace(TINY, steps=3, keep_minutes=1e-9)
    train(data, tmp_path / "run", config, cache=cache)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["last.safetensors", *(f"step-000000{n}.safetensors" for n in (1, 2, 3))]


def test_runs_are_neither_overwritten_nor_invented(data, cache, tmp_path, small):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="there is no checkpoints/last"):
        train(data, run, TINY, resume=True, cache=cache)
    assert not run.exists()
    train(data, run, dataclasses.replace(TINY, steps=1), cache=cache)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a run already; add --resume to go on"):
        train(data, run, TINY, cache=cache)
    for change, complaint in (
        ({"model": "paper"}, "--model: received 'paper', but .* is of a run with 'stream'"),
        ({"seed": 3}, "--seed: received 3"),
        ({"losses": ("charbonnier",)}, "--losses: received"),
    ):
        with pytest.raises(InputError, match=complaint):
            train(data, run, dataclasses.replace(TINY, **change), resume=True, cache=cache)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_wrong_and_partial_checkpoints_are_refused(tmp_path, small):
    path = tmp_path / "last.safetensors"
    run = init_run(ADVERSARIAL, CPU)
    training.save_checkpoint(path, run, ADVERSARIAL, 1, None)
    tensors, about = checkpoint.read(path)
    restore_checkpoint(path, init_run(ADVERSARIAL, CPU), ADVERSARIAL)

    def refused(complaint, config=ADVERSARIAL, **keywords):
        with pytest.raises(InputError, match=complaint):
            restore_checkpoint(path, init_run(config, CPU), config, **keywords)

    lost = "loss_modules.adversarial.tower.reduce.parametrizations.weight.0._u"
    checkpoint.write(path, {k: v for k, v in tensors.items() if k != lost}, about)
    refused(f"1 of {len(tensors) - 1} entries are missing or of another shape, .*{lost}")
    checkpoint.write(path, tensors | {lost: torch.zeros(7)}, about)
    refused("1 of .* of another shape")
    checkpoint.write(path, tensors, {k: v for k, v in about.items() if k != "next_clip"})
    refused("incomplete .'next_clip'")
    checkpoint.write(path, tensors, about | {"kind": "generator"})
    refused("of kind 'generator', expected a checkpoint of a training run")
    checkpoint.write(path, tensors, about | {"config": about["config"] | {"stepz": 1}})
    refused("unknown key 'stepz' of TrainConfig; did you mean 'steps'")
    path.write_bytes(path.read_bytes()[:-1000])
    refused("cannot be read")
    training.save_checkpoint(path, init_run(ITEMS, CPU), ITEMS, 2, None)
    refused("--batch: received 2 in 2 processes, but .* has a batch of 2", ITEMS, processes=2)


def test_other_clips_leave_out_the_one_under_way(data, cache, tmp_path, small, monkeypatch):
    saving = dataclasses.replace(TINY, save_minutes=0.0)
    interrupted(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", saving, cache=cache)
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    same_clips = init_run(TINY, CPU)
    restore_checkpoint(last, same_clips, TINY)
    assert same_clips.position == Position(1, 1) and same_clips.state is not None
    shorter = dataclasses.replace(TINY, clip=2)
    other = init_run(shorter, CPU)
    restore_checkpoint(last, other, shorter)
    assert other.position == Position(2) and other.state is None and other.step == 3


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--device cuda:7", "--device: received 'cuda:7', which is not usable here"),
        ("--device gpu", "--device: received 'gpu'"),
        ("--precision fp16", "--precision fp16: received a CPU"),
        ("--losses superwised", "did you mean 'supervised'"),
        ("--model steam", "did you mean 'stream'"),
        ("--losses flow --chunk 1", "expected --chunk 2 or more"),
        ("--losses perceptual --perceptual-backbone efficientnet", "did you mean 'efficientnet-l"),
        ("--losses perceptual --perceptual-weights none.pth", "none.pth, which is no file"),
        ("--losses flow --flow-estimator pwcnet", "download pwc_net.pth.tar"),
        ("--losses low-resolution", "expected --model paper-multiresolution"),
        ("--state carry", "add --preprocessing published"),
        ("--preprocessing published", "the published items have six frames"),
        ("--discriminator-channels 1,2", "expected five numbers"),
        ("--ema 1", "expected 0 to below 1"),
        ("--betas 0.1", "expected two numbers"),
        ("--config wrong.json", "unknown key 'learning_rat' of TrainConfig; did you mean 'learn"),
        ("--config missing.json", "missing.json: cannot be read"),
        ("--config broken.json", "broken.json: no JSON"),
    ],
)
def test_wrong_words_are_one_line(data, cache, tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    Path("wrong.json").write_text('{"learning_rat": 1}', encoding="utf-8")
    Path("broken.json").write_text("{", encoding="utf-8")
    command = ["train", f"--data={data}", f"--cache={cache}", "--run=run", "--crop=64"]
    assert main([*command, "--steps=1", "--workers=0", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert not Path("run").exists()


def test_defaults_follow_what_is_trained(data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "train", lambda *arguments: asked.append(arguments[2]))
    command = ["train", f"--data={data}", f"--run={tmp_path}"]
    for words in ("", "--model paper", "--losses supervised,flow=3 --batch 7", "--losses motion"):
        assert main([*command, *words.split()]) == 0
    stream, paper, mixed, motion = asked
    assert stream == TrainConfig()
    assert (paper.learning_rate, paper.discriminator_learning_rate) == (3e-4, 1e-4)
    assert (paper.betas, paper.losses, paper.clip) == ((0.1, 0.95), PUBLISHED_LOSSES, 6)
    assert (mixed.model, mixed.losses, mixed.batch) == ("stream", ("supervised", "flow=3"), 7)
    assert mixed.betas == (0.1, 0.95)
    assert motion == dataclasses.replace(TrainConfig(), losses=("motion",))


def test_a_resumed_run_keeps_its_configuration(data, cache, tmp_path, small, capsys):
    run = tmp_path / "run"
    train(data, run, TINY, cache=cache)
    command = ["train", f"--data={data}", f"--cache={cache}", f"--run={run}", "--resume"]
    assert main([*command, "--steps=7", "--ema=0.5"]) == 0
    expected = dataclasses.replace(TINY, steps=7, ema=0.5)
    assert (
        TrainConfig(
            **contents(run)[1]["config"]
            | {
                "losses": TINY.losses,
                "betas": TINY.betas,
                "size": TINY.size,
                "discriminator_channels": TINY.discriminator_channels,
            }
        )
        == expected
    )
    assert contents(run)[1]["step"] == 7
    assert capsys.readouterr().out.count("trained") == 1


# --- logs -------------------------------------------------------------------------------------


def test_pictures_show_the_values_as_they_are(tmp_path):
    """They are clamped to [0, 1] and not rescaled: equal values give equal pixels everywhere."""
    log = Log(tmp_path, 0, {})
    grey = torch.full((2, 3, 64, 96), 0.5)
    overshoot = torch.cat([torch.full((1, 3, 64, 96), 1.7), torch.full((1, 3, 64, 96), -0.3)])
    log.picture(12, torch.full((2, 3, 16, 24), 0.25), overshoot, grey)
    log.close()
    picture = np.asarray(Image.open(tmp_path / "pictures" / "0000012.png"))
    height, width = 64, 96
    assert picture.shape == (30 + 2 * (height + 6), 6 + 3 * (width + 6), 3)
    for row, values in enumerate(((64, 255, 128), (64, 0, 128))):
        top = 30 + row * (height + 6)
        for column, value in enumerate(values):
            left = 6 + column * (width + 6)
            assert (picture[top : top + height, left : left + width] == value).all()


def test_rows_and_curves_are_those_of_one_run(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, 0, {"flow": "flow/dis"})
    for number in (1, 2, 3):
        log.row(number, {"flow": number / 3, "psnr": 20.0})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "flo')  # interrupted
    log = Log(tmp_path, 2, {"flow": "flow/dis"})  # goes on from a checkpoint of step 2
    log.row(3, {"flow": 7.0, "psnr": 21.0})
    log.notes(["without this"])
    log.close()
    logged = [(row["step"], row["flow/dis"], row["psnr"]) for row in rows(tmp_path)]
    assert logged == [(1, 0.333333, 20.0), (2, 0.666667, 20.0), (3, 7.0, 21.0)]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = {event.step: event.value for event in events.Scalars("flow/dis")}
    assert curve == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 7.0}, rel=1e-5)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    log = Log(tmp_path, 0, {})
    (tmp_path / "pictures").write_text("in the way", encoding="utf-8")
    (tmp_path / "metrics.jsonl").mkdir()
    frames = torch.rand(1, 3, 32, 32)
    with pytest.raises(InputError, match="pictures: cannot be written"):
        log.picture(1, frames, frames, frames)
    with pytest.raises(InputError, match=r"metrics.jsonl: cannot be written"):
        log.row(1, {"flow": 1.0})


# --- several processes ------------------------------------------------------------------------


def test_two_processes_are_one_with_twice_the_batch(data, cache, tmp_path):
    run = tmp_path / "two"
    losses = ",".join(("charbonnier", "motion", *PUBLISHED_LOSSES))
    command = [sys.executable, "-m", "deepfovea", "train", f"--data={data}", f"--cache={cache}"]
    words = "--crop=64 --clip=2 --chunk=2 --warmup=1 --cooldown=0 --learning-rate=1e-3 --workers=0"
    words += f" --losses={losses} --discriminator-channels=2,3,3,2,1 --steps=3 --batch=1"
    # Trained weights: while the last layer is zero, gradients are only rounding errors. And
    # clips whose motion can be found: otherwise nothing is learned.
    words += " --perceptual-backbone=efficientnet-lite0 --start-from=stream-perceptual --seed=7"
    words += " --keep-minutes=1e-9"
    command += [f"--run={run}", *words.split()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    shared |= os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE
        )
        for rank in ("0", "1")
    ]
    assert main([*command[3:], f"--run={tmp_path / 'one'}", "--batch=2"]) == 0
    said = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(text.count("trained") for text in said) == [0, 1]  # the main process alone
    (tensors, about), (tensors_of_two, about_two) = (
        contents(tmp_path / name) for name in ("one", "two")
    )
    assert about["next_clip"] == about_two["next_clip"] == 6
    assert about["global_batch"] == about_two["global_batch"] == 2
    (row,), (row_of_two,) = rows(tmp_path / "one"), rows(tmp_path / "two")
    for key in row.keys() - {"hours", "crops_per_second", "gradient_norm"}:
        assert row_of_two[key] == pytest.approx(row[key], rel=1e-3, abs=1e-5), key

    # Adam's first moments after the first step are the gradients.
    first, first_of_two = (
        checkpoint.read(tmp_path / name / "checkpoints" / "step-0000001.safetensors")[0]
        for name in ("one", "two")
    )
    names = [name for name in first if name.startswith("adam.exp_avg.")]
    gradient, of_two = (
        torch.cat([values[name].flatten() for name in names]) for values in (first, first_of_two)
    )
    # Rounding alone makes 5e-7 of it; where it decides which of two motions a cell takes, 4e-5 was
    # seen. A mean that is taken wrongly, or over one process only, is off by a tenth and more.
    assert (of_two - gradient).norm() <= 1e-3 * gradient.norm()
    for name in names:  # a single number, as a sum of values that cancel, is less precise
        error = (first_of_two[name] - first[name]).norm()
        assert error <= 1e-2 * first[name].norm() + 1e-8, name
    assert all(first[name].abs().max() > 1e-7 for name in names)

    # Adam divides by the gradient and so amplifies those near zero: almost all weights are equal
    # after the first step, and the others then diverge because of these few.
    config = TrainConfig(losses=tuple(losses.split(",")), discriminator_channels=(2, 3, 3, 2, 1))
    begins = init_run(config, CPU, start_from="stream-perceptual").net.state_dict()

    def weights(values):
        return torch.cat([values[f"net.{name}"].flatten() for name in begins])

    apart = (weights(first_of_two) - weights(first)).abs()
    assert (apart < 1e-6).float().mean() > 0.99
    assert apart.max() < 2.01e-3  # twice the learning rate: one step, in either direction
    moved = weights(tensors) - torch.cat([value.flatten() for value in begins.values()])
    assert (weights(tensors_of_two) - weights(tensors)).norm() < 0.1 * moved.norm()
    # Parameters of losses, discriminators and their power iterations stay together.
    learned = [name for name in tensors if name.startswith("loss_modules.")]
    assert len(learned) > 60
    for name in learned:
        torch.testing.assert_close(tensors_of_two[name], tensors[name], rtol=0, atol=1e-5)
