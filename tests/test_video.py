"""Claims about reading and writing video: nothing is lost, shifted, turned or recoloured."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import weakref
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image

from deepfovea import video
from deepfovea.config import InputError
from deepfovea.video import YUV420, Frame, VideoReader, VideoWriter, list_images, to_yuv420

VFR = [0.0, 0.04, 0.05, 0.2, 0.7, 11 / 15]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twenty frames of 48x32 at 25 Hz."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return media.write_video(path, media.moving(20), options={"g": "5"})


def write(path, images, times=None, rate=25, **options):
    with VideoWriter(path, frame_rate=rate, **options) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / rate if times is None else times[number])
    return path


def read(path, **options):
    with VideoReader(path, **options) as reader:
        return list(reader)


def refused(call, *arguments, **options):
    """The message of the InputError, which is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    return message


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def difference(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max()


# Round trips


@pytest.mark.parametrize("size", [(32, 48), (33, 21)], ids=["even", "odd"])
@pytest.mark.parametrize("suffix", video.VIDEO_SUFFIXES)
def test_a_video_comes_back(tmp_path, suffix, size):
    images = media.moving(7, *size)
    path = write(tmp_path / f"a{suffix}", images, rate=Fraction(30000, 1001))
    with VideoReader(path) as reader:
        frames = list(reader)
        assert (reader.height, reader.width) == size
        assert float(reader.frame_rate) == pytest.approx(30000 / 1001, rel=0.01)
        assert reader.frame_count in (6, 7, 8)
        assert reader.name == f"a{suffix}"
        assert not reader.has_alpha
        assert not reader.has_audio
    assert len(frames) == 7
    tolerance = 0.0006 if suffix in (".mkv", ".webm") else 1e-9
    expected = [number * 1001 / 30000 for number in range(7)]
    np.testing.assert_allclose([f.pts_seconds for f in frames], expected, atol=tolerance)
    for frame, image in zip(frames, images, strict=True):
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert np.abs(frame.image.astype(float) - image).mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_variable_frame_rate_is_kept(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", media.moving(6), VFR)
    tolerance = 0.5 / 90000 if suffix in (".mp4", ".mov") else 0.0005
    times = [frame.pts_seconds for frame in read(path)]
    np.testing.assert_allclose(times, VFR, atol=tolerance + 1e-9)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 23.976, 12.5, Fraction(60000, 1001), 1])
def test_a_constant_frame_rate_is_exact(tmp_path, rate):
    path = write(tmp_path / "a.mp4", media.moving(5), rate=rate)
    times = [frame.pts_seconds for frame in read(path)]
    np.testing.assert_allclose(times, [float(i / rate) for i in range(5)], rtol=1e-12)
    assert float(VideoReader(path).frame_rate) == pytest.approx(float(rate), rel=1e-9)


def test_the_last_frame_lasts_and_times_begin_where_told(tmp_path):
    dense = [number / 25 for number in range(30)]
    for suffix in (".mp4", ".mov", ".mkv", ".webm"):
        for times, rate in (
            ([0.0], 10),
            ([0.0, 0.5], 10),
            ([0.0, 0.5, 0.6], 2),
            ([*dense, 2.0], 5),
        ):
            path = write(tmp_path / f"a{suffix}", media.moving(len(times)), times, rate,
                         overwrite=True)  # fmt: skip
            with av.open(str(path)) as container:
                assert container.duration / 1e6 == pytest.approx(times[-1] + 1 / rate, abs=0.001)
    path = write(tmp_path / "late.mp4", media.moving(3), [2.0, 2.1, 2.2])
    reader = VideoReader(path)
    assert reader.start_seconds == pytest.approx(2.0)
    assert [frame.pts_seconds for frame in reader] == pytest.approx([0.0, 0.1, 0.2])


def test_an_mp4_begins_with_its_index(tmp_path):
    data = write(tmp_path / "a.mp4", media.moving(3)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("channels", [3, 4])
def test_a_folder_of_png_is_lossless(tmp_path, channels):
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (4, 9, 13, channels), dtype=np.uint8))
    path = write(tmp_path / "frames", images)
    assert names(path) == [f"{i:08d}.png" for i in range(4)]
    for file, image in zip(list_images(path), images, strict=True):
        assert np.array_equal(np.asarray(pillow.open(file)), image)
    with VideoReader(path, frame_rate=10) as reader:
        assert (reader.width, reader.height, reader.frame_count) == (13, 9, 4)
        assert reader.has_alpha == (channels == 4)
        frames = list(reader)
    assert np.array_equal([frame.image for frame in frames], images)
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert VideoReader(path).frame_rate == 24
    assert len(read(path / "00000002.png")) == 1


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
def test_alpha_survives_in_videos(tmp_path, suffix):
    image = media.patches(48, 64)
    alpha = media.patches(48, 64, np.array([[[255], [0], [128]], [[60], [255], [200]]], np.uint8))
    path = write(tmp_path / f"a{suffix}", [np.concatenate([image, alpha], -1)] * 3)
    with VideoReader(path) as reader:
        assert reader.has_alpha
        frame = list(reader)[-1]
    assert difference(media.patch_centres(frame.image[..., 3:], 2, 3),
                      media.patch_centres(alpha, 2, 3)) <= 3  # fmt: skip
    visible = media.patch_centres(alpha)[..., 0] > 0
    shown, true = media.patch_centres(frame.image[..., :3]), media.patch_centres(image)
    assert difference(shown[visible], true[visible]) <= 6


def test_pixel_aspect_survives(tmp_path, clip):
    path = write(tmp_path / "a.mp4", media.moving(2), pixel_aspect=Fraction(16, 11))
    assert VideoReader(path).pixel_aspect == Fraction(16, 11)
    assert VideoReader(clip).pixel_aspect == 1
    turned = media.write_video(
        tmp_path / "turned.mp4",
        media.moving(2),
        rotation=(90, False),
        tags={"sample_aspect_ratio": Fraction(4, 3)},
    )
    assert VideoReader(turned).pixel_aspect == Fraction(3, 4)


# Colours


@pytest.mark.parametrize("size", [(48, 64), (51, 67), (720, 1280)], ids=["SD", "odd", "HD"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_saturated_colours_survive(tmp_path, suffix, size):
    path = write(tmp_path / f"a{suffix}", [media.patches(*size)] * 2)
    image = read(path)[-1].image
    tolerance = 9 if size == (51, 67) else 5
    shown, true = media.patch_centres(image), media.patch_centres(media.patches(*size))
    assert difference(shown, true) <= tolerance
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace in ((1,) if size[0] == 720 else (5, 6))
        assert frame.color_range == 1


@pytest.mark.parametrize("size", [(48, 64), (720, 1280)], ids=["SD", "HD"])
def test_another_decoder_sees_the_same(tmp_path, size):
    cv2 = pytest.importorskip("cv2")
    image = media.patches(*size)
    path = write(tmp_path / "a.mp4", [image] * 3, [0.0, 0.25, 0.3])
    capture = cv2.VideoCapture(str(path))
    for time in (0.0, 0.25, 0.3):
        good, shown = capture.read()
        assert good
        assert shown.shape == image.shape
        assert capture.get(cv2.CAP_PROP_POS_MSEC) == pytest.approx(1000 * time, abs=0.01)
        if size[0] < 720:  # it takes everything for BT.601
            centres = media.patch_centres(shown[..., ::-1])
            assert difference(centres, media.patch_centres(image)) <= 6
    assert not capture.read()[0]


def as_planes(image, matrix=6):
    return to_yuv420(torch.from_numpy(image).permute(2, 0, 1) / 255.0, matrix)


def test_planes_are_the_matrices_of_others():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    ycbcr = pytest.importorskip("skimage.color").rgb2ycbcr(image)  # BT.601, not rounded
    halves = ycbcr.reshape(16, 2, 24, 2, 3).mean((1, 3))
    planes = as_planes(image)
    assert np.abs(planes.luma[0].numpy() - ycbcr[..., 0]).max() < 0.51
    assert np.abs(planes.chroma.permute(1, 2, 0).numpy() - halves[..., 1:]).max() < 0.52

    for matrix, code in ((1, 1), (6, 5)):  # FFmpeg's scaler, on flat colours
        patches = media.patches(48, 64)
        frame = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(patches, "rgb24"),
            format="yuv444p",
            dst_colorspace=code,
            dst_color_range=1,
        )
        theirs = media.patch_centres(frame.to_ndarray().transpose(1, 2, 0))
        planes = as_planes(patches, matrix)
        chroma = planes.chroma.repeat_interleave(2, 1).repeat_interleave(2, 2)
        ours = torch.cat([planes.luma, chroma]).permute(1, 2, 0).numpy()
        assert difference(media.patch_centres(ours), theirs) <= 1


def test_planes_of_many_frames_and_of_colours_that_do_not_exist():
    frames = torch.rand(2, 3, 3, 8, 12) * 3 - 1
    planes = to_yuv420(frames, 1)
    assert planes.luma.shape == (2, 3, 1, 8, 12)
    assert planes.chroma.shape == (2, 3, 2, 4, 6)
    for number, frame in enumerate(frames[1]):
        alone = to_yuv420(frame, 1)
        assert torch.equal(planes.luma[1, number], alone.luma)
        assert torch.equal(planes.chroma[1, number], alone.chroma)
    assert torch.equal(planes.luma, to_yuv420(frames.clamp(0, 1), 1).luma)
    assert planes.luma.min() == 16
    assert planes.luma.max() == 235


@pytest.mark.parametrize(
    ("suffix", "size"), [(".mp4", (48, 64)), (".webm", (48, 64)), (".mkv", (720, 1280))]
)
def test_planes_and_images_make_the_same_video(tmp_path, suffix, size):
    images = media.moving(3, *size)
    matrix = 1 if size[0] == 720 else 6
    paths = [tmp_path / f"{kind}{suffix}" for kind in ("images", "planes")]
    write(paths[0], images)
    write(paths[1], [as_planes(image, matrix) for image in images])
    for image, (one, other) in zip(images, zip(*map(read, paths), strict=True), strict=True):
        error = [np.abs(image - np.asarray(frame.image, float)).mean() for frame in (one, other)]
        assert error[1] < error[0] + 0.2
        assert one.pts_seconds == other.pts_seconds


@pytest.mark.parametrize(
    "planes",
    [
        YUV420(torch.zeros(1, 32, 48, dtype=torch.uint8), torch.zeros(2, 16, 24)),
        YUV420(*(torch.zeros(size, dtype=torch.uint8) for size in ((1, 32, 48), (2, 16, 23)))),
        YUV420(*(torch.zeros(size, dtype=torch.uint8) for size in ((1, 32, 48), (1, 16, 24)))),
        YUV420(*(torch.zeros(size, dtype=torch.uint8) for size in ((1, 1, 32, 48), (2, 16, 24)))),
        YUV420(*(torch.zeros(size, dtype=torch.uint8) for size in ((1, 33, 48), (2, 16, 24)))),
        YUV420(*(torch.zeros(size, dtype=torch.uint8) for size in ((1, 0, 48), (2, 0, 24)))),
    ],
)
def test_planes_that_do_not_fit(tmp_path, planes):
    image = np.zeros((32, 48, 3), np.uint8)
    assert "planes" in refused(write, tmp_path / "a.mp4", [image, planes])
    assert names(tmp_path) == []


def test_planes_have_the_size_of_the_images_before(tmp_path):
    image, turned = np.zeros((32, 48, 3), np.uint8), as_planes(np.zeros((48, 32, 3), np.uint8))
    assert "[48, 32, 3]" in refused(write, tmp_path / "a.mp4", [image, turned])
    assert names(tmp_path) == []


def test_a_folder_of_images_takes_no_planes(tmp_path):
    assert "RGB" in refused(write, tmp_path / "folder", [as_planes(np.zeros((8, 8, 3), np.uint8))])
    assert names(tmp_path) == []


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("matrix", "tagged", "size"),
    [
        (1, True, (48, 64)),
        (6, True, (720, 1280)),
        (9, True, (48, 64)),
        (6, False, (48, 64)),
        (1, False, (720, 1280)),
    ],
)
def test_the_matrix_and_range_of_a_file_are_followed(tmp_path, matrix, tagged, size, full_range):
    image = media.patches(*size)
    tags = {"color_range": 2 if full_range else 1} | ({"colorspace": matrix} if tagged else {})
    path = media.write_video(
        tmp_path / "a.mkv",
        [media.to_yuv444(image, matrix, full_range)],
        codec="ffv1",
        pix_fmt="yuv444p",
        frame_format="yuv444p",
        tags=tags,
    )
    assert difference(read(path)[0].image, image) <= 2


def test_an_unsupported_matrix_is_refused(tmp_path):
    path = media.write_video(
        tmp_path / "a.mkv", media.moving(1), codec="ffv1", tags={"colorspace": 14}
    )
    assert "convert" in refused(VideoReader, path)


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_with_the_command_that_maps_it(tmp_path, curve, name):
    path = media.write_video(
        tmp_path / "a.mkv", media.moving(1), codec="ffv1", tags={"color_trc": curve}
    )
    line = refused(VideoReader, path)
    assert f"HDR ({name})" in line and "tonemap" in line


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p12le"])
def test_more_than_eight_bits_are_rounded(tmp_path, pix_fmt):
    image = media.patches(48, 64)
    path = media.write_video(tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt=pix_fmt)
    frame = read(path)[0].image
    assert frame.dtype == np.uint8
    assert difference(media.patch_centres(frame), media.patch_centres(image)) <= 2


def test_ten_bit_h264(tmp_path):
    image = media.patches(48, 64)
    options = {"crf": "5"}
    path = media.write_video(
        tmp_path / "a.mp4", [image] * 2, pix_fmt="yuv420p10le", options=options
    )
    centres = media.patch_centres(read(path)[0].image)
    assert difference(centres, media.patch_centres(image)) <= 3


@pytest.mark.parametrize(
    ("pix_fmt", "depth", "limited"),
    [("gray", np.uint8, False), ("gray", np.uint8, True), ("gray16le", np.uint16, False)],
)
def test_grey(tmp_path, pix_fmt, depth, limited):
    ramp = np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(32, 0)
    stored = (16 + ramp * (219 / 255)).round() if limited else ramp.astype(int)
    path = media.write_video(
        tmp_path / "a.mkv",
        [(stored * (257 if depth is np.uint16 else 1)).astype(depth)],
        codec="ffv1",
        pix_fmt=pix_fmt,
        frame_format=pix_fmt,
        tags={"color_range": 1 if limited else 2},
    )
    reader = VideoReader(path)
    image = next(iter(reader)).image
    assert not reader.has_alpha
    assert image.shape == (32, 64, 3)
    assert difference(image, ramp[..., None].repeat(3, -1)) <= 1


def test_alpha_of_ffv1_and_prores(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 48, 4), dtype=np.uint8)
    path = media.write_video(
        tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="bgra", frame_format="rgba"
    )
    assert VideoReader(path).has_alpha
    assert np.array_equal(read(path)[0].image, image)
    opaque = media.write_video(
        tmp_path / "a.mov", media.moving(1), codec="prores_ks", pix_fmt="yuva444p10le"
    )
    assert VideoReader(opaque).has_alpha
    assert read(opaque)[0].image[..., 3].min() >= 254


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.webp", "a.jp2"])
def test_lossless_images(tmp_path, name):
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    pillow.fromarray(image).save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    reader = VideoReader(tmp_path)
    assert not reader.has_alpha
    assert np.array_equal(next(iter(reader)).image, image)


@pytest.mark.parametrize("mode", ["P", "L", "LA", "I;16", "RGBA", "1"])
def test_kinds_of_png(tmp_path, mode):
    pillow = pytest.importorskip("PIL.Image")
    rgb = pillow.fromarray(media.patches(24, 32))
    picture = rgb.quantize(16) if mode == "P" else rgb.convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = pillow.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture.save(tmp_path / "a.png")
    reader = VideoReader(tmp_path)
    assert reader.has_alpha == mode.endswith("A")
    kind = "RGBA" if reader.has_alpha else "RGB"
    expected = rgb.convert("L").convert(kind) if mode == "I;16" else picture.convert(kind)
    assert difference(next(iter(reader)).image, np.asarray(expected)) <= 1


def test_a_palette_with_transparency(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    picture = pillow.fromarray(media.patches(24, 32)).quantize(16)
    picture.save(tmp_path / "a.png", transparency=picture.getpixel((0, 0)))
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[picture], duration=100)
    assert VideoReader(tmp_path / "a.png").has_alpha
    assert read(tmp_path / "a.png")[0].image[0, 0, 3] == 0
    assert not VideoReader(tmp_path / "a.gif").has_alpha


def test_jpeg_is_full_range_bt601_at_any_size(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    image = media.patches(720, 1280)
    pillow.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    centres = media.patch_centres(read(tmp_path)[0].image)
    assert difference(centres, media.patch_centres(image)) <= 4


# Rotation


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied_as_other_decoders_do(tmp_path, degrees, mirrored):
    cv2 = pytest.importorskip("cv2")
    image = media.patches(48, 64)
    path = media.write_video(tmp_path / "a.mp4", [image] * 2, rotation=(degrees, mirrored))
    expected = np.rot90(image, degrees // 90)  # counter-clockwise
    expected = expected[:, ::-1] if mirrored else expected
    with VideoReader(path) as reader:
        shown = next(iter(reader)).image
        assert (reader.height, reader.width) == expected.shape[:2] == shown.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < 12
    if not mirrored:  # OpenCV knows rotations only
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        assert np.abs(capture.read()[1][..., ::-1].astype(int) - shown).mean() < 12


def test_a_phone_held_upright(tmp_path, clip):
    """The file gets the matrix that phones write for a quarter turn clockwise."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    assert data[at : at + 4] == b"\x00\x01\x00\x00"
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30], ">i4")
    data[at : at + 36] = matrix.tobytes()
    (tmp_path / "a.mp4").write_bytes(data)
    shown = read(tmp_path / "a.mp4")[3].image
    assert np.array_equal(shown, np.rot90(read(clip)[3].image, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    image_module = pytest.importorskip("PIL.Image")
    operations = pytest.importorskip("PIL.ImageOps")
    exif = image_module.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.jpg", "a.tif"):
        image_module.fromarray(media.patches(48, 64)).save(tmp_path / name, exif=exif, quality=95)
        expected = np.asarray(operations.exif_transpose(image_module.open(tmp_path / name)))
        shown = read(tmp_path / name)[0].image
        assert shown.shape == expected.shape
        assert np.abs(shown.astype(int) - expected).mean() < 3


# Folders, names, iteration


def test_natural_order(tmp_path):
    for name in ("f10.png", "F2.PNG", "f1.png", "f002.png", "b.txt", "._f1.png", "g1-12.png",
                 "g1-2.png"):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    ordered = ["f1.png", "F2.PNG", "f002.png", "f10.png", "g1-2.png", "g1-12.png"]
    assert [path.name for path in list_images(tmp_path)] == ordered
    assert list_images(tmp_path / "folder.png") == []
    refused(list_images, tmp_path / "missing")
    refused(list_images, tmp_path / "b.txt")


def test_finding_and_reading_clips(tmp_path):
    refused(video.find_videos, tmp_path)
    refused(video.find_videos, tmp_path / "missing")
    images = media.moving(4)
    (tmp_path / "b").mkdir()
    first, second = write(tmp_path / "a.MP4", images), write(tmp_path / "b" / "frames", images)
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert video.find_videos(tmp_path) == [first, second]
    assert np.array_equal(video.read_clip(second, 3), images[:3])
    assert video.read_clip(first, 9).shape == (4, 32, 48, 3)
    # A folder of links, one of which leads in a circle
    links = tmp_path / "links"
    links.mkdir()
    (links / "c").symlink_to(second)
    (links / "d.mp4").symlink_to(first)
    (links / "e").symlink_to(links)
    assert video.find_videos(links) == [links / "c", links / "d.mp4"]


def test_awkward_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = media.moving(2)
    for name in ("12:30.mp4", "a%03d.mp4", "é \n.mkv", "-x.mp4"):
        write(name, images)
        assert len(read(name)) == 2
    folder = tmp_path / "frames"
    write("frames", images)
    (folder / "00000000.png").rename(folder / "a%d.png")
    (folder / "00000001.png").rename(folder / "a1.png")
    assert np.array_equal([frame.image for frame in read("frames")], images[::-1])
    monkeypatch.chdir(folder)
    assert len(read(".")) == 2
    refused(VideoReader, "missing\n.mp4")


def test_reading_is_lazy_repeatable_and_ended_by_the_with_block(clip):
    with VideoReader(clip) as reader:
        first, second = iter(reader), iter(reader)
        assert isinstance(next(first), Frame)
        next(first)
        assert np.array_equal(next(second).image, next(iter(reader)).image)
        assert len(list(reader)) == len(list(reader)) == 20
    assert list(first) == list(second) == []


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_frames_are_not_retained(tmp_path, clip, kind):
    source = clip if kind == "video" else write(tmp_path / "frames", media.moving(12))
    previous = lambda: None  # noqa: E731
    with VideoWriter(tmp_path / "out.mkv", frame_rate=25) as writer:
        for frame in VideoReader(source):
            copy, image = weakref.ref(own := frame.image.copy()), weakref.ref(frame.image)
            writer.write(own, frame.pts_seconds)
            del frame, own
            assert copy() is None  # the writer keeps none
            assert previous() is None  # the reader none but the current one
            previous = image


def test_a_raw_stream_has_evenly_spaced_frames(tmp_path):
    path = media.write_video(tmp_path / "a.h264", media.moving(6), rate=25)
    reader = VideoReader(path)
    assert reader.frame_count is None or reader.frame_count > 0
    assert [f.pts_seconds for f in reader] == pytest.approx([i / 25 for i in range(6)])
    times = [f.pts_seconds for f in read(path, frame_rate=50)]
    assert times == pytest.approx([i / 50 for i in range(6)])


def test_a_raw_dv_file_has_the_rate_of_its_system(tmp_path):
    options = {"rate": Fraction(30000, 1001), "codec": "dvvideo", "pix_fmt": "yuv411p"}
    path = media.write_video(tmp_path / "a.dv", media.moving(6, 480, 720), **options)
    with VideoReader(path) as reader:
        assert reader.frame_rate == Fraction(30000, 1001)  # FFmpeg's mean is 60000


def test_avi_with_b_frames_stays_in_order(tmp_path):
    path = media.write_video(tmp_path / "a.avi", media.moving(12), options={"bf": "3"})
    times = [frame.pts_seconds for frame in read(path)]
    assert times == pytest.approx([i / 25 for i in range(12)])


def test_ffmpeg_is_quiet(tmp_path, clip, capfd):
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[:1000])
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    for path in tmp_path.iterdir():
        with pytest.raises(InputError):
            read(path)
    write(tmp_path / "a.mp4", media.moving(3))
    assert capfd.readouterr() == ("", "")


# Damaged and unsuitable input


def test_a_truncated_file_is_read_up_to_its_end(tmp_path, caplog):
    images = list(np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8))
    path = media.write_video(
        tmp_path / "a.mp4",
        images,
        options={"g": "5"},
        container_options={"movflags": "faststart"},
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    frames = []
    with VideoReader(path) as reader, pytest.raises(InputError) as caught:
        for frame in reader:
            frames.append(frame)
    message = str(caught.value)
    assert 5 < len(frames) < 20
    assert "a.mp4" in message
    assert f"{len(frames)} frames" in message
    assert f"{frames[-1].pts_seconds:.3f} s" in message

    path = media.write_video(tmp_path / "a.mkv", images, options={"g": "5"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with caplog.at_level(logging.WARNING):
        assert 0 < len(read(path)) < 18
    assert "of 0.800 s" in caplog.text


def test_the_log_of_ffmpeg_stays_off_whoever_switched_it_on(tmp_path, caplog):
    images = list(np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8))
    path = media.write_video(tmp_path / "a.mkv", images)
    damaged = bytearray(path.read_bytes())
    for at in range(3000, len(damaged), 97):
        damaged[at] ^= 255
    path.write_bytes(damaged)

    av.logging.set_level(av.logging.ERROR)  # as older versions of torchvision do
    with contextlib.suppress(InputError):
        read(path)
    assert [record for record in caplog.records if record.name.startswith("libav")] == []
    av.logging.set_level(av.logging.ERROR)
    write(tmp_path / "new.mp4", images)
    assert av.logging.get_level() is None


def test_a_recording_may_begin_between_key_frames(tmp_path):
    path = media.write_video(tmp_path / "a.ts", media.moving(40), options={"g": "10"})
    data = path.read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(data[len(data) // 4 // 188 * 188 :])
    frames = read(cut)
    assert len(frames) >= 20
    assert frames[0].pts_seconds == 0


def test_frames_before_the_first_good_one_are_passed_over(tmp_path):
    path = media.write_video(tmp_path / "a.avi", media.moving(6), codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        first = next(container.demux(video=0))
    data = bytearray(path.read_bytes())
    data[first.pos : first.pos + first.size] = bytes(first.size)
    path.write_bytes(data)
    assert [frame.pts_seconds for frame in read(path)] == pytest.approx([i / 25 for i in range(5)])


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {}),
        ("jpg", {"progressive": True}),
        ("png", {}),
        ("bmp", {}),
        ("tif", {}),
        ("webp", {}),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_image_that_is_cut_off_is_refused(tmp_path, suffix, options, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path, **options)
    assert len(read(path)) == 1
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refused(read, path)
    assert "no frame that can be decoded" in message or "cannot be read" in message


def test_a_gif_that_is_cut_off_says_so(tmp_path, caplog):
    path = tmp_path / "a.gif"
    pictures = [Image.fromarray(image) for image in media.moving(5)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    read(path)
    assert "end mark" not in caplog.text
    path.write_bytes(path.read_bytes()[:-200])
    read(path)
    assert "end mark" in caplog.text


def test_patterns_for_series_of_images_name_the_folder(tmp_path):
    write(tmp_path / "frames", media.moving(2))
    for name in ("%08d.png", "*.png", "0000000[01].png"):
        assert f"give their folder, {tmp_path / 'frames'}" in refused(
            VideoReader, tmp_path / "frames" / name
        )
    assert "folder" not in refused(VideoReader, tmp_path / "frames" / "00000007.png")


def test_nothing_to_decode(tmp_path, clip):
    path = media.write_video(
        tmp_path / "a.mp4", media.moving(5), container_options={"movflags": "faststart"}
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 8])
    assert "a.mp4" in refused(VideoReader, path)


def write_sound(path, cover=False, packets=20):
    with av.open(str(path), "w") as container:
        audio = container.add_stream("mp3", rate=44100)
        if cover:
            picture = container.add_stream("png")
            picture.width = picture.height = 16
            picture.pix_fmt = "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts = 0
            container.mux(picture.encode(frame))
        for number in range(packets):
            silence = np.zeros((2, 1152), np.float32)
            sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = 44100, 1152 * number
            sound.time_base = Fraction(1, 44100)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video(tmp_path, cover):
    path = write_sound(tmp_path / "a.mp3", cover)
    with av.open(str(path)) as container:
        assert bool(container.streams.video) == cover
    assert "without video" in refused(VideoReader, path)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.txt", "a.json", "a.md", "a.bin"])
def test_files_that_are_no_media(tmp_path, name):
    path = tmp_path / name
    refused(VideoReader, path)
    path.write_bytes(b"")
    assert "empty" in refused(VideoReader, path)
    path.write_text('{"a": [1, 2, 3]}\n' * 200, encoding="utf-8")
    assert name in refused(VideoReader, path)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.tif"])
def test_what_lies_in_the_place_of_a_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    assert "Git LFS" in refused(VideoReader, path)
    path.write_text("<!DOCTYPE html>\n<html><title>Sign in</title></html>\n", encoding="utf-8")
    assert "a web page" in refused(VideoReader, path)


def test_folders_that_cannot_be_read(tmp_path):
    assert "without images" in refused(VideoReader, tmp_path)
    write(tmp_path / "frames", media.moving(3))
    (tmp_path / "frames" / "00000001.png").write_text("no image", encoding="utf-8")
    assert "00000001.png" in refused(read, tmp_path / "frames")


def test_no_permission(tmp_path, clip, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", denied)
    assert "Permission denied" in refused(VideoReader, clip)
    monkeypatch.setattr(Path, "iterdir", denied)
    assert "Permission denied" in refused(VideoReader, tmp_path)


def test_the_size_must_not_change(tmp_path):
    one = media.write_video(tmp_path / "a.h264", media.moving(5))
    two = media.write_video(tmp_path / "b.h264", media.moving(5, 48, 64))
    one.write_bytes(one.read_bytes() + two.read_bytes())
    message = refused(read, one)
    assert "frame 5" in message
    assert "64x48" in message
    assert "48x32" in message
    frames = write(tmp_path / "frames", media.moving(2))
    (write(tmp_path / "other", media.moving(1, 16, 16)) / "00000000.png").rename(frames / "b.png")
    assert "b.png" in refused(read, frames)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e9])
def test_frame_rates_are_checked(tmp_path, clip, rate):
    frames = write(tmp_path / "frames", media.moving(1))
    assert "frame rate" in refused(VideoReader, frames, frame_rate=rate)
    assert "frame rate" in refused(VideoWriter, tmp_path / "a.mp4", frame_rate=rate)


def test_a_video_keeps_its_own_frame_rate(clip):
    assert "has its own" in refused(VideoReader, clip, frame_rate=30)


# Sound


def copy(source, path, count=None, **options):
    with VideoReader(source) as reader:
        options.setdefault("audio_from", source)
        with VideoWriter(path, frame_rate=reader.frame_rate, **options) as writer:
            for number, frame in enumerate(reader):
                if number == count:
                    break
                writer.write(frame.image, frame.pts_seconds)
    return path


def flash(path):
    """The time in the file at which its picture becomes bright."""
    with av.open(str(path)) as container:
        container.flags &= ~1
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            if frame.to_ndarray(format="gray").mean() > 128:
                return float((frame.dts if frame.pts is None else frame.pts) * stream.time_base)
    raise AssertionError("no flash")


@pytest.mark.parametrize(
    ("name", "suffixes", "source"),
    [
        ("a.mp4", ".mp4 .m4v .mov .mkv .avi .webm", {}),
        ("video_late.mp4", ".mp4 .mkv .avi .webm", {"video_start": 0.4}),
        ("sound_late.mp4", ".mp4 .mkv .avi .webm", {"audio_start": 0.32}),
        ("video_late.ts", ".mp4 .mkv", {"video_start": 0.2}),
        ("opus.mkv", ".mp4 .m4v .mkv .webm", {"codec": "libopus", "audio_start": 0.1}),
        ("pcm.mov", ".mp4 .mov .mkv", {"codec": "pcm_s16le", "rate": 44100}),
    ],
)
def test_sound_stays_in_sync(tmp_path, name, suffixes, source):
    original = media.write_clapper(tmp_path / name, clap=1.0, seconds=1.6, **source)
    for suffix in suffixes.split():
        check_sync(tmp_path, original, suffix)


def check_sync(tmp_path, original, suffix):
    lag = media.sound_onset(original) - flash(original)
    path = copy(original, tmp_path / f"out{suffix}")
    reader = VideoReader(path)
    assert reader.has_audio
    assert reader.frame_count in (40, 41)
    if suffix != ".avi":
        assert reader.start_seconds == pytest.approx(0, abs=1e-9)
    assert media.sound_onset(path) - flash(path) == pytest.approx(lag, abs=0.003)
    assert media.sound_onset(path) - flash(path) == pytest.approx(0, abs=0.003)


def sound_packets(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets], stream.codec_context.name


def test_sound_is_copied_where_it_can_be(tmp_path):
    original = media.write_clapper(tmp_path / "a.mp4", clap=0.5)
    expected, _ = sound_packets(original)
    for suffix in (".mp4", ".mov", ".mkv"):
        packets, codec = sound_packets(copy(original, tmp_path / f"out{suffix}"))
        assert codec == "aac"
        kept = expected[1:] if suffix == ".mkv" else expected  # Matroska cannot hide the priming
        assert [data for _, data in packets] == [data for _, data in kept]
        times = [time for time, _ in packets]
        np.testing.assert_allclose(times, [time for time, _ in kept], atol=0.0006)
    assert sound_packets(copy(original, tmp_path / "out.webm"))[1] == "opus"
    assert sound_packets(copy(original, tmp_path / "out.avi"))[1] == "mp3float"


def test_sound_ends_with_the_frames(tmp_path):
    original = media.write_clapper(tmp_path / "a.mp4", clap=0.5)
    packets, _ = sound_packets(copy(original, tmp_path / "b.mp4", count=10))
    assert 0.4 - 0.03 < packets[-1][0] < 0.4
    packets, _ = sound_packets(copy(original, tmp_path / "b.webm", count=10))
    assert 0.4 - 0.03 < packets[-1][0] < 0.4


def test_sound_and_frames_are_interleaved(tmp_path):
    """This holds beyond the 10 seconds for which FFmpeg would interleave in memory."""
    sound = write_sound(tmp_path / "a.mp3", packets=1200)
    images = media.moving(150, 16, 16)
    path = write(tmp_path / "a.mkv", images, rate=5, audio_from=sound)
    places = {"audio": [], "video": []}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.dts is not None:
                places[packet.stream.type].append((packet.pos, packet.dts * packet.time_base))
    ordered = sorted((*place, kind) for kind, found in places.items() for place in found)
    latest = {"audio": 0.0, "video": 0.0}
    for _, time, kind in ordered:
        latest[kind] = float(time)
        assert abs(latest["audio"] - latest["video"]) < 1.5


def test_sound_from_elsewhere(tmp_path, clip, caplog):
    sound = write_sound(tmp_path / "a.mp3")
    path = copy(clip, tmp_path / "a.mp4", audio_from=sound)
    assert VideoReader(path).has_audio
    assert not VideoReader(copy(clip, tmp_path / "b.mp4", audio_from=clip)).has_audio
    frames = write(tmp_path / "frames", media.moving(2), rate=24)
    assert not VideoReader(copy(clip, tmp_path / "c.mp4", audio_from=frames)).has_audio
    assert not caplog.records
    copy(clip, tmp_path / "d", audio_from=sound)
    assert "no sound" in caplog.text
    for bad in (tmp_path / "missing.mp4", __file__):
        refused(VideoWriter, tmp_path / "e.mp4", frame_rate=25, audio_from=bad)
    assert not (tmp_path / "e.mp4").exists()


def test_broken_sound_does_not_cost_the_video(tmp_path, clip, monkeypatch, caplog):
    original = media.write_clapper(tmp_path / "a.mp4", clap=0.5)

    def broken(*_):
        raise av.error.InvalidDataError(1, "broken")

    monkeypatch.setattr(video.audio, "_even_sound", broken)
    path = copy(original, tmp_path / "out.webm")
    assert "sound ends early" in caplog.text
    assert len(read(path)) == 50


# Complete or absent


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "frames"])
def test_an_exception_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error), VideoWriter(tmp_path / name, frame_rate=25) as writer:
        for number, image in enumerate(media.moving(90, 16, 16)):
            writer.write(image, number / 25)
        assert len(names(tmp_path)) == 1  # under a temporary name
        assert not (tmp_path / name).exists()
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_no_frames_no_output(tmp_path, name):
    assert "no frames" in refused(write, tmp_path / name, [])
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.xyz", "a.txt", "a.gif", "a.png", "frames.v2"])
def test_unknown_outputs(tmp_path, name):
    assert ".mp4" in refused(VideoWriter, tmp_path / name, frame_rate=25)
    assert names(tmp_path) == []


def test_outputs_that_cannot_be(tmp_path, monkeypatch):
    make = {"frame_rate": 25}
    assert "crf" in refused(VideoWriter, tmp_path / "a.mp4", crf=52, **make)
    assert "missing" in refused(VideoWriter, tmp_path / "missing" / "a.mp4", **make)
    assert "missing" in refused(VideoWriter, tmp_path / "missing" / "frames", **make)
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(VideoWriter, tmp_path / "file" / "a.mp4", **make)
    (tmp_path / "folder.mp4").mkdir()
    refused(VideoWriter, tmp_path / "folder.mp4", overwrite=True, **make)
    before = names(tmp_path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    assert "Permission denied" in refused(VideoWriter, tmp_path / "a.mp4", **make)
    assert names(tmp_path) == before


@pytest.mark.parametrize(("suffix", "size"), [(".mp4", (32, 48)), (".mkv", (33, 47)), ("", (9, 7))])
def test_planes_and_pixels_in_memory_make_the_same_file(tmp_path, suffix, size):
    images = media.moving(4, *size)
    planes = [image.transpose(2, 0, 1).copy().transpose(1, 2, 0) for image in images]
    assert planes[0].strides != images[0].strides
    paths = [tmp_path / f"{number}{suffix}" for number in range(2)]
    for path, kind in zip(paths, (images, planes), strict=True):
        write(path, kind)
    for ours, truth in zip(read(paths[1]), read(paths[0]), strict=True):
        assert np.array_equal(ours.image, truth.image)


@pytest.mark.parametrize(
    ("image", "time"),
    [
        (np.zeros((32, 48, 3), np.float32), 1.0),
        (np.zeros((32, 48), np.uint8), 1.0),
        (np.zeros((32, 48, 2), np.uint8), 1.0),
        (np.zeros((0, 48, 3), np.uint8), 1.0),
        (np.zeros((32, 48, 4), np.uint8), 1.0),
        (np.zeros((48, 32, 3), np.uint8), 1.0),
        (np.zeros((32, 48, 3), np.uint8), 0.5),
        (np.zeros((32, 48, 3), np.uint8), 0.4),
        (np.zeros((32, 48, 3), np.uint8), -1.0),
        (np.zeros((32, 48, 3), np.uint8), float("nan")),
        (np.zeros((32, 48, 3), np.uint8), float("inf")),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_frames_that_do_not_fit(tmp_path, name, image, time):
    images = [np.zeros((32, 48, 3), np.uint8), image]
    refused(write, tmp_path / name, images, [0.5, time])
    assert names(tmp_path) == []


def test_frames_of_any_memory_layout(tmp_path):
    image = media.moving(1)[0]
    expected = read(write(tmp_path / "a", [image[::-1, ::-1].copy()]))[0].image
    assert np.array_equal(read(write(tmp_path / "b", [image[::-1, ::-1]]))[0].image, expected)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("a.mp4", 3_000), ("a.mp4", 40_000), ("a.mkv", 40_000), ("frames", 3_000)],
)
def test_a_full_disk(tmp_path, name, limit):
    resource = pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (6, 96, 128, 3), dtype=np.uint8))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(InputError) as caught:
            write(tmp_path / name, images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "cannot be written" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_overwriting(tmp_path, name):
    path = write(tmp_path / name, media.moving(3))
    assert "existing output" in refused(VideoWriter, path, frame_rate=25)
    assert "existing output" in refused(write, path, media.moving(4))
    with (
        pytest.raises(RuntimeError),
        VideoWriter(path, frame_rate=25, overwrite=True) as writer,
    ):
        writer.write(media.moving(1)[0], 0.0)
        raise RuntimeError
    assert len(read(path)) == 3
    with VideoWriter(path, frame_rate=25, overwrite=True) as writer:
        for number, image in enumerate(media.moving(5)):
            writer.write(image, number / 25)
        assert len(read(path)) == 3  # until the end
    assert len(read(path)) == 5
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_the_input_may_be_replaced(tmp_path, name):
    path = write(tmp_path / name, media.moving(4))
    with VideoWriter(path, frame_rate=24, overwrite=True, audio_from=path) as writer:
        for frame in VideoReader(path):
            writer.write(255 - frame.image, frame.pts_seconds)
    assert len(read(path)) == 4
    assert np.abs(read(path)[0].image.astype(int) + media.moving(1)[0] - 255).mean() < 5
    assert names(tmp_path) == [name]


def test_only_own_folders_are_replaced(tmp_path):
    path = write(tmp_path / "frames", media.moving(2))
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    assert "other than" in refused(VideoWriter, path, frame_rate=25, overwrite=True)
    assert names(path) == ["00000000.png", "00000001.png", "notes.txt"]
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert "other than" in refused(VideoWriter, tmp_path / "file", frame_rate=25, overwrite=True)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_link_stays_a_link(tmp_path):
    target = write(tmp_path / "a.mp4", media.moving(2))
    link = tmp_path / "link.mp4"
    link.symlink_to(target)
    write(link, media.moving(3), overwrite=True)
    assert link.is_symlink()
    assert len(read(target)) == 3


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_outputs_have_the_usual_permissions(tmp_path, name):
    path = write(tmp_path / name, media.moving(1))
    umask = os.umask(0)
    os.umask(umask)
    usual = 0o666 if name == "a.mp4" else 0o777
    assert stat.S_IMODE(path.stat().st_mode) == usual & ~umask
