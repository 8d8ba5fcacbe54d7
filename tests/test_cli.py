"""Claims about the command line: what it refuses in one line, what it reads, what it prints."""

import argparse
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import media
import numpy as np
import pytest
import torch

from deepfovea.checkpoint import save_model
from deepfovea.cli import _parser, announce, main
from deepfovea.config import InputError, TrainConfig
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, sample
from deepfovea.gaze import center, random_point
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.resample import upsample_bicubic
from deepfovea.runtime import engine
from deepfovea.video import VideoReader, VideoWriter

ROOT = Path(__file__).parents[1]
TINY_TRAINING = ["--steps=2", "--crop=64", "--clip=4", "--chunk=2", "--batch=1", "--workers=0"]
DISC = "1,0,6,6.01"  # everything within six pixels of the gaze, and nothing else
RANDOM_POINT = random_point(3, 48, 64).pixels([0], 48, 64)[0].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with good and bad inputs, and a model."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    model = folder / "model.safetensors"
    save_model(model, StreamNet(StreamConfig(8, 8, 4, 4)), {"trained": "not at all"})
    good = media.write_video(folder / "good.mp4", media.moving(6, 48, 64))
    fast = {"movflags": "+faststart"}
    noise = list(np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8))
    cut = media.write_video(folder / "cut.mp4", noise, container_options=fast, options={"g": "1"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "beheaded.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 99, encoding="utf-8")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    (folder / "no-images").mkdir()
    (folder / "radiance").mkdir()
    (folder / "radiance" / "f0.EXR").touch()
    (folder / "videos").mkdir()
    media.write_video(folder / "videos" / "large.mp4", media.moving(2, 496, 660))
    assert main(["sample", str(good), "-o", str(folder / "rgba")]) == 0
    (folder / "columns.csv").write_text("time,left,right\n0,1,2\n", encoding="utf-8")
    (folder / "outside.csv").write_text("time,x_px,y_px\n0,900,900\n", encoding="utf-8")
    (folder / "later.csv").write_text("frame,x,y\n90,9,9\n91,9,9\n", encoding="utf-8")
    damaged = bytearray(model.read_bytes())
    damaged[-100] ^= 1
    (folder / "damaged.safetensors").write_bytes(damaged)
    (folder / "short.safetensors").write_bytes(model.read_bytes()[:-100])
    (folder / "text.safetensors").write_text("not a model", encoding="utf-8")
    return folder


def snapshot(folder):
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text


def run(capsys, *arguments):
    """Exit code and stderr of a command line."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("reconstruct missing.mp4", "missing.mp4.*No such file"),
        ("reconstruct empty.mp4", "empty file"),
        ("reconstruct missing.mp4 -o made/x.y4m", "the suffix .y4m for an output"),
        ("reconstruct beheaded.mp4", "beheaded.mp4.*expected"),
        ("reconstruct cut.mp4", "frames, the last at .* repair"),
        ("reconstruct text.mp4", "text.mp4.*expected"),
        ("reconstruct sound.wav", "without video"),
        ("reconstruct no-images", "folder without images;"),
        ("reconstruct radiance", "names that end in .exr;.*radiance first, as docs/renderer.md"),
        ("reconstruct good.mp4 --gaze 64,10", "outside the frame"),
        ("reconstruct good.mp4 --gaze-units norm --gaze 0.5,1.1", "outside the frame"),
        ("reconstruct good.mp4 --gaze nan,2", "outside the frame"),
        ("reconstruct good.mp4 --gaze 1,2,3", "expected X,Y"),
        ("sample good.mp4 --gaze centre --gaze-offset 1", "no clock"),
        ("sample good.mp4 --gaze 1,2 --gaze-offset -1", "no clock"),
        ("sample good.mp4 --gaze later.csv", "gaze from frames 90 to 91"),
        ("reconstruct good.mp4 --gaze here", "'here', expected X,Y, centre, .* a gaze file$"),
        ("reconstruct good.mp4 --gaze center_", "did you mean 'centre'"),
        ("export model.safetensors -o x.onnxx", "received the suffix '.onnxx', expected .onnx"),
        ("reconstruct videos", "a folder of videos.*deepfovea infer videos"),
        ("reconstruct good.mp4 --gaze columns.csv", "time, left, right.*expected time"),
        ("sample good.mp4 --gaze outside.csv", "no position inside the frame"),
        ("reconstruct good.mp4 --gaze missing.csv", "missing.csv.*No such file"),
        ("reconstruct good.mp4 --gaze good.mp4", "CSV"),
        ("reconstruct good.mp4 --model strem", "unknown model 'strem'.*mean 'stream'"),
        ("reconstruct good.mp4 --model missing.safetensors", "no such file"),
        ("reconstruct good.mp4 --model damaged.safetensors", "damaged"),
        ("reconstruct good.mp4 --model short.safetensors", "short.safetensors.*expected"),
        ("reconstruct good.mp4 --model text.safetensors", "text.safetensors.*expected"),
        ("info damaged.safetensors", "damaged"),
        ("reconstruct good.mp4 -o good.mp4", "output that is the input"),
        ("reconstruct good.mp4 -o cut.mp4", "existing output.*--overwrite"),
        ("reconstruct good.mp4 -o rgba", "existing output.*overwrite"),
        ("reconstruct good.mp4 -o . --side-by-side --overwrite", "holds the input"),
        ("sample good.mp4 -o good.mp4/out", "output that lies inside the input"),
        ("sample good.mp4 -o text.mp4/out", "no folder for outputs.*choose another"),
        ("reconstruct good.mp4 -o /proc/out.mp4", "cannot be written.*choose another"),
        ("reconstruct good.mp4 -o out.xyz", "suffix .xyz"),
        ("reconstruct rgba --simulate", "leave --simulate out"),
        ("reconstruct good.mp4 --device nonsense", "expected auto, cpu"),
        ("reconstruct good.mp4 --frame-rate 30", "has its own"),
        ("reconstruct good.mp4 --density 1,0,5,9deg", "field of view"),
        ("reconstruct good.mp4 --fov 180", "0 to 180 degrees"),
        ("demo --video missing.mp4", "No such file"),
        ("demo --video good.mp4 -o text.mp4 --model model.safetensors", "no folder for outputs"),
        ("evaluate missing --models=", "no such folder"),
        ("evaluate no-images --models=", "neither videos nor images"),
        ("evaluate rgba --models nonsuch", "unknown model 'nonsuch'"),
        ("evaluate rgba --models= --baselines best", "unknown baseline 'best'"),
        ("evaluate rgba --models= --baselines acumulate", "did you mean 'accumulate'"),
        ("evaluate rgba --models= --baselines fill --metrics lpip", "did you mean 'lpips'"),
        ("evaluate rgba --models= --baselines=", "no methods"),
        (
            "evaluate rgba --models= --baselines fill --json no-images",
            "expected the name of a file",
        ),
        ("reconstruct good.mp4 --engine fastest", "expected one of auto, torch, cuda-graph, onnx"),
        ("reconstruct good.mp4 --engine opnvino", "did you mean 'openvino'"),
        ("bench --models strem", "unknown model 'strem'"),
        ("bench --engines fastest", "expected one of auto, torch, cuda-graph, onnx"),
        ("bench --engines=", "no model or no engine"),
        ("bench --size 192", "--size: received '192', expected HEIGHTxWIDTH"),
        ("train --data missing --run new", "no such folder"),
        ("train --data rgba --run text.mp4 --crop 64 --clip 4", "text.mp4.*choose another"),
        ("train --data rgba --run new --chunk 0", "--chunk: received 0"),
        ("train --data rgba --run new --clip 2", "--chunk: received 4 frames of clips of 2"),
        ("train --data rgba --run new --model paper --chunk 4", "takes 6 at a time"),
    ],
)
def test_bad_input_is_one_line_and_code_2(folder, capsys, monkeypatch, arguments, complaint):
    monkeypatch.chdir(folder)
    arguments = arguments.split()
    if arguments[0] in ("reconstruct", "sample") and "-o" not in arguments:
        arguments += ["-o", "out.mp4"]
    if arguments[0] == "reconstruct" and "--model" not in arguments:
        arguments += ["--model", "model.safetensors"]
    before = snapshot(folder)
    code, error = run(capsys, *arguments)
    # Messages about a run's settings and progress are not compared.
    progress = ("rgba  fill", "good.mp4: 64x48", "rgba: 64x48", "cut.mp4: 32x32")
    error = [line for line in error.splitlines() if not line.startswith(progress)]
    assert (code, len(error)) == (2, 1)
    assert re.match(f"deepfovea: .*{complaint}", error[0])
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "COMMAND"),
        ("reconstrukt a.mp4", "invalid choice: 'reconstrukt'"),
        ("reconstuct a.mp4", "did you mean 'reconstruct'?"),
        ("reconstruct https://x.org/a.mp4 -o b.mp4", "received the address 'https://x.org/a.mp4'"),
        ("evaluate https://x.org/a", "download it first"),
        ("reconstruct - -o b.mp4", "received '-', expected a file or folder"),
        ("reconstruct a.mp4 -o -", "--output: received '-', expected a file or folder"),
        ("train --data a --run s3://bucket/run", "--run: received 's3://bucket/run'"),
        ("reconstruct", "required: INPUT, -o"),
        ("reconstruct a.mp4", "required: -o"),
        ("reconstruct a.mp4 -o b.mp4 --sharper", "unrecognized arguments: --sharper"),
        ("reconstruct a.mp4 -o b.mp4 --densty=uniform:20", "did you mean '--density'?"),
        ("train --data a --run b --learing-rate 1", "did you mean '--learning-rate'?"),
        ("reconstruct a.mp4 -o b.mp4 two\nlines", "two lines"),
        ("reconstruct a.mp4 -o b.mp4 --frames 0", "--frames: received '0'"),
        ("reconstruct a.mp4 -o b.mp4 --frames many", "--frames: received 'many'"),
        ("sample a.mp4 -o b.mp4 --seed=-1", "--seed: received '-1'"),
        ("sample a.mp4 -o b.mp4 --seed 4294967296", "--seed: received '4294967296'"),
        ("sample a.mp4 -o b.mp4 --density dense", "received 'dense'; expected published"),
        ("sample a.mp4 -o b.mp4 --density budget:0", "budget of 0 %"),
        ("sample a.mp4 -o b.mp4 --gaze-units miles", "invalid choice: 'miles'"),
        ("reconstruct a -o b.mp4 --frame-rate nan", "--frame-rate: received 'nan', expected"),
        ("sample a.mp4 -o b.mp4 --gaze-offset nan", "received 'nan', expected seconds"),
        ("evaluate a --gaze-offset soon", "received 'soon', expected seconds"),
        ("train --data a --run b --steps few", "invalid int value: 'few'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(capsys, arguments, complaint):
    code, error = run(capsys, *arguments.split(" ")) if arguments else run(capsys)
    assert code == 2
    assert complaint in one_line(error)
    command = arguments.split(" ")[0]
    known = command in ("reconstruct", "sample", "evaluate", "train")
    assert f"'deepfovea {command} --help'" in error if known else "--help" in error


def test_help_of_every_verb_without_torch():
    verbs = "reconstruct sample info demo view evaluate train export bench validate test infer"
    verbs += " check-motion"
    script = (
        "import sys\n"
        "from deepfovea.cli import main\n"
        f"for verb in '{verbs}'.split() + ['']:\n"
        "    try:\n"
        "        main([*filter(None, [verb]), '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, verb\n"
        "assert not {'torch', 'av', 'numpy', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: deepfovea") == 14


def test_the_first_frame_waits_for_no_import_that_it_does_not_need(folder):
    script = (
        "import sys, torch\n"
        "slow = {'torch._dynamo', 'triton', 'sympy', 'torchvision', 'numba'} - set(sys.modules)\n"
        "from deepfovea.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(*slow & set(sys.modules))\n"
    )
    words = ["reconstruct", "good.mp4", "-o", "first.mp4", "--frames", "1"]  # with engine auto
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, [""])


def test_as_a_module(folder):
    def deepfovea(*arguments):
        command = [sys.executable, "-m", "deepfovea", *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder)

    assert re.fullmatch(r"deepfovea \d+\.\d+\.\d+\n", deepfovea("--version").stdout)
    before = snapshot(folder)
    cut = deepfovea("sample", "cut.mp4", "-o", "out.mp4")
    assert (cut.returncode, cut.stdout) == (2, "")
    assert "repair" in one_line(cut.stderr)
    assert snapshot(folder) == before


def test_an_interruption_is_code_130_and_leaves_nothing(folder, capsys, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    step = StreamNet.step
    monkeypatch.setattr(StreamNet, "step", interrupted)
    before = snapshot(folder)
    files = (folder / "good.mp4", "-o", folder / "out.mp4", "--side-by-side", "--engine", "torch")
    code, error = run(capsys, "reconstruct", *files, "--model", folder / "model.safetensors")
    assert (code, len(calls)) == (130, 3)
    plan, said = error.splitlines()
    assert plan.endswith("out.mp4: 256x192") and "interrupted" in said
    assert snapshot(folder) == before


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (17, 9)])
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_any_size_will_do(folder, tmp_path, capsys, height, width, suffix):
    source = media.write_video(
        tmp_path / "source.mkv", media.moving(2, height, width), codec="ffv1", pix_fmt="bgr0"
    )
    for options, scale in (["--simulate", "--gaze", "random"], 1), ([], 4):
        output = tmp_path / f"out-{scale}{suffix}"
        model = ("--model", folder / "model.safetensors", "--engine", "torch")
        code, plan = run(capsys, "reconstruct", source, "-o", output, *model, *options)
        assert (code, plan.count("\n")) == (0, 1)
        with VideoReader(output) as reader:
            shapes = [frame.image.shape for frame in reader]
        assert shapes == [(scale * height, scale * width, 3)] * 2


def masks(output):
    with VideoReader(output) as reader:
        return np.stack([frame.image[..., 3] > 0 for frame in reader])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gaze", "20,30"], [(20, 30)] * 3),
        (["--gaze", "centre"], [(31.5, 23.5)] * 3),
        (["--gaze", "0.25,0.75", "--gaze-units", "norm"], [(15.5, 35.5)] * 3),
        (["--gaze", "0.5,0.5", "--gaze-units", "ndc"], [(47.5, 11.5)] * 3),
        (["--gaze", "time.csv"], [(20, 20), (20, 20), (40, 30)]),
        (["--gaze", "frame.csv"], [(20, 20), (40, 30), (40, 30)]),
        (["--gaze", "time.csv", "--gaze-offset", "-0.1"], [(20, 20), (40, 30), (40, 30)]),
        (["--gaze", "frame.csv", "--gaze-offset", "0.1"], [(31.5, 23.5), (20, 20), (40, 30)]),
        (["--gaze", "118,78", "--simulate"], [(29.125, 19.125)] * 3),
        (["--gaze", "random", "--seed", "3", "--simulate"], [RANDOM_POINT] * 3),
    ],
)
def test_gaze_as_asked(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    size = (192, 256) if "--simulate" in arguments else (48, 64)
    media.write_video(tmp_path / "in.mp4", media.moving(3, *size), rate=10)
    (tmp_path / "time.csv").write_text(
        "time,x,y\n0,20,20\n0.05,20,20\n0.15,40,30\n0.2,40,30\n", encoding="utf-8"
    )
    (tmp_path / "frame.csv").write_text("frame,x,y\n0,20,20\n1,40,30\n2,40,30\n", encoding="utf-8")
    assert main(["sample", "in.mp4", "-o", "out", "--density", DISC, *arguments]) == 0
    for mask, (x, y) in zip(masks("out"), expected, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.3)
        assert mask.sum() == pytest.approx(36 * np.pi, rel=0.1)


def test_frame_numbers_meet_the_frames_of_a_variable_rate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = [(10, 10), (20, 20), (30, 30), (40, 20), (50, 10)]
    with VideoWriter(tmp_path / "in.mkv", frame_rate=10) as writer:
        for frame, pts in zip(media.moving(5, 48, 64), (0.0, 0.02, 0.5, 0.54, 2.0), strict=True):
            writer.write(frame, pts)
    rows = [f"{i},{x},{y}" for i, (x, y) in enumerate(places)]
    (tmp_path / "gaze.csv").write_text("\n".join(["frame,x,y", *rows]), encoding="utf-8")
    assert (
        run(capsys, "sample", "in.mkv", "-o", "out", "--density", DISC, "--gaze", "gaze.csv")[0]
        == 0
    )
    for mask, place in zip(masks("out"), places, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.mean(), rows.mean()) == pytest.approx(place, abs=0.3)


def test_what_was_assumed_of_a_gaze_file_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    media.write_video(tmp_path / "in.mp4", media.moving(3, 48, 64), rate=10)
    (tmp_path / "gaze.csv").write_text(
        "timestamp,x,y\n5000.0,20,20\n5000.1,20,20\n", encoding="utf-8"
    )
    assert main(["sample", "in.mp4", "-o", "out", "--gaze", "gaze.csv"]) == 0
    assert "begins at 5000.000 s, by another clock" in caplog.text


def test_density_and_seed_as_asked(folder, tmp_path, capsys):
    def draw(*options):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        assert main(["sample", str(folder / "good.mp4"), "-o", str(output), *options]) == 0
        drawn = masks(output)
        assert f"{100 * drawn.mean():.1f} % of" in capsys.readouterr().out
        return drawn

    uniform = draw("--density", "uniform:30")
    assert uniform.mean() == pytest.approx(0.3, abs=0.03)
    assert draw("--density", "budget:20").mean() == pytest.approx(0.2, abs=0.02)
    assert draw("--frames", "2", "--density", "1,0,2,2.01deg", "--fov", "20").sum() > 200
    assert np.array_equal(draw("--density", "uniform:30", "--seed", "0"), uniform)
    for other in (("--seed", "1"), ("--noise", "independent")):
        changed = draw("--density", "uniform:30", *other)
        assert changed.mean() == pytest.approx(0.3, abs=0.03)
        assert (changed != uniform).mean() > 0.2
    points = [draw("--density", DISC, "--gaze", "random", "--seed", s) for s in "112"]
    assert np.array_equal(points[0], points[1])
    assert not (points[0] & points[2]).all()


def test_info_of_a_model(folder, capsys):
    assert main(["info", str(folder / "model.safetensors")]) == 0
    shown = capsys.readouterr().out
    count = sum(p.numel() for p in StreamNet(StreamConfig(8, 8, 4, 4)).parameters())
    for fact in ("StreamNet", rf"parameters\s+{count}\s", "not at all", r"hidden_channels\s+4\s"):
        assert re.search(fact, shown)


def test_train_makes_a_model(folder, tmp_path, capsys):
    folders = ["--data", folder / "rgba", "--run", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert main(["train", *map(str, folders), *TINY_TRAINING]) == 0
    model = str(tmp_path / "run" / "model.safetensors")
    assert model in capsys.readouterr().out
    assert main(["info", model]) == 0
    assert re.search(r"provenance: steps\s+2\s", capsys.readouterr().out)


def test_what_will_happen_is_said_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    model = ("--model", "model.safetensors", "--engine", "torch", "--frames", "1")
    code, error = run(capsys, "reconstruct", "good.mp4", "-o", tmp_path / "a.mp4", *model)
    assert code == 0
    plan = f"good.mp4: 64x48, 1 frame; low resolution 64x48 -> {tmp_path / 'a.mp4'}: 256x192"
    assert error.splitlines() == [plan]
    large = ("reconstruct", "videos/large.mp4", "-o", tmp_path / "b", *model)
    code, error = run(capsys, *large)
    plan, warning = error.splitlines()
    assert code == 0 and plan.endswith("/b: 2640x1984")
    assert warning.endswith("if it is the full resolution, stop and add --simulate")
    code, error = run(capsys, *large, "--overwrite", "--simulate")
    assert code == 0 and "low resolution 165x124 ->" in one_line(error)


@pytest.mark.parametrize("count", [1, 2])
def test_one_frame_is_one_frame(folder, tmp_path, capsys, monkeypatch, count):
    monkeypatch.chdir(folder)
    model = f"--model model.safetensors --engine torch --frames {count}"
    words = f"{count} frame{'s' * (count - 1)}"
    lines = {
        f"reconstruct good.mp4 -o {tmp_path / 'a.mp4'} {model}": f"{words}, ",
        f"infer rgba -o {tmp_path / 'all'} {model}": f"{words} by PyTorch",
        f"demo --video good.mp4 -o {tmp_path / 'demo'} {model}": f"{words}: PSNR",
    }
    for line, expected in lines.items():
        assert main(line.split()) == 0
        assert expected in " ".join(capsys.readouterr().out.split())


def test_long_work_is_estimated(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(announce, "MIN_ESTIMATED_PIXELS", 0)
    good, model = folder / "good.mp4", ("--model", folder / "model.safetensors")
    _, error = run(capsys, "reconstruct", good, "-o", tmp_path / "a.mp4", *model)
    assert re.search(r"256x192; about \d+ s or less\n", error)


def test_quality_stands_beside_that_of_hole_filling(folder, tmp_path, capsys):
    """The printed figures equal those computed from the written frames with the package."""
    good, model = folder / "good.mp4", ("--model", folder / "model.safetensors")
    line = ("reconstruct", good, "-o", tmp_path / "a", "--simulate", "--side-by-side", *model)
    assert main([str(word) for word in (*line, "--engine", "torch")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    ours, baseline = map(float, re.findall(r"([\d.]+) dB", first))
    assert "against the original (hole filling + bicubic: " in first
    assert (
        second
        == f"{tmp_path / 'a-side-by-side'}: samples | reconstruction | original, side by side"
    )
    with VideoReader(good) as reader, VideoReader(tmp_path / "a") as written:
        truth, frames = (np.stack([f.image for f in r]) / 255.0 for r in (reader, written))
    error = ((frames - truth) ** 2).mean((1, 2, 3))
    # Frames of 8 bits add an error of 1 / 12 of a level squared: 0.06 dB at 40.
    assert ours == pytest.approx(float((-10 * np.log10(error)).mean()), abs=0.1)
    low = downsample(torch.from_numpy(truth).float().permute(0, 3, 1, 2))[None]
    track = center().pixels(np.zeros(6), 12, 16)[None]
    samples, mask = sample(low, track, blue_noise=True)
    filled = upsample_bicubic(pull_push(samples, mask), 4)[0].clamp(0, 1).permute(0, 2, 3, 1)
    error = ((filled.numpy() - truth) ** 2).mean((1, 2, 3))
    assert baseline == pytest.approx(float((-10 * np.log10(error)).mean()), abs=0.02)


def test_a_point_that_looks_normalised_gets_a_hint(folder, tmp_path, capsys):
    def said(*words):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        return run(capsys, "sample", folder / "good.mp4", "-o", output, *words)

    code, error = said("--gaze", "0.5,0.5")
    assert code == 0 and "add --gaze-units norm" in one_line(error)
    for words in (("0.5,0.5", "--gaze-units", "norm"), ("0,1",), ("20,30.5",)):
        assert said("--gaze", *words) == (0, "")


def test_every_option_has_help_and_every_subcommand_examples_that_can_be_read():
    parser = _parser()
    (subcommands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, subcommand in subcommands.choices.items():
        examples = subcommand.epilog.splitlines()
        assert examples[0] == "examples:" and len(examples) > 1
        for line in examples[1:]:
            words = shlex.split(line, comments=True)
            assert words[:2] == ["deepfovea", name]
            assert parser.parse_args(words[1:]).subcommand == name
        text = " ".join(subcommand.format_help().split())
        assert subcommand.description
        for action in subcommand._actions:
            assert action.help, (name, action.dest)
            if action.option_strings and action.nargs != 0 and not action.required:
                shown = subcommand._get_formatter()._expand_help(action)
                assert re.search(r"default\b", shown), (name, action.dest)
                if isinstance(action.default, int | float):
                    assert f"(default: {action.default}" in shown, (name, action.dest)
        if "--model" in text:
            assert "stream-perceptual" in text or name == "train"


def test_options_of_training_say_what_the_configuration_says():
    """Field, help and page have the same description."""
    help = " ".join(_help_of("train").split())
    for field in dataclasses.fields(TrainConfig):
        words = " ".join(field.metadata["help"].split())
        assert words.replace("-", "") in help.replace("- ", "").replace("-", ""), field.name
        assert f"{field.metadata['group']}:" in help


def test_the_page_of_the_command_line_is_the_help():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "cli.py", "--print"], capture_output=True, encoding="utf-8"
    )
    assert made.returncode == 0, made.stderr
    assert page == made.stdout, "python docs/cli.py writes it anew"


def test_a_list_may_be_cut_off_by_its_reader():
    """As by ``deepfovea train --list-losses | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "deepfovea", "train", "--list-losses"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


def _help_of(name):
    (subcommands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subcommands.choices[name].format_help()


@pytest.mark.parametrize(
    "words",
    ["reconstruct film.mp4 -o out.mp4", "infer . -o ../out", "demo --video film.mp4 -o ../out"],
    ids=lambda words: words.split()[0],
)
def test_the_engine_is_told_how_many_frames_there_are(words, tmp_path, monkeypatch, capsys):
    """With only a few frames, ``auto`` compiles nothing."""
    folder, told = tmp_path / "in", []
    folder.mkdir()
    monkeypatch.chdir(folder)
    media.write_video(folder / "film.mp4", media.moving(5, 32, 48))

    def load_engine(*_, frames=None):
        told.append(frames)
        raise InputError("enough")

    monkeypatch.setattr(engine, "load_engine", load_engine)
    for limit, expected in (([], 5), (["--frames", "3"], 3)):
        code, error = run(capsys, *words.split(), *limit)
        assert (code, told.pop()) == (2, expected), error
