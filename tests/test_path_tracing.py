"""Claims about the example with a real path tracer: exact motion, and an order of methods."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepfovea.flow import backward_warp

ROOT = Path(__file__).parents[1]
mi = pytest.importorskip("mitsuba", reason="mitsuba is not installed (extra render)")


@pytest.fixture(scope="module")
def room():
    try:
        mi.set_variant("llvm_ad_rgb")
    except ImportError:
        pytest.skip("Mitsuba finds no LLVM")
    from examples.path_tracing import scene

    return scene.load_scene()


def test_what_rests_has_no_motion(room, monkeypatch):
    """This shows that rays and projection are inverse to each other."""
    from examples.path_tracing import scene, trace

    camera = scene.load_camera(48, 64)
    scene.place_ball(room, 3)
    scene.place_camera(camera, 3)
    for name in ("ball_to_world", "camera_to_world"):
        there = getattr(scene, name)(3)
        monkeypatch.setattr(trace, name, lambda t, there=there: there)
    assert np.abs(trace.motion(room, camera, 4, (0.4, -0.3))).max() < 2e-3  # float32 rays


def test_motion_leads_to_the_same_point_of_the_scene(room):
    """The previous frame, warped by the motion, equals this one but for disocclusions and noise."""
    from examples.path_tracing import scene, trace
    from examples.path_tracing.__main__ import encode

    camera, frames = scene.load_camera(48, 64), []
    y, x = np.mgrid[:48, :64]
    places = np.stack([x, y], -1).reshape(-1, 2)
    for t in (3, 4):
        scene.place_ball(room, t)
        scene.place_camera(camera, t)
        color = encode(trace.radiance(room, camera, places, 128, 2.0, t))  # wide: no aliasing
        frames.append(torch.from_numpy(color.T.reshape(1, 3, 48, 64)))
    motion = torch.from_numpy(trace.motion(room, camera, 4, (0.0, 0.0)))[None]

    moves = motion.square().sum(1).sqrt() > 0.7

    def error(field):
        missed = (backward_warp(frames[0], field) - frames[1]).abs().mean(1)
        return float(missed[moves].mean())

    assert 0.05 < float(moves.float().mean()) < 0.5  # the ball
    assert error(motion) < 0.5 * min(error(0 * motion), error(-motion))


def test_the_example_writes_its_files(room, tmp_path, monkeypatch, capsys):
    from examples.path_tracing.__main__ import main

    monkeypatch.setattr(
        "sys.argv",
        f"path_tracing -o {tmp_path} --height 16 --width 24 --frames 5 --paths 2,1 "
        "--reference-paths 4".split(),
    )
    main()
    report = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    rays = [row["rays"] for row in report["rows"]]
    assert rays[0] == 16 * rays[1] and rays[2] < rays[1]
    assert [row["paths"] for row in report["rows"]] == [2] * 5 + [1] * 3
    assert rays[5] == rays[2] / 2  # samples of fewer paths
    assert report["share"] == pytest.approx(0.2, abs=0.03)
    kept = sorted((tmp_path / "reference").iterdir())
    assert len(kept) == 5
    # A second run takes the reference from there. Only the last frame is scored.
    np.save(kept[-1], np.zeros_like(np.load(kept[-1])))
    main()
    again = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["rows"][0]
    assert again["psnr_db"] < report["rows"][0]["psnr_db"]
    texts = runpy.run_path(str(ROOT / "docs" / "path_tracing.py"))["texts"]
    texts.__globals__.update(RESULT=tmp_path / "result.json", PICTURE=tmp_path / "figure.webp")
    page, readme = texts()
    assert page.count("\n| ") == 9 and f"| {rays[0]:,.0f} |" in page  # a head and eight rows
    assert "docs/figure.webp" in readme
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    with Image.open(tmp_path / "figure.webp") as figure:
        assert (figure.n_frames, figure.size) == (5, (3 * 96, 64))
    assert (tmp_path / "video.mp4").stat().st_size > 1000
    assert "stream, motion and jitter" in capsys.readouterr().out
