"""Claims about outputs: none may replace an input or lie inside one, by any spelling."""

import os
import re
import shutil
from pathlib import Path

import media
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfovea.checkpoint import save_model
from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.io.outputs import ensure_folder, refuse_overlap


def contents(root):
    return {
        str(path): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Files and folders, and links to them."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("a/film.mp4", "a/frames/00000000.png", "a/frames/00000001.png", "b/other.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    (root / "link.mp4").symlink_to(root / "a" / "film.mp4")
    (root / "alias").symlink_to(root / "a", target_is_directory=True)
    os.link(root / "a" / "film.mp4", root / "b" / "hard.mp4")
    return root


FILM = ("a/film.mp4", "link.mp4", "alias/film.mp4", "b/hard.mp4")
FRAMES = ("a/frames", "alias/frames")
ELSEWHERE = ("b/new.mp4", "b/other.mp4", "new", "new/new.mp4", "a/new.mp4", "a/film")
existing = st.sampled_from(("{}", "./{}", "b/../{}", "alias/../{}"))
spellings = existing | st.sampled_from(("{}/", "new/../{}"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_input_is_refused_under_every_name(tree, data):
    names = data.draw(st.sampled_from((FILM, FRAMES)), "input")
    source = tree / data.draw(existing).format(data.draw(st.sampled_from(names)))
    output = tree / data.draw(spellings).format(data.draw(st.sampled_from(names)))
    inside = data.draw(st.sampled_from(("", "new.mp4", "deep/new.mp4"))) if names == FRAMES else ""
    with pytest.raises(InputError, match=r"the input .* nothing was written"):
        refuse_overlap([tree / "b" / "fine.mp4", output / inside], [tree / "b/other.mp4", source])


@given(st.sampled_from((*FILM, *FRAMES)), st.sampled_from(ELSEWHERE), spellings)
def test_what_is_elsewhere_is_not_refused(tree, source, output, spelling):
    refuse_overlap([tree / spelling.format(output)], [tree / source, tree / "no-such-file"])


def test_a_folder_that_holds_an_input_or_is_linked_from_it_is_refused(tmp_path):
    real, links = tmp_path / "real", tmp_path / "links"
    real.mkdir()
    links.mkdir()
    (real / "00000000.png").write_text("image", encoding="utf-8")
    (links / "00000000.png").symlink_to(real / "00000000.png")
    os.link(real / "00000000.png", links / "00000001.png")
    for output, source, how in (
        (real, real / "00000000.png", "holds"),
        (real, links, "is linked from"),
        (real / "00000000.png", links, "is linked from|is a hard link"),
        (links, real, None),
    ):
        if how is None:  # replacing the links harms nothing
            refuse_overlap([output], [source])
        else:
            with pytest.raises(InputError, match=how):
                refuse_overlap([output], [source])


def test_two_outputs_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="two outputs"):
        refuse_overlap([tmp_path / "x.json", tmp_path / "." / "x.json"], [])


def test_a_folder_that_was_made_goes_again_when_it_stays_empty(tmp_path):
    with pytest.raises(RuntimeError), ensure_folder(tmp_path / "new" / "deep"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError), ensure_folder(tmp_path / "new" / "deep"):
        (tmp_path / "new" / "kept").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "kept"]
    with ensure_folder(tmp_path / "new" / "deep"):
        pass
    assert (tmp_path / "new" / "deep").is_dir()
    with (
        pytest.raises(InputError, match="no folder for outputs"),
        ensure_folder(tmp_path / "new" / "kept"),
    ):
        pass


# --- every subcommand ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Inputs of every subcommand."""
    root = tmp_path_factory.mktemp("desk")
    videos = root / "videos"
    videos.mkdir()
    media.write_video(videos / "film.mp4", media.moving(3, 48, 64))
    shutil.copy(videos / "film.mp4", videos / "film-side-by-side.mp4")
    (root / "link.mp4").symlink_to(videos / "film.mp4")
    (root / "gaze.csv").write_text("time,x,y\n0,20,20\n", encoding="utf-8")
    torch.manual_seed(0)
    save_model(root / "model.safetensors", StreamNet(StreamConfig(8, 8, 4, 4)), {})
    assert main(["sample", str(videos / "film.mp4"), "-o", str(root / "rgba")]) == 0
    shutil.copytree(root / "rgba", root / "vectors")
    for name in ("gazes", "photos"):
        shutil.copytree(root / "rgba", root / name)
    shutil.copy(root / "gaze.csv", root / "gazes" / "film.csv")
    (root / "demo").mkdir()
    shutil.copy(videos / "film.mp4", root / "demo" / "reconstruction.mp4")
    (root / "results.json").write_text("{}", encoding="utf-8")
    return root


MODEL = "--model model.safetensors --engine torch"


@pytest.mark.parametrize(
    "line",
    [
        f"reconstruct videos/film.mp4 -o videos/film.mp4 --overwrite {MODEL}",
        f"reconstruct link.mp4 -o videos/../videos/film.mp4 --overwrite {MODEL}",
        f"reconstruct videos/film.mp4 -o link.mp4 --overwrite {MODEL}",
        f"reconstruct rgba -o rgba --overwrite {MODEL}",
        f"reconstruct rgba -o rgba/out.mp4 {MODEL}",
        f"reconstruct rgba/00000000.png -o rgba --overwrite {MODEL}",
        "reconstruct videos/film-side-by-side.mp4 -o videos/film.mp4 --overwrite --side-by-side "
        + MODEL,
        f"reconstruct rgba -o vectors --motion vectors --overwrite {MODEL}",
        f"reconstruct rgba -o vectors/out.mp4 --motion vectors {MODEL}",
        "sample videos/film.mp4 -o ./videos/film.mp4 --overwrite",
        "sample rgba -o rgba/samples",
        f"infer videos -o videos --overwrite {MODEL}",
        f"infer videos -o videos/out {MODEL}",
        f"infer videos -o rgba/../videos/out {MODEL}",
        f"demo --video demo/reconstruction.mp4 -o demo {MODEL}",
        "train --data videos --run videos/run --steps 1",
        "train --data videos --run new --cache videos/cache --steps 1",
        "train --data . --run new --steps 1",
        "evaluate videos --models= --baselines fill --json videos/film.mp4",
        "evaluate videos --models= --baselines fill --plots videos",
        "evaluate videos --models= --baselines fill --method mine=rgba --json rgba/a.json",
        "evaluate videos --models= --baselines fill --gaze gazes --csv gazes/film.csv",
        "train --data videos --run photos/run --photos photos --steps 1",
        "evaluate results.json --json results.json",
        "validate --data videos --json model.safetensors --model model.safetensors",
        "test --data videos --markdown videos/table.md --model model.safetensors",
        "export model.safetensors -o model.safetensors",
        "bench --models model.safetensors --json model.safetensors",
    ],
)
def test_no_subcommand_touches_its_inputs(desk, capsys, monkeypatch, line):
    monkeypatch.chdir(desk)
    before = contents(desk)
    capsys.readouterr()
    assert main(line.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(r"deepfovea: .*: received an output that .* the input .*; nothing was", said)
    assert contents(desk) == before


def test_a_missing_folder_is_made_for_an_output(desk, monkeypatch, tmp_path):
    monkeypatch.chdir(desk)
    output = tmp_path / "new" / "deep" / "out.mp4"
    line = f"reconstruct videos/film.mp4 -o {output} --frames 1 {MODEL}"
    assert main(line.split()) == 0
    assert output.is_file()
    assert main(["sample", "results.json", "-o", str(tmp_path / "other" / "out.mp4")]) == 2
    assert not Path(tmp_path / "other").exists()
