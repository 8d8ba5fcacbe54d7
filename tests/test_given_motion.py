"""Claims about a renderer's motion vectors: disocclusions are found, and wrong ones do no harm."""

import numpy as np
import pytest
import torch

import deepfovea
from deepfovea.fovea import density_map, draw_mask
from deepfovea.generators.stream.given_motion import disoccluded, given_motion_fit
from deepfovea.metrics.pixel import psnr
from deepfovea.toy_renderer import ToyRenderer

HEIGHT, WIDTH, COUNT = 48, 64, 8
SCENE = ToyRenderer(HEIGHT, WIDTH)
MISTAKES = {
    "sign": lambda motion: -motion,
    "x and y swapped": lambda motion: motion.flip(2),
    "y up": lambda motion: motion * torch.tensor([1.0, -1.0])[:, None, None],
    "twice too long": lambda motion: 2 * motion,
    "half too long": lambda motion: motion / 2,
    "pixels of the output": lambda motion: 4 * motion,
    "one frame late": lambda motion: motion.roll(1, 1),
    "zero": lambda motion: 0 * motion,
}


@pytest.fixture(scope="module")
def rendered():
    """Samples, mask, motion [1,T,...] and the truth [T,3,H,W] from the toy renderer."""
    gaze_px = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).expand(1, COUNT, 2)
    mask = draw_mask(density_map(gaze_px, HEIGHT, WIDTH), blue_noise=True)
    samples = [SCENE.samples(t, mask[0, t, 0].numpy())[:3] for t in range(COUNT)]
    motion = [SCENE.motion(t) for t in range(COUNT)]
    truth = torch.from_numpy(np.stack([SCENE.truth(t) for t in range(COUNT)]))
    samples, motion = (torch.from_numpy(np.stack(x))[None] for x in (samples, motion))
    return samples, mask, motion, truth


@pytest.fixture(scope="module")
def score(rendered):
    """PSNR in dB of the packaged network with the given motion, from frame 3 on."""
    samples, mask, motion, truth = rendered
    net = deepfovea.load("stream", device="cpu")

    @torch.no_grad()
    def of(change):
        frames, _ = net(samples, mask, None, None if change is None else change(motion))
        pairs = zip(frames[0, 3:].clamp(0, 1), truth[3:], strict=True)
        return float(np.mean([float(psnr(*pair)) for pair in pairs]))

    return of


def test_right_vectors_help(score):
    assert score(lambda motion: motion) > score(None) + 0.4


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_vectors_cost_little(score, mistake):
    assert score(MISTAKES[mistake]) > score(None) - 0.5


def test_gradients_are_finite_where_trust_has_fallen_to_zero(rendered):
    samples, mask, motion, _ = rendered
    net = deepfovea.load("stream", device="cpu")
    with torch.no_grad():
        net.gate.conv_out.bias.fill_(-200.0)  # the sigmoid underflows to 0
    net(samples, mask, None, motion)[0].square().mean().backward()
    assert all(
        torch.isfinite(parameter.grad).all()
        for parameter in net.parameters()
        if parameter.grad is not None
    )


def test_what_was_hidden_or_outside_is_found():
    found = wrong = there = 0.0
    for t in range(2, COUNT):
        motion, before = (torch.from_numpy(SCENE.motion(k))[None] for k in (t, t - 1))
        new = disoccluded(motion, before)[0, 0].bool()
        true = torch.from_numpy(SCENE.disoccluded(t))
        found, there = found + (new & true).sum(), there + true.sum()
        wrong = wrong + (new & ~true).sum()
    assert found > 0.6 * there
    assert wrong < 0.15 * found


def test_a_camera_that_jerks_uncovers_nothing_but_its_border():
    still, jerk = torch.zeros(1, 2, 24, 32), torch.zeros(1, 2, 24, 32)
    jerk[:, 0] = -3.0
    new = disoccluded(jerk, still)[0, 0]
    assert new[:, :3].all()
    assert not new[:, 3:].any()


def test_vectors_equal_to_what_was_found_fit_wholly(rendered):
    samples, mask, motion, _ = rendered
    reference = torch.rand(1, 3, 2 * HEIGHT, 2 * WIDTH, generator=torch.manual_seed(0))
    one = (motion[:, 1], motion[:, 1], samples[:, 1], mask[:, 1], reference, None)
    assert (given_motion_fit(*one) == 1).all()
