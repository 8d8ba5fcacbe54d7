"""Claims about seeking: the frames after it equal those of decoding from the beginning."""

import contextlib
import itertools
from fractions import Fraction

import av
import media
import numpy as np
import pytest

from deepfovea.config import InputError
from deepfovea.video import VideoReader, VideoWriter


def interleaved_gops(path, **options):
    """150 frames with B-frames, a key frame every 12, at uneven times."""
    times = [number / 25 + 0.011 * (number % 3) for number in range(150)]
    media.write_video(
        path, media.moving(150), times=times, options={"g": "12", "bf": "3"} | options
    )
    return path


SEEKABLE = {
    "closed.mp4": {"x264-params": "open-gop=0"},
    "open.mp4": {"x264-params": "open-gop=1:scenecut=0"},
    "refresh.mp4": {"x264-params": "intra-refresh=1"},
    "one-key-frame.mkv": {"g": "1000"},
    "open.mkv": {"x264-params": "open-gop=1:scenecut=0"},
    "open.ts": {"x264-params": "open-gop=1:scenecut=0"},
}


@pytest.mark.parametrize("name", SEEKABLE)
def test_a_frame_after_a_seek_is_that_of_a_whole_decoding(tmp_path, name):
    path = interleaved_gops(tmp_path / name, **SEEKABLE[name])
    assert_seeks_exactly(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "12", "lag-in-frames": "10"}}),
        ("a.avi", {"codec": "mpeg4", "options": {"g": "12"}}),
        ("b.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
        ("a.mpg", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}),
        ("a.gif", {"codec": "gif", "pix_fmt": "rgb8", "rate": 20}),
    ],
)
def test_seeking_in_other_formats(tmp_path, name, options):
    path = media.write_video(tmp_path / name, media.moving(70), **options)
    assert_seeks_exactly(path)


def assert_seeks_exactly(path):
    with VideoReader(path) as reader:
        truth = list(reader)
        times = np.array([frame.pts_seconds for frame in truth])
        assert [reader.frame_number(time) for time in times] == list(range(len(times)))
        middle = (times[:-1] + times[1:]) / 2
        for seconds in [0.0, *times[1::7], *middle[::11], *times[-2:], times[-1] + 100.0]:
            number = max(np.flatnonzero(times <= seconds))
            found = list(itertools.islice(reader.seek(float(seconds)), 3))
            expected = truth[number : number + 3]
            assert [f.pts_seconds for f in found] == [f.pts_seconds for f in expected]
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours.image, theirs.image)


def test_seeking_decodes_from_the_key_frame_and_not_from_the_beginning(tmp_path, monkeypatch):
    path = interleaved_gops(tmp_path / "a.mp4", **SEEKABLE["closed.mp4"])
    with VideoReader(path) as reader:
        asked = []
        frame = next(reader.seek(5.0, lambda: asked.append(1) or True))
        assert frame.pts_seconds == pytest.approx(5.0, abs=0.04)
        assert len(asked) <= 12


def test_a_seek_that_is_no_longer_wanted_ends_where_it_is(tmp_path):
    path = interleaved_gops(tmp_path / "a.mkv", g="1000")
    with VideoReader(path) as reader:
        answers = iter([True] * 20 + [False] * 1000)
        frame = next(reader.seek(5.0, lambda: next(answers)))
        assert frame.pts_seconds == pytest.approx(20 / 25, abs=0.05)


def test_frames_are_counted_from_the_first_that_can_be_shown(tmp_path):
    path = interleaved_gops(tmp_path / "a.ts", **SEEKABLE["open.ts"])
    cut = tmp_path / "cut.ts"  # begins between key frames
    cut.write_bytes(path.read_bytes()[188 * 12 :])
    with VideoReader(cut) as reader:
        times = [frame.pts_seconds for frame in reader]
        assert len(times) < 150
        assert [reader.frame_number(time) for time in times] == list(range(len(times)))


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path):
    """``ffmpeg -ss 0.48 -i IN -c copy OUT`` writes such files: frames are hidden at the start."""
    path = media.write_video(tmp_path / "a.mp4", media.moving(50), options={"g": "50", "bf": "0"})
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as whole, av.open(str(cut), "w") as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.pts -= round(Fraction(12, 25) / packet.time_base)
                packet.dts, packet.stream = packet.pts, stream
                output.mux(packet)
    with VideoReader(cut) as reader:
        times = [frame.pts_seconds for frame in reader]
        assert reader.frame_count == len(times) < 45
        assert [reader.frame_number(time) for time in times] == list(range(len(times)))


def test_seeking_in_a_folder_and_in_a_damaged_video(tmp_path):
    with VideoWriter(tmp_path / "images", frame_rate=10) as writer:
        for number, image in enumerate(media.moving(30)):
            writer.write(image, number / 10)
    assert_seeks_exactly(tmp_path / "images")
    path = interleaved_gops(tmp_path / "a.mkv", **SEEKABLE["closed.mp4"])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with VideoReader(path) as reader:
        whole = []
        with contextlib.suppress(InputError):
            whole.extend(reader)
        whole = whole or [*itertools.islice(reader, 60)]
        last = next(reader.seek(1000.0))
        np.testing.assert_array_equal(last.image, whole[-1].image)
        assert last.pts_seconds == whole[-1].pts_seconds
