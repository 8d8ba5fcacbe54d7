"""Claims about main.py: the published command line, translated into commands of deepfovea."""

import dataclasses
import importlib.util
import json
import os
import re
import signal
from pathlib import Path

import media
import numpy as np
import pytest
import torch
from PIL import Image
from presets import preset_of
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from deepfovea import checkpoint
from deepfovea.checkpoint import save_model
from deepfovea.cli import train as cli_train
from deepfovea.config import PUBLISHED_TRAINING
from deepfovea.generators import PRESETS
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.training import train as training
from deepfovea.video import VideoReader, VideoWriter

FILE = Path(__file__).parents[1] / "main.py"
DEFAULTS = {
    "train": False,
    "val": False,
    "test": False,
    "inference": False,
    "inference_data": "",
    "cuda_devices": "0",
    "data_parallel": False,
    "load_model": "",
}
"""The table of the published README."""

ADDED = {
    "data": "",
    "epochs": None,
    "steps": None,
    "resume": "",
    "state": "reset",
    "perceptual_backbone": "",
    "perceptual_weights": "",
    "flow_weights": "",
    "size": "",
    "device": "",
}

RUN = Path("runs/now")
PARALLEL = ["--train", "--data", "REDS", "--data_parallel", "--cuda_devices", "0,1"]


@pytest.fixture
def main_py(tmp_path, monkeypatch):
    """The module in an empty working directory; its environment variable is restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = importlib.util.spec_from_file_location("main_py", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(main_py, line):
    options = main_py.published_parser().parse_args(line.split())
    assert main_py.contradiction(options) == ""
    return main_py.commands(options, RUN)


# --- words ------------------------------------------------------------------------------------


def test_the_arguments_and_defaults_are_the_published_ones(main_py):
    parser = main_py.published_parser()
    assert vars(parser.parse_args([])) == DEFAULTS | ADDED
    options = {action.dest for action in parser._actions} - {"help"}
    assert options == {*DEFAULTS, *ADDED}
    for name, default in DEFAULTS.items():
        words, value = ([f"--{name}"], True) if default is False else ([f"--{name}", "x"], "x")
        assert vars(parser.parse_args(words)) == DEFAULTS | ADDED | {name: value}


def test_train(main_py):
    train = f"train --data=REDS --run={RUN} --cache=runs/frames --model=paper"
    train += " --preprocessing=published --state=reset --validate"
    assert commands(main_py, "--train --data REDS") == [train.split()]
    # --load_model: what is trained begins with these weights
    loaded = commands(main_py, "--train --data REDS --load_model old.safetensors")
    assert loaded == [[*train.split(), "--start-from=old.safetensors"]]
    # two items per step, over all devices
    for devices, batch in (("0", 2), ("0,2", 1), ("0,1,2", 1)):
        line = f"--train --data REDS --data_parallel --cuda_devices {devices}"
        assert commands(main_py, line) == [[*train.split(), f"--batch={batch}"]]


def test_val_test_and_inference_use_the_model_that_was_loaded_or_trained(main_py):
    line = "--val --test --inference --data REDS --inference_data videos"
    for before, model in (("--load_model my.safetensors", "my.safetensors"), ("--train", None)):
        model = model or f"{RUN}/model.safetensors"
        *_, val, test, infer = commands(main_py, f"{line} {before}")
        for verb, words in (("validate", val), ("test", test)):
            files = f"--json={RUN}/{verb}.json --markdown={RUN}/{verb}.md --pictures={RUN}/{verb}"
            assert words == [
                *(verb, "--data=REDS", f"--model={model}", *files.split(), "--state=reset")
            ]
        expected = f"infer videos --output={RUN}/inference --model={model} --gaze=random"
        assert infer == expected.split()


def test_the_lines_of_the_readme_are_understood(main_py):
    readme = FILE.with_name("README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python main.py (.*)$", readme, re.MULTILINE)
    verbs = [[words[0] for words in commands(main_py, line)] for line in lines]
    assert verbs == [["train"], ["train"], ["validate", "test"], ["infer"]]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "nothing to do"),
        ("--data REDS --load_model m", "nothing to do"),
        ("--train", "--data: received none"),
        ("--val --load_model m", "--data: received none"),
        ("--test --data REDS", "--load_model: received none"),
        ("--inference --load_model m", "--inference_data: received none"),
        ("--train --data REDS --cuda_devices gpu", "--cuda_devices: received 'gpu'"),
        ("--train --data REDS --cuda_devices 0,", "--cuda_devices: received '0,'"),
        ("--inf --load_model m", "unrecognized arguments: --inf"),
        ("--train --data REDS --epochs 3 --steps 4", "--epochs, --steps: received both"),
        ("--train --data REDS --resume none", "--resume: received 'none'"),
        ("--val --data REDS --load_model m --resume .", "--resume: received '.', expected --train"),
    ],
)
def test_what_is_missing_is_said_in_one_line(main_py, capsys, line, complaint):
    with pytest.raises(SystemExit) as exit:
        main_py.main(line.split())
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.count("\n") == 1
    assert re.match(f"main.py: .*{complaint}", error)
    assert not list(Path.cwd().iterdir())


# --- deeds ------------------------------------------------------------------------------------


def test_train_is_the_published_training(main_py, monkeypatch):
    calls = []
    monkeypatch.setattr(training, "train", lambda *arguments: calls.append(arguments))
    assert main_py.main(["--train", "--data", "REDS", "--cuda_devices", "3"]) == 0
    (data, run, config, resume, cache, start_from, *_) = calls.pop()
    assert (data, run.parent, cache) == (Path("REDS"), Path("runs"), Path("runs/frames"))
    assert re.fullmatch(r"\d{4}(-\d\d){2}_\d\d(-\d\d){2}", run.name)
    assert (resume, start_from) == (False, None)
    assert config == PUBLISHED_TRAINING
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_data_parallel_is_a_process_for_every_device(main_py, monkeypatch):
    started = []
    monkeypatch.setattr(torchrun, "run", started.append)
    assert main_py.main(PARALLEL) == 0
    (words,) = started
    assert (words.nproc_per_node, words.module, words.training_script) == ("2", True, "deepfovea")
    assert words.training_script_args[0] == "train"
    assert words.training_script_args[-1] == "--batch=1"
    assert int(os.environ.pop("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")) >= 127  # a published step


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (SignalException("Ctrl-C", signal.SIGINT), 130),
        (SignalException("a batch system", signal.SIGTERM), 143),
        (ChildFailedError("train", {0: ProcessFailure(0, 1, 2, "")}), 2),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_interrupted_or_failed_processes_end_in_what_goes_on(
    main_py, monkeypatch, capsys, failure, code, saved
):
    def fail(_):
        if saved:
            (last,) = Path("runs").glob("*")
            (last / "checkpoints").mkdir()
            (last / "checkpoints" / "last.safetensors").touch()
        raise failure

    monkeypatch.setattr(torchrun, "run", fail)
    assert main_py.main([*PARALLEL, "--val"]) == code  # and nothing untrained is validated
    said = capsys.readouterr().err.splitlines()[-1]
    os.environ.pop("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    if saved:
        (run,) = Path("runs").iterdir()
        assert said.startswith(f"main.py: --train --resume {run} goes on with this run; --load_mod")
    else:
        assert said.endswith("begins anew") == (code > 128)  # not after bad input


def test_an_interruption_behind_the_training_names_the_model(main_py, monkeypatch, capsys):
    monkeypatch.setattr(main_py, "deepfovea", lambda words: 130 * (words[0] == "validate"))
    assert main_py.main(["--train", "--val", "--data", "REDS", "--device", "cpu"]) == 130
    assert re.search("--load_model runs/.*/model.safetensors inst", capsys.readouterr().err)


def test_an_interruption_between_commands_is_one_line(main_py, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_py, "commands", interrupted)
    assert main_py.main(["--train", "--data", "REDS", "--device", "cpu"]) == 130
    assert capsys.readouterr().err.endswith("main.py: interrupted\n")
    assert not list(Path("runs").iterdir())


def test_too_few_devices_are_refused(main_py, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        main_py.main(PARALLEL)
    assert "received 0,1, of which 1 can be used" in capsys.readouterr().err


@pytest.fixture
def reds(tmp_path):
    """Of val one video of one item, and a tiny network."""
    folder = tmp_path / "REDS" / "val" / "val_sharp" / "000"
    folder.parent.mkdir(parents=True)
    with VideoWriter(folder, frame_rate=24) as writer:
        for t, image in enumerate(media.moving(6, 90, 160)):
            writer.write(image, t / 24)
    torch.manual_seed(0)
    six = RecurrentUNet(UNetConfig(6, False, True, (2,) * 5, (2,) * 4, (2, 18)))
    save_model(tmp_path / "tiny.safetensors", six, {})
    return tmp_path / "REDS"


def test_val_and_inference_run(main_py, reds, capsys):
    line = "--val --inference --load_model tiny.safetensors --data REDS --inference_data"
    assert main_py.main([*line.split(), str(reds / "val" / "val_sharp")]) == 0
    shown = capsys.readouterr().out
    (run,) = Path("runs").iterdir()
    table = json.loads((run / "validate.json").read_text(encoding="utf-8"))
    assert (table["protocol"]["split"], table["protocol"]["size"]) == ("val", [768, 1024])
    assert [(row["video"], row["frames"]) for row in table["rows"]] == [("000", 6)]
    assert (run / "validate.md").read_text(encoding="utf-8") in shown
    with Image.open(run / "validate" / "000.png") as grid:  # a row for each of six frames
        assert grid.size == (3 * 486 + 6, 30 + 6 * 366)
    with VideoReader(run / "inference" / "000") as reader:
        frames = np.stack([frame.image for frame in reader])
    assert frames.shape == (6, 360, 640, 3)


def test_what_deepfovea_refuses_leaves_no_folder(main_py, reds, capsys):
    line = "--val --load_model missing.safetensors --data REDS"
    assert main_py.main(line.split()) == 2
    assert "missing.safetensors" in capsys.readouterr().err
    assert not list(Path("runs").iterdir())


def test_their_checkpoint_is_pointed_to_convert(main_py, reds, capsys):
    names = ("encoder_blocks.0.layer.0.bias", "decoder_blocks.0.convolution_1.bias")
    names += ("super_resolution_blocks.0.layers.0.bias",)
    torch.save({f"module.{name}": torch.zeros(1) for name in names}, "generator_network_15.pt")
    line = "--val --load_model generator_network_15.pt --data REDS"
    assert main_py.main(line.split()) == 2
    error = capsys.readouterr().err
    assert "deepfovea convert generator_network_15.pt -o model.safetensors" in error
    assert "a generator of the authors of DeepFovea++" in error


def test_train_interrupt_resume_validate_and_infer(main_py, tmp_path, monkeypatch, capsys):
    """As a user would: two tiny epochs, Ctrl-C in the first, --resume, and use of the models."""
    for split in ("train", "val", "test"):
        for number in ("000", "001"):
            folder = tmp_path / "REDS" / split / f"{split}_sharp" / number
            folder.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(folder, frame_rate=24) as writer:
                for t, image in enumerate(media.moving(10, 64, 96)):
                    writer.write(image, t / 24)
    tiny = UNetConfig(6, False, True, (2,) * 5, (2,) * 4, (2, 18))
    monkeypatch.setitem(PRESETS, "paper", preset_of(tiny))
    small = dataclasses.replace(
        PUBLISHED_TRAINING,
        losses=("supervised", "perceptual", "flow"),
        workers=0,
        picture_steps=1,
    )
    monkeypatch.setattr(cli_train, "PUBLISHED_TRAINING", small)
    step = training.train_step

    def struck(*arguments):
        result = step(*arguments)
        if arguments[0].step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    line = ["--train", "--data", "REDS", "--epochs", "2", "--size", "64x96", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", struck)
        code = main_py.main([*line, "--perceptual-backbone", "efficientnet-lite0"])
    said = capsys.readouterr().err
    assert code == 130
    (run,) = (path for path in Path("runs").iterdir() if path.name != "frames")
    assert "'deepfovea train' has recipes" in said and f"--resume {run} goes on" in said
    last = run / "checkpoints" / "last.safetensors"
    interrupted = ["--val", "--data", "REDS", "--load_model", str(last), "--size", "64x96"]
    assert main_py.main(interrupted) == 0  # a checkpoint is a model too
    assert main_py.main([*line, "--resume", str(run)]) == 0
    shown = capsys.readouterr().out
    # Two videos of two items each, two at a time: two steps an epoch.
    assert checkpoint.read(last)[1]["step"] == 4
    for epoch in ("01", "02"):
        assert (run / "models" / f"epoch-{epoch}.safetensors").is_file()
        assert (run / "validation" / f"epoch-{epoch}.md").read_text(encoding="utf-8") in shown
        grids = (run / "validation" / f"epoch-{epoch}").iterdir()
        assert sorted(grid.name for grid in grids) == ["000.png", "001.png"]
    assert len(list((run / "pictures").iterdir())) == 4
    videos = "--test --data REDS --size 64x96 --inference --inference_data REDS/val/val_sharp"
    assert main_py.main([*videos.split(), "--load_model", str(run / "model.safetensors")]) == 0
    assert "| REDS test, model.safetensors, state reset |" in capsys.readouterr().out
    (used,) = Path("runs").glob("*/test.json")
    assert [row["frames"] for row in json.loads(used.read_text(encoding="utf-8"))["rows"]] == [
        10
    ] * 2
    assert sorted(made.name for made in (used.parent / "inference").iterdir()) == ["000", "001"]
