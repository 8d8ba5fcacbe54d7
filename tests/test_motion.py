"""Claims about motion vectors read from files."""

import struct
import sys
import zlib

import numpy as np
import pytest
import torch

from deepfovea.config import InputError
from deepfovea.motion import fill_motion, read_motion, write_flo


def field(height=6, width=8):
    values = np.random.default_rng(0).uniform(-9, 9, (2, height, width))
    return (np.round(values * 64) / 64).astype(np.float32)  # KITTI's steps


def write_kitti(path, motion, valid=None, bits=16):
    """Write a PNG by its specification."""
    height, width = motion.shape[1:]
    values = np.zeros((height, width, 3), ">u2")
    values[..., :2] = (64 * motion + 2**15).transpose(1, 2, 0)
    values[..., 2] = 1 if valid is None else valid
    rows = values if bits == 16 else (values >> 8).astype(np.uint8)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_exr(path, **channels):
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed (extra exr)")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {n.replace("__", "."): v.copy() for n, v in channels.items()}) as file:
        file.write(str(path))


def write(path, motion):
    if path.suffix == ".flo":
        write_flo(path, motion)
    elif path.suffix == ".npy":
        np.save(path, motion)
    elif path.suffix == ".png":
        write_kitti(path, motion)
    else:
        write_exr(path, R=motion[0], G=motion[1])


@pytest.mark.parametrize("suffix", [".flo", ".npy", ".png", ".exr"])
def test_a_field_comes_back_from_every_format(tmp_path, suffix):
    path = tmp_path / f"0001{suffix}"
    write(path, field())
    read = read_motion(path)
    assert read.dtype == torch.float32
    assert np.array_equal(read.numpy(), field())


def test_flo_is_what_middlebury_says(tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii4f", 2, 1, 1.0, 2.0, 3.0, -4.0))
    assert read_motion(path).tolist() == [[[1.0, 3.0]], [[2.0, -4.0]]]


def test_unknown_vectors_are_nan_in_both_coordinates(tmp_path):
    motion = field()
    motion[1, 2, 3] = np.nan
    write_flo(tmp_path / "a.flo", motion)
    np.save(tmp_path / "a.npy", motion)
    valid = ~np.isnan(motion).any(0)
    write_kitti(tmp_path / "a.png", np.nan_to_num(motion), valid)
    for name in ("a.flo", "a.npy", "a.png"):
        read = read_motion(tmp_path / name)
        assert read.isnan().sum() == 2 and read[:, 2, 3].isnan().all(), name


def test_filled_motion_is_finite_and_keeps_what_is_known():
    motion = torch.from_numpy(field())
    motion[:, 2, 3] = float("nan")
    filled = fill_motion(motion)
    assert filled.isfinite().all()
    known = ~motion.isnan()
    torch.testing.assert_close(filled[known], motion[known])
    assert fill_motion(torch.full((2, 4, 4), float("nan"))).eq(0).all()


def test_arrays_may_have_x_and_y_last(tmp_path):
    np.save(tmp_path / "a.npy", field().transpose(1, 2, 0).astype(np.float64))
    assert np.array_equal(read_motion(tmp_path / "a.npy").numpy(), field())


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("norm", (1 / 8, 1 / 6)), ("norm_up", (1 / 8, -1 / 6)), ("ndc", (2 / 8, -2 / 6))],
)
def test_units_are_converted(tmp_path, unit, factor):
    np.save(tmp_path / "a.npy", field() * np.array(factor)[:, None, None])
    read = read_motion(tmp_path / "a.npy", unit=unit)
    np.testing.assert_allclose(read, field(), rtol=1e-5, atol=1e-6)
    reverse = read_motion(tmp_path / "a.npy", unit=unit, from_previous=True)
    assert torch.equal(reverse, -read)


def test_a_larger_field_gives_whole_vectors_in_smaller_pixels(tmp_path):
    motion = np.zeros((2, 24, 32), np.float32)
    motion[0, :, :10] = 8.0  # an edge within a low-resolution pixel
    np.save(tmp_path / "a.npy", motion)
    read = read_motion(tmp_path / "a.npy", (6, 8))
    assert set(read[0].unique().tolist()) == {0.0, 2.0}  # nothing between the two sides
    assert read[0, 0].tolist() == [2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    left = read_motion(tmp_path / "a.npy", (6, 8), jitter=(-0.25, 0.0))
    assert left[0, 0].tolist() == [2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_shares_of_the_frame_do_not_depend_on_the_size_of_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 24, 32), 0.25))
    read = read_motion(tmp_path / "a.npy", (6, 8), unit="norm")
    assert torch.equal(read, torch.tensor([2.0, 1.5])[:, None, None].expand(2, 6, 8))


def test_exr_channels_are_found_or_named(tmp_path):
    x, y = field()
    path = tmp_path / "a.exr"
    write_exr(path, Vector__X=x, Vector__Y=y, Vector__Z=y, Depth=x)
    assert np.array_equal(read_motion(path).numpy(), field())
    assert np.array_equal(read_motion(path, channels=("Vector.Y", "Depth")).numpy(), [y, x])
    write_exr(path, Vector__X=x, Vector__Y=y, Normal__X=x, Normal__Y=y)
    with pytest.raises(InputError, match=r"Normal\.X, Normal\.Y, Vector\.X.*names of the two"):
        read_motion(path)


def test_exr_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[exr\]'"):
        read_motion(tmp_path / "a.exr")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.flo", b"", "0 bytes that are no .flo file"),
        ("a.flo", b"PIEH" + struct.pack("<ii", 9, 9), "not all of one"),
        ("a.flo", b"XXXX" + struct.pack("<iiff", 1, 1, 0, 0), "no .flo file"),
        ("a.flo", b"PIEH" + struct.pack("<ii", -1, -1) + bytes(8), "no .flo file"),
        ("a.npy", b"nothing", "cannot be read as an array"),
        ("a.npy", b"", "cannot be read as an array"),
        ("a.png", b"nothing", "no picture that can be read"),
        ("a.exr", b"nothing", "cannot be read as an EXR file"),
        ("a.txt", b"", "expected motion as one of .flo, .npy, .png, .exr"),
        ("missing.flo", None, "cannot be read (No such file"),
        ("missing.png", None, "cannot be read (No such file"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, content, complaint):
    if name == "a.exr":
        pytest.importorskip("OpenEXR", reason="OpenEXR is not installed (extra exr)")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_motion(tmp_path / name)
    assert complaint in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_and_pictures_of_other_kinds_are_refused(tmp_path):
    for values in (np.zeros((3, 4, 5)), np.zeros(2), np.zeros((2, 4, 0)), np.full((2, 3, 3), "a")):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(InputError, match=r"expected numbers \[2, h, w\]"):
            read_motion(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an array"):
        read_motion(tmp_path / "a.npy")
    write_kitti(tmp_path / "a.png", field(), bits=8)
    with pytest.raises(InputError, match="three channels of 16 bits"):
        read_motion(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(12, 16), (3, 8), (4, 4)])
def test_another_size_is_refused(tmp_path, size):
    np.save(tmp_path / "a.npy", field())
    with pytest.raises(InputError, match="received motion of 8x6; expected"):
        read_motion(tmp_path / "a.npy", size)


def test_an_unknown_unit_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected one of px"):
        read_motion(tmp_path / "a.npy", unit="pixels")
