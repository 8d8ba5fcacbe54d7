"""Claims about data sets by name: each known layout, and one clear line for what is missing."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.evaluate import Protocol, evaluate
from deepfovea.evaluate.datasets import DATA_SETS, DAVIS_VAL


def write(folder, count, size=(16, 12)):
    folder.mkdir(parents=True)
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    for number in range(count):
        image.save(folder / f"{number:08d}.png")


def small(name):
    """A data set with tiny frames, and with few frames if their number is not checked."""
    found = DATA_SETS[name]
    return dataclasses.replace(
        found,
        frames={clip: min(count, 2) for clip, count in found.frames.items()},
        sizes=dict.fromkeys(found.sizes, (16, 12)),
        any_size=(found.any_size[0] and 16, found.any_size[1] and 12),
        clip_frames=min(found.clip_frames, 2),
        total=60 if found.total else 0,
    )


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("layout", [0, 1])
def test_each_layout_is_found_and_an_incomplete_one_refused(name, layout, tmp_path):
    dataset = small(name)
    names = list(dataset.frames) or [f"clip_{number:02d}" for number in range(30)]
    for clip in names:
        write(tmp_path / dataset.layouts[layout].replace("*", clip), 2)
    found = dataset.clips(tmp_path)
    assert [clip for _, clip in found] == names
    assert all(len(list(path.glob("*.png"))) == 2 for path, _ in found)
    images = sorted(found[1][0].iterdir())
    images[0].rename(images[0].with_suffix(".txt"))
    with pytest.raises(InputError, match=rf"--data {name}: received .*expected .*http") as caught:
        dataset.clips(tmp_path)
    assert "\n" not in str(caught.value)
    write_one = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    write_one.save(images[0])
    with pytest.raises(InputError, match="16x8 pixels, expected"):
        dataset.clips(tmp_path)
    with pytest.raises(InputError, match=r"without .*get it from"):
        dataset.clips(tmp_path / "elsewhere")


def test_the_numbers_are_those_of_the_sets():
    assert sum(DATA_SETS["vid4"].frames.values()) == 171
    assert sum(DATA_SETS["reds4"].frames.values()) == 400
    assert len(set(DAVIS_VAL)) == 30
    for dataset in DATA_SETS.values():
        assert re.search("https://", dataset.where)
        assert dataset.licence


def test_an_evaluation_takes_the_subset_alone_and_names_it(tmp_path, capsys):
    dataset = small("vid4")
    for clip in (*dataset.frames, "another"):
        write(tmp_path / "GT" / clip, 2)
    result = evaluate(tmp_path, [], ["bicubic-all"], Protocol(2, metrics=()), dataset=dataset)
    assert result.clips == list(dataset.frames)
    assert result.protocol["data"] == "vid4"
    words = ["evaluate", str(tmp_path), "--models=", "--baselines=fill", "--data"]
    assert main([*words, "vid4"]) == 2
    assert "2 frames of calendar, expected 41" in capsys.readouterr().err
    assert main([*words, "vid5"]) == 2
    assert "did you mean 'vid4'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--list-data"])
    assert "licence: CC BY 4.0" in capsys.readouterr().out
