"""Claims about limits of containers, sound tracks, alpha, and unusual rates."""

from __future__ import annotations

from fractions import Fraction

import av
import media
import numpy as np
import pytest

from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.video import VideoReader, VideoWriter


def write(path, images, times=None, rate=25, **options):
    with VideoWriter(path, frame_rate=rate, **options) as writer:
        for number, image in enumerate(images):
            writer.write(image, float(number / rate) if times is None else times[number])
    return path


def read(path, **options):
    return list(VideoReader(path, **options))


def with_tracks(path, frequencies, default):
    """A second of video with tones of these frequencies, one of them marked as default."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        tracks = [container.add_stream("aac", rate=48000, layout="mono") for _ in frequencies]
        for number, track in enumerate(tracks):
            wanted = av.stream.Disposition.default if number == default else 0
            track.disposition = wanted
        for number, image in enumerate(media.moving(25)):
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        for frequency, track in zip(frequencies, tracks, strict=True):
            tone = np.sin(2 * np.pi * frequency * np.arange(48000) / 48000) * 16000
            for at in range(0, 47104, 1024):
                block = tone[None, at : at + 1024].astype(np.int16)
                sound = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = 48000, at, Fraction(1, 48000)
                container.mux(track.encode(sound))
            container.mux(track.encode(None))
        container.mux(video.encode(None))
    return path


def frequency(path):
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 1
        samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    spectrum = np.abs(np.fft.rfft(samples[8000:40000].astype(float)))
    return np.argmax(spectrum) * rate / 32000


@pytest.mark.parametrize(("track", "expected"), [(None, 3000), (1, 300), (2, 3000), (3, 900)])
def test_the_default_track_or_the_one_asked_for_is_taken(tmp_path, track, expected, caplog):
    source = with_tracks(tmp_path / "a.mkv", [300, 3000, 900], default=1)
    images = media.moving(25)
    path = write(tmp_path / "b.mkv", images, audio_from=source, audio_track=track)
    assert frequency(path) == pytest.approx(expected, abs=5)
    assert ("3 audio tracks; number 2" in caplog.text) == (track is None)


def test_tracks_that_are_not_there_are_refused(tmp_path):
    source = with_tracks(tmp_path / "a.mkv", [300], default=0)
    silent = media.write_video(tmp_path / "silent.mp4", media.moving(2))
    folder = write(tmp_path / "images", media.moving(1), rate=24)
    for file, track in ((source, 2), (silent, 1), (folder, 1)):
        with pytest.raises(InputError, match=f"audio track {track}"):
            VideoWriter(tmp_path / "b.mp4", frame_rate=25, audio_from=file, audio_track=track)


def test_the_option_audio_track(tmp_path, capsys):
    source = str(with_tracks(tmp_path / "a.mkv", [300, 3000], default=1))
    output = tmp_path / "b.mkv"
    assert main(["sample", source, "-o", str(output), "--audio-track", "1"]) == 0
    assert frequency(output) == pytest.approx(300, abs=5)
    assert main(["sample", source, "-o", str(tmp_path / "c.mkv"), "--audio-track", "9"]) == 2
    assert "audio track 9 of 2" in capsys.readouterr().err


# A constant rate


def test_a_variable_rate_becomes_constant_in_avi(tmp_path, caplog):
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.44]
    path = write(tmp_path / "a.avi", media.moving(6), times)
    frames = read(path)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(12) / 25)
    shown = [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4, 5]
    for frame, number in zip(frames, shown, strict=True):
        assert np.abs(frame.image.astype(int) - media.moving(6)[number]).mean() < 3
    assert "6 frames were repeated, 0 left out" in caplog.text


def test_frames_too_close_for_avi_are_left_out(tmp_path, caplog):
    times = [0.0, 0.04, 0.045, 0.05, 0.08]
    frames = read(write(tmp_path / "a.avi", media.moving(5), times))
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08])
    assert "0 frames were repeated, 2 left out" in caplog.text


@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001), 12.5])
def test_a_constant_rate_stays_as_it_is(tmp_path, rate, caplog):
    source = media.write_video(tmp_path / "a.mkv", media.moving(20), rate=Fraction(rate))
    reader = VideoReader(source)
    assert float(reader.constant_rate) == pytest.approx(float(rate), rel=1e-3)
    times = [frame.pts_seconds for frame in reader]
    path = write(tmp_path / "b.avi", media.moving(20), times, reader.constant_rate)
    assert len(read(path)) == 20
    assert not caplog.records


def test_the_constant_rate_of_a_variable_one_holds_its_frames(tmp_path):
    times = [n / 25 for n in range(50) if n < 30 or n % 2]
    path = media.write_video(tmp_path / "a.mp4", media.moving(len(times)), times=times)
    reader = VideoReader(path)
    assert reader.frame_rate < 25
    assert reader.constant_rate == pytest.approx(25, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_one_frame_an_hour(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", media.moving(3), rate=Fraction(1, 3600))
    assert [frame.pts_seconds for frame in read(path)] == pytest.approx([0, 3600, 7200], abs=0.01)
    folder = write(tmp_path / "images", media.moving(2), rate=24)
    times = [frame.pts_seconds for frame in read(folder, frame_rate=1 / 3600)]
    assert times == pytest.approx([0, 3600])
    again = VideoReader(path)
    write(tmp_path / f"b{suffix}", media.moving(2), [0, 3600], again.frame_rate)


# The loss of what a format cannot store is reported


def test_a_folder_says_that_it_has_no_times(tmp_path, caplog):
    write(tmp_path / "a", media.moving(1), rate=24)
    assert not caplog.records
    write(tmp_path / "b", media.moving(1), rate=Fraction(30000, 1001))
    assert "--frame-rate 30000/1001" in caplog.text


def test_webm_says_that_it_has_no_shape_of_pixels(tmp_path, caplog):
    write(tmp_path / "a.webm", media.moving(1), pixel_aspect=2)
    assert "shape of pixels" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".m4v"])
def test_samples_without_alpha_are_said(tmp_path, suffix, capfd, caplog):
    source = media.write_video(tmp_path / "a.mp4", media.moving(2))
    assert main(["sample", str(source), "-o", str(tmp_path / f"b{suffix}")]) == 0
    assert "no alpha" in caplog.text


@pytest.mark.parametrize(("alpha", "code"), [(0, 2), (255, 0)])
def test_alpha_that_marks_no_pixel_or_all_is_said(tmp_path, capsys, caplog, alpha, code):
    image = np.full((16, 16, 4), alpha, np.uint8)
    source, output = write(tmp_path / "a", [image] * 2), tmp_path / "made" / "b.mp4"
    arguments = ["reconstruct", str(source), "-o", str(output), "--gaze", "5,5"]
    assert main([*arguments, "--model", "stream", "--engine", "torch"]) == code
    told = capsys.readouterr().err
    assert "has alpha, which says what is sampled, so --gaze is not used; " in told
    assert "received alpha 0 in all pixels" in told if code else "0 nowhere" in caplog.text
    assert output.parent.exists() == (code == 0)


def test_all_options_that_alpha_replaces_are_named(tmp_path, capsys):
    image = np.full((16, 16, 4), 255, np.uint8)
    source, output = write(tmp_path / "a", [image]), tmp_path / "b.mp4"
    arguments = ["reconstruct", str(source), "-o", str(output), "--engine", "torch"]
    assert main([*arguments, "--gaze", "5,5", "--density", "uniform:50"]) == 0
    assert "so --gaze and --density are not used; " in capsys.readouterr().err


@pytest.mark.parametrize("size", [(32, 48), (33, 21)])
def test_mkv_keeps_alpha_and_colours_exactly(tmp_path, size):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 4), np.uint8)
    path = write(tmp_path / "a.mkv", list(images))
    reader = VideoReader(path)
    assert reader.has_alpha
    assert not reader.lossy_alpha
    assert np.array_equal([frame.image for frame in reader], images)


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".webm"])
def test_the_mask_of_samples_survives_every_container_with_alpha(tmp_path, suffix, caplog):
    rng = np.random.default_rng(0)
    mask = 255 * (rng.random((64, 96)) < 0.3).astype(np.uint8)
    image = np.concatenate(
        [media.moving(1, 64, 96)[0] * (mask[..., None] > 0), mask[..., None]], -1
    )
    reader = VideoReader(write(tmp_path / f"a{suffix}", [image] * 3))
    assert reader.lossy_alpha == (suffix == ".webm")
    for frame in reader:
        assert np.array_equal(frame.image[..., 3] >= 128, mask > 0)
        if suffix != ".webm":
            assert np.array_equal(frame.image[..., 3], mask)
