"""Claims about folders of videos: what is found, and that decoded frames are the frames."""

import os

import media
import numpy as np
import pytest

from deepfovea import clips
from deepfovea.clips import open_sources
from deepfovea.config import InputError
from deepfovea.video import VideoReader, VideoWriter, find_videos, read_clip


def write_pngs(folder, images):
    folder.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(folder, frame_rate=24) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / 24)
    return folder


def frames(video):
    with VideoReader(video) as reader:
        return np.stack([frame.image for frame in reader])


@pytest.fixture
def root(tmp_path):
    """Two sequences as REDS has them, and two videos at different depths."""
    root = tmp_path / "root"
    for number in (1, 0):
        folder = root / "train" / "train_sharp" / f"{number:03d}"
        write_pngs(folder, media.moving(3, 20, 30, seed=number))
    media.write_video(root / "b.mp4", media.moving(5, 33, 47), pix_fmt="yuv444p")
    (root / "deep" / "er").mkdir(parents=True)
    media.write_video(root / "deep" / "er" / "A.MKV", media.moving(4))
    (root / "deep" / "notes.txt").write_text("neither video nor image")
    return root


VIDEOS = ["b.mp4", "deep/er/A.MKV", "train/train_sharp/000", "train/train_sharp/001"]


def test_videos_and_image_folders_at_any_depth_are_found_in_order(root):
    assert [str(path.relative_to(root)) for path in find_videos(root)] == VIDEOS
    sequence = root / "train" / "train_sharp" / "000"
    assert sorted(path.name for path in sequence.iterdir())[0] == "00000000.png"
    assert find_videos(sequence) == [sequence]


def test_the_beginning_of_a_video(root):
    expected = frames(root / "b.mp4")
    assert np.array_equal(read_clip(root / "b.mp4", 2), expected[:2])
    assert np.array_equal(read_clip(root / "b.mp4", 99), expected)
    rgba = write_pngs(root / "rgba", [np.full((4, 6, 4), 9, np.uint8)] * 2)
    assert read_clip(rgba, 2).shape == (2, 4, 6, 3)


def test_sources_are_memory_maps_of_the_decoded_frames(root, tmp_path):
    sources = open_sources(root, tmp_path / "cache")
    assert [source.name for source in sources] == VIDEOS
    for source in sources:
        assert isinstance(source.frames, np.memmap)
        assert source.frames.dtype == np.uint8
        assert np.array_equal(source.frames, frames(root / source.name))


def test_what_was_decoded_once_is_only_opened(root, tmp_path, monkeypatch):
    first = open_sources(root, tmp_path / "cache")
    monkeypatch.setattr(clips, "VideoReader", None)
    second = open_sources(root, tmp_path / "cache")
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.frames, b.frames)


def test_what_has_changed_is_decoded_anew(root, tmp_path):
    open_sources(root, tmp_path / "cache")
    video, folder = root / "b.mp4", root / "train" / "train_sharp" / "000"
    media.write_video(video, media.moving(6, 24, 32))
    last = max(folder.iterdir())
    last.unlink()
    sources = {source.name: source.frames for source in open_sources(root, tmp_path / "cache")}
    assert sources["b.mp4"].shape == (6, 24, 32, 3)
    assert sources["train/train_sharp/000"].shape == (2, 20, 30, 3)
    # The same name and size: the time alone tells.
    image = root / "frame.ppm"
    for value in (b"a", b"b"):
        image.write_bytes(b"P6 8 8 255\n" + 192 * value)
        os.utime(image, (ord(value), ord(value)))
        newest = {source.name: source.frames for source in open_sources(root, tmp_path / "cache")}
        assert (newest["."] == ord(value)).all()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError])
def test_interrupted_decoding_leaves_no_part(root, tmp_path, monkeypatch, failure):
    class Interrupted(VideoReader):
        def __iter__(self):
            for number, frame in enumerate(super().__iter__()):
                if number == 2 and self.name == "A.MKV":
                    raise failure
                yield frame

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(clips, "VideoReader", Interrupted)
        with pytest.raises(failure):
            open_sources(root, cache)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    assert [len(source.frames) for source in open_sources(root, cache)] == [5, 4, 3, 3]
    assert [path.suffix for path in cache.iterdir()] == [".npy"] * 4


def test_nothing_to_find_is_one_line(tmp_path):
    (tmp_path / "file.txt").touch()
    for root, complaint in (
        (tmp_path / "missing", "no such folder"),
        (tmp_path / "file.txt", "no such folder"),
        (tmp_path, "neither videos nor images"),
    ):
        with pytest.raises(InputError, match=f"{complaint}.*expected") as caught:
            open_sources(root, tmp_path / "cache")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made_is_one_line(root):
    with pytest.raises(InputError, match=r"b\.mp4.*choose another"):
        open_sources(root, root / "b.mp4" / "cache")
