"""FovVideoVDP with pyfvvdp: our call equals theirs, uses the gaze, reports a missing package."""

import sys

import numpy as np
import pytest
import torch

import deepfovea.metrics.jod as metrics_jod
from deepfovea.config import InputError
from deepfovea.metrics.jod import Kept, load_jod


def test_a_missing_package_is_named_with_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyfvvdp", None)
    load_jod.cache_clear()
    with pytest.raises(InputError, match=r"CC BY-NC.*pip install 'deepfovea\[jod\]'"):
        load_jod(64, 96)


@pytest.fixture(scope="module")
def pyfvvdp(predictor):
    return predictor("pyfvvdp")


@pytest.fixture(scope="module")
def videos():
    """A true video [3, 3, 64, 96] and one with noise in its left quarter, uint8."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(60, 200, (3, 3, 64, 96), generator=generator)
    noise = torch.randint(-60, 60, truth.shape, generator=generator)
    noise[..., 24:] = 0
    return truth.byte(), (truth + noise).byte()


pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # theirs

LEFT, RIGHT = torch.tensor([[12.0, 32.0]] * 3), torch.tensor([[90.0, 32.0]] * 3)


def test_it_equals_a_call_of_the_package_by_hand(pyfvvdp, videos):
    truth, video = videos
    jod, info = load_jod(64, 96)
    theirs = pyfvvdp.fvvdp(display_name="standard_hmd", foveated=True, quiet=True)
    stacked = [np.ascontiguousarray(v.permute(0, 2, 3, 1).numpy()) for v in (video, truth)]
    gaze = np.array([[12.0, 32.0], [50.0, 20.0], [90.0, 60.0]])
    score, _ = theirs.predict(*stacked, dim_order="FHWC", frames_per_second=30, fixation_point=gaze)
    assert jod(video, truth, torch.from_numpy(gaze), 30.0) == pytest.approx(float(score), abs=1e-4)
    assert info == theirs.get_info_string().strip('"')
    assert "foveated" in info
    assert "standard_hmd" in info


def test_equal_is_ten_and_an_error_counts_most_where_one_looks(pyfvvdp, videos):
    truth, video = videos
    jod, info = load_jod(64, 96, 90.0)
    assert "90° across" in info
    assert jod(truth, truth, LEFT, 30.0) == 10.0
    seen, unseen = jod(video, truth, LEFT, 30.0), jod(video, truth, RIGHT, 30.0)
    assert seen < unseen < 10.0
    # The gaze of each frame counts, not only that of the first.
    moving = torch.cat([LEFT[:1], RIGHT[1:]])
    assert seen < jod(video, truth, moving, 30.0) < unseen


def test_a_wider_display_has_fewer_pixels_per_degree(pyfvvdp):
    densities = [float(load_jod(64, 96, fov)[1].split(", ")[1].split()[0]) for fov in (30, 90)]
    expected = [48 / np.tan(np.radians(fov / 2)) * np.radians(1) for fov in (30, 90)]
    assert densities == pytest.approx(expected, rel=1e-3)


def test_a_second_method_gets_the_score_of_a_new_predictor(pyfvvdp, videos, monkeypatch):
    """What does not depend on the method is computed for the first one only."""
    truth, video = videos
    asked = []
    original = pyfvvdp.fvvdp.cached_sensitivity

    def counted(*inputs):
        asked.append(inputs)
        return original(*inputs)

    monkeypatch.setattr(pyfvvdp.fvvdp, "cached_sensitivity", counted)
    monkeypatch.setattr(metrics_jod, "_kept", Kept())
    load_jod(64, 96).jod(truth, truth, LEFT, 30.0)
    computed = len(asked)
    after_another = load_jod(64, 96).jod(video, truth, LEFT, 30.0)
    assert len(asked) == computed > 0
    monkeypatch.setattr(metrics_jod, "_kept", Kept())
    assert load_jod(64, 96).jod(video, truth, LEFT, 30.0) == after_another
    assert len(asked) == 2 * computed


def test_results_are_kept_by_the_content_of_the_inputs_up_to_a_limit():
    asked = []

    def multiply(tensor, factor):
        asked.append(factor)
        return factor * tensor

    ones = torch.ones(10)
    kept = Kept(limit_bytes=2 * 4 * len(ones))  # of two results in float32
    for _ in range(2):
        assert kept(multiply, ones.clone(), 2.0).tolist() == [2.0] * 10
    assert kept(multiply, ones, 3.0).tolist() == [3.0] * 10
    assert asked == [2.0, 3.0]
    assert kept(multiply, torch.zeros(10), 2.0).tolist() == [0.0] * 10  # the limit is exceeded
    assert kept(multiply, ones.reshape(2, 5), 2.0).shape == (2, 5)
    assert len(kept.results) == 2
    assert kept(multiply, ones, 2.0).tolist() == [2.0] * 10
    assert asked == [2.0, 3.0, 2.0, 2.0, 2.0]
