"""Claims about reconstruct(): it takes any frames, and gives frames of the same kind or a file."""

import runpy
import sys
from pathlib import Path

import media
import numpy as np
import pytest
import torch
from PIL import Image

import deepfovea
from deepfovea import api
from deepfovea.config import InputError
from deepfovea.files_to_files import reconstruct_file
from deepfovea.fovea import downsample
from deepfovea.gaze import GazeTrack, fixed
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.reconstructor import Reconstructor
from deepfovea.video import VideoReader, VideoWriter

ROOT = Path(__file__).parents[1]
IMAGES = media.moving(3, 32, 40)
GAZE = (20.0, 16.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = StreamNet(StreamConfig(8, 8, 4, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def expected(model, images=IMAGES, gaze=GAZE):
    """The result of calling the network directly: [T, 3, H, W]."""
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[None] / 255.0
    points = torch.tensor(gaze).expand(1, len(images), 2)
    samples, mask = deepfovea.sample(frames, points, blue_noise=True)
    with torch.inference_mode():
        return model(samples, mask, None)[0][0].clamp(0, 1)


def test_the_public_names_are_shown():
    assert {"load", "reconstruct", "Reconstructor", "VideoReader", "InputError"} <= set(
        dir(deepfovea)
    )
    assert set(dir(deepfovea)) == set(deepfovea.__all__)
    assert all(getattr(deepfovea, name) is not None for name in deepfovea.__all__)


FLOATS = [image.astype(np.float32) / 255.0 for image in IMAGES]
TENSORS = [torch.from_numpy(image).permute(2, 0, 1) / 255.0 for image in FLOATS]


@pytest.mark.parametrize(
    ("source", "kind", "levels"),
    [
        (np.stack(IMAGES), np.ndarray, 255),
        (np.stack(FLOATS), np.ndarray, 1),
        (torch.stack([255 * t for t in TENSORS]), torch.Tensor, 1),
        (torch.from_numpy(np.stack(IMAGES)).permute(0, 3, 1, 2), torch.Tensor, 255),
        (torch.from_numpy(np.stack(IMAGES)).permute(0, 3, 1, 2)[None], torch.Tensor, 255),
        (IMAGES, list, 255),
        ([Image.fromarray(image) for image in IMAGES], list, 255),
        (FLOATS, list, 1),
        (iter(IMAGES), None, 255),
    ],
    ids=["uint8", "float", "torch", "torch uint8", "batch", "list", "PIL", "floats", "iterator"],
)
def test_frames_of_every_kind_come_back_as_they_came(model, source, kind, levels):
    made = deepfovea.reconstruct(source, model=model, gaze=GAZE)
    if kind is None:
        assert iter(made) is made
    else:
        assert type(made) is kind
    if isinstance(made, torch.Tensor):
        frames = made.permute(0, 2, 3, 1).numpy()
        assert made.dtype == source.dtype
    else:
        frames = np.stack([np.asarray(frame) for frame in made])
    truth = expected(model).permute(0, 2, 3, 1).numpy()
    assert frames.shape == (3, 128, 160, 3)
    assert np.abs(frames.astype(float) / levels - truth).max() <= (
        0.51 / 255 if levels > 1 else 1e-5
    )


def test_one_frame_and_one_by_one(model):
    first = expected(model)[0].permute(1, 2, 0).numpy()
    assert np.abs(deepfovea.reconstruct(FLOATS[0], model=model, gaze=GAZE) - first).max() < 1e-5
    image = deepfovea.reconstruct(Image.fromarray(IMAGES[0]), model=model, gaze=GAZE)
    assert isinstance(image, Image.Image) and image.size == (160, 128)
    reconstructor = Reconstructor(model)
    for image, frame in zip(IMAGES, expected(model), strict=True):
        shown = reconstructor(image, GAZE)
        assert shown.dtype == np.uint8
        assert np.abs(shown / 255.0 - frame.permute(1, 2, 0).numpy()).max() <= 0.51 / 255


def test_gaze_of_every_kind(model):
    whole = deepfovea.reconstruct(np.stack(IMAGES), model=model, gaze=GAZE)
    track = fixed((GAZE[0] + 0.5) / 40, (GAZE[1] + 0.5) / 32)
    for gaze in (track, [GAZE] * 3, np.array([GAZE] * 3), torch.tensor([GAZE] * 3)):
        assert np.array_equal(
            deepfovea.reconstruct(np.stack(IMAGES), model=model, gaze=gaze), whole
        )
    moving = [(5.0, 5.0), (20.0, 16.0), (35.0, 28.0)]
    made = deepfovea.reconstruct(np.stack(FLOATS), model=model, gaze=moving)
    frames = torch.from_numpy(np.stack(FLOATS)).permute(0, 3, 1, 2)[None]
    samples, mask = deepfovea.sample(frames, torch.tensor([moving]), blue_noise=True)
    with torch.inference_mode():
        truth = model(samples, mask, None)[0][0].clamp(0, 1)
    assert np.abs(made - truth.permute(0, 2, 3, 1).numpy()).max() < 1e-5
    centre = deepfovea.reconstruct(np.stack(IMAGES), model=model)
    again = deepfovea.reconstruct(np.stack(IMAGES), model=model, gaze=(19.5, 15.5))
    assert np.array_equal(centre, again)


def test_simulation_has_the_size_of_what_came(model):
    images = media.moving(2, 45, 62)
    made = deepfovea.reconstruct(
        np.stack(images), model=model, simulate=True, gaze=(30.0, 20.0), jitter="none"
    )
    assert made.shape == (2, 45, 62, 3)
    padded = np.pad(np.stack(images), ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge") / 255.0
    low = downsample(torch.from_numpy(padded).float().permute(0, 3, 1, 2))
    points = torch.tensor([[[7.125, 4.625]] * 2])
    samples, mask = deepfovea.sample(low[None], points, blue_noise=True)
    with torch.inference_mode():
        truth = model(samples, mask, None)[0][0].clamp(0, 1)[..., :45, :62]
    assert np.abs(made / 255.0 - truth.permute(0, 2, 3, 1).numpy()).max() <= 0.51 / 255


def test_paths_in_and_out(model, tmp_path):
    source = tmp_path / "source"
    with VideoWriter(source, frame_rate=24) as writer:
        for number, image in enumerate(IMAGES):
            writer.write(image, number / 24)
    frames = deepfovea.reconstruct(source, model=model, gaze=GAZE)
    truth = expected(model).permute(0, 2, 3, 1).numpy()
    assert np.abs(frames / 255.0 - truth).max() <= 0.51 / 255
    for given in (str(source), np.stack(IMAGES), iter(IMAGES)):
        output = tmp_path / "new" / f"out-{type(given).__name__}"
        assert deepfovea.reconstruct(given, output, model=model, gaze=GAZE) == output
        with VideoReader(output) as reader:
            written = np.stack([frame.image for frame in reader])
        assert np.abs(written.astype(int) - frames).max() <= 1
    with pytest.raises(InputError, match="existing output"):
        deepfovea.reconstruct(source, output, model=model)
    with pytest.raises(InputError, match="output that is the input"):
        deepfovea.reconstruct(source, source, model=model, overwrite=True)


def test_a_mask_needs_no_gaze(model):
    alpha = np.full((32, 40, 1), 255, np.uint8)
    alpha[::2] = 0
    rgba = np.concatenate([IMAGES[0], alpha], -1)
    known = torch.from_numpy((alpha > 0).astype(np.float32)).permute(2, 0, 1)
    with torch.inference_mode():
        frames = TENSORS[0] * 255 * known
        truth = model(frames[None, None], known[None, None], None)[0][0, 0].clamp(0, 1)
    for given in (rgba, Image.fromarray(rgba, "RGBA")):
        shown = np.asarray(Reconstructor(model)(given))
        assert shown.shape == (128, 160, 3)
        assert np.abs(shown / 255.0 - truth.permute(1, 2, 0).numpy()).max() <= 0.51 / 255


def test_a_model_will_do_where_a_reconstructor_is_expected(model, tmp_path):
    source = media.write_video(tmp_path / "source.mp4", media.moving(2))
    assert reconstruct_file(source, tmp_path / "out.mp4", model).frames == 2
    assert Reconstructor("stream").engine.scale == 4
    with pytest.raises(InputError, match="received dict, expected a generator"):
        Reconstructor({})


@pytest.mark.parametrize(
    ("frame", "gaze", "complaint"),
    [
        (
            IMAGES[0].astype(np.float32),
            GAZE,
            r"values from 2\d to \d+, expected 0 to 1; divide by 255",
        ),
        (TENSORS[0] * float("nan"), GAZE, "values from nan to nan, expected 0 to 1"),
        (FLOATS[0] - 0.5, GAZE, "expected 0 to 1$"),
        (IMAGES[0].astype(np.int64), GAZE, "received torch.int64, expected uint8, or float"),
        (np.zeros((3, 32, 40), np.uint8), GAZE, r"expected \[h, w, 3\].*torch tensors are"),
        (torch.zeros(32, 40, 3), GAZE, r"received a tensor \[32, 40, 3\], expected \[3, h, w\]"),
        ("frame.png", GAZE, "received str, expected a NumPy array, a PIL image or a torch tensor"),
        (IMAGES[0], None, "received none for a frame without a mask"),
        (IMAGES[0], (float("nan"), 3.0), r"received \(nan, 3.0\), expected finite pixels"),
        (IMAGES[0][:16], GAZE, r"received 40x16 in a video of 40x32; reset\(\) begins"),
    ],
)
def test_nonsense_is_refused_in_one_line(model, frame, gaze, complaint):
    reconstructor = Reconstructor(model)
    reconstructor(IMAGES[0], GAZE)
    with pytest.raises(InputError, match=complaint) as error:
        reconstructor(frame, gaze)
    assert "\n" not in str(error.value)
    reconstructor.reset()
    reconstructor(IMAGES[0][:16], GAZE)  # another video


@pytest.mark.parametrize(
    ("source", "gaze", "complaint"),
    [
        ([], None, "no frames"),
        (5, None, "received int, expected a path, a frame or several"),
        (np.stack(IMAGES), (1.0, 2.0, 3.0), r"shape \[3\], expected \(x, y\)"),
        (np.stack(IMAGES), (float("nan"), 2.0), "nan or infinite"),
        ([IMAGES[0], IMAGES[1][:16]], None, "in a video of"),
    ],
)
def test_nonsense_in_one_call_is_refused_too(model, source, gaze, complaint):
    with pytest.raises(InputError, match=complaint):
        deepfovea.reconstruct(source, model=model, gaze=gaze)


@pytest.mark.parametrize(
    ("kind", "frames"), [("file", 3), ("array", 3), ("list", 3), ("one", 1), ("iterator", None)]
)
def test_auto_is_told_how_many_frames_there_are(model, tmp_path, monkeypatch, kind, frames):
    """For only a few frames nothing is compiled."""
    source = {
        "file": media.write_video(tmp_path / "in.mp4", IMAGES),
        "array": np.stack(IMAGES),
        "list": IMAGES,
        "one": IMAGES[0],
        "iterator": iter(IMAGES),
    }[kind]
    told = []

    def load_engine(name, engine, device, *, frames):
        told.append((name, engine, str(device), frames))
        return model

    monkeypatch.setattr(api, "load_engine", load_engine)
    deepfovea.reconstruct(source, device="cpu")
    assert told == [("stream", "auto", "cpu", frames)]


@pytest.mark.parametrize("name", ["stream", "paper"])
def test_a_network_called_as_a_reconstructor_says_what_is(name):
    network = deepfovea.load(name, "cpu")
    with pytest.raises(InputError, match=r"a tensor \[3, 32, 40\], .*deepfovea.Reconstructor"):
        network(TENSORS[0], GAZE)
    with pytest.raises(InputError, match="mask: received tuple, expected"):
        network(TENSORS[0][None, None], GAZE)


def test_a_track_may_be_lost():
    lost = GazeTrack(np.zeros(1), np.array([[np.nan, np.nan]]), np.zeros(1, dtype=bool))
    assert deepfovea.reconstruct(IMAGES[:1], gaze=lost, engine="torch")[0].shape == (128, 160, 3)


def test_load_takes_device_and_engine():
    assert next(deepfovea.load("stream", "cpu").parameters()).device.type == "cpu"
    assert deepfovea.load("stream", engine="onnxruntime", device="cpu").name == "onnxruntime"
    with pytest.raises(InputError, match="--engine: received 'fastest'"):
        deepfovea.load("stream", engine="fastest")
    with pytest.raises(InputError, match="expected auto, cpu"):
        deepfovea.load("stream", device="nonsense")


def test_torch_hub_finds_the_models():
    for name in ("stream", "stream_perceptual", "paper"):
        model = torch.hub.load(str(ROOT), name, source="local", device="cpu")
        frames, _ = model(torch.zeros(1, 6, 3, 32, 32), torch.zeros(1, 6, 1, 32, 32), None)
        assert frames.shape == (1, 6, 3, 128, 128)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem
)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    media.write_video(tmp_path / "in.mp4", media.moving(2, 64, 96))
    monkeypatch.chdir(tmp_path)
    arguments = ["in.mp4", "out.mp4"] if "video" in path.stem else []
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
