"""Claims about our own network: one frame in, one out, causal, with state as a value."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

import deepfovea
from deepfovea.fill import pull_push
from deepfovea.flow import backward_warp
from deepfovea.fovea import downsample, draw_mask, sample
from deepfovea.generators.stream.flow_candidates import select_flow
from deepfovea.generators.stream.motion import MotionEstimator, lucas_kanade_step
from deepfovea.generators.stream.net import (
    BicubicUpsample,
    SpaceToDepthStem,
    StreamConfig,
    StreamNet,
    StreamState,
    _interpolate_to_canvas,
)
from deepfovea.metrics.pixel import psnr
from deepfovea.resample import upsample_bicubic

SMALL = StreamConfig(12, 16, 16, 8, 4, (8, 8, 8))
SIZES = [(16, 24), (13, 22), (1, 1)]


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def lively(config=SMALL):
    """A network in which all parameters that start at zero have other values."""
    net = StreamNet(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return net


def clip(length, height=16, width=24, batch=1):
    """Samples of a picture that changes a little from frame to frame."""
    mask = (torch.rand(batch, length, 1, height, width) < 0.3).float()
    still, change = (torch.rand(batch, n, 3, height, width) for n in (1, length))
    return (0.8 * still + 0.2 * change) * mask, mask


def texture(height, width, sigma=2.0, seed=0):
    """A picture [1, 3, h, w] in [0, 1] with detail everywhere."""
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    smooth = gaussian_filter(noise, (0, sigma, sigma))
    smooth = 0.5 + smooth / (5.0 * smooth.std())
    return torch.from_numpy(smooth.clip(0, 1)).float()[None]


def confidence(state):
    """[B, 1, 2h, 2w]."""
    return state.canvas[:, 3:]


def at_samples(cells):
    """The cells of the canvas in which samples of the low resolution lie."""
    return cells[..., ::2, ::2]


def fill(samples, mask):
    """Hole filling with bicubic upscaling, frame by frame."""
    return upsample_bicubic(pull_push(samples, mask))


# --- frames and state ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (21, 30), (8, 8), (3, 200), (1, 1)])
@torch.no_grad()
def test_any_size(size):
    net = lively()
    frames, state = net(*clip(2, *size, batch=2))
    assert frames.shape == (2, 2, 3, 4 * size[0], 4 * size[1])
    assert frames.isfinite().all()
    h, w = (-(-side // 8) * 8 for side in size)
    assert type(state) is StreamState
    assert [tuple(tensor.shape) for tensor in state] == [
        (2, 4, 2 * h, 2 * w),
        (2, 3, 2 * h, 2 * w),
        (2, SMALL.hidden_channels, h // 2, w // 2),
        (2, 2, h, w),
    ]
    assert all(tensor.isfinite().all() for tensor in state)
    assert 0 <= confidence(state).min() <= confidence(state).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_a_clip_equals_its_frames_and_its_chunks(size):
    net = lively()
    samples, mask = clip(4, *size)
    whole, end = net(samples, mask)
    for parts in ([1] * 4, [3, 1]):
        state, frames = None, []
        for part in zip(samples.split(parts, 1), mask.split(parts, 1), strict=True):
            shown, state = net(*part, state)
            frames.append(shown)
        torch.testing.assert_close(torch.cat(frames, 1), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(tuple(state), tuple(end), rtol=0, atol=1e-5)


@torch.no_grad()
def test_later_frames_change_nothing_earlier():
    net = lively()
    samples, mask = clip(5)
    before, _ = net(samples, mask)
    samples[:, 3:] = 1.0
    mask[:, 3:] = 1.0
    after, _ = net(samples, mask)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


@torch.no_grad()
def test_a_video_starts_the_same_every_time():
    net = lively()
    samples, mask = clip(2)
    first, _ = net(samples, mask)
    net(*clip(3))
    again, _ = net(samples, mask)
    explicit, _ = net(samples, mask, net.initial_state(samples[:, 0]))
    assert torch.equal(first, again)
    assert torch.equal(first, explicit)


@torch.no_grad()
def test_a_state_is_left_as_it_was():
    net = lively()
    _, state = net(*clip(2))
    before = [tensor.clone() for tensor in state]
    net(*clip(2), state)
    assert all(map(torch.equal, before, state))


@pytest.mark.parametrize("field", StreamState._fields)
@torch.no_grad()
def test_all_of_the_state_is_used(field):
    net = lively()
    samples, mask = clip(3)
    _, state = net(samples[:, :2], mask[:, :2])
    samples, mask = samples[:, 2:], mask[:, 2:]
    frames, _ = net(samples, mask, state)
    changed = state._replace(**{field: getattr(state, field) * 0.5 + 0.1})
    assert not torch.equal(net(samples, mask, changed)[0], frames)


@torch.no_grad()
def test_padding_is_unsampled_pixels():
    net = lively()
    samples, mask = clip(3, 24, 32)
    samples[..., 21:, :] = samples[..., 30:] = mask[..., 21:, :] = mask[..., 30:] = 0.0
    whole, _ = net(samples, mask)
    part, _ = net(samples[..., :21, :30], mask[..., :21, :30])
    torch.testing.assert_close(part, whole[..., :84, :120], rtol=0, atol=1e-6)


@torch.no_grad()
def test_videos_of_a_batch_do_not_meet():
    net = lively().double()  # in float32 the rounding depends on the size of the batch
    samples, mask = (tensor.double() for tensor in clip(3, batch=3))
    together, state = net(samples, mask)
    for i in range(3):
        alone, own = net(samples[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-10)
        mine = tuple(tensor[i : i + 1] for tensor in state)
        torch.testing.assert_close(tuple(own), mine, rtol=0, atol=1e-10)


def test_no_frame_is_refused():
    nothing = torch.zeros(1, 0, 3, 8, 8)
    with pytest.raises(ValueError, match=r"received no frame \(T = 0\)"):
        StreamNet(SMALL)(nothing, nothing[:, :, :1])


def test_no_frame_is_refused_in_the_middle_of_a_video():
    net, nothing = StreamNet(SMALL), torch.zeros(1, 0, 3, 8, 8)
    with pytest.raises(ValueError, match=r"received no frame \(T = 0\)"):
        net(nothing, nothing[:, :, :1], net.initial_state(torch.zeros(1, 3, 8, 8)))


# --- parameters ---------------------------------------------------------------------------------


def test_the_weights_fit_into_two_megabytes():
    assert 2 * sum(tensor.numel() for tensor in StreamNet().state_dict().values()) < 2e6


def test_the_frames_teach_all_but_the_motion():
    net = lively()
    frames, _ = net(*clip(2, 24, 32))
    frames.square().sum().backward()
    dead = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None}
    assert dead == {"motion"}


def test_every_parameter_receives_gradient():
    net = lively()
    large = texture(24, 64)
    parts = [(0, 0), (1, 3), (2, 6)]  # of the upper half and the lower, which move apart
    moving = [
        torch.cat([large[..., :12, a : a + 32], large[..., 12:, b : b + 32]], 2) for a, b in parts
    ]
    mask = draw_mask(torch.full((1, 3, 1, 24, 32), 0.5))
    frames, motion, _, _ = net.forward_with_aux(torch.stack(moving, 1) * mask, mask)
    (frames.square().sum() + motion.square().sum()).backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_gradients_are_finite_whatever_is_sampled(share):
    net = StreamNet(SMALL)
    samples, mask = clip(3)
    mask[:, 1:] = share
    frames, _ = net(samples * mask, mask)
    frames.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_gradient_flows_through_the_state_until_detached():
    net = lively()
    samples, mask = clip(2)
    early, late = samples[:, :1].requires_grad_(), samples[:, 1:]
    _, state = net(early, mask[:, :1])
    frames, _ = net(late, mask[:, 1:], state)
    (gradient,) = torch.autograd.grad(frames.sum(), early)
    assert gradient.abs().sum() > 0
    frames, _ = net(late, mask[:, 1:], StreamState(*(tensor.detach() for tensor in state)))
    (gradient,) = torch.autograd.grad(frames.sum(), early, allow_unused=True)
    assert gradient is None


# --- the untrained network ------------------------------------------------------------------------


@torch.no_grad()
def test_the_canvas_holds_the_samples_where_they_are():
    samples, mask = clip(1, 16, 24)
    _, state = StreamNet(SMALL)(samples, mask)
    assert torch.equal(at_samples(state.canvas), torch.cat([samples, mask], 2)[:, 0])
    assert state.canvas.count_nonzero() == at_samples(state.canvas).count_nonzero()


def test_entering_is_a_convolution_of_everything_unshuffled():
    stem = SpaceToDepthStem(7, 4, 5, 6)
    fine, low, half = torch.rand(2, 7, 32, 48), torch.rand(2, 4, 16, 24), torch.rand(2, 5, 8, 12)
    x = torch.cat([F.pixel_unshuffle(fine, 4), F.pixel_unshuffle(low, 2), half], 1)
    expected = F.conv2d(x, stem.weight, stem.bias)
    assert torch.allclose(stem(fine, low, half), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_the_first_frame_is_about_as_good_as_filled_and_bicubic(size):
    truth = texture(4 * size[0], 4 * size[1], 12.0)
    low = downsample(truth)[:, None]
    mask = draw_mask(torch.full((1, 1, 1, *size), 0.3))
    frames, _ = StreamNet(SMALL)(low * mask, mask)
    assert psnr(frames[0], truth) > psnr(fill(low * mask, mask)[0], truth) - 0.5


@torch.no_grad()
def test_where_all_is_sampled_a_smooth_picture_comes_back():
    truth = texture(96, 128, 8.0)
    low = downsample(truth)[:, None].expand(1, 3, 3, 24, 32)
    frames, state = StreamNet(SMALL)(low, torch.ones(1, 3, 1, 24, 32))
    assert (psnr(frames[0], truth) > 40.0).all()
    assert (at_samples(confidence(state)) == 1).all()


@torch.no_grad()
def test_motion_by_half_a_pixel_fills_the_cells_between_samples():
    """Four frames together reveal detail that no single one has, far beyond bicubic."""
    large = texture(104, 144, 1.5)
    places = [(0, 0), (2, 0), (2, 2), (0, 2)]  # y, x in output pixels
    frames = torch.stack([large[..., y : y + 96, x : x + 128] for y, x in places], 1)
    low = downsample(frames)
    move = torch.tensor([(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.0, -0.5)])  # x, y
    move = move.view(1, 4, 2, 1, 1).expand(1, 4, 2, 24, 32)
    shown, _ = StreamNet(SMALL)(low, torch.ones(1, 4, 1, 24, 32), motion=move)
    inside = (..., slice(8, -8), slice(8, -8))
    plain = psnr(upsample_bicubic(low)[inside], frames[inside])
    quality = psnr(shown[inside], frames[inside])
    assert (quality.diff() > 0).all()
    assert quality[0, 3] > plain[0, 3] + 3.0


@torch.no_grad()
def test_a_still_scene_is_known_better_with_every_frame():
    truth = texture(192, 192, 6.0)
    low = downsample(truth)[:, None].expand(1, 8, 3, 48, 48)
    mask = draw_mask(torch.full((1, 8, 1, 48, 48), 0.2))
    frames, state = StreamNet(SMALL)(low * mask, mask)
    quality = psnr(frames[0], truth)
    assert (quality.diff() > 0).all()
    alone = psnr(fill(low * mask, mask)[0], truth)
    assert quality[-1] > alone.max() + 3.0
    assert at_samples(confidence(state)).mean() > 2 * mask[:, -1].mean()


@torch.no_grad()
def test_a_moving_scene_is_known_better_than_from_one_frame():
    large = texture(48, 72)
    low = torch.stack([large[..., 2 * t : 2 * t + 48] for t in range(8)], 1)
    mask = draw_mask(torch.full((1, 8, 1, 48, 48), 0.25))
    frames, _ = StreamNet(SMALL)(low * mask, mask)
    inside = (..., slice(32, -32), slice(32, -32))  # what comes in at the border is new
    all_known = upsample_bicubic(low)[0][inside]
    quality = psnr(frames[0][inside], all_known)
    alone = psnr(fill(low * mask, mask)[0][inside], all_known)
    assert (quality[3:] > alone[3:] + 1.0).all()


@torch.no_grad()
def test_after_a_cut_it_lets_go():
    net = deepfovea.load("stream")
    before, after = (texture(192, 192, 8.0, seed) for seed in (1, 2))
    frames = torch.stack([before] * 6 + [after] * 4, 1)
    low = downsample(frames)
    mask = draw_mask(torch.full((1, 10, 1, 48, 48), 0.25))
    shown, _ = net(low * mask, mask)
    afresh, _ = net(low[:, 6:] * mask[:, 6:], mask[:, 6:])
    quality, without_past = psnr(shown[0], frames[0]), psnr(afresh[0], frames[0, 6:])
    # The first frame after the cut is nearly as good as without a past; no ghost remains.
    assert quality[6] > without_past[0] - 1.0
    assert (quality[7:] > without_past[1:] - 0.5).all()
    ghost = psnr(shown[0, 6:], before)
    assert (quality[6:] > ghost + 5.0).all()


@torch.no_grad()
def test_the_mask_tells_black_from_unknown():
    net = StreamNet(SMALL)
    bright, all_known = torch.full((1, 1, 3, 16, 24), 0.8), torch.ones(1, 1, 1, 16, 24)
    _, state = net(bright, all_known)
    nothing = torch.zeros_like(bright)
    black, _ = net(nothing, all_known, state)
    kept, _ = net(nothing, 1 - all_known, state)
    torch.testing.assert_close(black, torch.zeros_like(black), rtol=0, atol=1e-6)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.8), rtol=0, atol=1e-4)


@torch.no_grad()
def test_frames_without_samples_keep_what_was_known():
    net = StreamNet(SMALL)
    picture = texture(32, 40)[:, None]
    last, state = net(picture, torch.ones(1, 1, 1, 32, 40))
    nothing = torch.zeros(1, 5, 3, 32, 40)
    frames, state = net(nothing, nothing[:, :, :1], state)
    torch.testing.assert_close(frames, last.expand_as(frames), rtol=0, atol=2e-3)
    assert at_samples(confidence(state)).min() > 0.999
    assert not state.flow.round(decimals=3).any()


@torch.no_grad()
def test_nothing_sampled_from_the_start_is_finite():
    for net in (StreamNet(SMALL), lively()):
        nothing = torch.zeros(1, 3, 3, 21, 30)
        frames, state = net(nothing, nothing[:, :, :1])
        assert frames.isfinite().all()
        assert not confidence(state).any()


@torch.no_grad()
def test_gaze_outside_of_the_frame():
    low = texture(40, 56)[:, None].expand(1, 3, 3, 40, 56)
    gaze = torch.tensor([[[-5.0, 20.0], [1000.0, -1000.0], [60.0, 50.0]]])
    frames, _ = lively()(*sample(low, gaze))
    assert frames.isfinite().all()
    untrained, _ = StreamNet(SMALL)(*sample(low, gaze))
    assert untrained.abs().max() < 1.5


# --- motion -------------------------------------------------------------------------------------


def found(move, share, height=72, width=88):
    """Motion of an untrained network on a texture that moved; also the two pictures.

    The current frame at p shows what the one before shows at p + move, and that is the flow.
    """
    x, y = move
    large = texture(height + 40, width + 40)
    previous = large[..., 20:-20, 20:-20]
    current = large[..., 20 + y : 20 + y + height, 20 + x : 20 + x + width]
    mask = draw_mask(torch.full((1, 1, 1, height, width), share))[:, 0]
    known = torch.ones_like(mask)
    with torch.no_grad():
        flow = MotionEstimator()(
            pull_push(current * mask, mask), mask, previous, known, torch.zeros_like(current[:, :2])
        )
    return flow, previous, current


@pytest.mark.parametrize("share", [0.2, 0.3])
@pytest.mark.parametrize("move", [(0, 0), (1, 0), (3, -2), (0, 5), (-6, 4), (8, 8), (-12, 0)])
def test_motion_is_found_from_a_fifth_of_the_pixels(move, share):
    flow, previous, current = found(move, share)
    inside = (..., slice(16, -16), slice(16, -16))
    error = (flow[inside] - torch.tensor(move)[:, None, None]).norm(dim=1)
    assert error.median() < 0.5
    assert (error < 1.0).float().mean() > 0.9
    if move != (0, 0):
        warped = (backward_warp(previous, flow) - current)[inside].square().mean()
        assert warped < 0.1 * (previous - current)[inside].square().mean()


@torch.no_grad()
def test_no_evidence_is_no_motion():
    flat = torch.full((1, 3, 32, 40), 0.6)
    mask = draw_mask(torch.full((1, 1, 1, 32, 40), 0.3))[:, 0]
    still = torch.zeros(1, 2, 32, 40)
    flow = MotionEstimator()(flat, mask, flat, torch.ones_like(mask), still)
    torch.testing.assert_close(flow, still, rtol=0, atol=1e-4)


def moved(x, y):
    """A texture that moved, and the picture before, [1, 3, 96, 128]."""
    large = texture(136, 168)
    return large[..., 20 + y : 116 + y, 20 + x : 148 + x], large[..., 20:116, 20:148]


def selected(flow, target, reference, last=None):
    """The flow from a fifth of the pixels; the canvas has every pixel of the previous picture."""
    mask = draw_mask(torch.full((1, 1, 1, 96, 128), 0.2))[:, 0]
    last = torch.zeros_like(flow) if last is None else last
    return select_flow(flow, target * mask, mask, _interpolate_to_canvas(reference), last)


def flow_of(*move):
    return torch.tensor(move).view(1, 2, 1, 1).expand(1, 2, 96, 128)


def test_what_rests_does_so_exactly():
    jitter = 0.3 * torch.randn(1, 2, 96, 128)
    assert not selected(jitter, *moved(0, 0)).any()


def test_what_moves_alike_does_so_exactly():
    jitter = torch.randn(1, 2, 96, 128)
    truth = flow_of(3.0, -2.0)
    jitter = 0.5 * (jitter - jitter.mean((2, 3), keepdim=True))
    found = selected(truth + jitter, *moved(3, -2))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)


LEFT = torch.arange(128) < 64
APART = (torch.arange(128) - 64).abs() > 36  # from where no window sees both sides


def two_ways():
    """The sides of a picture move apart: the flow, the picture, the one before."""
    (one, before), (other, _) = moved(3, -2), moved(-4, 1)
    truth = torch.where(LEFT, flow_of(3.0, -2.0), flow_of(-4.0, 1.0))
    return truth, torch.where(LEFT, one, other), before


def test_what_moves_apart_stays_apart():
    truth, target, reference = two_ways()
    found = selected(truth, target, reference)
    torch.testing.assert_close(found[..., APART], truth[..., APART], rtol=0, atol=1e-4)


def test_motion_that_was_missed_is_that_of_the_frame_before_or_of_the_neighbours():
    truth, target, reference = two_ways()
    missed = truth.clone()
    missed[..., 40:56, 8:24] = 0.0
    missed[..., 40:56, 104:120] = 6.0
    by_neighbours = selected(missed, target, reference)
    by_time = selected(torch.zeros_like(truth), target, reference, truth)
    for found in (by_neighbours, by_time):
        assert (found - truth)[..., APART].abs().max() < 0.3  # 3 to 10 before


def test_samples_correct_a_part_of_a_pixel():
    truth, target, reference = two_ways()
    wrong = torch.tensor([0.4, -0.3]).view(2, 1, 1) * torch.where(LEFT, 1.0, -1.0)
    error = (selected(truth + wrong, target, reference) - truth)[..., APART].norm(dim=1)
    assert error.median() < 0.15  # 0.5 before


@torch.no_grad()
def test_a_step_finds_a_small_shift_of_a_full_picture_to_a_fiftieth_of_a_pixel():
    x = torch.arange(64.0)
    wave = torch.sin(x / 5.0)[None, :] + torch.cos(x / 7.0)[:, None]
    moved = torch.sin((x + 0.3) / 5.0)[None, :] + torch.cos((x - 0.2) / 7.0)[:, None]
    reference, target = (0.5 + 0.2 * image.expand(1, 3, 64, 64) for image in (wave, moved))
    flow, one = torch.zeros(1, 2, 64, 64), torch.ones(1, 1, 64, 64)
    for _ in range(5):
        flow = flow + lucas_kanade_step(target, reference, one, flow, torch.tensor(1e-6))[0]
    error = (flow - torch.tensor([0.3, -0.2])[:, None, None])[..., 16:-16, 16:-16]
    assert error.abs().mean() < 0.02


@torch.no_grad()
def test_motion_that_is_given_is_used():
    net = lively()
    large = texture(16, 40)
    mask = clip(3)[1]
    samples = torch.stack([large[..., 2 * t : 2 * t + 24] for t in range(3)], 1) * mask
    own, _ = net(samples, mask)
    given = torch.zeros(1, 3, 2, 16, 24)
    given[:, :, 0] = 2.0
    frames, other = net(samples, mask, motion=given)
    assert torch.equal(other.flow, given[:, -1])
    assert not torch.equal(frames[:, 1:], own[:, 1:])


# --- the canvas as a frame ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(18, 26), (4, 6), (2, 2)])
def test_the_upsampling_is_bicubic_moved_by_a_pixel(size):
    cells = torch.rand(2, 3, *size)
    large = F.pixel_shuffle(BicubicUpsample()(cells), 4)
    expected = F.interpolate(cells, scale_factor=2, mode="bicubic", align_corners=False)
    inside = (..., slice(4, None), slice(4, None))
    beyond = (..., slice(3, -1), slice(3, -1))
    torch.testing.assert_close(large[inside], expected[beyond], rtol=0, atol=2e-6)


def test_blending_that_has_not_learned_changes_nothing():
    torch.manual_seed(0)
    plain = StreamNet(StreamConfig())
    blended = StreamNet(StreamConfig(blend_channels=8))
    missing = blended.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"blend"}
    samples, mask = torch.rand(1, 2, 3, 16, 24), torch.ones(1, 2, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(plain(samples, mask)[0], blended(samples, mask)[0])
