"""Claims about time in videos whose own clock begins again, jumps, or begins late."""

from __future__ import annotations

import itertools
from fractions import Fraction
from types import SimpleNamespace

import av
import media
import numpy as np
import pytest

from deepfovea.video import VideoReader, VideoWriter
from deepfovea.video.clock import Clock

WRAP = 2**33 / 90000
"""Seconds until the 33-bit time stamps of MPEG-TS, at 90 kHz, start over (ISO/IEC 13818-1)."""


def times_of(path):
    with VideoReader(path) as reader:
        return [frame.pts_seconds for frame in reader]


def join(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def copy(source, path):
    with (
        VideoReader(source) as reader,
        VideoWriter(path, frame_rate=reader.frame_rate, audio_from=source) as writer,
    ):
        for frame in reader:
            writer.write(frame.image, frame.pts_seconds)
    return path


def onsets(path):
    """The times at which the picture turns white and the tone begins, s; there may be several."""
    with av.open(str(path)) as container:
        container.flags &= ~av.container.Flags.gen_pts.value
        unit = container.streams.video[0].time_base
        bright = [
            (
                float((frame.dts if frame.pts is None else frame.pts) * unit),
                frame.to_ndarray(format="gray").mean() > 128,
            )
            for frame in container.decode(video=0)
        ]
    loud = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(float)).max(0)
            loud += [
                (frame.time + i / frame.sample_rate, samples[i : i + 240].max() > 0.1)
                for i in range(0, frame.samples - 240, 240)
            ]
    return [
        [time for (_, before), (time, now) in itertools.pairwise(kind) if now and not before]
        for kind in (bright, loud)
    ]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Two seconds of picture and sound, white and loud after one second."""
    path = tmp_path_factory.mktemp("part") / "part.ts"
    return media.write_clapper(path, clap=1.0)


@pytest.mark.parametrize("count", [2, 3])
def test_joined_streams_go_on_with_picture_and_sound_together(tmp_path, part, count, caplog):
    path = join(tmp_path / "joined.ts", *[part] * count)
    reader = VideoReader(path)
    assert reader.frame_count == 50 * count
    times = [frame.pts_seconds for frame in reader]
    assert len(times) == 50 * count
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.045)
    assert times[-1] == pytest.approx(2 * count - 0.04, abs=0.1)
    assert caplog.text.count("clock breaks") == 1
    for suffix in (".mp4", ".avi"):
        flashes, beeps = onsets(copy(path, tmp_path / f"out{suffix}"))
        assert len(flashes) == len(beeps) == count
        np.testing.assert_allclose(flashes, beeps, atol=0.04)


def test_a_jump_ahead_is_closed_and_a_gap_is_kept(tmp_path, part):
    for start, step in ((500.0, 0.04), (6.0, 4.04)):
        late = media.write_clapper(
            tmp_path / "late.ts", clap=start + 1, video_start=start, audio_start=start
        )
        times = times_of(join(tmp_path / "joined.ts", part, late))
        assert len(times) == 100
        assert times[50] - times[49] == pytest.approx(step, abs=0.1)
        np.testing.assert_allclose(np.diff(times[50:]), 0.04, atol=1e-3)


def test_a_clock_that_wraps_goes_on(tmp_path):
    path = media.write_clapper(
        tmp_path / "a.ts", clap=WRAP, video_start=WRAP - 1, audio_start=WRAP - 1
    )
    np.testing.assert_allclose(times_of(path), np.arange(50) / 25, atol=1e-4)
    flashes, beeps = onsets(copy(path, tmp_path / "a.mkv"))
    assert flashes == pytest.approx([1.0], abs=0.01)
    assert beeps == pytest.approx([1.0], abs=0.04)


def test_seeking_where_the_clock_breaks_is_exact(tmp_path, part):
    path = join(tmp_path / "joined.ts", part, part)
    with VideoReader(path) as reader:
        whole = list(reader)
        for number in (3, 49, 50, 73, 99):
            found = next(reader.seek(whole[number].pts_seconds))
            assert found.pts_seconds == whole[number].pts_seconds
            np.testing.assert_array_equal(found.image, whole[number].image)


def test_joined_flash_video_goes_on(tmp_path):
    part = media.write_video(tmp_path / "a.flv", media.moving(25), codec="flv")
    other = part.read_bytes()[13:]  # without the header, as recorders append
    path = tmp_path / "joined.flv"
    path.write_bytes(part.read_bytes() + other)
    times = times_of(path)
    assert len(times) == 50
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.045)


def test_long_pauses_in_other_containers_are_kept(tmp_path):
    for suffix in (".mkv", ".mp4"):
        path = media.write_video(tmp_path / f"a{suffix}", media.moving(3), times=[0, 1, 3600])
        assert times_of(path) == pytest.approx([0, 1, 3600])


def packet(stream, dts, duration=200):
    return SimpleNamespace(
        stream=SimpleNamespace(index=stream),
        dts=dts,
        pts=dts,
        duration=duration,
        time_base=Fraction(1, 1000),
    )


def test_packets_that_lie_mixed_around_a_break_stay_in_their_own_epoch():
    """The sound of the second part comes before the last picture of the first."""
    clock = Clock()
    stored = [(0, 0), (1, 0), (0, 200), (1, 200), (1, 0), (0, 400), (1, 200), (0, 0), (0, 200)]
    packets = [packet(stream, 1000 + dts) for stream, dts in stored]
    for one in packets:
        clock.correct(one)
    got = [(one.stream.index, one.dts - 1000) for one in packets]
    assert got == [*stored[:4], (1, 400), (0, 400), (1, 600), (0, 400), (0, 600)]
    assert len(clock.offsets) == 2


@pytest.mark.parametrize("leading", [1, 5])
def test_first_frames_without_times_are_counted_back(tmp_path, leading):
    times = [(number - leading) / 25 for number in range(25)]
    path = media.write_video(
        tmp_path / "a.mkv",
        media.moving(25),
        times=times,
        options={"bf": "0"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    with av.open(str(path)) as container:
        container.flags &= ~av.container.Flags.gen_pts.value
        stored = [p.pts for p in container.demux(video=0) if p.size]
    assert stored[:leading] == [None] * leading
    np.testing.assert_allclose(times_of(path), np.arange(25) / 25, atol=1e-9)
    assert VideoReader(path).start_seconds == pytest.approx(-leading / 25)
