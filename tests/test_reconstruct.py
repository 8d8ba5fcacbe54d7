"""Claims about the loop: reader, gaze, fovea, generator, writer."""

import threading
import weakref

import media
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepfovea import files_to_files
from deepfovea.config import Density, InputError
from deepfovea.files_to_files import reconstruct_file, sample_file
from deepfovea.fovea import sample
from deepfovea.gaze import DisplayGeometry, fixed
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.generators.unet.net import RecurrentUNet, UNetConfig
from deepfovea.reconstructor import Reconstructor
from deepfovea.runtime.device import pick_device
from deepfovea.runtime.engine import load_engine
from deepfovea.video import VideoReader, VideoWriter

SIX_AT_A_TIME = UNetConfig(6, False, True, (4,) * 5, (4,) * 4, (4, 18))
FOVEA = Density(0.9, 0.2, 2, 6)


def randomised(network):
    """Randomise the network so that every part has an effect, also those that start at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def stream():
    torch.manual_seed(0)
    return randomised(StreamNet(StreamConfig(8, 8, 4, 4)))


@pytest.fixture(scope="module")
def six():
    torch.manual_seed(0)
    return randomised(RecurrentUNet(SIX_AT_A_TIME))


def clip(length, height=20, width=28):
    torch.manual_seed(2)
    frames = F.interpolate(torch.rand(length, 3, height // 4, width // 4), (height, width))
    gaze = torch.tensor([[width / 2 + 2.0 * t, height / 3 + t] for t in range(length)])
    return frames, gaze


def pairs(frames, gaze):
    return [(frame, (float(x), float(y))) for frame, (x, y) in zip(frames, gaze, strict=True)]


def bare(model, frames, gaze, **options):
    """Call the network without the loop: clamped frames [T,3,H,W], samples, masks."""
    samples, mask = sample(frames[None], gaze[None], **{"blue_noise": True, **options})
    with torch.inference_mode():
        output, _ = model(samples, mask, None)
    return output[0].clamp(0, 1), samples[0], mask[0]


def write_pngs(folder, images):
    with VideoWriter(folder, frame_rate=24) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / 24)
    return folder


def read(path):
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader])


def assert_near(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3, "density": FOVEA, "blue_noise": False},
        {"seed": 4, "density": Density(budget=0.3)},
        {"density": Density(inner=1, outer=5, unit="deg"), "geometry": DisplayGeometry(20, 28, 20)},
    ],
    ids=["published", "blue noise", "degrees"],
)
@pytest.mark.parametrize("few", [True, False])
def test_frame_by_frame_is_the_stream_is_the_bare_model(stream, options, few, monkeypatch):
    monkeypatch.setattr("deepfovea.reconstructor.few_processors", lambda: few)
    frames, gaze = clip(5)
    expected, samples, mask = bare(stream, frames, gaze, **options)
    one_by_one = Reconstructor(stream, **options)
    streamed = list(Reconstructor(stream, **options).stream(pairs(frames, gaze)))
    overlapping = list(Reconstructor(stream, **options).stream_prefetched(pairs(frames, gaze)))
    assert len(streamed) == len(overlapping) == 5
    for t, (frame, gaze_px) in enumerate(pairs(frames, gaze)):
        assert_near(one_by_one(frame, gaze_px), expected[t])
        assert_near(streamed[t].frame, expected[t])
        assert torch.equal(streamed[t].samples, samples[t])
        assert torch.equal(streamed[t].mask, mask[t])
        assert streamed[t].gaze_px == gaze_px
        assert torch.equal(overlapping[t].frame, streamed[t].frame)
        assert torch.equal(overlapping[t].mask, streamed[t].mask)
    assert 0.05 < mask.mean() < 0.95


def test_reset_begins_a_new_video(stream):
    frames, gaze = clip(3)
    reconstructor = Reconstructor(stream)
    first = [reconstructor(*pair) for pair in pairs(frames, gaze)]
    going_on = [reconstructor(*pair) for pair in pairs(frames, gaze)]
    reconstructor.reset()
    again = [reconstructor(*pair) for pair in pairs(frames, gaze)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, going_on, strict=True))


def test_alpha_says_what_is_known(stream):
    frames, gaze = clip(2)
    alpha = torch.rand(2, 1, *frames.shape[2:])
    alpha[alpha < 0.7] = 0
    other_colours = torch.where(alpha > 0, frames, torch.rand_like(frames))
    results = [
        list(Reconstructor(stream).stream(pairs(torch.cat([colours, alpha], 1), gaze)))
        for colours in (frames, other_colours)
    ]
    known = (alpha > 0).float()
    with torch.inference_mode():
        expected, _ = stream((frames * known)[None], known[None], None)
    for a, b, mask, frame in zip(*results, known, expected[0].clamp(0, 1), strict=True):
        assert torch.equal(a.mask, mask)
        assert torch.equal(a.samples, b.samples)
        assert_near(a.frame, frame)
        assert_near(b.frame, frame)


def test_six_at_a_time_with_a_short_last_group(six):
    frames, gaze = clip(8, 32, 32)
    longer = [torch.cat([x, x[-1:].expand(4, *x.shape[1:])]) for x in (frames, gaze)]
    expected, _, mask = bare(six, *longer, seed=5)
    results = list(Reconstructor(six, seed=5).stream(pairs(frames, gaze)))
    assert len(results) == 8
    for t, result in enumerate(results):
        assert_near(result.frame, expected[t], 1e-5)
        assert torch.equal(result.mask, mask[t])
    overlapping = list(Reconstructor(six, seed=5).stream_prefetched(pairs(frames, gaze)))
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(overlapping, results, strict=True))
    with pytest.raises(ValueError, match=r"6 frames at a time.*stream\(\)"):
        Reconstructor(six)(frames[0], (0.0, 0.0))


def test_the_stream_reads_no_further_than_it_must(stream, six):
    frames, gaze = clip(13, 32, 32)
    for model, ahead in ((stream, 1), (six, 6)):
        source = iter(pairs(frames, gaze))
        next(Reconstructor(model).stream(source))
        assert len(list(source)) == 13 - ahead


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 51), (5, 3)])
def test_simulating_keeps_the_size_and_measures_quality(stream, tmp_path, height, width):
    images = media.moving(4, height, width)
    source = write_pngs(tmp_path / "source", images)
    options = {"gaze": fixed(0.4, 0.7), "simulate": True}
    reconstructor = Reconstructor(stream, FOVEA, seed=6)
    summary = reconstruct_file(source, tmp_path / "out", reconstructor, **options)
    # Independently: border repeated to multiples of four, the middle 2x2 of each 4x4 block.
    pad = ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0))
    full = np.pad(np.stack(images), pad, mode="edge") / 255.0
    low = sum(full[:, y::4, x::4] for y in (1, 2) for x in (1, 2)) / 4
    low = torch.from_numpy(low).float().permute(0, 3, 1, 2)
    gaze = torch.tensor([[0.4 * width / 4 - 0.5, 0.7 * height / 4 - 0.5]]).expand(4, 2)
    expected, _, mask = bare(stream, low, gaze, density=FOVEA, seed=6)
    expected = expected[..., :height, :width].permute(0, 2, 3, 1).double().numpy()
    error = ((expected - np.stack(images) / 255.0) ** 2).mean((1, 2, 3))
    assert summary.psnr == pytest.approx((10 * np.log10(1 / error)).mean(), abs=1e-3)
    assert summary.sampled == pytest.approx(mask.mean().item(), abs=1e-6)
    assert summary.frames == 4
    written = read(tmp_path / "out")
    assert written.shape == (4, height, width, 3)
    assert np.abs(written - 255 * expected).max() <= 0.51


def test_times_sound_and_pixel_shape_are_kept(stream, tmp_path):
    clapper = media.write_clapper(tmp_path / "clapper.mp4", clap=0.5)
    times = [0.0, 0.04, 0.05, 0.3, 0.9, 1.2]
    source = tmp_path / "source.mp4"
    with VideoWriter(source, frame_rate=25, audio_from=clapper, pixel_aspect=2) as writer:
        for image, time in zip(media.moving(6, 32, 32), times, strict=True):
            writer.write(image, time)
    outputs = [tmp_path / "reconstructed.mp4", tmp_path / "samples.mp4"]
    reconstruct_file(source, outputs[0], Reconstructor(stream), simulate=True)
    sample_file(source, outputs[1])
    for output in outputs:
        with VideoReader(output) as reader:
            assert [frame.pts_seconds for frame in reader] == pytest.approx(times, abs=1e-4)
            assert reader.pixel_aspect == 2
        assert media.sound_onset(output) == pytest.approx(media.sound_onset(source), abs=0.03)


def test_enlarged_by_four_or_simulated_and_side_by_side(stream, tmp_path):
    images = media.moving(2, 48, 64)
    source = write_pngs(tmp_path / "source", images)
    for simulate, size in ((True, 64), (False, 256)):
        output, beside = tmp_path / f"out-{simulate}", tmp_path / f"beside-{simulate}"
        options = {"simulate": simulate, "side_by_side": beside}
        summary = reconstruct_file(source, output, Reconstructor(stream), **options)
        assert (summary.psnr is None) != simulate
        written, panels = read(output), read(beside)
        assert written.shape == (2, size * 3 // 4, size, 3)
        assert panels.shape[2] == (3 if simulate else 2) * size
        assert np.array_equal(panels[:, :, size : 2 * size], written)
        if simulate:
            assert np.array_equal(panels[:, :, 2 * size :], images)


def test_no_more_frames_than_asked_and_none_kept(stream, tmp_path, monkeypatch):
    source = media.write_video(tmp_path / "source.mp4", media.moving(30))
    seen, alive = [], []
    to_tensor = files_to_files.to_tensor

    def watched(image):
        tensor = to_tensor(image)
        seen.append(weakref.ref(tensor))
        return tensor

    def count(*_):
        alive.append(sum(reference() is not None for reference in seen))

    monkeypatch.setattr(files_to_files, "to_tensor", watched)
    output, options = tmp_path / "out.mp4", {"max_frames": 28, "on_frame": count}
    summary = reconstruct_file(source, output, Reconstructor(stream), simulate=True, **options)
    assert summary.frames == len(seen) == len(read(output)) == 28
    assert max(alive) <= 9  # two frames wait behind each of three stages, and three are in use


@pytest.mark.parametrize("which", ["stream", "six", "compiled"])
def test_a_video_is_the_same_whether_anyone_looks_at_its_frames(stream, six, tmp_path, which):
    model = {"stream": stream, "six": six, "compiled": load_engine(stream, "openvino")}[which]
    source = media.write_video(tmp_path / "source.mp4", media.moving(7))
    seen = []

    def look(result, truth):
        assert truth is None
        seen.append(result.frame)

    for name, more in (("a.mp4", {}), ("b.mp4", {"on_result": look})):
        assert reconstruct_file(source, tmp_path / name, Reconstructor(model), **more).frames == 7
    films = [read(tmp_path / name).astype(float) for name in ("a.mp4", "b.mp4")]
    frames = 255 * torch.stack(seen).permute(0, 2, 3, 1).numpy()
    errors = [np.abs(film - frames).mean() for film in films]
    assert errors[0] < errors[1] + 0.1


@pytest.mark.parametrize("suffix", ["", ".mp4"])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_midway_leaves_nothing(stream, tmp_path, suffix, failure):
    source = media.write_video(tmp_path / "source.mp4", media.moving(6))
    kept = tmp_path / f"kept{suffix}"
    reconstruct_file(source, kept, Reconstructor(stream), max_frames=2)
    before = read(kept)

    class Failing(torch.nn.Module):
        scale, frames_per_step, calls = 4, 1, 0

        def forward(self, samples, mask, state, motion=None, jitter=None):
            self.calls += 1
            if self.calls == 4:
                raise failure
            return stream(samples, mask, state)

    def fail(*_):
        raise failure

    threads = threading.active_count()
    for output in (tmp_path / f"new{suffix}", kept):
        for model, more in (
            (Failing(), {}),
            (Failing(), {"side_by_side": tmp_path / f"beside{suffix}"}),
            (stream, {"on_frame": fail}),
            (stream, {"on_result": fail}),
        ):
            with pytest.raises(failure):
                reconstruct_file(source, output, Reconstructor(model), overwrite=True, **more)
    assert threading.active_count() == threads
    assert set(tmp_path.iterdir()) == {kept, source}
    assert np.array_equal(before, read(kept))


def test_outputs_that_exist_and_needless_simulation_are_refused(stream, tmp_path):
    source = write_pngs(tmp_path / "source", media.moving(2))
    sampled = tmp_path / "sampled"
    sample_file(source, sampled)
    new = tmp_path / "new"
    for message, file, output, options in (
        ("existing output", source, sampled, {}),
        ("existing output", source, new, {"side_by_side": sampled}),
        ("leave --simulate out", sampled, new, {"simulate": True}),
    ):
        with pytest.raises(InputError, match=message):
            reconstruct_file(file, output, Reconstructor(stream), **options)
    assert set(tmp_path.iterdir()) == {source, sampled}


@pytest.mark.parametrize("simulate", [False, True])
def test_samples_written_and_read_back_reconstruct_the_same(stream, tmp_path, simulate):
    source = write_pngs(tmp_path / "source", media.moving(4, 34, 46))
    options = {"gaze": fixed(0.3, 0.6), "simulate": simulate}
    results = []

    def keep(result, truth):
        results.append(result)

    reconstructor = Reconstructor(stream, FOVEA, seed=7)
    reconstruct_file(source, tmp_path / "direct", reconstructor, on_result=keep, **options)
    share = sample_file(source, tmp_path / "samples", FOVEA, seed=7, **options)
    assert share == pytest.approx(np.mean([r.mask.mean() for r in results]), abs=1e-6)
    reconstruct_file(tmp_path / "samples", tmp_path / "back", reconstructor, on_result=keep)
    assert len(results) == 8
    for direct, back in zip(results[:4], results[4:], strict=True):
        assert torch.equal(direct.mask, back.mask)
        rounding = 0.5 / 255 + 1e-6 if simulate else 1e-6
        assert (direct.samples - back.samples).abs().max() <= rounding
        frame = back.frame[..., : direct.frame.shape[1], : direct.frame.shape[2]]
        assert_near(direct.frame, frame, 0.02 if simulate else 1e-6)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert torch.zeros(1, device=pick_device("auto")).sum() == 0
    for name in ("", "nonsense", "cuda:99", "meta"):
        with pytest.raises(InputError, match="expected auto, cpu, cuda, cuda:N or mps") as caught:
            pick_device(name)
        assert "\n" not in str(caught.value)


def test_what_is_sampled_already_is_not_sampled_again(tmp_path):
    with VideoWriter(tmp_path / "rgba", frame_rate=25) as writer:
        writer.write(np.zeros((8, 8, 4), np.uint8), 0.0)
    with pytest.raises(InputError, match="sampled already"):
        sample_file(tmp_path / "rgba", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rgba"]
