"""Claims about the toy renderer: exact samples, exact motion."""

import numpy as np
import torch

from deepfovea.flow import backward_warp
from deepfovea.fovea import downsample
from deepfovea.toy_renderer import ToyRenderer

SCENE = ToyRenderer(24, 32)


def test_samples_are_the_published_low_resolution_of_the_truth():
    truth = torch.from_numpy(SCENE.truth(3))
    for jitter in ((0.0, 0.0), (0.5, 0.25)):  # whole output pixels
        samples = SCENE.samples(3, jitter=jitter)
        low = downsample(truth, jitter=torch.tensor(jitter)).numpy()
        inside = (slice(None), slice(1, -1), slice(1, -1))  # the scene goes on beyond the frame
        np.testing.assert_allclose(samples[:3][inside], low[inside], atol=1e-5)
        assert (samples[3] == 1).all()


def test_only_masked_pixels_are_rendered_and_alpha_says_which():
    mask = np.zeros((24, 32))
    mask[5, 7] = mask[20, 30] = 1
    samples = SCENE.samples(2, mask, (0.1, -0.3))
    assert np.array_equal(samples[3], mask)
    assert np.array_equal(samples, SCENE.samples(2, jitter=(0.1, -0.3)) * mask.astype(np.float32))


def test_the_frame_before_warped_by_the_motion_is_this_frame():
    for t in (1, 4):
        before, now = (torch.from_numpy(SCENE.truth(k))[None] for k in (t - 1, t))
        motion = torch.from_numpy(4 * SCENE.motion(t, scale=4))[None]
        seen = torch.from_numpy(~SCENE.disoccluded(t, scale=4))

        def error(field, before=before, now=now, seen=seen):
            return (backward_warp(before, field) - now).abs().mean((0, 1))[seen].mean()

        assert error(motion) < 0.03 < 0.1 < error(0 * motion)
        assert error(motion) < 0.25 * error(-motion)


def test_motion_is_that_of_the_jittered_place_without_the_jitter():
    still = ToyRenderer(24, 32, speed=0.0)
    assert np.abs(still.motion(5, (0.4, 0.2))).max() < 1e-6
    assert np.array_equal(still.truth(0), still.truth(7))
    assert not np.array_equal(still.samples(0, jitter=(0.4, 0.2)), still.samples(0))
    at_output = SCENE.motion(3, scale=4)
    quarter = SCENE.motion(3, jitter=(0.125, 0.125))  # the place of an output pixel
    np.testing.assert_allclose(quarter, at_output[:, 2::4, 2::4], atol=1e-5)


def test_what_is_disoccluded_was_hidden_or_outside():
    hidden = SCENE.disoccluded(1)
    assert 0 < hidden.mean() < 0.3
    assert not ToyRenderer(24, 32, speed=0.0).disoccluded(1).any()
