"""Claims about samples on a shifted grid, from the command line to files and back."""

import contextlib
import json

import media
import numpy as np
import pytest
import torch

import deepfovea
from deepfovea import sampling_record
from deepfovea.cli import main
from deepfovea.config import InputError, Sampling
from deepfovea.files_to_files import best_jitter
from deepfovea.fovea import downsample, jitter_sequence, sample
from deepfovea.reconstructor import Input, Reconstructor
from deepfovea.video import VideoReader


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Five frames that pan over a texture."""
    path = tmp_path_factory.mktemp("video") / "pan.mkv"
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (16, 32, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    media.write_video(path, [wide[:, 2 * t : 2 * t + 160] for t in range(5)])
    return path


def frames_of(path):
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader])


@pytest.mark.parametrize("jitter", ["quad", "halton"])
def test_samples_written_and_read_back_make_the_same_frames(video, tmp_path, jitter):
    words = ["--simulate", "--jitter", jitter, "--seed", "3"]
    assert main(["sample", str(video), "-o", str(tmp_path / "samples"), *words]) == 0
    record = json.loads((tmp_path / "samples" / sampling_record.FILE).read_text(encoding="utf-8"))
    offsets = [frame["jitter"] for frame in record["frames"]]
    np.testing.assert_allclose(offsets, jitter_sequence(jitter, 0, 5).numpy(), atol=1e-6)
    assert main(["reconstruct", str(tmp_path / "samples"), "-o", str(tmp_path / "later")]) == 0
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "direct"), *words]) == 0
    later, direct = frames_of(tmp_path / "later"), frames_of(tmp_path / "direct")
    # Samples are rounded to 256 levels in between.
    assert np.abs(later.astype(int) - direct).mean() < 1.0
    # Without sampling.json the same pictures give other frames.
    (tmp_path / "samples" / sampling_record.FILE).unlink()
    assert main(["reconstruct", str(tmp_path / "samples"), "-o", str(tmp_path / "untold")]) == 0
    assert np.abs(frames_of(tmp_path / "untold").astype(int) - direct).mean() > 2.0


def test_a_grid_at_rest_is_written_down_too(video, tmp_path):
    words = ["--simulate", "--jitter", "none"]
    assert main(["sample", str(video), "-o", str(tmp_path / "samples"), *words]) == 0
    record = json.loads((tmp_path / "samples" / sampling_record.FILE).read_text(encoding="utf-8"))
    assert [frame["jitter"] for frame in record["frames"]] == [[0.0, 0.0]] * 5
    assert (record["height"], record["width"]) == (32, 40)
    assert record["density"]["center"] == 0.98
    # Such a folder is ours and may be replaced.
    words = [str(video), "-o", str(tmp_path / "samples"), "--simulate", "--overwrite"]
    assert main(["sample", *words]) == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"frames": [{"jitter": [0, 0]}]}, "received 1 frame of 40x32, but the folder holds 5"),
        ({"width": 41}, "received 5 frames of 41x32, but the folder holds 5 pictures of 40x32"),
        ({"format": 2}, r"cannot be understood \(format 2\)"),
        ({"frames": [{"jitter": [0, 1.5]}] * 5}, r"received a jitter of \(0.0, 1.5\)"),
        ({"frames": [{"jitter": [0]}] * 5}, "cannot be understood"),
        ({"frames": [{}] * 5}, r"cannot be understood \(no 'jitter'\)"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(video, tmp_path, capsys, change, complaint):
    assert main(["sample", str(video), "-o", str(tmp_path / "samples"), "--simulate"]) == 0
    path = tmp_path / "samples" / sampling_record.FILE
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    assert main(["reconstruct", str(tmp_path / "samples"), "-o", str(tmp_path / "out")]) == 2
    with pytest.raises(InputError, match=complaint):
        sampling_record.read(tmp_path / "samples", 5, 32, 40)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("deepfovea: ")]
    assert len(said) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jitter", ["none", "quad"])
def test_who_does_not_choose_gets_the_best_and_is_told(
    video, tmp_path, monkeypatch, capsys, jitter
):
    """The default is the best jitter; networks that do not take jitter get none."""
    for module in ("files_to_files", "cli.sample"):
        monkeypatch.setattr(f"deepfovea.{module}.BEST_SAMPLING", Sampling("blue", jitter))
    words = ["--simulate", "--frames", "3", "--engine", "torch"]
    said = "blue noise" if jitter == "none" else f"blue noise, {jitter} jitter"
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "best"), *words]) == 0
    assert f"sampled ({said})" in capsys.readouterr().out
    chosen = ["--noise", "blue", "--jitter", jitter]
    assert main(["reconstruct", str(video), "-o", str(tmp_path / "chosen"), *words, *chosen]) == 0
    np.testing.assert_array_equal(frames_of(tmp_path / "best"), frames_of(tmp_path / "chosen"))
    assert main(["sample", str(video), "-o", str(tmp_path / "samples"), *words[:3]]) == 0
    assert f"sampled, {said}" in capsys.readouterr().out
    record = json.loads((tmp_path / "samples" / sampling_record.FILE).read_text(encoding="utf-8"))
    assert any(any(frame["jitter"]) for frame in record["frames"]) == (jitter != "none")
    assert main(["sample", str(video), "-o", str(tmp_path / "samples.mkv"), *words[:3]]) == 0
    told = {"stream": jitter, "paper": "none"}
    assert {name: best_jitter(Reconstructor(name), True) for name in told} == told
    assert best_jitter(Reconstructor("stream"), False) == "none"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--jitter", "quad"], "--jitter quad: shifts the grid"),
        (["--jitter", "quad", "--simulate", "--model", "paper"], "jitter"),
        (["--jitter", "sobol", "--simulate"], "invalid choice: 'sobol'"),
    ],
)
def test_shifts_that_nobody_can_use_are_refused(video, tmp_path, capsys, words, complaint):
    with pytest.raises(SystemExit) if "sobol" in words else contextlib.nullcontext():
        assert main(["reconstruct", str(video), "-o", str(tmp_path / "out.mp4"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_reconstructor_passes_on_what_a_renderer_knows():
    net = deepfovea.load("stream")
    video = torch.rand(4, 3, 64, 96)
    offsets = jitter_sequence("quad", 0, 4)
    low = downsample(video, 4, offsets)
    motion = 0.5 * torch.randn(4, 2, 16, 24)
    gaze = torch.tensor([11.5, 7.5])
    samples, mask = sample(low[None], gaze.expand(1, 4, 2), seed=5, blue_noise=True)
    with torch.inference_mode():
        expected, _ = net(samples, mask, None, motion[None], offsets[None])
    reconstructor = Reconstructor(net, seed=5)
    for t in range(4):
        shown = reconstructor(
            low[t], (11.5, 7.5), motion=motion[t].numpy(), jitter=tuple(offsets[t].tolist())
        )
        torch.testing.assert_close(shown, expected[0, t].clamp(0, 1))
    reconstructor.reset()
    inputs = [Input(low[t], (11.5, 7.5), motion[t], tuple(offsets[t].tolist())) for t in range(4)]
    streamed = torch.stack([made.frame for made in reconstructor.stream(inputs)])
    torch.testing.assert_close(streamed, expected[0].clamp(0, 1))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"jitter": (0.0, 1.2)}, r"received a jitter of \(0.0, 1.2\)"),
        ({"jitter": (0.0,)}, r"received a jitter of \(0.0,\)"),
        ({"motion": torch.zeros(2, 8, 9)}, r"motion: received \[2, 8, 9\], expected \[2, 16, 24\]"),
        ({"motion": torch.full((2, 16, 24), torch.nan)}, "motion: received values that are not"),
    ],
)
def test_what_does_not_fit_a_frame_is_refused(given, complaint):
    reconstructor = Reconstructor(deepfovea.load("stream"))
    with pytest.raises(InputError, match=complaint):
        reconstructor(torch.rand(3, 16, 24), (12.0, 8.0), **given)
