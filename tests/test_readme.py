"""The README's commands and Python run as they stand."""

import re
import shlex
from pathlib import Path

import media
import pytest
import torch

from deepfovea.cli import main
from deepfovea.video import VideoReader

README = (Path(__file__).parents[1] / "README.md").read_text()
NOT_RUN = {"make", "pip"}
"""Programs whose lines would install or test the package, and so this test."""

TINY_TRAINING = "--crop 64 --clip 4 --chunk 2 --batch 1 --workers 0 --warmup 1 --cooldown 0"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [
    words
    for block in blocks("sh")
    for line in block.splitlines()
    if (words := shlex.split(line, comments=True))
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with the files that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    media.write_video(tmp_path / "video.mp4", media.moving(16, 192, 336))
    (tmp_path / "gaze.csv").write_text("time,x,y\n0,100,50\n0.3,200,150\n")
    (tmp_path / "path" / "to" / "videos").mkdir(parents=True)
    media.write_video(tmp_path / "path/to/videos/one.mp4", media.moving(6, 64, 64))
    return tmp_path


def test_only_known_programs_are_shown():
    assert {command[0] for command in COMMANDS} == {"deepfovea"} | NOT_RUN


def test_commands_in_order(desk, capsys):
    steps = 2
    for program, *arguments in COMMANDS:
        if program != "deepfovea":
            continue
        if arguments[0] == "train":
            arguments += [*TINY_TRAINING.split(), f"--steps={steps}"]
            steps += 2
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        if "-o" in arguments:
            output = arguments[arguments.index("-o") + 1]
            small = arguments[0] == "sample"
            with VideoReader(output) as reader:
                assert (reader.width, reader.height) == ((84, 48) if small else (336, 192))
                assert len(list(reader)) == 16
    assert steps == 6, "the README shows a training run and its continuation"
    assert Path("runs/mine/model.safetensors").is_file()


def test_python_blocks(desk):
    torch.manual_seed(0)
    frames = torch.rand(1, 4, 3, 24, 32)
    gaze = torch.tensor([[[16.0, 12.0]] * 4])
    pairs = [(frame, (16.0, 12.0)) for frame in frames[0]]
    names = {"frames": frames, "gaze": gaze, "state": None, "frames_and_gaze": pairs}
    first, second = blocks("python")
    exec(first, names)
    assert names["shown"].shape == (3, 96, 128)
    exec(second, names)
    assert names["frames"].shape == (1, 4, 3, 96, 128)
    # The loop of the first block and the call of the second are the same thing.
    torch.testing.assert_close(names["frames"][0, -1].clamp(0, 1), names["shown"])
