"""Claims about the package for PyPI: it is complete, well described, and works by itself."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import media
import pytest

for package in ("build", "hatchling", "twine"):
    pytest.importorskip(package, reason=f"{package} is not installed (extra dev)")

from packaging.requirements import Requirement  # noqa: E402  (comes with build)

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "deepfovea"
CORE = ["torch", "torchvision", "numpy", "av", "safetensors", "rich", "pillow"]


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the built wheel and source archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_whole_package(wheel):
    """It contains modules, weights, the viewer's page and py.typed, and no tests."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files
    for name in ("py.typed", "weights/stream.safetensors", "viewer/static/index.html"):
        assert f"deepfovea/{name}" in packed


def test_the_source_archive_holds_what_builds_and_tests_it(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "tests/test_package.py"} <= names


def test_the_description_is_what_pypi_accepts(built):
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


def test_the_metadata_say_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    assert "License-Expression: MIT" in text
    assert "Requires-Python: >=3.10" in text
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", text, re.MULTILINE)
    assert sorted(needed) == sorted(CORE)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The bin folder of an environment with the wheel, what it requires, and nothing else.

    The required packages are links to those that are installed here: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    command = [sys.executable, "-m", "pip", f"--python={folder}/bin/python", "install", "--quiet"]
    run(*command, "--no-deps", "--no-index", wheel)
    todo, seen = list(CORE), set()
    while todo:
        package = distribution(todo.pop())
        if package.name in seen:
            continue
        seen.add(package.name)
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            link = packages / top
            if not link.exists():
                link.symlink_to(package.locate_file(top))
        for line in package.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return folder / "bin"


@pytest.mark.skipif(os.name != "posix", reason="the environment is made of links")
def test_the_wheel_works_where_only_its_requirements_are_installed(bare, tmp_path):
    video = media.write_video(tmp_path / "video.mp4", media.moving(3, 48, 64))
    environment = {"PATH": str(bare), "HOME": str(tmp_path), "COLUMNS": "200"}
    where = "import deepfovea; print(deepfovea.__file__)"
    inside = run(bare / "python", "-c", where, env=environment, cwd=tmp_path)
    assert inside.startswith(str(bare.parent))
    words = ["reconstruct", video, "-o", "out.mp4", "--simulate"]
    said = run(bare / "deepfovea", *words, env=environment, cwd=tmp_path)
    assert "3 frames" in said
    assert (tmp_path / "out.mp4").is_file()
    assert "384633" in run(bare / "deepfovea", "info", "stream", env=environment, cwd=tmp_path)
