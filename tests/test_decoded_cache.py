"""Claims about folders of videos: which are found, and that cached frames equal decoded ones."""

import errno
import os
from pathlib import Path

import media
import numpy as np
import pytest

from deepfovea import video
from deepfovea.config import InputError
from deepfovea.io.decoded_cache import open_sources
from deepfovea.reds.splits import split_folder
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
    """Two sequences as REDS names them, and two videos at different depths."""
    root = tmp_path / "root"
    for number in (1, 0):
        folder = root / "sharp" / f"{number:03d}"
        write_pngs(folder, media.moving(3, 20, 30, seed=number))
    media.write_video(root / "b.mp4", media.moving(5, 33, 47), pix_fmt="yuv444p")
    (root / "deep" / "er").mkdir(parents=True)
    media.write_video(root / "deep" / "er" / "A.MKV", media.moving(4))
    (root / "deep" / "notes.txt").write_text("neither video nor image", encoding="utf-8")
    return root


VIDEOS = ["b.mp4", "deep/er/A.MKV", "sharp/000", "sharp/001"]


def test_videos_and_image_folders_at_any_depth_are_found_in_order(root):
    assert [str(path.relative_to(root)) for path in find_videos(root)] == VIDEOS
    sequence = root / "sharp" / "000"
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
    monkeypatch.setattr(video, "VideoReader", None)
    second = open_sources(root, tmp_path / "cache")
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.frames, b.frames)


def test_what_has_changed_is_decoded_anew(root, tmp_path):
    open_sources(root, tmp_path / "cache")
    video, folder = root / "b.mp4", root / "sharp" / "000"
    media.write_video(video, media.moving(6, 24, 32))
    last = max(folder.iterdir())
    last.unlink()
    sources = {source.name: source.frames for source in open_sources(root, tmp_path / "cache")}
    assert sources["b.mp4"].shape == (6, 24, 32, 3)
    assert sources["sharp/000"].shape == (2, 20, 30, 3)
    # The same name and size: only the time differs.
    image = root / "still" / "frame.ppm"
    image.parent.mkdir()
    for value in (b"a", b"b"):
        image.write_bytes(b"P6 8 8 255\n" + 192 * value)
        os.utime(image, (ord(value), ord(value)))
        newest = {source.name: source.frames for source in open_sources(root, tmp_path / "cache")}
        assert (newest["still"] == ord(value)).all()


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
        patch.setattr(video, "VideoReader", Interrupted)
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


# --- splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (
            {"train/train_sharp", "val/val_sharp", "test/test_sharp", "val/val_blur"},
            "val/val_sharp",
        ),
        ({"val/val_sharp"}, "val/val_sharp"),
        ({"train_sharp", "val_sharp"}, "val_sharp"),
        ({"train", "val"}, "val"),
        ({"val"}, ""),  # perhaps a video of that name
        ({"000", "001"}, ""),
    ],
)
def test_the_folder_of_a_split(tmp_path, layout, expected):
    for folder in layout:
        (tmp_path / folder).mkdir(parents=True)
    assert split_folder(tmp_path, "val") == tmp_path / expected


@pytest.mark.parametrize(
    "layout", [{"train/train_sharp", "test"}, {"train_sharp"}, {"train", "test"}]
)
def test_a_split_that_is_not_there_is_no_other(tmp_path, layout):
    for folder in layout:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=r"received .*train.*, expected .*val.* too"):
        split_folder(tmp_path, "val")


def test_the_videos_of_a_split_of_reds(tmp_path):
    for seed, split in enumerate(("train", "val")):
        folder = tmp_path / "REDS" / split / f"{split}_sharp" / "000"
        write_pngs(folder, media.moving(2, 20, 30, seed=seed))
    for seed, split in enumerate(("train", "val")):
        (source,) = open_sources(split_folder(tmp_path / "REDS", split), tmp_path / "cache")
        assert source.name == "000"
        assert np.array_equal(source.frames, media.moving(2, 20, 30, seed=seed))


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def damaged(root):
    """A sequence whose third image is broken and whose second has another size; other files."""
    folder = root / "sharp" / "000"
    (folder / "00000002.png").write_text("no picture", encoding="utf-8")
    media_file = write_pngs(root / "large", media.moving(1, 24, 30))
    (media_file / "00000000.png").rename(folder / "00000001.png")
    media_file.rmdir()
    (folder / "Thumbs.db").write_bytes(bytes(99))
    (folder / "00000003.txt").write_text("00000003.png", encoding="utf-8")
    (folder / "00000004.png").symlink_to("nowhere")
    return folder


def test_the_first_frame_that_cannot_be_used_is_named(damaged, tmp_path):
    with pytest.raises(InputError, match=r"00000001.png.*frame 1 of 30x24 .*expected 30x20"):
        open_sources(damaged, tmp_path / "cache")
    (damaged / "00000001.png").unlink()
    with pytest.raises(InputError, match=r"00000002.png.*expected") as caught:
        open_sources(damaged, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_frames_that_cannot_be_used_are_skipped_when_asked(damaged, root, tmp_path, caplog):
    expected = open_sources(damaged.with_name("001"), tmp_path / "elsewhere")[0].frames
    (damaged.with_name("001") / "00000001.png").write_bytes(b"")
    first = frames(root / "b.mp4")
    (root / "deep" / "er" / "A.MKV").write_text("no video", encoding="utf-8")
    sources = open_sources(root, tmp_path / "cache", skip_unreadable=True)
    assert [(s.name, len(s.frames)) for s in sources] == [
        ("b.mp4", 5),
        ("sharp/000", 1),
        ("sharp/001", 2),
    ]
    assert np.array_equal(sources[0].frames, first)
    assert np.array_equal(sources[2].frames, expected[[0, 2]])
    for name in ("000/00000001.png", "000/00000002.png", "001/00000001.png", "A.MKV"):
        assert sum(name in message for message in caplog.messages) == 1
    # A partly decoded video must not be used as a complete one later.
    again = open_sources(root, tmp_path / "cache", skip_unreadable=True)
    assert [len(s.frames) for s in again] == [5, 1, 2]
    with pytest.raises(InputError, match=r"A\.MKV"):
        open_sources(root, tmp_path / "cache")


def test_nothing_readable_is_one_line(tmp_path):
    folder = tmp_path / "root" / "000"
    folder.mkdir(parents=True)
    (folder / "0.png").write_text("no picture", encoding="utf-8")
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 1 video can be read; expected"):
        open_sources(tmp_path / "root", tmp_path / "cache", skip_unreadable=True)


def test_a_first_image_that_cannot_be_read_is_skipped_too(root, tmp_path):
    folder = root / "sharp" / "001"
    expected = frames(folder)
    (folder / "00000000.png").write_text("no picture", encoding="utf-8")
    clip = read_clip(folder, 9, skip_unreadable=True)
    assert np.array_equal(clip, expected[1:])


def test_a_full_disk_is_one_line(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    for skip in (False, True):
        with pytest.raises(InputError, match=r"No space left on device.*choose another"):
            open_sources(root, tmp_path / "cache", skip_unreadable=skip)
    assert list((tmp_path / "cache").iterdir()) == []
