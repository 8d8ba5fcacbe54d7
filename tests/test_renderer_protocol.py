"""Claims about the protocol renderer: motion and jitter reach the methods, exactly and usefully."""

import sys
from dataclasses import replace
from pathlib import Path

import media
import pytest
import torch

from deepfovea.config import Density, InputError
from deepfovea.evaluate import evaluate, score
from deepfovea.evaluate.methods import run_method
from deepfovea.evaluate.result import load_protocol
from deepfovea.fovea import jitter_sequence
from deepfovea.toy_renderer import ToyRenderer

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
PROTOCOL = replace(load_protocol("renderer"), frames=4, metrics=())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    import renderer

    folder = tmp_path_factory.mktemp("scenes")
    renderer.HEIGHT, renderer.WIDTH = 24, 32
    renderer.write(folder, 4, [2.0])
    return folder


def test_methods_are_told_the_exact_motion_at_their_samples(scenes, monkeypatch):
    told = {}

    def listen(method, low, mask, device, jitter, motion):
        told[method.name] = (jitter, motion)
        return run_method(method, low, mask, device, jitter, motion)

    monkeypatch.setattr(score, "run_method", listen)
    evaluate(scenes, ["stream"], ["fill", "taau-all"], PROTOCOL)
    scene = ToyRenderer(24, 32, 2.0)
    assert told["fill"] == (None, None)
    for name, kind in (("torch", "quad"), ("taau-all", "halton")):
        jitter, motion = told[name]
        assert torch.equal(jitter, jitter_sequence(kind, 0, 4))
        assert motion[0].abs().max() == 0.0
        for t in range(1, 4):
            x, y = jitter[t].tolist()
            exact = torch.from_numpy(scene.motion(t, (x, y)))
            # The vector is that of the output pixel at the sample: edges may fall to either side.
            same = (motion[t] - exact).abs().amax(0) < 0.05
            assert same.double().mean() > 0.97, (name, t)


def test_given_motion_helps_and_is_part_of_the_protocol(scenes):
    sparse = replace(PROTOCOL, density=Density(0.2, 0.2))
    given = evaluate(scenes, ["stream"], [], sparse)
    found = evaluate(scenes, ["stream"], [], replace(sparse, motion="none"))
    assert given.rows[0].psnr > found.rows[0].psnr + 0.2
    assert given.protocol["motion"] == "given"
    assert given.protocol["changed"].keys() == {"frames", "density"}
    assert found.protocol["changed"]["motion"] == "none"


def test_clips_without_motion_are_refused(tmp_path, scenes):
    media.write_video(tmp_path / "clip.mp4", media.moving(2, 32, 40))
    with pytest.raises(InputError, match=r"received a video, which holds no motion; expected a"):
        evaluate(tmp_path, [], ["fill"], PROTOCOL)
    with pytest.raises(InputError, match="motion: received 'exact', expected none or given"):
        replace(PROTOCOL, motion="exact")
