"""Claims about pictures: rounding, rings at the gaze, panels and contact sheets."""

import numpy as np
import pytest
import torch

from deepfovea.images import (
    PANEL_WIDTH,
    contact_sheet,
    mark_gaze,
    resize_frame,
    side_by_side_panels,
    to_image,
)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def flat(color, height=30, width=40):
    return torch.tensor(color, dtype=torch.float32)[:, None, None].expand(3, height, width)


def ring(image):
    """Centre (x, y) of the white pixels of an array [H, W, 3], and their distances from it."""
    y, x = np.nonzero((image == image.max()).all(-1))
    center = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    return center, np.hypot(x - center[0], y - center[1])


# --- rounding ---------------------------------------------------------------------------------


def test_every_byte_comes_back():
    levels = torch.arange(256).float()[None, None].expand(3, 2, 256) / 255
    image = to_image(levels)
    assert image.dtype == np.uint8
    assert image.shape == (2, 256, 3)
    assert (image == np.arange(256)[None, :, None]).all()


def test_levels_between_are_rounded_and_the_rest_is_clamped():
    levels = torch.tensor([-3.0, -0.001, 0.4 / 255, 0.6 / 255, 99.4 / 255, 99.6 / 255, 1.0, 7.0])
    image = to_image(levels[None, None].expand(3, 1, 8))
    assert image[0, :, 0].tolist() == [0, 0, 0, 1, 99, 100, 255, 255]


def test_channels_stay_apart():
    assert to_image(flat((1.0, 0.0, 0.2), 2, 5))[1, 4].tolist() == [255, 0, 51]


# --- size -------------------------------------------------------------------------------------


def test_growing_makes_squares_of_pixels():
    frame = torch.rand(3, 5, 7)
    squares = frame.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.equal(resize_frame(frame, 20, 28), squares)
    assert torch.equal(resize_frame(frame, 5, 7), frame)


def test_shrinking_averages():
    stripes = torch.zeros(3, 40, 60)
    stripes[..., ::4] = 1.0  # without averaging they would fall between the pixels that are read
    small = resize_frame(stripes, 10, 15)
    assert small.shape == (3, 10, 15)
    inside = small[..., 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.25), rtol=0, atol=0.01)


# --- the gaze ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "radius"), [(40.0, 30.0, 10), (25.5, 61.5, 14.5), (60.0, 40.0, 8.0)]
)
def test_the_gaze_is_ringed_where_it_is(x, y, radius):
    frame = torch.full((3, 90, 100), 0.5)
    before = frame.clone()
    marked = mark_gaze(frame, x, y, radius)
    assert torch.equal(frame, before)
    center, distance = ring(marked.permute(1, 2, 0).numpy())
    assert center == (x, y)
    assert np.abs(distance - radius).max() < 1.5
    away = torch.from_numpy(np.hypot(*np.ogrid[-y : 90 - y, -x : 100 - x])) - radius
    assert (marked[:, away.abs() < 1.5] == 1.0).all()
    assert (marked[:, (away.abs() >= 1.5) & (away.abs() < 3.0)] == 0.0).all()
    assert (marked[:, away.abs() >= 3.0] == 0.5).all()


def test_whole_coordinates_are_numbers_too():
    frame = torch.rand(3, 40, 50)
    assert torch.equal(mark_gaze(frame, 20, 15, 10), mark_gaze(frame, 20.0, 15.0, 10.0))


def test_gaze_outside_leaves_the_picture():
    frame = torch.rand(3, 20, 30)
    assert torch.equal(mark_gaze(frame, -50.0, 10.0, 8.0), frame)
    assert (mark_gaze(frame, -5.0, 10.0, 8.0) != frame).any()


# --- panels -----------------------------------------------------------------------------------

COLORS = [(0.2, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.6)]


@pytest.mark.parametrize("height_width", [(48, 64), (270, 480), (90, 160), (37, 51)])
@pytest.mark.parametrize("count", [2, 3])
def test_panels_stand_side_by_side(height_width, count):
    h, w = height_width
    samples, frame = flat(COLORS[0], h, w), flat(COLORS[1], 4 * h, 4 * w)
    truth = flat(COLORS[2], 4 * h, 4 * w) if count == 3 else None
    image = side_by_side_panels(samples, frame, truth, (w / 2, h / 2))
    assert image.dtype == np.uint8
    height, width = image.shape[0], image.shape[1] // count
    assert height % 2 == width % 2 == 0
    assert image.shape[1] == count * width
    assert width == min(PANEL_WIDTH, 4 * w) // 2 * 2
    assert abs(height - width * h / w) <= 2
    for i in range(count):
        color = [round(255 * value) for value in COLORS[i]]
        assert image[0, i * width].tolist() == color
        assert image[-1, (i + 1) * width - 1].tolist() == color
        if i:
            assert (image[:, i * width : (i + 1) * width] == color).all()


@pytest.mark.parametrize("gaze", [(20.0, 15.0), (41.0, 30.0), (30.5, 22.25)])
def test_the_ring_is_on_the_pixel_that_is_looked_at(gaze):
    samples = flat((0.2, 0.2, 0.2), 48, 64)
    image = side_by_side_panels(samples, torch.zeros(3, 192, 256), None, gaze)
    (x, y), _ = ring(image[:, :256])
    # A low-resolution pixel is four of the panel's: its centre is at 4 · g + 1.5.
    assert x == pytest.approx(4 * gaze[0] + 1.5, abs=0.5)
    assert y == pytest.approx(4 * gaze[1] + 1.5, abs=0.5)


@pytest.mark.parametrize("size", [(4, 2800), (1, 7), (7, 1)])
def test_panels_of_extreme_sizes(size):
    frame = torch.rand(3, *size)
    image = side_by_side_panels(frame, frame, None, (0.0, 0.0))
    assert min(image.shape) > 0


# --- contact sheets ---------------------------------------------------------------------------


def test_a_contact_sheet_is_a_labelled_grid():
    shades = [[(10, 20, 30), (40, 50, 60), (70, 80, 90)], [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    rows = [
        [flat([v / 255 for v in color], 30 * (1 + c), 40 * (1 + c)) for c, color in enumerate(row)]
        for row in shades
    ]
    sheet = contact_sheet(rows, ["samples", "", "original"], width=120)
    gap, title, width, height = 6, 30, 120, 90
    assert sheet.dtype == np.uint8
    assert sheet.shape == (title + 2 * (height + gap), 3 * (width + gap) + gap, 3)
    background = np.ones(sheet.shape[:2], bool)
    for r in range(2):
        for c in range(3):
            top, left = title + r * (height + gap), gap + c * (width + gap)
            cell = (slice(top, top + height), slice(left, left + width))
            assert (sheet[cell] == shades[r][c]).all()
            background[cell] = False
    assert (sheet[title:][background[title:]] == 24).all()
    labelled = [(sheet[:title, gap + 126 * c : 126 * (c + 1)] != 24).any() for c in range(3)]
    assert labelled == [True, False, True]
