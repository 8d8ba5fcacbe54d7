"""Claims about the viewer's server: what it sends, what it refuses, when it resets its state."""

import contextlib
import io
import json
import queue
import socket
import sys
import threading
import time
import webbrowser
from argparse import ArgumentTypeError
from contextlib import contextmanager
from dataclasses import replace

import media
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from viewing import COUNT, DISC, HEIGHT, RATE, WIDTH, make_catalog, unpack

from deepfovea import cli
from deepfovea.checkpoint import load
from deepfovea.cli.view import host_name
from deepfovea.config import Density, InputError
from deepfovea.files_to_files import to_tensor
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, jitter_sequence, sample
from deepfovea.gaze import read_track
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.images import to_image
from deepfovea.metrics.pixel import psnr
from deepfovea.reconstructor import Reconstructor
from deepfovea.resample import upsample_bicubic
from deepfovea.video import VideoReader
from deepfovea.viewer import server
from deepfovea.viewer.methods import Accumulator
from deepfovea.viewer.request import VIEWS, ViewerRequest, apply_message
from deepfovea.viewer.server import make_app, rejection_reason
from deepfovea.viewer.session import Catalog, LoadedModel, Session

PATIENCE = 20.0  # seconds; a machine may be busy, and a failing test may wait


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("viewer")


@pytest.fixture(scope="module")
def catalog(folder):
    return make_catalog(folder, models=("tiny", "twin"), videos=2)


# ---- one session, without a server ----


class Viewer:
    """The client of a session; messages from the session are in a queue."""

    def __init__(self, catalog, **first):
        self.got = queue.Queue()
        self.session = Session(catalog, self.got.put)
        if first:
            self.say(**first)
        self.thread = threading.Thread(target=self.session.run, daemon=True)
        self.thread.start()

    def say(self, **changes):
        self.session.apply_message(json.dumps(changes))

    def text(self):
        message = self.got.get(timeout=PATIENCE)
        assert isinstance(message, str)
        return json.loads(message)

    def frame(self, acknowledge=True):
        """The next frame; texts before it are skipped."""
        while isinstance(message := self.got.get(timeout=PATIENCE), str):
            assert "error" not in message
        header, pictures = unpack(message)
        if acknowledge:
            self.say(acknowledged=header["number"])
        return header, pictures

    def error(self):
        """The next error; frames and other texts before it are skipped."""
        while True:
            message = self.got.get(timeout=PATIENCE)
            if isinstance(message, bytes):
                self.say(acknowledged=unpack(message)[0]["number"])
            elif "error" in (text := json.loads(message)):
                return text["error"]

    def silent(self, seconds=0.3):
        try:
            return isinstance(self.got.get(timeout=seconds), str)
        except queue.Empty:
            return True


@contextmanager
def viewer(catalog, **first):
    one = Viewer(catalog, **first)
    try:
        yield one
    finally:
        one.session.close()
        one.thread.join(PATIENCE)
        assert not one.thread.is_alive()


def originals(path):
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


def test_the_samples_are_those_of_the_gaze(catalog):
    with viewer(catalog, playing=False, gaze=[0.25, 0.5], density=DISC, jitter="none") as one:
        assert one.text()["video"]["width"] == WIDTH
        header, pictures = one.frame()
        low = downsample(to_tensor(originals(catalog.videos["0"][0])[0]))
        gaze_px = torch.tensor([[[0.25 * WIDTH / 4 - 0.5, 0.5 * HEIGHT / 4 - 0.5]]])
        samples, mask = sample(low[None, None], gaze_px, Density.parse(DISC))
        expected = (samples[0, 0].permute(1, 2, 0) * 255).round().numpy()
        assert np.abs(pictures["samples"] - expected).max() <= 1
        assert header["sampled"] == pytest.approx(float(mask.mean()))
        one.say(gaze=[0.75, 0.5])
        header, pictures = one.frame()
        assert header["gaze"] == [0.75, 0.5]
        lit = np.argwhere(pictures["samples"].sum(-1) > 0)
        assert lit.mean(0) == pytest.approx([HEIGHT / 8 - 0.5, 0.75 * WIDTH / 4 - 0.5], abs=0.6)


def test_every_frame_along_a_track_is_what_reconstruct_writes(catalog, folder):
    csv = "time,x,y\n" + "".join(f"{i / RATE},{8 * i},{5 * i}\n" for i in range(COUNT))
    (folder / "track.csv").write_text(csv, encoding="utf-8")
    path = catalog.videos["0"][0]
    track = read_track(folder / "track.csv", frame_size=(HEIGHT, WIDTH), frame_rate=RATE)
    reconstructor = Reconstructor(load(folder / "tiny.safetensors"))
    with viewer(catalog, speed=0, track=csv, views=list(VIEWS), jitter="none") as one:
        for number, image in enumerate(originals(path)):
            header, pictures = one.frame()
            gaze = track.at([number / RATE])[0]
            assert (header["frame"], header["timestamp"]) == (number, None)
            assert header["gaze"] == pytest.approx(list(gaze))
            gaze_px = tuple(gaze * [WIDTH / 4, HEIGHT / 4] - 0.5)
            expected = reconstructor(downsample(to_tensor(image)), gaze_px)
            expected = (expected.permute(1, 2, 0) * 255).numpy()
            assert np.abs(pictures["reconstruction"] - expected).mean() < 3.0  # JPEG
            error = ((expected / 255 - image / 255.0) ** 2).mean()
            assert header["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.01)
            assert np.abs(pictures["original"].astype(int) - image).mean() < 3.0
        assert one.frame()[0]["frame"] == 0  # and from the beginning


def test_a_track_by_frame_number_meets_the_frames_of_a_variable_rate(catalog, folder):
    times = [0.0, 0.02, 0.5, 0.54, 0.56, 2.0, 2.04, 2.5]
    path = media.write_video(
        folder / "variable.mkv", media.moving(8, HEIGHT, WIDTH), times=times, options={"g": "4"}
    )
    csv = "frame,x,y\n" + "".join(f"{i},{10 * i},{5 * i}\n" for i in range(8))
    expected = [[(10 * i + 0.5) / WIDTH, (5 * i + 0.5) / HEIGHT] for i in range(8)]
    variable = replace(catalog, videos={"0": (path, path.name)})
    with viewer(variable, speed=0, track=csv) as one:
        for number in range(8):
            header, _ = one.frame()
            assert (header["frame"], header["gaze"]) == (number, pytest.approx(expected[number]))
    for number in (6, 2, 7):  # entered at a key frame, not counted from the first
        with viewer(variable, playing=False, track=csv, seek=times[number] + 0.001) as one:
            header, _ = one.frame()
            assert header["seconds"] == pytest.approx(times[number], abs=0.001)
            assert (header["frame"], header["gaze"]) == (number, pytest.approx(expected[number]))


def test_the_grid_is_shifted_as_asked(catalog, folder):
    path = catalog.videos["0"][0]
    truth = torch.stack([to_tensor(image) for image in originals(path)[:5]])
    offsets = jitter_sequence("quad", 0, 5)
    reconstructor = Reconstructor(load(folder / "tiny.safetensors"))
    with viewer(catalog, speed=0, jitter="quad", gaze=[0.5, 0.5]) as one:
        for low, offset, image in zip(downsample(truth, 4, offsets), offsets, truth, strict=True):
            header, _ = one.frame()
            assert header["jitter"] == offset.tolist()
            gaze_px = (WIDTH / 8 - 0.5, HEIGHT / 8 - 0.5)
            expected = reconstructor(low, gaze_px, jitter=tuple(offset.tolist()))
            assert header["psnr"] == pytest.approx(float(psnr(expected, image)), abs=0.01)
        with pytest.raises(
            InputError, match="jitter: received 'sobol'; expected one of none, quad"
        ):
            one.say(jitter="sobol")


def test_the_newest_gaze_wins_and_no_frame_is_queued(catalog):
    with viewer(catalog, speed=0) as one:
        first, second = (one.frame(acknowledge=False)[0] for _ in range(2))
        for i in range(100):
            one.say(gaze=[i / 100, 0.5], timestamp=float(i))
        assert one.silent()  # two frames are sent and not yet painted
        one.say(acknowledged=first["number"])
        third = one.frame(acknowledge=False)[0]
        assert (third["gaze"], third["timestamp"]) == ([0.99, 0.5], 99.0)
        assert [f["number"] for f in (first, second, third)] == [1, 2, 3]
        assert one.silent()


def test_late_frames_are_dropped(catalog):
    with viewer(catalog) as one:
        first, second = (one.frame(acknowledge=False)[0] for _ in range(2))
        assert first["frame"] == 0 < second["frame"]  # a busy machine drops some here already
        time.sleep(6 / RATE)
        one.say(acknowledged=second["number"])
        assert one.frame()[0]["frame"] >= min(second["frame"] + 4, COUNT - 1)


def test_paused_it_waits_for_the_gaze(catalog):
    with viewer(catalog, playing=False) as one:
        before = one.frame()[0]
        assert one.silent()
        one.say(gaze=[0.1, 0.2], timestamp=5)
        after = one.frame()[0]
        assert (before["frame"], after["frame"], after["timestamp"]) == (0, 0, 5.0)
        assert one.silent()


def test_step_seek_reset_and_the_other_video(catalog):
    with viewer(catalog, playing=False, blue_noise=True) as one:
        first, _ = one.frame()
        one.say(step=True)
        assert one.frame()[0]["frame"] == 1
        one.session.apply_message('{"step": true}')
        one.say(step=True)
        while one.frame()[0]["frame"] != 3:  # two fast steps still count as two
            pass
        one.say(seek=8 / RATE)
        assert one.frame()[0]["frame"] == 8
        one.say(seek=3.4 / RATE)
        assert one.frame()[0]["frame"] == 3
        one.say(seek=1e6)
        assert one.frame()[0]["frame"] == COUNT - 1
        one.say(step=True)
        assert one.frame()[0]["frame"] == 0
        one.say(gaze=[0.5, 0.50001])
        second, _ = one.frame()  # the state has helped, and other pixels were drawn
        assert second["psnr"] != pytest.approx(first["psnr"], abs=1e-4)
        one.say(reset=True, gaze=[0.5, 0.5])
        assert one.frame()[0]["psnr"] == pytest.approx(first["psnr"])
        one.say(video="1")
        assert one.text()["video"]["name"] == "video1.mp4"
        _, pictures = one.frame()
        other = originals(catalog.videos["1"][0])[0].astype(int)
        assert np.abs(pictures["original"] - other).mean() < 3.0


@pytest.mark.parametrize(
    ("messages", "number"),
    [
        ([{"seek": 8 / RATE}, {"step": True}, {"step": True}], 10),
        ([{"step": True}, {"seek": 8 / RATE}], 8),
        ([{"step": True}, {"seek": 8 / RATE}, {"step": True}], 9),
        ([{"step": True}, {"video": "1"}, {"step": True}, {"step": True}], 2),
    ],
)
def test_steps_count_from_the_last_seek_however_fast_they_come(catalog, messages, number):
    with viewer(catalog, playing=False) as one:
        one.frame()
        with one.session._condition:  # all of them before the session reads a request
            for message in messages:
                one.say(**message)
        assert one.frame()[0]["frame"] == number


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"density": "uniform:50"}, 0.5),
        ({"density": "budget:25"}, 0.25),
        (
            {"density": "1,0,2,2.01deg", "pixels_per_degree": 8},
            np.pi * 4**2 / (WIDTH * HEIGHT / 16),
        ),
        ({"density": "uniform:50", "blue_noise": True}, 0.5),
    ],
)
def test_densities(catalog, changes, share):
    with viewer(catalog, playing=False, **changes) as one:
        header, _ = one.frame()
        assert header["sampled"] == pytest.approx(share, abs=0.04)


def test_only_the_views_that_are_shown_are_sent(catalog):
    with viewer(catalog, playing=False, views=["original"]) as one:
        assert list(one.frame()[1]) == ["original"]
        one.say(views=["samples", "reconstruction"])
        assert set(one.frame()[1]) == {"samples", "reconstruction"}


def test_errors_and_filling(catalog):
    views = ["reconstruction", "original", "filled", "error"]
    with viewer(catalog, playing=False, views=views, density=DISC) as one:
        header, pictures = one.frame()
    assert list(pictures) == views
    shown, original, filled, error = (pictures[view].astype(int) for view in views)
    assert np.abs(error - (4 * np.abs(shown - original)).clip(max=255)).mean() < 8  # JPEG
    assert header["psnr_of"]["filled"] == pytest.approx(
        10 * np.log10(255**2 / np.mean((filled - original) ** 2)), abs=0.5
    )


def test_another_model_gets_the_same_samples_and_begins_together(catalog):
    """A network beside itself gives the same frames, whatever it saw before."""
    with viewer(catalog, playing=False, views=["reconstruction"], density=DISC) as one:
        one.frame()
        one.say(views=["reconstruction", "model:twin", "model:tiny", "accumulated"], step=True)
        for _ in range(3):
            header, pictures = one.frame()
            np.testing.assert_array_equal(pictures["model:twin"], pictures["reconstruction"])
            np.testing.assert_array_equal(pictures["model:tiny"], pictures["reconstruction"])
            assert header["psnr_of"]["model:twin"] == header["psnr"]
            one.say(step=True)
        assert np.abs(pictures["accumulated"] - pictures["reconstruction"].astype(float)).max() > 9
        assert header["psnr_of"].keys() >= {"model:twin", "accumulated"}


@pytest.mark.parametrize("size", [(40, 56), (37, 50)])
def test_samples_are_carried_along_the_motion(size):
    height, width = size
    images = [to_tensor(image) for image in media.moving(8, 4 * height, 4 * width)]
    original = torch.stack(images)[None]
    low = downsample(original[0])[None]
    mask = (torch.rand(1, 8, 1, *size, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    accumulator = Accumulator()
    with torch.inference_mode():
        frames, _ = accumulator(low * mask, mask)
        state, one_by_one = None, []
        for t in range(8):
            part = slice(t, t + 1)
            frame, state = accumulator(low[:, part] * mask[:, part], mask[:, part], state)
            one_by_one.append(frame)
    torch.testing.assert_close(torch.cat(one_by_one, 1), frames)
    filled = upsample_bicubic(pull_push(low[:, -1] * mask[:, -1], mask[:, -1]))
    errors = [(made - original[:, -1]).square().mean() for made in (frames[:, -1], filled)]
    assert errors[0] < 0.7 * errors[1]


def test_a_clip_that_begins_again_is_not_forgotten(catalog):
    """A loop gives the network's result for the clip twice in a row, not for a new clip."""
    with viewer(catalog, speed=0, views=["reconstruction"], jitter="none") as one:
        frames = [one.frame() for _ in range(COUNT + 1)]
    (first, _), (again, _) = frames[0], frames[COUNT]
    assert first["frame"] == again["frame"] == 0
    assert first["sampled"] != again["sampled"]  # the mask of frame COUNT, not of frame 0


def test_models(catalog):
    with viewer(catalog, playing=False) as one:
        assert one.frame()[0]["engine"] == "PyTorch for tiny"
        one.say(model="twin")
        header, _ = one.frame()
        assert (header["model"], header["engine"]) == ("twin", "PyTorch for twin")


# ---- a network that takes six frames at a time ----


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    torch.manual_seed(0)
    network = RecurrentUNet(UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18))).eval()
    catalog = make_catalog(tmp_path_factory.mktemp("six"), models=("six",), count=30)
    return Catalog(catalog.videos, ["six"], lambda name: LoadedModel(network, "PyTorch"))


def test_six_frames_at_a_time_are_shown_five_frames_late_and_say_so(six):
    with viewer(
        six, speed=0, gaze=[0.0, 0.5], timestamp=1, views=["samples", "reconstruction"]
    ) as one:
        low = [downsample(to_tensor(image)) for image in originals(six.videos["0"][0])]
        gaze_px = (-0.5, HEIGHT / 8 - 0.5)
        truth = list(Reconstructor(six.model("six").model).stream((f, gaze_px) for f in low[:6]))
        for number in range(6):
            header, pictures = one.frame(acknowledge=number < 5)
            assert (header["frame"], header["gaze"], header["timestamp"]) == (
                number,
                [0.0, 0.5],
                1.0,
            )
            expected = to_image(truth[number].frame).astype(int)
            assert np.abs(pictures["reconstruction"] - expected).mean() < 3.0  # JPEG
            assert header["sampled"] == pytest.approx(float(truth[number].mask.mean()))
        one.say(gaze=[1.0, 0.5], timestamp=2, acknowledged=6)
        stamps = [one.frame()[0]["timestamp"] for _ in range(8)]
        assert stamps[:5] == [1.0] * 5  # looked at before
        assert stamps[-1] == 2.0


def test_six_frames_at_a_time_cannot_be_shown_beside_single_ones(catalog, six):
    models = {"tiny": catalog.model("tiny"), "six": six.model("six")}
    both = Catalog(catalog.videos, list(models), models.__getitem__)
    with viewer(both, playing=False, views=["original"]) as one:
        one.frame()
        one.say(views=["original", "model:six"])
        while "current" not in (text := one.text()):
            pass
        assert text["current"]["views"] == ["original"]
        assert one.error() == (
            "six: received it beside tiny; expected a method that takes one frame at a time and "
            "enlarges by 4: choose six as the model"
        )
        one.say(model="six", views=["original", "model:tiny"], playing=True, speed=0)
        assert "model:tiny" in one.frame()[1]


def test_six_frames_at_a_time_paused_what_was_asked_last_is_shown_at_last(six):
    with viewer(six, playing=False, density="uniform:50") as one:
        one.frame()
        assert one.silent()
        for asked, holds in (
            ({"gaze": [0.1, 0.2]}, lambda header: header["gaze"] == [0.1, 0.2]),
            ({"seek": 8 / RATE}, lambda header: header["frame"] == 8),
            ({"step": True}, lambda header: header["frame"] == 9),
            ({"density": "uniform:20"}, lambda header: header["sampled"] < 0.3),
        ):
            one.say(**asked)
            while not holds(one.frame()[0]):
                pass
            assert one.silent()


@pytest.mark.parametrize(
    ("track", "complaint"),
    [
        ("", "gaze track: received no rows"),
        ("time,left\n0,1\n", "gaze track: received the columns"),
        ("time,x,y\n0,a,b\n", "as x in row 2"),
        ("time,x,y\n0,9000,9000\n", "no position inside"),
    ],
)
def test_a_bad_track_is_refused_and_the_video_goes_on(catalog, track, complaint):
    with viewer(catalog, speed=0) as one:
        one.frame()
        one.say(track=track)
        error = one.error()
        assert complaint in error
        assert "/" not in error.split("received")[0]
        assert one.frame()[0]["timestamp"] is not None


def test_a_refused_request_leaves_nothing_of_itself(catalog):
    with viewer(catalog, playing=False) as one:
        one.frame()
        one.say(video="1", track="time,left\n0,1\n")  # the video opens, the track does not
        assert "gaze track" in one.error()
        one.say(step=True)
        header, pictures = one.frame()
        first = originals(catalog.videos["0"][0])
        assert np.abs(pictures["original"] - first[header["frame"]].astype(int)).mean() < 3.0


# ---- changes in every order ----

SIZES = {"0": (40, 56), "1": (64, 96), "2": (50, 34)}
CHANGES = st.sampled_from(
    [
        *({"video": video} for video in (*SIZES, "damaged")),
        *({"video": "1", "seek": 0.2, "model": model} for model in ("six", "missing")),
        *({"model": model} for model in ("tiny", "six", "missing")),
        *({"density": density} for density in ("published", "uniform:30", "1,0,2,3deg")),
        {"pixels_per_degree": 3},
        {"blue_noise": True},
        {"jitter": "quad"},
        {"track": "time,x,y\n0,10,10\n"},
        {"video": "2", "track": "time,left\n0,1\n"},
        {"track": None},
        {"gaze": [0.1, 0.9]},
        {"playing": True},
        {"speed": 0},
        {"step": True},
        {"seek": 0.1},
        {"reset": True},
    ]
)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory, six):
    """Videos of three sizes and a damaged one; two networks and one that cannot be loaded."""
    folder = tmp_path_factory.mktemp("sizes")
    tiny = make_catalog(folder).model("tiny").model
    videos = {"damaged": (folder / "damaged.mp4", "damaged.mp4")}
    videos["damaged"][0].write_bytes(b"\x00\x00\x00\x18ftypisom" + b"\x00" * 100)
    for name, (height, width) in SIZES.items():
        images = media.moving(8, height, width, seed=int(name))
        videos[name] = (media.write_video(folder / f"size{name}.mp4", images), name)

    def load_model(name):
        if name == "missing":
            raise InputError("missing: received no weights; expected a file")
        return LoadedModel(tiny if name == "tiny" else six.model("six").model, name)

    videos = {name: videos[name] for name in (*SIZES, "damaged")}
    return Catalog(videos, ["tiny", "six", "missing"], load_model)


@pytest.mark.parametrize("model", ["tiny", "six"])
@settings(max_examples=12, deadline=None, database=None, phases=[Phase.generate])
@given(
    changes=st.lists(st.tuples(CHANGES, st.booleans()), min_size=1, max_size=6),
    video=st.sampled_from(sorted(SIZES)),
)
def test_whatever_was_asked_before_a_reset_shows_what_a_new_viewer_sees(
    sizes, model, changes, video
):
    final = {"model": model, "video": video, "density": "uniform:40", "track": None}
    final |= {"playing": False, "gaze": [0.5, 0.5], "seek": 0.1, "blue_noise": False}
    with viewer(sizes, **final) as new:
        expected, shown = new.frame()

    def same(header, pictures):
        keys = ("model", "frame", "gaze", "sampled", "inner", "outer", "psnr")
        return all(header[key] == pytest.approx(expected[key]) for key in keys) and np.array_equal(
            pictures["samples"], shown["samples"]
        )

    with viewer(sizes) as one:
        for change, wait in changes:
            one.say(**change)
            if wait:  # else the next change may come while this one is being applied
                with contextlib.suppress(queue.Empty):
                    message = one.got.get(timeout=0.2)
                    if isinstance(message, bytes):
                        one.say(acknowledged=unpack(message)[0]["number"])
        one.say(**final, reset=True, acknowledged=2**40)
        until = time.monotonic() + 2 * PATIENCE
        while True:  # frames of earlier changes, and refusals, may still be on their way
            assert time.monotonic() < until, "no frame is that of a new viewer"
            message = one.got.get(timeout=PATIENCE)
            if isinstance(message, bytes) and same(*unpack(message)):
                break


# ---- messages of clients ----

NAMES = {"models": ["tiny"], "videos": ["0"]}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", "3", "[" * 5000, '{"gaze": [0.5]}', '{"gaze": [0.5, "x"]}',
        '{"gaze": [NaN, 0]}', '{"gaze": [0, Infinity]}', '{"gaze": [1e400, 0]}',
        '{"gaze": [true, false]}', '{"gaze": {"x": 1}}', '{"timestamp": -1}', '{"speed": 9}',
        '{"speed": 1' + "0" * 5000 + "}", '{"playing": 1}', '{"step": "yes"}', '{"seek": -1}',
        '{"seek": null}', '{"model": "other"}', '{"model": ["tiny"]}', '{"video": "../0"}',
        '{"views": []}', '{"views": ["all"]}', '{"views": [["samples"]]}', '{"density": "dense"}',
        '{"density": "nan,0,1,2"}', '{"density": "1,0,1,1e9"}', '{"density": 5}',
        '{"pixels_per_degree": 0}', '{"track": 5}', '{"track": "' + "x" * 2**20 + 'y"}',
        '{"track": "\\ud800"}', '{"path": "/etc/passwd"}', '{"steps": 5}',
        '{"acknowledged": 1e300}',
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_malformed_messages_are_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"received .*expected") as refused:
        apply_message(ViewerRequest("tiny", "0"), text, **NAMES)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.lists(st.floats(-5, 6) | st.text(max_size=4), max_size=3)
)  # fmt: skip
KEYS = st.sampled_from(
    ["gaze", "timestamp", "speed", "density", "pixels_per_degree", "views", "track", "seek", "step"]
) | st.sampled_from(["acknowledged", "playing", "blue_noise", "reset", "model", "video"])


@settings(max_examples=100, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_whatever_comes_is_refused_or_a_request_in_range(message):
    try:
        request = apply_message(ViewerRequest("tiny", "0"), json.dumps(message), **NAMES)
    except InputError:
        return
    assert all(-4 <= c <= 5 for c in request.gaze)
    assert 0 <= request.speed <= 8
    assert 1 <= request.pixels_per_degree <= 1000
    assert 0 <= request.seek_seconds <= 1e7
    assert (request.model, request.video) == ("tiny", "0")
    assert request.views <= set(VIEWS)
    assert request.views


def test_a_message_changes_what_it_names_and_nothing_else():
    request = ViewerRequest("tiny", "0", gaze=(0.1, 0.2), resets=3)
    changed = apply_message(request, '{"step": true, "density": "budget:10"}', **NAMES)
    assert changed == ViewerRequest(
        "tiny", "0", gaze=(0.1, 0.2), resets=3, steps=1, playing=False, density=Density(budget=0.1)
    )


# ---- the server ----

HOST = "http://127.0.0.1"


@contextmanager
def serving(catalog, folder, **limits):
    uploads = folder / f"uploads-{time.monotonic_ns()}"
    uploads.mkdir()
    with TestClient(make_app(catalog, uploads, **limits), base_url=HOST) as client:
        yield client, uploads


def watch(client, **options):
    return client.websocket_connect("ws://127.0.0.1/watch", **options)


def hello(socket):
    return json.loads(socket.receive_text())["hello"]


def next_frame(socket, acknowledge=True):
    while "bytes" not in (message := socket.receive()):
        assert message["type"] == "websocket.send", message
        assert "error" not in message["text"]
    header, pictures = unpack(message["bytes"])
    if acknowledge:
        socket.send_json({"acknowledged": header["number"]})
    return header, pictures


def next_error(socket):
    while True:
        message = socket.receive()
        assert message["type"] == "websocket.send", message
        if "bytes" in message:  # not acknowledged, it would be among the last that come
            socket.send_json({"acknowledged": unpack(message["bytes"])[0]["number"]})
        elif "error" in (text := json.loads(message["text"])):
            return text["error"]


def closing_code(socket):
    with pytest.raises(WebSocketDisconnect) as closed:
        while True:
            message = socket.receive()
            if message["type"] == "websocket.close":
                raise WebSocketDisconnect(message["code"])
    return closed.value.code


def wait_until(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_page_and_nothing_but_the_page(catalog, folder):
    with serving(catalog, folder) as (client, _):
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in ("main.js", "stage.js", "style.css", "icon.svg"):
            answer = client.get(f"/{name}")
            assert answer.status_code == 200
            assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in answer.text
        assert client.get("/main.js").headers["content-type"].startswith("text/javascript")
        for path in (
            "/server.py",
            "/../server.py",
            "/%2e%2e/server.py",
            "/static/",
            "//etc/passwd",
        ):
            assert client.get(path).status_code == 404
        assert client.post("/main.js").status_code == 405


def test_each_video_has_a_small_picture_of_its_middle(catalog, folder):
    wide = media.write_video(folder / "wide.mp4", media.moving(11, 96, 480))
    (folder / "broken.mp4").write_bytes(bytes(1000))
    videos = {"0": (wide, "wide"), "1": (folder / "broken.mp4", "broken")}
    with serving(replace(catalog, videos=videos), folder) as (client, _):
        with watch(client) as socket:
            listed = hello(socket)["videos"]
        assert [video["picture"] for video in listed] == ["thumbnails/0", "thumbnails/1"]
        answer = client.get("/thumbnails/0")
        assert answer.headers["content-type"] == "image/jpeg"
        # A page of another site must not show what is on this machine.
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        image = Image.open(io.BytesIO(answer.content))
        assert image.size == (192, 38)
        middle = Image.fromarray(originals(wide)[5]).resize(image.size, Image.Resampling.BOX)
        difference = np.asarray(image, float) - np.asarray(middle, float)
        assert np.abs(difference).mean() < 8
        for missing in ("/thumbnails/1", "/thumbnails/2", "/thumbnails/..%2f0"):
            assert client.get(missing).status_code == 404


def test_ten_pages_at_once_and_an_eleventh_is_told(catalog, folder):
    with serving(catalog, folder, max_clients=10) as (client, _):
        pages = [watch(client).__enter__() for _ in range(10)]
        for number, page in enumerate(pages):
            hello(page)
            page.send_json({"playing": False, "gaze": [number / 10, 0.5]})
        for number, page in enumerate(pages):
            while (header := next_frame(page)[0])["gaze"] != [number / 10, 0.5]:
                pass
        with watch(client) as late:
            assert "10 viewers" in json.loads(late.receive_text())["error"]
            assert closing_code(late) == 1013
        for page in pages:
            page.__exit__(None, None, None)  # they vanish
        assert header["sampled"] > 0
        with watch(client) as next_one:
            assert hello(next_one)["models"] == ["tiny", "twin"]
            next_frame(next_one)


def test_malformed_messages_get_an_answer_and_at_last_the_door(catalog, folder):
    with (
        serving(catalog, folder) as (client, _),
        watch(client) as good,
        watch(client) as bad,
    ):
        next_frame(good)
        bad.send_text("{nonsense")
        assert "expected JSON" in next_error(bad)
        bad.send_bytes(b"\x00" * 100)
        assert "received bytes" in next_error(bad)
        next_frame(bad)
        for _ in range(server.MALFORMED_ALLOWED):
            bad.send_text("[]")
        assert closing_code(bad) == 1008
        next_frame(good)


def test_a_flood_is_cut_off_and_the_others_see_on(catalog, folder, monkeypatch):
    monkeypatch.setattr(server, "MESSAGE_BURST", 100)
    monkeypatch.setattr(server, "MESSAGES_PER_SECOND", 1)
    with (
        serving(catalog, folder) as (client, _),
        watch(client) as good,
        watch(client) as flood,
    ):
        next_frame(good)
        for i in range(150):
            flood.send_json({"gaze": [i / 150, 0.5]})
        assert closing_code(flood) == 1008
        next_frame(good)


def test_a_client_that_reads_but_never_answers_gets_two_frames(catalog, folder):
    with (
        serving(catalog, folder) as (client, _),
        watch(client) as one,
    ):
        one.send_json({"speed": 0})
        numbers = [next_frame(one, acknowledge=False)[0]["number"] for _ in range(2)]
        one.send_text("[]")  # the next message is its answer, so no third frame came before
        assert "error" in json.loads(one.receive_text())
        assert numbers == [1, 2]


# ---- uploads ----


def upload(client, token, body):
    return client.post("/upload", params={"token": token}, content=body)


def test_a_dropped_video_is_shown_and_removed_with_its_viewer(catalog, folder):
    video = media.write_video(folder / "drop.mp4", media.moving(4, 48, 80, seed=9)).read_bytes()
    with serving(catalog, folder) as (client, uploads):
        with watch(client) as one, watch(client) as two:
            token = hello(one)["token"]
            hello(two)
            for _ in range(2):  # the second takes the place of the first
                answer = upload(client, token, video)
                assert answer.status_code == 200
                identifier = answer.json()["id"]
                while next_frame(one)[1]["original"].shape != (48, 80, 3):
                    pass
                assert [p.name for p in uploads.glob("*/*")] == [identifier]
            two.send_json({"video": identifier})
            assert "server has named" in next_error(two)  # it is not theirs
        wait_until(lambda: not list(uploads.iterdir()))


@pytest.mark.parametrize(
    ("body", "status", "complaint"),
    [
        (b"not a video at all", 400, "no video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 400, "no video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 400, "no video"),
        (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 500, 400, "the video"),
        (b"", 400, ""),
        (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 2**20, 413, "more than 0.5 MiB"),
    ],
    ids=["text", "playlist", "concat", "damaged", "empty", "large"],
)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_what_is_no_video_is_refused_and_leaves_nothing(
    catalog, folder, body, status, complaint, declared
):
    with (
        serving(catalog, folder, max_upload_bytes=2**19) as (client, uploads),
        watch(client) as one,
    ):
        token = hello(one)["token"]
        content = body if declared else (body[i : i + 2**16] for i in range(0, len(body), 2**16))
        answer = upload(client, token, content)
        assert answer.status_code == status
        assert complaint in answer.json()["error"]
        assert str(uploads) not in answer.text
        assert not list(uploads.glob("*/*"))
        next_frame(one)


def test_an_upload_needs_the_token_of_an_open_page(catalog, folder):
    with serving(catalog, folder) as (client, uploads):
        for token in ("", "../..", "guess"):
            assert upload(client, token, b"GIF89a").status_code == 403
        assert client.get("/upload").status_code == 405
        assert not list(uploads.iterdir())


# ---- who may ask ----


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:8765", None, True),
        ("127.0.0.1:8765", "http://127.0.0.1:8765", True),
        ("localhost:8765", "http://localhost:8765", True),
        ("[::1]:8765", "http://[::1]:8765", True),
        ("192.168.0.7:8765", "http://192.168.0.7:8765", True),
        ("127.0.0.1:8765", "http://evil.example", False),
        ("127.0.0.1:8765", "http://127.0.0.1:9999", False),
        ("127.0.0.1:8765", "null", False),
        ("evil.example:8765", "http://evil.example:8765", False),  # a name that points here
        ("127.0.0.1.evil.example", None, False),
        (None, None, False),
    ],
)
def test_pages_of_other_sites_are_refused(host, origin, allowed):
    assert (rejection_reason(host, origin, "127.0.0.1") is None) == allowed


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("lab.example.org:8765", "http://lab.example.org:8765", True),
        ("127.0.0.1:8765", "https://lab.example.org", True),  # a proxy that sets the Host
        ("lab.example.org", "https://lab.example.org:8443", True),
        ("LAB.example.org", None, True),
        ("lab.example.org", "http://evil.example", False),
        ("evil.example", None, False),
        ("evil.example", "https://lab.example.org", False),
    ],
)
def test_further_names_are_allowed_by_name(host, origin, allowed):
    reason = rejection_reason(host, origin, "127.0.0.1", {"lab.example.org"})
    assert (reason is None) == allowed
    if reason:
        assert "--allowed-host evil.example" in reason


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lab.example.org", "lab.example.org"),
        ("https://Lab.example.org:8080/me/", "lab.example.org"),
        ("lab.example.org:8765", "lab.example.org"),
        ("*", None),
        ("*.example.org", None),
        ("", None),
    ],
)
def test_an_allowed_host_may_be_given_as_an_address(text, name):
    if name is None:
        with pytest.raises(ArgumentTypeError, match="expected a name"):
            host_name(text)
    else:
        assert host_name(text) == name


def test_the_socket_and_the_upload_refuse_other_sites(catalog, folder):
    with serving(catalog, folder) as (client, _):
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        evil = {"origin": "http://evil.example"}
        assert client.post("/upload", headers=evil).status_code == 403
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            watch(client, headers=evil),
        ):
            pass
        assert refused.value.code == 1008


# ---- the verb ----


def run(capsys, *arguments):
    code = cli.main(["view", "--no-browser", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_port_in_use_and_a_missing_extra_are_one_line(catalog, folder, capsys, monkeypatch):
    model, video = folder / "tiny.safetensors", catalog.videos["0"][0]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run(capsys, video, "--model", model, "--port", port)
    assert (code, err.count("\n")) == (2, 1)
    assert f"--port {port}: cannot listen" in err
    monkeypatch.setattr("deepfovea.cli.view.find_spec", lambda name: None)
    code, _, err = run(capsys, video)
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'deepfovea[viewer]'" in err


def test_the_engine_is_the_one_asked_for(catalog, folder, capsys, monkeypatch):
    offered = {}
    monkeypatch.setattr(server, "serve", lambda catalog, **options: offered.update(o=catalog))
    video, model = catalog.videos["0"][0], folder / "tiny.safetensors"
    words = [video, "--model", model, "--device", "cpu", "--engine"]
    for engine, name in (("torch", "PyTorch"), ("onnxruntime", "ONNX Runtime")):
        assert run(capsys, *words, engine)[0] == 0
        loaded = offered["o"].model("tiny.safetensors")
        assert loaded.engine == f"{name}, cpu"
        assert loaded.model.name == engine
    monkeypatch.setattr("deepfovea.runtime.engine.find_spec", lambda name: None)
    code, _, err = run(capsys, *words, "openvino")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'deepfovea[openvino]'" in err
    code, _, err = run(capsys, *words, "abacus")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected one of auto, torch, cuda-graph, onnxruntime, openvino" in err
    assert run(capsys, *words, "auto")[0] == 0
    assert offered["o"].model("tiny.safetensors").engine == "PyTorch, cpu"


def test_the_verb_offers_a_folder_and_warns_of_another_host(catalog, folder, capsys, monkeypatch):
    offered = {}
    monkeypatch.setattr(
        server, "serve", lambda catalog, **options: offered.update(o=catalog, **options)
    )
    code, _, err = run(capsys, folder, "--model", folder / "tiny.safetensors", "--host", "0.0.0.0")
    assert code == 0
    assert "there is no password" in err
    names = [name for _, name in offered["o"].videos.values()]
    assert {"video0.mp4", "video1.mp4"} <= set(names)
    bundled = ["paper", "stream", "stream-perceptual"]
    assert list(offered["o"].models) == ["tiny.safetensors", *bundled]
    assert run(capsys, catalog.videos["0"][0], "--model", folder / "tiny.safetensors")[2] == ""
    assert offered["host"] == "127.0.0.1"
    for bad in (["missing.mp4"], [folder / "track.csv"], ["--model", "nonesuch"]):
        code, _, err = run(capsys, *bad)
        assert (code, err.count("\n")) == (2, 1), err


def test_the_good_videos_of_a_folder_are_offered_when_the_first_is_bad(
    catalog, folder, tmp_path, capsys, monkeypatch
):
    offered = []
    monkeypatch.setattr(server, "serve", lambda catalog, **options: offered.append(catalog))
    (tmp_path / "a.mp4").write_text("not a video", encoding="utf-8")
    words = [tmp_path, "--model", folder / "tiny.safetensors", "--engine", "torch"]
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n"), offered) == (2, 1, [])
    (tmp_path / "b.mp4").write_bytes(catalog.videos["0"][0].read_bytes())
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (0, 1)
    assert "a.mp4" in err and err.endswith("; left out\n")
    assert [name for _, name in offered[0].videos.values()] == ["b.mp4"]


@pytest.mark.parametrize(("name", "opens"), [("w3m", False), ("chromium", True)])
def test_no_text_browser_is_started(catalog, folder, monkeypatch, name, opens):
    class Browsers:
        Error = webbrowser.Error
        opened = 0

        def get(self):
            return webbrowser.GenericBrowser(f"/usr/bin/{name}")

        def open(self, url):
            self.opened += 1

    browsers = Browsers()
    monkeypatch.setitem(sys.modules, "webbrowser", browsers)
    monkeypatch.setattr(server, "serve", lambda _, **options: options["on_ready"]("http://here/"))
    video, model = catalog.videos["0"][0], folder / "tiny.safetensors"
    words = ["view", str(video), "--model", str(model), "--engine", "torch"]
    assert cli.main(words) == 0
    assert browsers.opened == opens
