"""Claims about reconstruction without learning: hole filling, warping, accumulation, flow."""

import sys

import numpy as np
import pytest
import torch
from scipy.interpolate import griddata
from scipy.ndimage import gaussian_filter, map_coordinates

from deepfovea.config import InputError
from deepfovea.fill import Canvas, accumulate, pull_push
from deepfovea.flow import backward_warp, dis_flow
from deepfovea.resample import downsample_2x, upsample_bicubic

SIZES = [(1, 1), (1, 7), (6, 1), (2, 3), (7, 9), (16, 16), (17, 33), (40, 24)]


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def texture(height, width, sigma=2.0, seed=0):
    """A picture [1, 3, h, w] in [0, 1] with detail everywhere."""
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    smooth = gaussian_filter(noise, (0, sigma, sigma))
    smooth = 0.5 + smooth / (4.0 * smooth.std())
    return torch.from_numpy(smooth.clip(0, 1)).float()[None]


def panning(length, move, height=64, width=64, seed=0):
    """A clip [1, T, 3, h, w] of a texture: p shows what p + move showed one frame before."""
    x, y = move
    left, top = max(0, -x * length), max(0, -y * length)
    large = texture(height + abs(y) * length, width + abs(x) * length, seed=seed)
    frames = [
        large[..., top + y * t : top + y * t + height, left + x * t : left + x * t + width]
        for t in range(length)
    ]
    return torch.stack(frames, 1)


def random_mask(frames, share):
    return (torch.rand(*frames.shape[:-3], 1, *frames.shape[-2:]) < share).to(frames.dtype)


def mse(a, b, border=0):
    inside = (..., slice(border, a.shape[-2] - border), slice(border, a.shape[-1] - border))
    return float((a - b)[inside].square().mean())


# --- pull-push --------------------------------------------------------------------------------


def pull_push_by_hand(samples, weight):
    """Gortler et al. 1996 on a square [n, n] of numbers, n a power of two, in plain NumPy."""
    if samples.shape == (1, 1):
        return samples
    color = (samples * weight).reshape(len(weight) // 2, 2, -1, 2).sum((1, 3))
    total = weight.reshape(len(weight) // 2, 2, -1, 2).sum((1, 3))
    mean = color / np.where(total > 0, total, 1)
    coarse = np.pad(pull_push_by_hand(mean, np.minimum(total, 1)), 1, mode="edge")
    for _ in range(2):  # each fine pixel is 3/4 of the nearer coarse one, 1/4 of the next
        near, before, after = coarse[1:-1], coarse[:-2], coarse[2:]
        coarse = np.stack([0.75 * near + 0.25 * before, 0.75 * near + 0.25 * after], 1)
        coarse = coarse.reshape(-1, coarse.shape[-1]).T
    return weight * samples + (1 - weight) * coarse


@pytest.mark.parametrize("soft", [False, True])
def test_pull_push_is_that_of_the_paper(soft):
    samples = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    weight = random_mask(samples, 0.15)
    if soft:
        weight = weight * torch.rand_like(weight)
    expected = pull_push_by_hand(samples[0, 0].numpy(), weight[0, 0].numpy())
    received = pull_push(samples, weight)[0, 0].numpy()
    assert np.allclose(received, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_known_pixels_stay_and_holes_lie_between_them(size, share):
    samples = torch.rand(2, 3, *size)
    mask = random_mask(samples, share)
    mask[..., 0, 0] = 1.0
    filled = pull_push(samples, mask)
    assert filled.shape == samples.shape
    known = mask.expand_as(samples) > 0
    assert torch.equal(filled[known], samples[known])
    inside = torch.where(known, samples, torch.inf).amin((-2, -1), keepdim=True) - 1e-6
    assert (filled >= inside).all()
    inside = torch.where(known, samples, -torch.inf).amax((-2, -1), keepdim=True) + 1e-6
    assert (filled <= inside).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_picture_is_filled_from_one_pixel(size):
    samples = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, *size)
    weight = torch.zeros(1, *size)
    weight[0, -1, size[1] // 2] = 1.0
    filled = pull_push(samples * weight, weight)
    torch.testing.assert_close(filled, samples.contiguous(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_where_nothing_is_known_all_is_black(size):
    assert not pull_push(torch.rand(1, 3, *size), torch.zeros(1, 1, *size)).any()


def test_what_is_not_known_does_not_matter():
    mask = random_mask(torch.rand(1, 3, 20, 30), 0.2)
    samples = torch.rand(1, 3, 20, 30)
    elsewhere = torch.where(mask > 0, samples, 100.0)
    assert torch.equal(pull_push(elsewhere, mask), pull_push(samples * mask, mask))


def test_filling_is_linear_in_the_samples():
    a, b = torch.rand(2, 1, 3, 21, 30, dtype=torch.float64)
    weight = random_mask(a, 0.3) * torch.rand(1, 1, 21, 30, dtype=torch.float64)
    torch.testing.assert_close(
        pull_push(2.5 * a - b, weight), 2.5 * pull_push(a, weight) - pull_push(b, weight)
    )


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 4, 1), (2, 4, 7)])
def test_any_leading_dimensions(shape):
    samples = torch.rand(*shape, 18, 11)
    mask = random_mask(samples, 0.3)
    filled = pull_push(samples, mask)
    for index in np.ndindex(shape[:-1]):
        torch.testing.assert_close(filled[index], pull_push(samples[index], mask[index]))


def test_gradients_of_filling_are_right():
    samples = torch.rand(1, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = (0.05 + 0.9 * torch.rand(1, 1, 3, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(pull_push, (samples, weight))
    mask = random_mask(samples, 0.3)
    assert torch.autograd.gradcheck(lambda known: pull_push(known, mask), (samples,))


def test_filling_is_better_than_repeating_the_nearest_sample():
    picture = texture(64, 64)
    mask = random_mask(picture, 0.15)
    points = mask[0, 0].nonzero().numpy()
    values = picture[0][:, mask[0, 0] > 0].T.numpy()
    y, x = np.mgrid[:64, :64]
    nearest = torch.from_numpy(griddata(points, values, (y, x), "nearest")).permute(2, 0, 1)[None]
    assert mse(pull_push(picture, mask), picture) < mse(nearest, picture)


def test_nan_where_nothing_is_known_does_not_matter():
    samples = torch.rand(1, 3, 20, 30)
    mask = random_mask(samples, 0.2)
    assert pull_push(torch.where(mask > 0, samples, torch.nan), mask).isfinite().all()


# --- bicubic ----------------------------------------------------------------------------------


def test_upscaling_is_bicubic_as_in_opencv_and_clamped():
    cv2 = pytest.importorskip("cv2")
    frames = torch.rand(2, 2, 3, 11, 14)
    large = upsample_bicubic(frames)
    assert large.shape == (2, 2, 3, 44, 56)
    image = frames[1, 0].permute(1, 2, 0).numpy()
    cubic = cv2.resize(image, (56, 44), interpolation=cv2.INTER_CUBIC)
    assert cubic.min() < 0
    assert cubic.max() > 1  # there was something to clamp
    received = large[1, 0].permute(1, 2, 0).numpy()
    assert np.allclose(received, cubic.clip(0, 1), rtol=0, atol=1e-5)
    plain = torch.nn.functional.interpolate(frames[0], scale_factor=3, mode="bicubic")
    torch.testing.assert_close(upsample_bicubic(frames, 3)[0], plain.clamp(0, 1), rtol=0, atol=1e-6)


# --- warping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_no_motion_changes_nothing(size):
    image = torch.rand(2, 4, *size)
    still = backward_warp(image, torch.zeros(2, 2, *size))
    torch.testing.assert_close(still, image, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 2), (-4, 5), (7, -1)])
def test_a_whole_shift_fetches_pixels(x, y):
    image = torch.rand(1, 3, 24, 32)
    flow = torch.tensor([x, y]).float()[None, :, None, None].expand(1, 2, 24, 32)
    expected = image.roll((-y, -x), (-2, -1))[..., 5:-5, 7:-7]
    received = backward_warp(image, flow)[..., 5:-5, 7:-7]
    torch.testing.assert_close(received, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [(24, 32), (5, 3), (1, 1)])
@pytest.mark.parametrize("reach", [0.5, 4.0, 50.0])
def test_warping_is_bilinear_with_the_border_repeated(size, reach):
    image = torch.rand(2, 3, *size)
    flow = reach * torch.randn(2, 2, *size)
    received = backward_warp(image, flow).numpy()
    y, x = np.mgrid[: size[0], : size[1]]
    for b in range(2):
        where = (y + flow[b, 1].double().numpy(), x + flow[b, 0].double().numpy())
        for c in range(3):
            plane = image[b, c].double().numpy()
            expected = map_coordinates(plane, where, order=1, mode="nearest")
            assert np.allclose(received[b, c], expected, rtol=0, atol=1e-5)


# --- accumulation -----------------------------------------------------------------------------


def still_scene(length=8):
    """A still clip, and masks of 20 % that together sample every pixel."""
    frames = texture(48, 56)[:, None].expand(1, length, 3, 48, 56)
    place = torch.arange(48)[:, None] + 2 * torch.arange(56)  # each fifth pixel, then the next ones
    mask = torch.stack([(place + 2 * t) % 5 == 0 for t in range(length)])[None, :, None].float()
    return frames, mask


def test_halves_are_means():
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert downsample_2x(x)[0, 0].tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    shifted = [[10.5, 12.5, 14.0], [19.5, 21.5, 23.0]]  # the last column and row are repeated
    assert downsample_2x(x, 1)[0, 0].tolist() == shifted


def test_a_still_scene_is_known_better_with_every_frame():
    frames, mask = still_scene()
    errors, confidences, canvas = [], [], None
    for samples, known in zip((frames * mask).split(1, 1), mask.split(1, 1), strict=True):
        shown, canvas = accumulate(samples, known, canvas)
        errors.append(mse(shown, frames[:, :1]))
        confidences.append(float(canvas.confidence.mean()))
    assert errors == sorted(errors, reverse=True)
    assert confidences == sorted(confidences)
    assert errors[-1] < 0.2 * errors[0]


def test_a_still_scene_becomes_complete():
    frames, mask = still_scene()
    known = mask.cumsum(1).clamp(max=1)
    assert known[:, -1].all()
    canvas = None
    for t in range(8):
        shown, canvas = accumulate((frames * mask)[:, t : t + 1], mask[:, t : t + 1], canvas)
        assert torch.equal(canvas.confidence, known[:, t])
    assert torch.equal(shown[:, 0], frames[:, 0])


@pytest.mark.parametrize("flow", [None, dis_flow], ids=["still", "dis"])
def test_a_clip_equals_its_chunks(flow):
    frames = panning(5, (2, 1))
    mask = random_mask(frames, 0.3)
    samples = frames * mask
    whole, end = accumulate(samples, mask, flow=flow)
    first, canvas = accumulate(samples[:, :2], mask[:, :2], flow=flow)
    second, last = accumulate(samples[:, 2:], mask[:, 2:], canvas, flow=flow)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(map(torch.equal, last, end))
    assert end.color.shape == (1, 3, 64, 64)
    assert end.confidence.shape == (1, 1, 64, 64)


def test_later_frames_change_nothing_earlier():
    frames = panning(5, (2, 1))
    mask = random_mask(frames, 0.3)
    before, _ = accumulate(frames * mask, mask, flow=dis_flow)
    frames[:, 3:] = 1 - frames[:, 3:]
    mask[:, 3:] = 1 - mask[:, 3:]
    after, _ = accumulate(frames * mask, mask, flow=dis_flow)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


def test_the_first_frame_is_filled_and_samples_are_always_kept():
    frames = torch.rand(2, 4, 3, 20, 28)
    mask = random_mask(frames, 0.4)
    shown, _ = accumulate(frames * mask, mask)
    assert torch.equal(shown[:, 0], pull_push(frames[:, 0], mask[:, 0]))
    known = mask.expand_as(frames) > 0
    assert torch.equal(shown[known], frames[known])


def test_after_a_cut_it_lets_go():
    # Twelve frames of one scene, then one of an entirely different scene.
    before, after = texture(64, 64, seed=1), texture(64, 64, seed=2)
    frames = torch.stack([before] * 12 + [after], 1)
    mask = random_mask(frames, 0.3)
    shown, canvas = accumulate(frames * mask, mask)
    filled = mse(pull_push(after, mask[:, -1]), after)
    assert mse(shown[:, 11], before) < 0.05 * filled
    assert mse(before, after) > 4 * filled
    assert mse(shown[:, -1], after) < 1.3 * filled
    carried = canvas.confidence[mask[:, -1] == 0]
    assert carried.mean() < 0.25


def test_frames_without_samples_keep_the_canvas():
    frame = texture(32, 40)
    mask = random_mask(frame, 0.4)
    shown, canvas = accumulate((frame * mask)[:, None], mask[:, None])
    nothing = torch.zeros(1, 4, 3, 32, 40)
    still, same = accumulate(nothing, nothing[:, :, :1], canvas)
    torch.testing.assert_close(still, shown.expand_as(still), rtol=0, atol=1e-6)
    assert torch.equal(same.confidence, canvas.confidence)


def test_frames_without_samples_keep_a_canvas_of_any_confidence():
    frames = panning(3, (1, 0), 32, 40)
    mask = random_mask(frames, 0.4)
    shown, canvas = accumulate(frames * mask, mask)
    nothing = torch.zeros(1, 4, 3, 32, 40)
    still, same = accumulate(nothing, nothing[:, :, :1], canvas)
    assert torch.equal(same.confidence, canvas.confidence)
    torch.testing.assert_close(still, shown[:, -1:].expand_as(still), rtol=0, atol=1e-6)


def test_no_samples_at_all_are_black():
    nothing = torch.zeros(1, 3, 3, 32, 40)
    shown, canvas = accumulate(nothing, nothing[:, :, :1])
    assert not shown.any()
    assert not canvas.confidence.any()


def test_a_wrong_flow_does_no_harm_to_a_still_scene():
    frames = texture(48, 48)[:, None].expand(1, 6, 3, 48, 48)
    mask = random_mask(frames, 0.3)
    still, _ = accumulate(frames * mask, mask)
    wrong, _ = accumulate(frames * mask, mask, flow=lambda previous, _: 9 + 0 * previous[:, :2])
    assert torch.equal(wrong, still)


def test_the_better_of_both_motions_is_chosen_locally():
    length = 8
    moving, resting = panning(length, (3, 0), 64, 48), texture(64, 48, seed=9)
    frames = torch.cat([moving, resting[:, None].expand_as(moving)], -1)
    mask = random_mask(frames, 0.25)
    truth = torch.tensor([3.0, 0.0])[None, :, None, None].expand(1, 2, 64, 96)
    one_for_all, _ = accumulate(frames * mask, mask, flow=lambda previous, current: truth)
    none, _ = accumulate(frames * mask, mask)
    left, right = (..., slice(4, 38)), (..., slice(58, 92))  # away from the seam and what comes in
    last = frames[:, -1]
    assert mse(one_for_all[:, -1][left], last[left]) < 0.4 * mse(none[:, -1][left], last[left])
    assert mse(one_for_all[:, -1][right], last[right]) < 1e-6 + mse(none[:, -1][right], last[right])


def test_estimated_flow_helps_where_the_scene_moves():
    frames = panning(8, (2, -1), 96, 96)
    mask = random_mask(frames, 0.3)
    with_flow, _ = accumulate(frames * mask, mask, flow=dis_flow)
    without, _ = accumulate(frames * mask, mask)
    last = frames[:, -1]
    assert mse(with_flow[:, -1], last, 16) < 0.6 * mse(without[:, -1], last, 16)
    assert mse(with_flow[:, -1], last, 16) < 0.6 * mse(pull_push(last, mask[:, -1]), last, 16)


def test_no_frame_is_refused():
    nothing = torch.zeros(1, 0, 3, 8, 8)
    with pytest.raises(ValueError, match="received no frame"):
        accumulate(nothing, nothing[:, :, :1])


def test_no_frame_is_refused_in_the_middle_of_a_video():
    nothing = torch.zeros(1, 0, 3, 8, 8)
    canvas = Canvas(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="received no frame"):
        accumulate(nothing, nothing[:, :, :1], canvas)


# --- optical flow -----------------------------------------------------------------------------


@pytest.mark.parametrize("move", [(0, 0), (3, -2), (-5, 1), (0, 4)])
def test_dis_flow_finds_a_shift(move):
    pytest.importorskip("cv2")
    previous, current = panning(2, move, 96, 128).unbind(1)
    flow = dis_flow(previous, current)
    assert flow.shape == (1, 2, 96, 128)
    inside = flow[0, :, 16:-16, 16:-16].flatten(1)
    error = (inside - torch.tensor(move)[:, None]).abs()
    assert error.quantile(0.95) < 0.2
    assert error.mean() < 0.05
    warped = backward_warp(previous, flow)
    assert mse(warped, current, 16) < 1e-4
    if move != (0, 0):
        assert mse(backward_warp(previous, -flow), current, 16) > 100 * mse(warped, current, 16)


def test_dis_flow_of_a_batch_is_that_of_its_pairs():
    pytest.importorskip("cv2")
    pairs = [panning(2, move, 64, 64, seed).unbind(1) for seed, move in enumerate([(2, 0), (0, 3)])]
    both = dis_flow(*(torch.cat(frames) for frames in zip(*pairs, strict=True)))
    alone = torch.cat([dis_flow(*pair) for pair in pairs])
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-3)


def test_without_opencv_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[eval\]'") as error:
        dis_flow(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert len(str(error.value).splitlines()) == 1


def test_dis_flow_of_a_tiny_frame_is_no_error():
    frames = texture(8, 10)
    assert dis_flow(frames, frames).shape == (1, 2, 8, 10)
