"""Claims about the packaged weights of `stream`, tested on photographs from scikit-image."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

import deepfovea
from deepfovea.arrays import to_tensor
from deepfovea.config import Density
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, jitter_sequence, sample
from deepfovea.images import to_image
from deepfovea.metrics import METRICS, Reference
from deepfovea.metrics.pixel import psnr
from deepfovea.resample import upsample_bicubic
from deepfovea.runtime.engine import load_engine
from deepfovea.video import VideoReader, VideoWriter

HEIGHT, WIDTH = 256, 320
LENGTH = 10


@pytest.fixture(scope="module")
def stream():
    return deepfovea.load("stream").eval()


def photograph(name: str) -> Tensor:
    """[3, 400, 512] in [0, 1]."""
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, (400, 512), mode="bilinear", antialias=True)[0]


def still(name: str, length: int = LENGTH) -> Tensor:
    """[1, T, 3, H, W]."""
    return photograph(name)[:, :HEIGHT, :WIDTH].expand(1, length, 3, HEIGHT, WIDTH)


def pan(name: str, length: int = LENGTH) -> Tensor:
    """Three output pixels to the right and two down per frame."""
    picture = photograph(name)
    frames = [picture[:, 2 * t : HEIGHT + 2 * t, 3 * t : WIDTH + 3 * t] for t in range(length)]
    return torch.stack(frames)[None]


def gaze(x: float, y: float, length: int = LENGTH) -> Tensor:
    return torch.tensor([x, y]).expand(1, length, 2)


@torch.inference_mode()
def reconstructed(net, frames, at=None, density=None, **draw):
    """The network's reconstruction of frames, and hole filling from the same samples."""
    at = gaze(WIDTH / 8, HEIGHT / 8, frames.shape[1]) if at is None else at
    samples, mask = sample(downsample(frames), at, density or Density(), seed=0, **draw)
    ours, _ = net(samples, mask)
    filled = pull_push(samples.flatten(0, 1), mask.flatten(0, 1))
    return ours.clamp(0, 1)[0], upsample_bicubic(filled).clamp(0, 1)


def quality(frames, truth):
    """PSNR of every frame, dB."""
    return psnr(frames, truth[0])


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("scene", [still, pan])
def test_better_than_filling_and_better_with_time(stream, name, scene):
    truth = scene(name)
    ours, filled = (quality(frames, truth) for frames in reconstructed(stream, truth))
    assert (ours > filled).all()
    gain = ours - filled  # the picture itself changes with a pan
    assert gain[-1] > 1.0
    assert gain[-1] > gain[0] + 0.7


@pytest.fixture(scope="module")
def at_rest(stream):
    """The still periphery, the network's frames of it, and filled ones."""
    truth = still("astronaut", 14)
    return truth[0], *reconstructed(stream, truth, gaze(-100.0, -100.0, 14))


def flicker_of(frames, truth):
    """The flicker of late frames by the metric: 1 equals the original, 2 is one grey level more."""
    known = torch.ones(2, 1, HEIGHT // 4, WIDTH // 4)
    pairs = []
    for t in range(8, len(frames) - 1):
        pair = slice(t, t + 2)
        reference = Reference(truth[pair], known, gaze(0.0, 0.0, 2)[0], known, Density(), t)
        pairs.append(METRICS["flicker"].function(frames[pair], reference))
    return sum(pairs) / len(pairs)


def test_a_still_periphery_does_not_boil(at_rest):
    """The network changes still regions by up to a grey level per frame, filling by 16."""
    truth, ours, filled = at_rest
    late, late_filled = (frames[8:].diff(dim=0).abs().mean() for frames in (ours, filled))
    assert late < 0.25 * late_filled
    assert flicker_of(ours, truth) < 2.0
    assert 255.0 * (ours - truth)[8:].mean().abs() < 0.5  # neither brighter nor darker


@pytest.mark.parametrize("jitter", ["none", "quad"])
def test_what_rests_comes_to_rest(stream, jitter):
    """Once every cell is known, the frame does not depend on which are sampled next."""
    truth = still("astronaut", 1)[..., :96, :128]
    offsets = jitter_sequence(jitter, 0, 160)
    state, changes, before = None, [], None
    for t in range(160 if jitter == "quad" else 48):
        told = None if offsets is None else offsets[t : t + 1]
        low = downsample(truth[0], jitter=told)[None]
        samples, mask = sample(low, gaze(-50.0, -50.0, 1), first_frame=t, blue_noise=True)
        with torch.inference_mode():
            frame, state = stream(samples, mask, state, jitter=None if told is None else told[None])
        if before is not None:
            changes.append(255.0 * float((frame - before).abs().mean()))
        before = frame
    assert changes[-1] < 0.1  # grey levels, where the first frames change by more than one
    assert changes[4] > 1.0


@pytest.mark.parametrize(("side", "bound"), [(8, 2.5), (16, 1.0), (32, 0.5)])
def test_blocks_keep_their_brightness(stream, side, bound):
    """In grey levels: two darker at worst, where black and white change with every second pixel."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, 3, HEIGHT // side, WIDTH // side, generator=random).round()
    truth = F.interpolate(blocks, scale_factor=side).expand(1, 8, 3, HEIGHT, WIDTH)
    ours, _ = reconstructed(stream, truth)
    assert 255.0 * (ours - truth[0])[4:].mean().abs() < bound


def test_writing_a_video_adds_no_flicker_and_no_light(at_rest, tmp_path):
    """Neither the conversion to luma and chroma nor the encoder adds any."""
    truth, ours, _ = at_rest
    for frames in (ours, truth):
        path = tmp_path / "video.mp4"
        with VideoWriter(path, frame_rate=24, overwrite=True) as writer:
            for t, frame in enumerate(frames):
                writer.write(to_image(frame), t / 24)
        with VideoReader(path) as reader:
            shown = torch.stack([to_tensor(frame.image) for frame in reader])
        assert flicker_of(shown, truth) < flicker_of(frames, truth) + 0.1
        assert 255.0 * (shown - frames)[8:].mean().abs() < 0.3


def test_the_perceptual_weights_are_sharper_and_as_steady():
    """They keep more fine detail in the periphery, without more flicker in still scenes."""
    plain, sharp = (deepfovea.load(name).eval() for name in ("stream", "stream-perceptual"))
    truth = pan("coffee", 12)
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(3, 1, 3, 3)
    detail, change = [], []
    for net in (plain, sharp):
        frames, _ = reconstructed(net, truth, gaze(-100.0, -100.0, 12))
        detail.append(F.conv2d(frames[8:], kernel, groups=3).square().mean())
        frames, _ = reconstructed(net, still("astronaut", 14), gaze(-100.0, -100.0, 14))
        change.append(frames[8:].diff(dim=0).abs().mean())
    original = F.conv2d(truth[0, 8:], kernel, groups=3).square().mean()
    assert 1.2 * detail[0] < detail[1] < original
    assert change[1] < 1.1 * change[0]


def test_nothing_of_the_scene_before_a_cut_is_seen_after_it(stream):
    before, after = still("astronaut", 6), still("coffee", 6)
    cut, _ = reconstructed(stream, torch.cat([before, after], 1))
    samples, mask = sample(
        downsample(torch.cat([before, after], 1)), gaze(WIDTH / 8, HEIGHT / 8, 12), seed=0
    )
    with torch.inference_mode():
        fresh, _ = stream(samples[:, 6:], mask[:, 6:])  # the same samples, without a past
    of_cut = quality(cut[6:], after)
    of_fresh = quality(fresh[0].clamp(0, 1), after)
    assert (of_cut - of_fresh).abs().max() < 0.02
    assert (cut[6:] - fresh[0].clamp(0, 1)).abs().max() < 0.05


def test_openvino_in_bfloat16_shows_the_same(stream):
    """On a processor without bfloat16 it computes in float32, and the test shows nothing."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra openvino)")
    truth = pan("astronaut")
    exact, _ = reconstructed(stream, truth)
    low, _ = reconstructed(load_engine(stream, "openvino"), truth)
    assert (low - exact).abs().mean() < 1e-3
    assert (quality(low, truth) - quality(exact, truth)).abs().max() < 0.02


def test_a_saccade_finds_a_new_fovea_and_keeps_the_old(stream):
    truth = still("astronaut", 8)
    left, right = gaze(20.0, 32.0, 4), gaze(60.0, 32.0, 4)
    ours, filled = reconstructed(stream, truth, torch.cat([left, right], 1))

    def around(frames, x):
        part = (..., slice(64, 192), slice(4 * x - 48, 4 * x + 48))
        return psnr(frames[part], truth[0][part])

    new, old = around(ours, 60), around(ours, 20)
    assert new[4] > new[3] + 1.0  # at the very frame of the jump
    assert (old[4:] > old[3] - 0.7).all()
    assert (old[4:] > around(filled, 20)[4:] + 2.0).all()


def test_more_samples_are_better_from_5_to_60_percent(stream):
    truth = pan("chelsea")
    last = 0.0
    for percent in (5, 10, 20, 40, 60):
        density = Density(budget=percent / 100)
        ours, filled = (
            quality(frames, truth).mean()
            for frames in reconstructed(stream, truth, density=density)
        )
        assert ours > max(last, filled)
        last = ours


def test_blue_noise_is_as_welcome(stream):
    truth = pan("chelsea")
    blue, filled = reconstructed(stream, truth, blue_noise=True)
    white, _ = reconstructed(stream, truth)
    assert quality(blue, truth).mean() > quality(white, truth).mean() - 0.1
    assert quality(blue, truth).mean() > quality(filled, truth).mean()


@pytest.mark.parametrize("size", [(16, 16), (135, 241), (540, 960)])  # to 4K
def test_from_64_pixels_to_4k(stream, size):
    truth = F.interpolate(photograph("coffee")[None], [4 * side for side in size], mode="bicubic")
    truth = truth.clamp(0, 1)[:, None].expand(1, 2, -1, -1, -1)
    ours, filled = reconstructed(stream, truth, gaze(size[1] / 2, size[0] / 2, 2))
    assert ours.shape == truth.shape[1:]
    assert (quality(ours, truth) > quality(filled, truth) - 0.1).all()


def edges(length=LENGTH):
    """A vertical edge in the left half and a horizontal one in the right half, slightly soft."""
    x, y = torch.arange(float(WIDTH)), torch.arange(float(HEIGHT))[:, None]
    vertical, horizontal = (torch.sigmoid((p - 127.5) / 0.8) for p in (x + 48.0, y))
    part = torch.where(x < WIDTH / 2, vertical, horizontal)
    dark, bright = (torch.tensor(c).view(3, 1, 1) for c in ([0.1, 0.2, 0.3], [0.8, 0.6, 0.3]))
    return (dark + (bright - dark) * part).expand(1, length, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("model", ["stream", "stream-perceptual"])
def test_edges_have_no_teeth_of_the_period_of_the_pixel_shuffle(model):
    """Along an edge the mean of every fourth row is the same, whichever row it begins with."""
    net = deepfovea.load(model).eval()
    ours, _ = reconstructed(net, edges(), gaze(-100.0, -100.0))  # all is periphery
    late = ours[2:].mean(1)  # [8, H, W]
    along_vertical = late[:, 32:-32, 60:100]
    along_horizontal = late[:, 108:148, 176:-16].transpose(1, 2)
    for profile in (along_vertical, along_horizontal):
        phases = profile.reshape(len(late), -1, 4, 40).mean((0, 1))
        assert (phases - phases.mean(0)).abs().max() < 0.015
