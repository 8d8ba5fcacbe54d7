"""The recipes of docs/extending.md are applied to a copy of the package and run unchanged."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import media
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
OWN = "A generator of your own"
MOST_FILES = {"A metric": 2, "A loss": 2, "A density": 2, "An engine": 2, "A generator": 2}


def changes(recipe):
    """(file, language, block) of every block that belongs into a file."""
    found, file = [], None
    for line, language, block in re.findall(
        r"^`(src/[\w/.]+)`.*?:$|^```(\w+)\n(.*?)^```$", recipe, re.M | re.S
    ):
        if line:
            file = line
        elif file and language in ("python", "diff"):
            found.append((file, language, block))
    return found


def examples(recipe):
    """The blocks of Python that are run."""
    return re.findall(r"^```python\n(.*?)^```$", recipe, re.M | re.S)


def apply(folder, file, language, block):
    path = folder / file
    if language == "python":
        assert not path.exists(), f"{file} is said to be new"
        path.write_text(block, encoding="utf-8")
        return
    lines = block.splitlines()
    assert all(line[:1] in " +-" for line in lines), "a line of a diff begins with ' ', '+' or '-'"
    before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file} does not hold, or holds twice:\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


def commands(recipe):
    blocks = re.findall(r"^```sh\n(.*?)^```$", recipe, re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


RUN_ALL_THAT_COMES = """
import contextlib, io, json, sys, traceback
from deepfovea.cli import main
for line in sys.stdin:
    words, code = json.loads(line), 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            if words[0] == "-c":
                exec(words[1], {})
            else:
                code = main(words[1:])
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([code, out.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with all the recipes, a folder of clips, and a way to run commands.

    The commands run one after the other in a single process that imports this copy.
    """
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(
        ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for recipe in RECIPES.values():
        for change in changes(recipe):
            apply(folder, *change)
    (folder / "clips").mkdir()
    media.write_video(folder / "clips" / "one.mkv", media.moving(3, 96, 128), pix_fmt="yuv444p")
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ALL_THAT_COMES],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )

    def run(*words):
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        code, said = json.loads(process.stdout.readline())
        assert code == 0, f"{words}: {code} {said}"
        return said

    with process:
        yield folder, run
        process.stdin.close()


def run_recipe(extended, title):
    """The outputs of the commands of a recipe."""
    folder, run = extended
    found = commands(RECIPES[title])
    assert found and all(words[0] == "deepfovea" for words in found)
    return folder, [run(*words) for words in found]


def test_there_is_a_recipe_for_each_and_it_touches_few_files():
    assert RECIPES.keys() == MOST_FILES.keys() | {OWN}
    assert not changes(RECIPES[OWN])
    for title, most in MOST_FILES.items():
        files = {file for file, _, _ in changes(RECIPES[title])}
        assert 0 < len(files) <= most, files


def test_the_table_above_the_recipes_links_to_each():
    links = re.findall(r"\[[^]]*\]\(#([\w-]+)\)", PAGE.partition("## ")[0])
    assert sorted(links) == sorted(title.lower().replace(" ", "-") for title in RECIPES)


def test_a_metric(extended):
    folder, (table, listed) = run_recipe(extended, "A metric")
    assert "sharpness ↑" in table
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows} == {"fill", "bicubic-all"}
    assert all(0.0 < row["sharpness"] < 2.0 for row in rows)
    assert "sharpness: sharpness ↑, per frame" in listed


def test_a_loss(extended):
    folder, (_, listed) = run_recipe(extended, "A loss")
    row = json.loads(
        (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    assert row["gradient"] > 0.0
    assert "gradient: weight 0.5: " in listed


def test_a_density(extended):
    folder, _ = run_recipe(extended, "A density")
    assert (folder / "samples.mkv").exists()
    script = """
import torch
from deepfovea.config import Density
from deepfovea.fovea import density_map
gaze = torch.tensor([0.0, 0.0])
for text in ("cosine", "published"):
    print(density_map(gaze, 1, 60, Density.parse(text))[0, 0, [0, 25, 30, 35, 50]].tolist())
"""
    soft, straight = map(json.loads, extended[1]("-c", script).splitlines())
    assert [soft[k] for k in (0, 2, 4)] == pytest.approx([straight[k] for k in (0, 2, 4)], abs=1e-6)
    assert soft[1] > straight[1] and soft[3] < straight[3]


def test_an_engine(extended):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra export)")
    folder, (said,) = run_recipe(extended, "An engine")
    assert (folder / "frames.mkv").exists()
    assert "ONNX Runtime, not optimised" in said


def test_a_generator(extended):
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    folder, (_, _, _, info) = run_recipe(extended, "A generator")
    assert (folder / "restored.mkv").exists()
    assert (folder / "blend.onnx").exists()
    assert "channels" in info
    script = """
import torch
from deepfovea.generators.blend import BlendNet
net, samples = BlendNet().eval(), torch.rand(1, 3, 3, 8, 12)
mask = (torch.rand(1, 3, 1, 8, 12) < 0.4).float()
with torch.no_grad():
    whole, _ = net(samples * mask, mask)
    state, parts = None, []
    for t in range(3):
        part, state = net((samples * mask)[:, t : t + 1], mask[:, t : t + 1], state)
        parts.append(part)
print(float((whole - torch.cat(parts, 1)).abs().max()))
"""
    assert float(extended[1]("-c", script)) < 1e-6


def test_a_generator_of_ones_own_needs_no_change_of_the_package(extended):
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    folder, run = extended
    network = next(b for f, _, b in changes(RECIPES["A generator"]) if f.endswith("blend.py"))
    own = network.replace("from ..config import InputError", "from deepfovea import InputError")
    assert own != network
    (folder / "mine.py").write_text(own, encoding="utf-8")
    (example,) = examples(RECIPES[OWN])
    run("-c", example)
    assert (folder / "mine.onnx").exists()
    run_recipe(extended, OWN)
    rows = json.loads((folder / "own.json").read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows} == {"fill", "mine"}
