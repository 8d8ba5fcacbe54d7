"""Temporal metrics against their authors' definitions, written out pixel by pixel."""

import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepfovea.config import InputError
from deepfovea.flow import dis_flow
from deepfovea.metrics.temporal import e_warp, farneback_flow, t_lpips, t_of, true_flow


@pytest.fixture(scope="module")
def texture():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    return F.interpolate(coarse, (96, 128), mode="bicubic").clamp(0, 1)[0]


def noisy(frame, strength, seed):
    generator = torch.Generator().manual_seed(seed)
    return frame + strength * torch.randn(frame.shape, generator=generator)


def authors_e_warp(first, second, flow, occlusion):
    """evaluate_WarpError.py: the second frame warped to the first, bilinearly."""
    first, second = (frame.clamp(0, 1).numpy().astype(float) for frame in (first, second))
    height, width = first.shape[1:]
    total = count = 0.0
    for y in range(height):
        for x in range(width):
            if occlusion[0, y, x]:
                continue
            at_x = min(max(x + float(flow[0, y, x]), 0.0), width - 1.0)
            at_y = min(max(y + float(flow[1, y, x]), 0.0), height - 1.0)
            left, top = min(int(at_x), width - 2), min(int(at_y), height - 2)
            a, b = at_x - left, at_y - top
            corner = second[:, top : top + 2, left : left + 2]
            value = (1 - b) * ((1 - a) * corner[:, 0, 0] + a * corner[:, 0, 1])
            value += b * ((1 - a) * corner[:, 1, 0] + a * corner[:, 1, 1])
            total += float(((value - first[:, y, x]) ** 2).sum())
            count += 3
    return total / count


def test_e_warp_is_the_authors_mean(texture):
    generator = torch.Generator().manual_seed(1)
    first, second = texture[:, :20, :30], noisy(texture[:, 2:22, 3:33], 0.2, 2)
    flow = 3.0 * torch.randn(2, 20, 30, generator=generator)
    occlusion = torch.rand(1, 20, 30, generator=generator) < 0.3
    expected = authors_e_warp(first, second, flow, occlusion)
    assert e_warp(first, second, flow, occlusion) == pytest.approx(expected, abs=1e-6)


def test_e_warp_is_nothing_for_true_motion_and_sees_flicker(texture):
    first, second = texture[:, 8:88, 8:120], texture[:, 8:88, 4:116]  # four pixels to the right
    flow, occlusion = true_flow(first, second, dis_flow)
    visible = flow[:, ~occlusion[0]]
    assert visible.median(1).values.tolist() == pytest.approx([4.0, 0.0], abs=0.1)
    assert bool(occlusion[0, :, -3:].all())  # left the frame
    steady = e_warp(first, second, flow, occlusion)
    flicker = [e_warp(first, second + shift, flow, occlusion) for shift in (0.02, 0.1)]
    assert steady < 1e-4 < flicker[0] < flicker[1]
    assert e_warp(first, first, torch.zeros_like(flow), torch.zeros_like(occlusion)) < 1e-12
    # A constant video is perfectly steady whatever the true motion: blur lowers E_warp.
    gray = torch.full_like(first, 0.5)
    assert e_warp(gray, gray, flow, occlusion) < 1e-12


def test_e_warp_is_bounded_and_nothing_where_nothing_is_visible(texture):
    white, black, still = torch.ones(3, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 8, 8)
    visible = torch.zeros(1, 8, 8, dtype=torch.bool)
    assert e_warp(white, black, still, visible) == 1.0
    assert e_warp(7.0 * white, black - 3.0, still, visible) == 1.0  # as shown
    assert e_warp(white, black, still, ~visible) == 0.0


def authors_t_of(target, output):
    """TecoGAN's metrics.py on 8-bit frames [H, W, 3], its crop included."""
    grays = [[cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in pair] for pair in (target, output)]
    flows = [cv2.calcOpticalFlowFarneback(*pair, None, 0.5, 3, 15, 3, 5, 1.2, 0) for pair in grays]
    height, width = flows[0].shape[:2]
    h, w = height // 32 * 32, width // 32 * 32
    while h > height - 16:
        h -= 32
    while w > width - 16:
        w -= 32
    y, x = (height - h) // 2, (width - w) // 2
    difference = np.absolute(flows[0] - flows[1])[y : y + h, x : x + w]
    return np.sqrt((difference**2).sum(-1)).mean()


@pytest.mark.parametrize("size", [(96, 128), (95, 111), (50, 112)])
def test_t_of_is_the_authors_on_eight_bit_frames(texture, size):
    height, width = size
    target = [texture[:, :height, :width], texture[:, -height:, -width:]]
    output = [noisy(frame, 0.1, seed) for seed, frame in enumerate(target)]
    value = t_of(farneback_flow(*output), farneback_flow(*target))
    eight_bits = [
        [(f.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).contiguous().numpy() for f in pair]
        for pair in (target, output)
    ]
    assert value == pytest.approx(float(authors_t_of(*eight_bits)), rel=1e-5)
    assert value > 0.01


def test_t_of_is_nothing_for_equal_motion_symmetric_and_counts_pixels(texture):
    frames = [texture, texture.roll(3, -1), texture.roll(-2, -2)]
    one, other = farneback_flow(frames[0], frames[1]), farneback_flow(frames[0], frames[2])
    assert t_of(one, one) == 0.0
    assert t_of(one, other) == pytest.approx(t_of(other, one), rel=1e-6)
    still = np.zeros_like(one)
    assert t_of(still + np.array([3.0, 4.0]), still) == pytest.approx(5.0)
    assert t_of(one, still) == pytest.approx(3.0, abs=0.5)  # the texture's motion


def test_t_of_of_small_frames_has_no_border_left_out():
    still = np.zeros((20, 47, 2), np.float32)
    moved = still.copy()
    moved[0, 0] = (20 * 47, 0)
    assert t_of(moved, still) == pytest.approx(1.0)


def test_farneback_without_opencv_names_the_install(texture, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"OpenCV.*pip install 'deepfovea\[eval\]'"):
        farneback_flow(texture, texture)


def test_t_lpips_is_a_hundredfold_difference():
    assert t_lpips(0.25, 0.2) == pytest.approx(5.0)
    assert t_lpips(0.2, 0.25) == pytest.approx(5.0)
    assert t_lpips(0.3, 0.3) == 0.0
