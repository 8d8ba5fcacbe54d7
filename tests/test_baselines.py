"""Claims about the methods that need no training, and about frames of other tools."""

import importlib.util
from dataclasses import replace

import media
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.evaluate import BASELINES, Protocol, evaluate, total_variation
from deepfovea.evaluate.inpaint import _biharmonic, _griddata, _natural_neighbour
from deepfovea.evaluate.low_rank import complete
from deepfovea.evaluate.methods import FramesFrom, bicubic_frames, lanczos_frames, run_method
from deepfovea.fill import pull_push
from deepfovea.fovea import downsample, jitter_sequence
from deepfovea.metrics.pixel import psnr
from deepfovea.resample import upsample_bicubic
from deepfovea.toy_renderer import ToyRenderer
from deepfovea.video import VideoReader

FILLS = ("fill", "accumulate", "telea", "navier-stokes", "griddata-linear", "biharmonic")
FILLS = (*FILLS, "natural-neighbour", "total-variation")


def mask_of(frames, height, width, share=0.3):
    draws = torch.rand(frames, 1, height, width, generator=torch.Generator().manual_seed(0))
    return (draws < share).float()


@pytest.mark.parametrize("name", [*FILLS, "low-rank"])
def test_what_has_one_colour_is_filled_with_it(name):
    color = torch.tensor([0.2, 0.4, 0.8])[:, None, None]
    low = color.expand(2, 3, 16, 20)
    frames = torch.stack(list(run_method(BASELINES[name], low, mask_of(2, 16, 20))))
    assert frames.shape == (2, 3, 64, 80)
    assert (frames - color).abs().max() < 0.02, float((frames - color).abs().max())


@pytest.mark.parametrize("name", [*FILLS, "low-rank"])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_frame_with_hardly_a_sample_is_filled_all_the_same(name, known):
    mask = torch.zeros(2, 1, 12, 16)
    mask[:, 0, 5, :known] = 1.0
    frames = torch.stack(list(run_method(BASELINES[name], torch.full((2, 3, 12, 16), 0.6), mask)))
    assert torch.isfinite(frames).all()


@pytest.mark.parametrize(
    ("fill", "most"), [(_griddata, 1e-5), (_natural_neighbour, 1e-5), (_biharmonic, 0.05)]
)
def test_a_plane_is_continued_between_its_samples(fill, most):
    y, x = np.mgrid[:20, :24]
    plane = np.stack([0.02 * x + 0.01 * y, 0.9 - 0.03 * x, 0.04 * y], -1).astype(np.float32)
    known = mask_of(1, 20, 24)[0, 0].numpy() > 0
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True  # the hull is the whole frame
    filled = fill(np.where(known[..., None], plane, 0.0).astype(np.float32), known)
    assert abs(filled - plane).max() < most, abs(filled - plane).max()


def test_a_natural_neighbour_weighs_as_the_area_that_a_pixel_takes_from_it():
    height, width, fine = 12, 14, 24
    random = np.random.default_rng(0)
    known = random.random((height, width)) < 0.3
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    image = random.random((height, width, 3)).astype(np.float32)
    filled = _natural_neighbour(np.where(known[..., None], image, 0.0).astype(np.float32), known)
    samples = np.argwhere(known)
    # Voronoi cells counted in points of a grid that is fine, and wide beside the middle pixels.
    axes = [(np.arange(3 * n * fine) + 0.5) / fine - n for n in (height, width)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    distance, owner = cKDTree(samples).query(grid)
    middle = [p for p in np.argwhere(~known) if (abs(p - [5.5, 6.5]) < 2.5).all()]
    assert len(middle) >= 10
    for pixel in middle:
        taken = owner[((grid - pixel) ** 2).sum(-1) < distance**2]
        share = np.bincount(taken, minlength=len(samples)) / len(taken)
        expected = share @ image[known]
        assert abs(filled[tuple(pixel)] - expected).max() < 0.01


def test_total_variation_is_less_than_that_of_other_fillings_and_keeps_edges():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    truth = torch.where(x + 0.5 * y > 20, 0.9, 0.2).expand(1, 1, 3, -1, -1)
    mask = mask_of(1, 24, 32, 0.5)[None]
    found = total_variation.complete(truth * mask, mask)
    assert torch.equal(found * mask, truth * mask)
    filled = torch.where(mask > 0, truth, pull_push(truth * mask, mask))
    least = total_variation.total_variation(found)
    assert least < 0.8 * total_variation.total_variation(filled)
    assert least < 1.01 * total_variation.total_variation(truth)
    longer = total_variation.complete(truth * mask, mask, 2000)
    assert least < 1.02 * total_variation.total_variation(longer)
    assert (found - truth).square().mean() < 0.7 * (filled - truth).square().mean()


def test_the_divergence_is_the_negative_adjoint_of_the_gradient():
    u, p = torch.rand(3, 5, 7).double(), torch.rand(2, 3, 5, 7).double()
    left = (total_variation._gradient(u) * p).sum()
    torch.testing.assert_close(left, -(u * total_variation._divergence(p)).sum())


def test_low_rank_completes_a_tensor_of_low_rank_and_learns_over_time():
    """OLSTEC's own experiment: three slowly changing components, a quarter of the values known."""
    random = torch.Generator().manual_seed(1)
    a, b = (torch.rand(side, 3, generator=random, dtype=torch.float64) for side in (40, 50))
    factors, errors = None, []
    for t in range(25):
        gamma = torch.rand(3, 3, generator=random, dtype=torch.float64) / 3
        truth = torch.einsum("sr,hr,wr->shw", gamma, a, b)
        known = mask_of(25, 40, 50, 0.25)[t, 0].double()
        guess, factors = complete(truth * known, known, factors)
        errors.append(float((guess - truth).square().mean().sqrt() / truth.std()))
    assert errors[0] > 0.2
    assert max(errors[-5:]) < 0.03


@pytest.mark.parametrize("name", ["low-rank", "taau-all"])
def test_a_clip_at_once_equals_the_clip_frame_by_frame(name):
    low = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 1, 16, 20) if name == "taau-all" else mask_of(3, 16, 20)
    whole, _ = BASELINES[name].frames((low * mask)[None], mask[None], None)
    one_by_one = torch.stack(list(run_method(BASELINES[name], low, mask)))
    assert torch.equal(whole[0], one_by_one)


def still_scene(seed, frames):
    texture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(texture, scale_factor=2, mode="bicubic")
    return large.clamp(0, 1).expand(frames, -1, -1, -1)


def taau(truth, motion=None):
    jitter = jitter_sequence("halton", 0, len(truth))
    low = torch.stack([downsample(f, 4, j) for f, j in zip(truth, jitter, strict=True)])
    mask = torch.zeros(len(low), 1, *low.shape[-2:])  # what is sampled does not matter to it
    return torch.stack(list(run_method(BASELINES["taau-all"], low, mask, "cpu", jitter, motion)))


def test_temporal_upscaling_starts_as_bicubic_and_gathers_what_the_jitter_shows():
    truth = still_scene(0, 17)
    low = downsample(truth[:1])
    first = next(run_method(BASELINES["taau-all"], low, torch.ones(1, 1, 24, 32)))
    assert torch.allclose(first, upsample_bicubic(low)[0], atol=1e-4)
    gained = psnr(taau(truth)[-1], truth[-1]) - psnr(upsample_bicubic(low)[0], truth[0])
    assert gained > 1.5  # dB, of a scene of pure noise


def test_temporal_upscaling_forgets_what_a_cut_has_replaced():
    truth = torch.cat([still_scene(0, 12), still_scene(1, 1)])
    alone = taau(still_scene(1, 13))[0]
    assert psnr(taau(truth)[-1], truth[-1]) > psnr(alone, truth[-1]) - 1.5


def test_temporal_upscaling_follows_the_motion_that_is_given():
    scene = ToyRenderer(24, 32, speed=0.3)
    jitter = jitter_sequence("halton", 0, 12)
    truth = torch.from_numpy(np.stack([scene.truth(t) for t in range(12)]))
    pairs = [(t, tuple(offset.tolist())) for t, offset in enumerate(jitter)]
    motion = torch.from_numpy(np.stack([scene.motion(t, offset) for t, offset in pairs]))
    bicubic = psnr(upsample_bicubic(downsample(truth[6:])), truth[6:]).mean()
    told, still = (psnr(taau(truth, m)[6:], truth[6:]).mean() for m in (motion, 0 * motion))
    assert told > bicubic + 0.5
    assert told > still + 1.0


def test_lanczos_keeps_a_ramp():
    ramp = torch.linspace(0.1, 0.9, 20).expand(1, 1, 3, 16, 20)
    frames, _ = lanczos_frames(ramp, ramp[:, :, :1])
    step = frames[..., 16:-16].diff(dim=-1)
    assert (step - 0.8 / 19 / 4).abs().max() < 2e-3


def test_baselines_that_miss_a_package_say_which_one(tmp_path, monkeypatch, capsys):
    media.write_video(tmp_path / "clip.mp4", media.moving(2, 32, 40))
    find = importlib.util.find_spec
    for module in ("methods",):
        monkeypatch.setattr(
            f"deepfovea.evaluate.{module}.find_spec",
            lambda name: None if name == "scipy" else find(name),
        )
    words = ["evaluate", str(tmp_path), "--models=", "--metrics=psnr", "--frames=1"]
    assert main([*words, "--baselines=griddata-linear"]) == 2
    error = capsys.readouterr().err
    assert "griddata-linear: needs scipy" in error
    assert "pip install 'deepfovea[benchmark]'" in error
    assert main([*words, "--baselines=all"]) == 0
    found = capsys.readouterr()
    assert "griddata-linear: left out: needs scipy" in found.err
    assert "| lanczos-all |" in found.out


def test_sample_writes_for_another_tool_what_methods_are_given(tmp_path, monkeypatch):
    """As docs/evaluate.md says, with an error of up to half an 8-bit level."""
    given = []

    def spy(samples, mask, state):
        given.append(torch.cat([samples, mask], 2)[0, 0])
        return bicubic_frames(samples, mask)

    (tmp_path / "clips").mkdir()
    clip = tmp_path / "clips" / "a.mkv"
    media.write_video(clip, media.moving(3, 160, 192), pix_fmt="yuv444p", codec="ffv1")
    monkeypatch.setitem(BASELINES, "fill", replace(BASELINES["fill"], frames=spy))
    evaluate(clip.parent, [], ["fill"], Protocol(3, metrics=()))
    words = ["sample", str(clip), "-o", str(tmp_path / "samples"), "--simulate"]
    assert main([*words, "--noise", "independent", "--jitter", "none"]) == 0
    with VideoReader(tmp_path / "samples") as reader:
        written = [torch.from_numpy(frame.image).permute(2, 0, 1) / 255.0 for frame in reader]
    assert len(given) == len(written) == 3
    for one, other in zip(given, written, strict=True):
        assert torch.equal(one[3], other[3])
        assert (one - other).abs().max() < 0.51 / 255


def test_frames_of_another_tool_are_scored_as_they_are(tmp_path, capsys):
    """The original scores 100 dB, and an image with a known error the PSNR of that error."""
    clips, theirs = tmp_path / "clips", tmp_path / "theirs"
    clips.mkdir()
    images = media.moving(3, 41, 54)
    media.write_video(clips / "a.mkv", images, pix_fmt="yuv444p", codec="ffv1")
    first = evaluate(clips, [], ["fill"], Protocol(3, metrics=()), others={"same": clips})
    assert {row.method: row.psnr for row in first.rows}["same"] == 100.0
    (theirs / "a").mkdir(parents=True)
    for t, image in enumerate(images):
        wrong = np.where(image > 127, image - 10, image + 10).astype(np.uint8)
        Image.fromarray(wrong[:40, :52]).save(theirs / "a" / f"{t}.png")  # cropped as the clip is
    words = ["evaluate", str(clips), "--models=", "--baselines=fill", "--metrics=psnr"]
    assert main([*words, "--frames=3", f"--method=tool={theirs}"]) == 0
    shown = capsys.readouterr().out
    assert "| tool | 28.1" in shown  # 20 log10(25.5), less what YUV rounds
    assert "The best is bold. `tool`: frames of another tool" in shown
    for name, folder, complaint in (
        ("fill", theirs, "'fill' of a model or baseline"),
        ("tool", tmp_path, "without frames of a.mkv; expected a video or a folder of images a"),
        ("tool", tmp_path / "none", "expected a folder of frames"),
    ):
        with pytest.raises(InputError, match=complaint):
            evaluate(clips, [], ["fill"], Protocol(3, metrics=()), others={name: folder})
    (theirs / "a" / "2.png").unlink()
    with pytest.raises(InputError, match="received 2 frames, expected 3"):
        evaluate(clips, [], [], Protocol(3, metrics=()), others={"tool": theirs})
    Image.new("RGB", (30, 20)).save(theirs / "a" / "0.png")
    with pytest.raises(InputError, match=r"0\.png|30x20"):
        evaluate(clips, [], [], Protocol(3, metrics=()), others={"tool": theirs})
    assert isinstance(FramesFrom(theirs).find("a.mkv"), type(theirs))
