"""Claims about files of several pictures, and about pictures that FFmpeg decodes wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from media import moving
from PIL import Image

from deepfovea.config import InputError
from deepfovea.video import VideoReader, VideoWriter

DURATIONS = [100, 50, 200, 80]


def save(path, images, **options):
    first, *rest = [Image.fromarray(image) for image in images]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def read(path, **options):
    return list(VideoReader(path, **options))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.apng", "PNG"), ("a.webp", "WEBP"), ("a.gif", "GIF"), ("b.png", "WEBP")],
)
def test_an_animation_gives_all_frames_at_their_times(tmp_path, name, kind):
    images = moving(4)
    path = save(
        tmp_path / name, images, format=kind, duration=DURATIONS,
        **({"lossless": True} if kind == "WEBP" else {}),
    )  # fmt: skip
    with VideoReader(path) as reader:
        frames = list(reader)
        assert (reader.width, reader.height, reader.has_audio) == (48, 32, False)
        whole = [frame.image for frame in frames]
        assert np.array_equal(next(reader.seek(0.15)).image, whole[2])
    times = [frame.pts_seconds for frame in frames]
    assert times == pytest.approx([0, 0.1, 0.15, 0.35], abs=1e-6)
    if kind != "GIF":
        assert np.array_equal(whole, images)


def test_an_animation_is_a_video_for_the_writer(tmp_path):
    path = save(tmp_path / "a.webp", moving(4), duration=DURATIONS)
    with (
        VideoReader(path) as reader,
        VideoWriter(tmp_path / "b.mp4", frame_rate=reader.frame_rate, audio_from=path) as writer,
    ):
        for frame in reader:
            writer.write(frame.image, frame.pts_seconds)
    times = [frame.pts_seconds for frame in read(tmp_path / "b.mp4")]
    assert times == pytest.approx([0, 0.1, 0.15, 0.35], abs=1e-4)


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_several_pages_gives_all(tmp_path, big):
    images = moving(5)
    path = save(tmp_path / "a.tif", images, compression="tiff_lzw", big_tiff=big)
    assert np.array_equal([frame.image for frame in read(path)], images)
    times = [frame.pts_seconds for frame in read(path, frame_rate=10)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert VideoReader(path).frame_count == 5


def test_a_stack_of_16_bits_is_rounded(tmp_path):
    levels = np.arange(0, 65536, 32, np.uint16).reshape(32, 64)
    path = save(tmp_path / "a.tif", [levels, levels[::-1].copy()])
    for frame, stored in zip(read(path), (levels, levels[::-1]), strict=True):
        for channel in range(3):
            assert np.array_equal(frame.image[..., channel], (stored / 257).round())


def test_smaller_copies_in_a_tiff_are_no_frames(tmp_path):
    images = moving(3)
    path = save(tmp_path / "a.tif", images, tiffinfo={254: 0})
    data = path.read_bytes()
    kind = bytes.fromhex("fe00 0400 01000000")  # tag 254, one number of 32 bits
    assert data.count(kind) == 3
    at = data.index(kind, data.index(kind) + 1) + len(kind)
    path.write_bytes(data[:at] + b"\1" + data[at + 1 :])
    assert np.array_equal([frame.image for frame in read(path)], [images[0], images[2]])


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
@pytest.mark.parametrize("compression", ["jpeg", "zstd", "lzma", None])
def test_tiff_is_read_as_by_pillow(tmp_path, mode, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(moving(1)[0]).convert(mode).save(path, compression=compression)
    try:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
    except OSError:  # Pillow 12.3 writes, but does not read, YCbCr without compression
        with pytest.raises(InputError):
            read(path)
    else:
        assert np.array_equal(read(path)[0].image, expected)


def test_a_folder_of_tiff_with_alpha(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 4), np.uint8)
    for number, image in enumerate(rgba):
        Image.fromarray(image).save(tmp_path / f"{number}.tif")
    assert np.array_equal([frame.image for frame in read(tmp_path)], rgba)


def test_tiff_that_neither_reads_is_refused(tmp_path):
    Image.new("F", (32, 32)).save(tmp_path / "a.tif", save_all=True,
                                  append_images=[Image.new("F", (32, 32))])  # fmt: skip
    with pytest.raises(InputError, match="2 pages"):
        VideoReader(tmp_path / "a.tif")


def test_an_animation_in_a_folder_is_one_frame_and_this_is_said(tmp_path, caplog):
    images = moving(4)
    for number in range(2):
        save(tmp_path / f"{number}.png", images, duration=100)
    frames = read(tmp_path)
    assert np.array_equal([frame.image for frame in frames], [images[0]] * 2)
    assert "several pictures" in caplog.text


@pytest.mark.parametrize("name", ["a.tif", "a.webp"])
@pytest.mark.parametrize("seed", range(8))
def test_damage_is_an_input_error(tmp_path, name, seed):
    path = save(tmp_path / name, moving(3), **({"duration": 50} if "webp" in name else {}))
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    data[rng.integers(12, len(data), 30)] = rng.integers(0, 256, 30)
    path.write_bytes(data[: rng.integers(20, len(data))].tobytes())
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)
