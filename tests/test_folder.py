"""Claims about what counts as a clip, and about alpha that comes or goes within one."""

from __future__ import annotations

import media
import numpy as np
import pytest
from PIL import Image

from deepfovea.config import InputError
from deepfovea.video import VideoReader, find_videos
from deepfovea.video.folder import odd_numbering


def save(folder, *names, alpha=()):
    folder.mkdir(exist_ok=True)
    images = media.moving(len(names))
    for name, image in zip(names, images, strict=True):
        if name in alpha:
            channel = np.full((*image.shape[:2], 1), 255, np.uint8)
            channel[4:9] = alpha[name]
            image = np.concatenate([image, channel], -1)
        Image.fromarray(image).save(folder / name)
    return folder


def numbers(*names):
    from pathlib import Path

    return odd_numbering([Path(name) for name in names])


@pytest.mark.parametrize(
    "image", ["1.jpg", "1.webp", "1-thumb.png", "1.en.jpg", "poster.jpg", "Cover.png", "2.jpg"]
)
def test_thumbnails_beside_videos_are_no_clip(tmp_path, image, caplog):
    videos = [media.write_video(tmp_path / f"{n}.mp4", media.moving(2)) for n in (1, 2)]
    save(tmp_path, image)
    assert find_videos(tmp_path) == videos
    assert not caplog.records


def test_other_images_beside_videos_are_left_out_with_a_word(tmp_path, caplog):
    path = media.write_video(tmp_path / "clip.mp4", media.moving(2))
    frames = save(tmp_path / "frames", "0.png", "1.png")
    save(tmp_path, "0001.png", "0002.png")
    assert find_videos(tmp_path) == [path, frames]
    assert "2 images" in caplog.text
    assert "0001.png" in caplog.text


@pytest.mark.parametrize("suffix", [".y4m", ".apng", ".m2v", ".nut", ".MTS", ".ogv", ".vob"])
def test_further_suffixes_are_videos(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert find_videos(tmp_path) == [tmp_path / f"a{suffix}"]


def test_y4m_is_read(tmp_path):
    image = media.patches(48, 64)
    path = media.write_video(tmp_path / "a.y4m", [image] * 3, codec="rawvideo", rate=10)
    reader = VideoReader(path)
    assert reader.frame_rate == 10
    assert [frame.pts_seconds for frame in reader] == pytest.approx([0, 0.1, 0.2])


def test_two_numbered_sequences_are_said(tmp_path, caplog):
    folder = save(
        tmp_path / "a", *(f"{n}_{i:03d}.png" for n in ("left", "right") for i in range(3))
    )
    reader = VideoReader(folder)
    assert len(list(reader)) == len(list(reader)) == 6
    assert caplog.text.count("2 numbered sequences (left_…, right_…)") == 1


def test_gaps_in_numbers_are_said(tmp_path, caplog):
    folder = save(tmp_path / "a", *(f"{i:04d}.png" for i in (1, 2, 5, 6, 9)))
    assert len(list(VideoReader(folder))) == 5
    assert "4 numbers are missing, the first between 2 and 5" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "1.png", "2.png"),
        ("0.png", "10.png", "20.png"),  # every tenth frame
        ("a.png", "b.png"),
        ("f1.png", "cover.png", "f2.png"),
        ("1600000000012.png", "1600000000051.png", "1600000000078.png", "1600000000125.png"),
        ("x_1.jpg", "x_2.png"),
        ("0001.png",),
        (),
    ],
)
def test_usual_names_are_not_odd(names):
    assert numbers(*names) == []


# Alpha


def read(path, **options):
    return list(VideoReader(path, **options))


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        ({"0.png": 0, "1.png": 0}, "without alpha"),
        ({"2.png": 7}, "with alpha"),
        ({"1.png": 0, "2.png": 0}, "with alpha"),
    ],
)
def test_alpha_that_comes_or_goes_names_the_frame(tmp_path, alpha, words, caplog):
    folder = save(tmp_path / "a", "0.png", "1.png", "2.png", alpha=alpha)
    changing = next(n for n in range(3) if (f"{n}.png" in alpha) != ("0.png" in alpha))
    with pytest.raises(InputError, match=rf"{changing}\.png: received frame {changing} {words}"):
        read(folder)
    kept = read(folder, skip_unreadable=True)
    assert len(kept) == len([n for n in range(3) if (f"{n}.png" in alpha) == ("0.png" in alpha)])
    assert f"{changing}.png" in caplog.text


def test_an_opaque_alpha_channel_is_none(tmp_path):
    folder = save(tmp_path / "a", "0.png", "1.png", alpha={"1.png": 255})
    assert [frame.image.shape for frame in read(folder)] == [(32, 48, 3)] * 2


def test_transparency_that_appears_in_a_palette_is_an_error(tmp_path):
    pictures = [Image.fromarray(image).quantize(16) for image in media.moving(2)]
    (tmp_path / "a").mkdir()
    pictures[0].save(tmp_path / "a" / "0.png")
    pictures[1].save(tmp_path / "a" / "1.png", transparency=pictures[1].getpixel((5, 5)))
    with pytest.raises(InputError, match="frame 1 with alpha"):
        read(tmp_path / "a")
