"""Claims about interrupted evaluations: they go on to the same figures, if nothing changed."""

import json
import os

import media
import pytest

from deepfovea.cli import main
from deepfovea.evaluate import Protocol, evaluate, run
from deepfovea.evaluate.resume import KeptRows
from deepfovea.evaluate.run import score_clip


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    for number, name in enumerate("abc"):
        media.write_video(root / f"{name}.mp4", media.moving(2, 32, 40, seed=number))
    return root


@pytest.fixture
def scored(monkeypatch):
    """The names of the computed clips; an interruption comes before each clip in ``stop``."""
    names, stop = [], []

    def listen(clip, *arguments):
        if clip.name in stop:
            raise KeyboardInterrupt
        names.append(clip.name)
        return score_clip(clip, *arguments)

    monkeypatch.setattr(run, "score_clip", listen)
    return names, stop


def words(root, target, *more):
    base = ["evaluate", str(root), "--models=", "--baselines=fill", "--metrics=ssim"]
    return [*base, "--frames=2", f"--json={target}", *more]


def stopped(arguments):
    try:
        return main(arguments)
    except KeyboardInterrupt:
        return None


def test_an_interrupted_run_goes_on_and_gives_the_same_figures(root, tmp_path, scored, capsys):
    names, stop = scored
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    assert main(words(root, whole)) == 0
    assert "all clips are done" in capsys.readouterr().err
    names.clear()
    stop.append("c.mp4")
    assert stopped(words(root, parts)) != 0
    assert not parts.exists()
    stop.clear()
    (kept,) = tmp_path.glob(".deepfovea-rows-parts.json-*")
    with kept.open("a", encoding="utf-8") as file:
        file.write('{"clip": "c.mp4", "rows": [{"met')  # stopped while it wrote
    assert main(words(root, parts)) == 0
    assert "2 of 3 clips kept" in capsys.readouterr().err
    assert names == ["a.mp4", "b.mp4", "c.mp4"]
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "parts.json", "whole.json"]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_run_goes_on_with_more_or_fewer_processes(root, tmp_path, scored, monkeypatch, processes):
    """Each process takes its share of the clips as with torchrun, but they run in turn."""
    names, stop = scored
    target, protocol = tmp_path / "rows.json", Protocol(2, metrics=())

    def process(rank, count):
        monkeypatch.setattr(run, "_rank_and_world_size", lambda: (rank, count))
        keep = KeptRows(target)
        return evaluate(root, [], ["fill"], protocol, keep=keep), keep

    stop.append("c.mp4")
    with pytest.raises(KeyboardInterrupt):
        process(0, 2)  # a, and not c
    process(1, 2)  # b
    stop.clear()
    names.clear()
    found = [process(rank, processes) for rank in range(processes)]
    assert names == ["c.mp4"]
    rows = sorted((row for result, _ in found for row in result.rows), key=lambda row: row.clip)
    monkeypatch.setattr(run, "_rank_and_world_size", lambda: (0, 1))
    assert rows == evaluate(root, [], ["fill"], protocol).rows
    found[0][1].remove()
    assert list(tmp_path.glob(".deepfovea-rows-*")) == []


@pytest.mark.parametrize("change", ["options", "clip", "damage"])
def test_what_was_computed_otherwise_is_not_taken_over(root, tmp_path, scored, change):
    names, stop = scored
    target = tmp_path / "rows.json"
    stop.append("b.mp4")
    assert stopped(words(root, target)) != 0
    stop.clear()
    names.clear()
    if change == "clip":
        os.utime(root / "c.mp4", (1, 1))
    if change == "damage":
        (kept,) = tmp_path.glob(".deepfovea-rows-*")
        kept.write_text("no JSON\n", encoding="utf-8")
    assert main(words(root, target, *["--seed=5"] * (change == "options"))) == 0
    assert names == ["a.mp4", "b.mp4", "c.mp4"]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    assert [row["clip"] for row in rows] == names
