"""Claims about a folder of a renderer: samples, sampling.json and motion, from files to frames."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deepfovea
from deepfovea import sampling_record
from deepfovea.cli import main
from deepfovea.files_to_files import reconstruct_file
from deepfovea.fovea import QUAD
from deepfovea.motion import MotionFiles, write_flo
from deepfovea.reconstructor import Reconstructor
from deepfovea.toy_renderer import ToyRenderer
from deepfovea.video import VideoReader

SCENE = ToyRenderer(24, 32)
COUNT = 4


def mask(t):
    return np.random.default_rng(t).random((24, 32)) < 0.4


@pytest.fixture
def rendered(tmp_path):
    """A folder of RGBA samples with jitter; motion in .flo files beside them."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(COUNT):
        pixels = np.round(255 * SCENE.samples(t, mask(t), QUAD[t])).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{t}.png")
        if t:
            write_flo(folder / f"{t}.flo", SCENE.motion(t, QUAD[t]))
    record = [sampling_record.FrameSampling(jitter) for jitter in QUAD]
    (folder / sampling_record.FILE).write_bytes(sampling_record.to_bytes(record, 24, 32))
    return folder


def frames_of(path):
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader]).astype(int)


def test_motion_and_jitter_of_a_folder_are_used(rendered, tmp_path):
    model = deepfovea.load("stream")
    reconstructor = Reconstructor(model)
    expected = []
    for t in range(COUNT):
        image = np.asarray(Image.open(rendered / f"{t}.png"))
        motion = SCENE.motion(t, QUAD[t]) if t else np.zeros((2, 24, 32))
        expected.append(reconstructor(image, motion=motion, jitter=QUAD[t]))
    assert main(["reconstruct", str(rendered), "-o", str(tmp_path / "out")]) == 0
    assert np.abs(frames_of(tmp_path / "out") - np.stack(expected)).max() <= 1

    # The same vectors, written in another convention and at another place.
    (tmp_path / "vectors").mkdir()
    for t in range(1, COUNT):
        (rendered / f"{t}.flo").unlink()
        ndc = -SCENE.motion(t, QUAD[t]) * np.array([2 / 32, -2 / 24])[:, None, None]
        np.save(tmp_path / "vectors" / f"{t}.npy", ndc)
    words = ["--motion", str(tmp_path / "vectors"), "--motion-unit", "ndc"]
    words.append("--motion-from-previous")
    assert main(["reconstruct", str(rendered), "-o", str(tmp_path / "again"), *words]) == 0
    assert np.abs(frames_of(tmp_path / "again") - np.stack(expected)).max() <= 1

    reconstruct_file(rendered, tmp_path / "without", model)
    assert np.abs(frames_of(tmp_path / "without") - np.stack(expected)).mean() > 1


def test_one_call_without_an_output_uses_what_lies_beside_the_images(rendered, tmp_path):
    model = deepfovea.load("stream")
    reconstruct_file(rendered, tmp_path / "out", model)
    frames = deepfovea.reconstruct(rendered, model=model)
    assert np.abs(frames.astype(int) - frames_of(tmp_path / "out")).max() <= 1


def test_an_image_that_is_left_out_shifts_neither_jitter_nor_motion(rendered, tmp_path):
    model, lost = deepfovea.load("stream"), 2
    reconstructor, expected = Reconstructor(model), []
    for t in (0, 1, 3):
        image = np.asarray(Image.open(rendered / f"{t}.png"))
        motion = SCENE.motion(t, QUAD[t]) * (2 if t == 3 else 1)  # 3 follows 1
        motion = motion if t else np.zeros((2, 24, 32))
        expected.append(reconstructor(image, motion=motion, jitter=QUAD[t]))
    (rendered / f"{lost}.png").write_bytes(b"no picture")
    reconstruct_file(rendered, tmp_path / "out", model, skip_unreadable=True)
    assert np.abs(frames_of(tmp_path / "out") - np.stack(expected)).max() <= 1
    (rendered / "0.png").write_bytes(b"no picture")  # so that the first frame is the second image
    with VideoReader(rendered, skip_unreadable=True) as reader:
        assert [frame.number for frame in reader] == [1, 3]
    reconstruct_file(rendered, tmp_path / "again", model, skip_unreadable=True)
    reconstructor.reset()
    image = np.asarray(Image.open(rendered / "1.png"))
    first = reconstructor(image, motion=SCENE.motion(1, QUAD[1]), jitter=QUAD[1])
    assert np.abs(frames_of(tmp_path / "again")[0] - first).max() <= 1


def test_motion_beside_images_can_be_left_out(rendered, tmp_path):
    model = deepfovea.load("stream")
    reconstruct_file(rendered, tmp_path / "with", model)
    assert main(["reconstruct", str(rendered), "-o", str(tmp_path / "a"), "--motion", "none"]) == 0
    reconstruct_file(rendered, tmp_path / "b", model, motion=MotionFiles(None))
    assert (frames_of(tmp_path / "a") == frames_of(tmp_path / "b")).all()
    assert (frames_of(tmp_path / "a") != frames_of(tmp_path / "with")).any()


def test_check_motion_reads_the_jitter_of_the_folder(rendered, capsys):
    for t in range(COUNT):
        samples = SCENE.samples(t, jitter=QUAD[t])[:3]
        pixels = np.round(255 * samples).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(rendered / f"{t}.png")
    assert main(["check-motion", str(rendered)]) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert main(["check-motion", str(rendered), "--jitter", "none"]) in (0, 1, 2)
    assert capsys.readouterr().out.splitlines()[0] != told
    for t in range(1, COUNT):
        shift = np.subtract(QUAD[t], QUAD[t - 1])[:, None, None]
        write_flo(rendered / f"{t}.flo", SCENE.motion(t, QUAD[t]) + shift)
    assert main(["check-motion", str(rendered)]) == 1
    assert "jitter included" in capsys.readouterr().out.splitlines()[0]


def test_motion_that_does_not_fit_is_one_line_and_code_2(rendered, tmp_path, capsys):
    def complains(source, *words):
        assert main(["reconstruct", str(source), "-o", str(tmp_path / "out"), *words]) == 2
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err.strip().splitlines()
        return error[-1]

    assert "one image for each frame" in complains(rendered / "0.png", "--motion", str(rendered))
    write_flo(rendered / "2.flo", np.zeros((2, 12, 16)))
    assert "2.flo: received motion of 16x12" in complains(rendered)
    (rendered / "2.flo").unlink()
    assert "no motion for 2.png" in complains(rendered)
    (tmp_path / "empty").mkdir()
    assert "no motion for 1.png" in complains(rendered, "--motion", str(tmp_path / "empty"))


def test_a_model_that_cannot_use_motion_leaves_it_out_with_a_warning(rendered, tmp_path, caplog):
    (rendered / sampling_record.FILE).unlink()  # this network would refuse jitter
    reconstruct_file(rendered, tmp_path / "out", deepfovea.load("paper"))
    assert "which this model cannot use" in caplog.text


def test_unknown_motion_continues_that_around_it(rendered, tmp_path):
    field = SCENE.motion(2, QUAD[2])
    field[:, :, 10] = np.nan
    write_flo(rendered / "2.flo", field)
    assert main(["reconstruct", str(rendered), "-o", str(tmp_path / "out")]) == 0
    assert torch.from_numpy(frames_of(tmp_path / "out")).shape == (COUNT, 96, 128, 3)


def test_the_python_of_the_contract_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "renderer.md").read_text(encoding="utf-8")
    loop, colors = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(loop, names)
    assert names["frame"].shape == (192, 256, 3)
    truth = ToyRenderer(48, 64).truth(3).transpose(1, 2, 0)
    assert np.square(names["frame"] - truth).mean() < 0.5 * np.square(0.5 - truth).mean()
    exec(colors, names)
    radiance = np.geomspace(1e-3, 100, 50)
    shown = names["encode"](radiance, 2.0)
    assert shown.min() > 0 and shown.max() < 1
    np.testing.assert_allclose(names["decode"](shown, 2.0), radiance, rtol=1e-6)
