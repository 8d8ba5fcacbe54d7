"""Claims about the metadata of pictures: primaries, depth, fields, crop."""

from __future__ import annotations

import struct

import av
import media
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from PIL import Image, ImageCms

from deepfovea.video import VideoReader
from deepfovea.video.crop import container_crop

# CIE xy of red, green and blue, all with white D65: ITU-R BT.709-6, BT.601-7 (625 and
# 525 lines), BT.2020-2, SMPTE EG 432-1
XY = {
    1: [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],
    5: [(0.64, 0.33), (0.29, 0.60), (0.15, 0.06)],
    6: [(0.63, 0.34), (0.31, 0.595), (0.155, 0.07)],
    9: [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)],
    12: [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)],
}
COLOURS = np.array(
    [
        [(128, 128, 128), (255, 255, 255), (0, 0, 0), (200, 60, 60)],
        [(60, 180, 70), (70, 80, 190), (210, 190, 80), (150, 90, 160)],
        [(90, 160, 170), (30, 30, 30), (220, 140, 120), (100, 120, 90)],
    ],
    np.uint8,
)
"""Inside all of these gamuts."""


def to_xyz(primaries):
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in XY[primaries]]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def in_primaries(image, primaries):
    """BT.709 RGB [H, W, 3], 0 to 255, as values of other primaries with the same curve."""
    values = image / 255.0
    light = np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))
    light = light @ (np.linalg.inv(to_xyz(primaries)) @ to_xyz(1)).T
    light = light.clip(0, None)
    return 255 * np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def read(path):
    return list(VideoReader(path))


def centres(image):
    return media.patch_centres(image)


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("primaries", "matrix", "curve"),
    [(9, 9, 14), (9, 9, 15), (9, 9, 1), (12, 1, 1), (6, 6, 6), (5, 6, 6), (12, 1, 2)],
)
def test_other_primaries_become_those_of_bt709(tmp_path, primaries, matrix, curve, full_range):
    image = media.patches(48, 64, COLOURS)
    stored = in_primaries(image, primaries)
    path = media.write_video(
        tmp_path / "a.mkv",
        [media.to_yuv444(stored, matrix, full_range)],
        codec="ffv1",
        pix_fmt="yuv444p",
        frame_format="yuv444p",
        tags={
            "colorspace": matrix,
            "color_primaries": primaries,
            "color_trc": curve,
            "color_range": 2 if full_range else 1,
        },
    )
    shown = centres(read(path)[0].image)
    assert np.abs(shown - centres(image)).max() <= 3
    if primaries in (9, 12):
        assert np.abs(centres(stored) - centres(image)).max() > 15


def test_colours_keep_their_alpha_when_they_are_converted(tmp_path):
    rgba = np.concatenate([media.patches(48, 64, COLOURS), np.full((48, 64, 1), 255, np.uint8)], -1)
    rgba[10:30, 20:40, 3] = 0
    tags = {"color_primaries": 9, "color_trc": 14}
    path = media.write_video(
        tmp_path / "a.mkv", [rgba], codec="ffv1", pix_fmt="bgra", frame_format="rgba", tags=tags
    )
    image = read(path)[0].image
    assert np.array_equal(image[..., 3], rgba[..., 3])
    assert np.abs(image[..., :3].astype(int) - rgba[..., :3]).max() > 10


def test_colours_that_are_not_converted_are_said(tmp_path, caplog):
    image = media.patches(48, 64, COLOURS)
    path = media.write_video(
        tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="yuv444p", tags={"color_trc": 9}
    )
    reader = VideoReader(path)
    for _ in range(2):
        shown = centres(next(iter(reader)).image)
    assert caplog.text.count("uncommon") == 1
    assert np.abs(shown - centres(image)).max() <= 3


def test_an_icc_profile_is_applied(tmp_path):
    image = media.patches(48, 64, COLOURS)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = with_columns_swapped(srgb)
    for name in ("a.png", "a.tif"):
        for profile, expected in ((srgb, image), (swapped, image[..., [1, 0, 2]])):
            Image.fromarray(image).save(tmp_path / name, icc_profile=profile)
            shown = centres(read(tmp_path / name)[0].image)
            assert np.abs(shown - centres(expected)).max() <= 2


def with_columns_swapped(profile):
    """An ICC profile whose red is green and whose green is red, under another name."""
    data = bytearray(profile)
    count = struct.unpack(">I", data[128:132])[0]
    for at in range(132, 132 + 12 * count, 12):
        swap = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
        data[at : at + 4] = swap.get(bytes(data[at : at + 4]), data[at : at + 4])
    return bytes(data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["gray", "gbrp"])
def test_deep_rgb_and_grey_are_rounded(tmp_path, kind, bits):
    levels = np.linspace(0, 2**bits - 1, 32 * 64).round().astype(np.uint16).reshape(32, 64)
    pixels = f"{kind}{bits}le"
    frame = av.VideoFrame(64, 32, pixels)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint16).reshape(32, -1)[:, :64] = levels
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 32, pixels
        stream.codec_context.color_range = 2
        frame.pts, frame.color_range = 0, 2
        container.mux([*stream.encode(frame), *stream.encode(None)])
    image = read(path)[0].image
    exact = levels[..., None] * (255 / (2**bits - 1))
    assert np.abs(image - exact).max() < 0.5 + 1 / 257  # what FFmpeg makes 16 bits of is no finer


def test_sixteen_bits_of_png_come_back_exactly(tmp_path):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(levels * 257).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png")[0].image[..., 1], levels)
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 16, 16, "rgba64be", 1
    frame = av.VideoFrame(16, 16, "rgba64be")
    values = (levels[..., None].repeat(4, -1) * 257).astype(">u2")
    np.frombuffer(frame.planes[0], ">u2").reshape(16, -1)[:, :64] = values.reshape(16, 64)
    frame.pts = 0
    (tmp_path / "rgba.png").write_bytes(b"".join(bytes(p) for p in context.encode(frame)))
    assert np.array_equal(read(tmp_path / "rgba.png")[0].image, levels[..., None].repeat(4, -1))


# Interlaced


def interlaced(path, count=8, first=0):
    """Interlaced frames of a bar that moves between two fields."""
    fields = []
    for number in range(2 * count):
        field = np.full((96, 128, 3), 40, np.uint8)
        field[:, 20 + 4 * number : 44 + 4 * number] = 220
        fields.append(field)
    images = []
    for number in range(count):
        woven = fields[2 * number].copy()
        if number >= first:
            woven[1::2] = fields[2 * number + 1][1::2]
        images.append(woven)
    with av.open(str(path), "w") as container:
        options = {"flags": "+ildct+ilme", "g": "4", "bf": "0"}
        stream = container.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.bit_rate = 8_000_000
        graph = av.filter.Graph()
        source = graph.add_buffer(width=128, height=96, format="rgb24", time_base="1/25")
        fields_of = graph.add("setfield", "tff")
        graph.link_nodes(source, fields_of, graph.add("buffersink")).configure()
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts = number
            if number >= first:
                graph.push(frame)
                frame = graph.pull()
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def combs(image):
    """The mean difference between odd rows and the even rows around them, in levels."""
    rows = image[..., 1].astype(float)
    return np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean()


def test_interlaced_video_is_deinterlaced_and_said(tmp_path, caplog):
    path = interlaced(tmp_path / "a.mpg")
    with av.open(str(path)) as container:
        woven = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = read(path)
    assert len(frames) == len(woven) == 8
    assert np.mean([combs(image) for image in woven]) > 3
    assert np.mean([combs(frame.image) for frame in frames]) < 1
    np.testing.assert_allclose([f.pts_seconds for f in frames], np.arange(8) / 25, atol=1e-4)
    assert caplog.text.count("deinterlaced") == 1


def test_a_seek_into_interlaced_video_is_exact(tmp_path):
    with VideoReader(interlaced(tmp_path / "a.mpg", 20)) as reader:
        whole = list(reader)
        for frame in whole[1:]:
            found = next(reader.seek(frame.pts_seconds))
            assert found.pts_seconds == frame.pts_seconds
            np.testing.assert_array_equal(found.image, frame.image)


def test_video_that_becomes_interlaced(tmp_path):
    frames = read(interlaced(tmp_path / "a.mpg", 10, first=5))
    assert len(frames) == 10
    np.testing.assert_allclose([f.pts_seconds for f in frames], np.arange(10) / 25, atol=1e-4)
    assert np.mean([combs(frame.image) for frame in frames]) < 1


def test_pictures_stored_in_passes_have_no_fields(tmp_path, caplog):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 60, 40, "rgb24", 1
    context.options = {"flags": "+ildct"}  # Adam7
    frame = av.VideoFrame.from_ndarray(image)
    frame.pts = 0
    (tmp_path / "a.png").write_bytes(b"".join(bytes(p) for p in context.encode(frame)))
    assert (tmp_path / "a.png").read_bytes()[28] == 1
    assert np.array_equal(read(tmp_path / "a.png")[0].image, image)
    assert not caplog.records


# Crop


def with_matroska_crop(path, top, bottom):
    """A video 64x48, its colour element overwritten with a crop."""
    media.write_video(
        path,
        media.moving(3, 64, 48),
        tags={"color_primaries": 1, "color_trc": 1, "colorspace": 1},
        container_options={"write_crc32": "0"},
    )
    data = bytearray(path.read_bytes())
    at = data.index(b"\x55\xb0")
    size = 3 + (data[at + 2] & 0x7F)
    crop = b"\x54\xbb\x81" + bytes([top]) + b"\x54\xaa\x81" + bytes([bottom])
    rest = size - len(crop) - 2
    data[at : at + size] = crop + b"\xec" + bytes([0x80 | rest]) + bytes(rest)  # and nothing
    path.write_bytes(data)
    return path


def test_a_crop_of_matroska_is_applied(tmp_path):
    path = with_matroska_crop(tmp_path / "a.mkv", 10, 6)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with VideoReader(path) as reader:
        assert (reader.width, reader.height) == (48, 48)
        for frame, image in zip(reader, whole, strict=True):
            assert frame.image.shape == (48, 48, 3)
            assert np.abs(frame.image.astype(int) - image[10:58]).mean() < 3


def with_clean_aperture(path, aperture, **options):
    """Insert a clap box into an MP4 whose index lies behind its data."""
    media.write_video(path, media.moving(3, 64, 48), **options)
    data = bytearray(path.read_bytes())
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", *aperture)
    at, end, boxes = 0, len(data), [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"]
    for box in boxes:
        while at < end:
            size, name = struct.unpack(">I4s", data[at : at + 8])
            if name == box:
                break
            at += size
        data[at : at + 4] = struct.pack(">I", size + 40)
        end, at = at + size, at + 8 + {b"stsd": 8}.get(box, 0)
    at += 78
    data[at:at] = clap
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_clean_aperture_is_applied_before_the_rotation(tmp_path, degrees):
    aperture = (40, 1, 50, 1, 2, 1, -3, 1)  # 40 x 50, its centre 2 right of and 3 above that of all
    path = with_clean_aperture(tmp_path / "a.mp4", aperture, rotation=(degrees, False))
    with av.open(str(path)) as container:
        whole = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = np.rot90(whole[4:54, 6:46], degrees // 90)
    image = read(path)[0].image
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 3


def test_a_crop_inside_the_stream_is_exact_to_the_pixel(tmp_path):
    path = media.write_video(tmp_path / "a.h264", media.moving(3, 64, 96))
    whole = read(path)[0].image
    cropped = tmp_path / "b.h264"
    with av.open(str(path)) as source, av.open(str(cropped), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        sides = "crop_left=6:crop_right=10:crop_top=2:crop_bottom=4"
        context = BitStreamFilterContext(f"h264_metadata={sides}", source.streams.video[0], stream)
        for packet in source.demux(video=0):
            for out in context.filter(packet if packet.size else None):
                container.mux(out)
    image = read(cropped)[0].image
    assert image.shape == (58, 80, 3)
    assert np.abs(image.astype(int) - whole[2:60, 6:86]).mean() < 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"])
def test_damaged_containers_have_no_crop_and_raise_nothing(tmp_path, kind, seed):
    if "mov" in kind:
        path = with_clean_aperture(tmp_path / "a.mp4", (40, 1, 50, 1, 0, 1, 0, 1))
    else:
        path = with_matroska_crop(tmp_path / "a.mkv", 10, 6)
    rng = np.random.default_rng(seed)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[rng.integers(0, len(data), 200)] = rng.integers(0, 256, 200)
    path.write_bytes(data[: rng.integers(1, len(data))].tobytes())
    assert min(container_crop(path, kind, 0)) >= 0
