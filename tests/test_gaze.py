"""Claims about where the eye looks: units, files, loss of the tracker, simulation, geometry."""

import math
import time as clock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepfovea.config import InputError
from deepfovea.gaze import (
    DEFAULT_DISPLAY,
    UNITS,
    DisplayGeometry,
    GazeTrack,
    center,
    fixed,
    from_pixels,
    parse_point,
    random_point,
    synthetic,
    to_pixels,
)

finite = st.floats(-3, 3)
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
VIDEO = (480, 640)


def track(times, positions, valid=None):
    valid = [True] * len(times) if valid is None else valid
    return GazeTrack(np.array(times), np.array(positions), np.array(valid))


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value).splitlines()) == 1


# --- units -----------------------------------------------------------------------------------


@given(hnp.arrays(float, (3, 2), elements=finite), sizes)
def test_pixels_and_normalised_are_inverse(position, size):
    assert np.allclose(from_pixels(to_pixels(position, *size), *size), position, atol=1e-9)


def test_pixel_centres_lie_half_a_pixel_inside_the_edges():
    assert to_pixels([[0, 0], [0.5, 0.5], [1, 1]], 4, 8).tolist() == [
        [-0.5, -0.5],
        [3.5, 1.5],
        [7.5, 3.5],
    ]
    assert from_pixels([0, 0], 4, 8).tolist() == [1 / 16, 1 / 8]


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), sizes)
def test_a_point_is_the_same_in_every_unit(x, y, size):
    numbers = {
        "px": to_pixels([x, y], *size).tolist(),
        "norm": [x, y],
        "ndc": [2 * x - 1, 1 - 2 * y],
        "norm_up": [x, 1 - y],
    }
    assert set(numbers) == set(UNITS)
    for units, (a, b) in numbers.items():
        point = parse_point(f"{a!r},{b!r}", units, frame_size=size)
        assert np.allclose(point.position, [[x, y]])


def test_ndc_is_up_and_right():
    assert parse_point("-1,1", "ndc").position.tolist() == [[0, 0]]
    assert parse_point(" 1 , -1 ", "ndc").position.tolist() == [[1, 1]]


# --- tracks ----------------------------------------------------------------------------------


def test_a_track_is_a_value():
    times = np.array([0.0, 1.0])
    gaze = track(times, [[0, 0], [1, 1]])
    times[0] = 9
    assert gaze.time_seconds[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        gaze.position[0] = 0.5
    with pytest.raises(AttributeError):
        gaze.valid = None


@pytest.mark.parametrize(
    ("times", "positions", "valid"),
    [
        ([], np.zeros((0, 2)), []),
        ([0.0, 0.0], [[0, 0], [1, 1]], [True, True]),
        ([1.0, 0.0], [[0, 0], [1, 1]], [True, True]),
        ([0.0, np.nan], [[0, 0], [1, 1]], [True, True]),
        ([0.0], [[np.nan, 0]], [True]),
        ([0.0], [[0, 0, 0]], [True]),
        ([0.0, 1.0], [[0, 0]], [True, True]),
    ],
)
def test_a_track_that_does_not_fit_together_is_refused(times, positions, valid):
    with pytest.raises(InputError) as error:
        track(times, positions, valid)
    assert one_line(error)


def test_pixels_are_float32_of_the_asked_frame():
    gaze = fixed(0.25, 0.75).pixels([0, 1, 2], 100, 200)
    assert gaze.dtype == torch.float32
    assert gaze.tolist() == [[49.5, 74.5]] * 3


@given(st.lists(st.floats(-1e5, 1e5), max_size=5))
def test_a_constant_never_decays(times):
    assert fixed(0.2, 0.3).at(times).tolist() == [[0.2, 0.3]] * len(times)
    assert center().at(times).tolist() == [[0.5, 0.5]] * len(times)


FAST = track(np.arange(11) / 100, np.linspace([0, 0], [0.1, 0.2], 11))  # 100 Hz until 0.1 s


def test_the_latest_sample_at_or_before_the_frame_counts():
    assert FAST.at([0.05, 0.0589]).tolist() == [FAST.position[5].tolist()] * 2


def test_a_frame_time_rounded_to_milliseconds_finds_its_own_sample():
    per_frame = track(np.arange(300) / 30, np.linspace([0, 0], [1, 1], 300))
    rounded = np.round(np.arange(300) / 30, 3)
    assert np.array_equal(per_frame.at(rounded), per_frame.position)


@pytest.mark.parametrize(
    ("age", "share"), [(0, 0), (99, 0), (100, 0), (101, 1 / 150), (175, 0.5), (250, 1), (9999, 1)]
)
@pytest.mark.parametrize("told", [True, False])  # by invalid samples, or by silence
def test_hold_and_return_times_are_exact(age, share, told):
    lost = FAST
    if told:
        times = np.arange(2000) / 100
        positions = np.where(times[:, None] < 0.105, 0.1 * times[:, None] / 0.1, np.nan) * [1, 2]
        lost = track(times, positions, times < 0.105)
    expected = np.array([0.1, 0.2]) * (1 - share) + 0.5 * share
    assert np.allclose(lost.at([0.1 + age / 1000])[0], expected, atol=1e-9)


def test_after_the_loss_the_first_valid_sample_counts_at_once():
    gaze = track([0, 0.05, 0.1, 1.0, 1.05], [[0, 0]] * 3 + [[1, 1]] * 2, [1, 1, 0, 0, 1])
    assert gaze.at([0.14, 1.049, 1.05]).tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


def test_before_the_first_valid_sample_the_gaze_is_at_the_centre():
    gaze = track([1.0, 2.0, 3.0], [[np.nan, 0], [0, 0], [0, 0]], [False, True, True])
    assert gaze.at([-5, 0, 1, 1.9]).tolist() == [[0.5, 0.5]] * 4
    assert track([0.0], [[0, 0]], [False]).at([0, 1]).tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("step", [0.2, 1.0, 7.0])
def test_a_slow_track_does_not_decay_between_its_samples(step):
    slow = track(np.arange(5) * step, np.linspace([0, 0], [1, 1], 5))
    times = np.linspace(0, 5 * step, 500, endpoint=False)
    expected = slow.position[((times + 0.001) / step).astype(int)]
    assert np.allclose(slow.at(times), expected)
    assert slow.at([5.5 * step + 0.1501]).tolist() == [[0.5, 0.5]]


def test_a_slow_track_decays_from_the_invalid_sample_on():
    slow = track([0.0, 1.0, 2.0], [[0, 0]] * 3, [True, False, True])
    assert np.allclose(slow.at([0.99, 1.0, 1.075, 1.15])[:, 0], [0, 0, 0.25, 0.5])


@settings(max_examples=50)
@given(st.data())
def test_no_sample_acts_before_its_time(data):
    """Positions and validity of later samples do not matter."""
    times = np.cumsum(data.draw(hnp.arrays(float, 8, elements=st.floats(0.01, 0.3))))
    positions = hnp.arrays(float, (8, 2), elements=finite)
    flags = hnp.arrays(bool, 8)
    now = data.draw(st.floats(0, 2))
    past = (times <= now + 0.001)[:, None]
    a, b = data.draw(positions), data.draw(positions)
    valid_a, valid_b = data.draw(flags), data.draw(flags)
    first = track(times, a, valid_a)
    second = track(times, np.where(past, a, b), np.where(past[:, 0], valid_a, valid_b))
    assert np.array_equal(first.at([now]), second.at([now]))


@settings(max_examples=50)
@given(st.data())
def test_frames_are_independent_of_each_other(data):
    valid = data.draw(hnp.arrays(bool, 30))
    gaze = track(np.arange(30) / 20, np.random.default_rng(0).random((30, 2)), valid)
    times = data.draw(st.lists(st.floats(-1, 3), min_size=1, max_size=8))
    assert np.array_equal(gaze.at(times), np.concatenate([gaze.at([t]) for t in times]))


@given(st.lists(st.integers(0, 49), min_size=1, max_size=5), st.floats(1, 120))
def test_a_track_that_counts_frames_does_not_ask_their_times(frames, rate):
    gaze = GazeTrack(
        np.arange(50) / rate, np.linspace([0, 0], [1, 1], 50), np.ones(50, bool), frame_rate=rate
    )
    strange = np.random.default_rng(0).uniform(-9, 9, len(frames))
    assert np.allclose(gaze.at(gaze.frame_times(frames, strange)), gaze.position[frames])
    by_time = GazeTrack(gaze.time_seconds, gaze.position, gaze.valid)
    assert by_time.frame_times(frames, strange).tolist() == strange.tolist()


def test_a_frame_rate_is_positive():
    with pytest.raises(InputError, match="positive rate") as error:
        GazeTrack(np.zeros(1), np.zeros((1, 2)), np.ones(1, bool), frame_rate=0.0)
    assert one_line(error)


def test_long_tracks_are_fast():
    gaze = synthetic(0, 400.0)
    assert gaze.time_seconds.size > 1e5
    begin = clock.perf_counter()
    assert gaze.at(np.arange(12_000) / 30).shape == (12_000, 2)
    assert clock.perf_counter() - begin < 0.5


# --- random and synthetic gaze ---------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(1, 500))
def test_random_points_are_seeded_and_within_the_published_bounds(seed, height, width):
    first, again = (random_point(seed, height, width).position for _ in range(2))
    assert np.array_equal(first, again)
    for value, side in zip(to_pixels(first, height, width)[0], (width, height), strict=True):
        margin = 50 if side >= 180 else 50 * side / 180
        assert margin - 1e-6 <= value <= side - margin + 1e-6


def test_random_points_fill_the_published_range():
    points = np.concatenate([random_point([7, i]).position for i in range(400)])
    x, y = to_pixels(points, 180, 320).T
    assert 50 <= x.min() < 55 and 265 < x.max() <= 270
    assert 50 <= y.min() < 55 and 125 < y.max() <= 130


@pytest.fixture(scope="module")
def explored():
    return synthetic(3, 120.0)


def test_synthetic_gaze_is_reproducible():
    assert np.array_equal(synthetic(5, 2.0).position, synthetic(5, 2.0).position)
    assert not np.array_equal(synthetic(5, 2.0).position, synthetic(6, 2.0).position)


@pytest.mark.parametrize("fov", [0.5, 5, 40, 110])
def test_synthetic_gaze_covers_the_duration_inside_the_frame(fov):
    gaze = synthetic(1, 20.0, display=DisplayGeometry(fov, 1920, 1080), rate_hz=100)
    assert gaze.time_seconds[0] == 0 and gaze.time_seconds[-1] >= 20 - 1e-9
    assert gaze.valid.all()
    assert (gaze.position >= 0).all() and (gaze.position <= 1).all()
    assert np.ptp(gaze.position, axis=0).min() > 0.2


def speed_deg(gaze, display=DEFAULT_DISPLAY):
    degrees = gaze.position * (display.width_px, display.height_px) / display.pixels_per_degree
    step = np.diff(gaze.time_seconds)
    return np.hypot(*np.diff(degrees, axis=0).T) / step


def saccades(gaze):
    """Peak speeds and durations of the runs above 30 degrees per second, a usual threshold."""
    speed = speed_deg(gaze)
    fast = np.concatenate([[False], speed > 30, [False]])
    begin, end = np.flatnonzero(np.diff(fast.astype(int))).reshape(-1, 2).T
    peaks = np.array([speed[a:b].max() for a, b in zip(begin, end, strict=True)])
    return peaks, (end - begin) / 250


def test_synthetic_gaze_fixates_most_of_the_time(explored):
    assert 0.85 < (speed_deg(explored) < 30).mean() < 0.97


def test_synthetic_gaze_makes_two_to_four_saccades_per_second(explored):
    peaks, _ = saccades(explored)
    assert 2 < len(peaks) / 120 < 4


def test_synthetic_saccades_are_as_fast_and_as_short_as_real_ones(explored):
    peaks, seconds = saccades(explored)
    assert peaks.max() < 900
    assert 100 < np.median(peaks) < 500
    assert seconds.max() < 0.1


def test_synthetic_drift_is_small(explored):
    speed = speed_deg(explored)
    slow = speed[speed < 30]
    assert 0 < np.median(slow) < 5


@pytest.mark.parametrize(
    ("duration", "rate"), [(0, 250), (-1, 250), (math.inf, 250), (1, 0), (math.nan, 1)]
)
def test_synthetic_gaze_needs_a_duration_and_a_rate(duration, rate):
    with pytest.raises(InputError) as error:
        synthetic(0, duration, rate_hz=rate)
    assert one_line(error)


# --- points on the command line --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units", "size", "says"),
    [
        ("", "px", VIDEO, "X,Y"),
        ("1", "px", VIDEO, "X,Y"),
        ("1,2,3", "px", VIDEO, "X,Y"),
        ("a,b", "px", VIDEO, "X,Y"),
        ("1\n2", "px", VIDEO, "X,Y"),
        ("nan,2", "px", VIDEO, "gaze outside the frame"),
        ("inf,2", "norm", None, "gaze outside the frame"),
        ("640,2", "px", VIDEO, "gaze outside the frame"),
        ("320,480", "px", VIDEO, "gaze outside the frame"),
        ("1.1,0.5", "norm", None, "gaze outside the frame"),
        ("-1.1,0.5", "ndc", None, "gaze outside the frame"),
        ("1,2", "cm", VIDEO, "px, norm, ndc"),
        ("1,2", "px", None, "frame size"),
    ],
)
def test_a_bad_point_is_refused(text, units, size, says):
    with pytest.raises(InputError, match=says) as error:
        parse_point(text, units, frame_size=size)
    assert one_line(error)


def test_a_point_in_pixels_of_the_video():
    gaze = parse_point("319.5,239.5", frame_size=VIDEO)
    assert gaze.position.tolist() == [[0.5, 0.5]]


# --- display geometry ------------------------------------------------------------------------

displays = st.builds(
    DisplayGeometry, st.floats(1, 150), st.integers(100, 4000), st.integers(100, 4000)
)


def test_pixels_per_degree_at_the_centre_is_analytic():
    at_distance_of_its_width = DisplayGeometry(math.degrees(2 * math.atan(0.5)), 1000, 500)
    assert at_distance_of_its_width.pixels_per_degree == pytest.approx(1000 * math.pi / 180)


@given(displays)
def test_pixels_per_degree_agrees_with_the_eccentricity(display):
    middle = torch.tensor([100.0, 50.0], dtype=torch.float64)
    next_pixel = display.eccentricity_deg(middle, 101, 201)[50, 101].item()
    display_pixels = display.width_px / 201
    assert display_pixels / next_pixel == pytest.approx(display.pixels_per_degree, rel=0.02)


@given(displays, st.integers(0, 14), st.integers(0, 10))
def test_eccentricity_is_zero_at_the_gaze_and_only_there(display, x, y):
    map_deg = display.eccentricity_deg(torch.tensor([float(x), float(y)]), 11, 15)
    assert map_deg[y, x] == 0
    assert (map_deg > 0).sum() == 11 * 15 - 1
    assert (map_deg < 180).all()


@given(displays)
def test_eccentricity_from_the_centre_is_an_arctangent(display):
    h, w = 11, 15
    map_deg = display.eccentricity_deg(torch.tensor([7.0, 5.0], dtype=torch.float64), h, w)
    half = math.tan(math.radians(display.horizontal_fov_deg) / 2)
    offset = (torch.arange(w, dtype=torch.float64) - 7) / (w / 2) * half
    assert torch.allclose(map_deg[5], torch.rad2deg(torch.atan(offset.abs())))
    offset = (torch.arange(h, dtype=torch.float64) - 5) / (h / 2) * half
    offset = offset * display.height_px / display.width_px
    assert torch.allclose(map_deg[:, 7], torch.rad2deg(torch.atan(offset.abs())))


@given(displays)
def test_eccentricity_has_the_symmetries_of_the_frame(display):
    h, w = 9, 12
    gaze = torch.tensor([2.0, 3.0], dtype=torch.float64)
    map_deg = display.eccentricity_deg(gaze, h, w)
    mirrored = display.eccentricity_deg(torch.tensor([w - 3.0, 3.0], dtype=torch.float64), h, w)
    assert torch.allclose(map_deg, mirrored.flip(1))
    other = display.eccentricity_deg(torch.tensor([9.0, 7.0], dtype=torch.float64), h, w)
    assert torch.allclose(map_deg[7, 9], other[3, 2])


@given(displays, st.floats(-20, 40), st.integers(0, 10))
def test_eccentricity_grows_along_a_row_away_from_the_gaze(display, x, y):
    row = display.eccentricity_deg(torch.tensor([x, float(y)], dtype=torch.float64), 11, 21)[y]
    right = row[torch.arange(21) >= x]
    left = row[torch.arange(21) <= x]
    assert (right.diff() > 0).all()
    assert (left.diff() < 0).all()


def test_eccentricity_takes_any_leading_shape():
    gaze = torch.rand(2, 3, 2) * 10
    maps = DEFAULT_DISPLAY.eccentricity_deg(gaze, 6, 8)
    assert maps.shape == (2, 3, 6, 8)
    alone = DEFAULT_DISPLAY.eccentricity_deg(gaze[1, 2], 6, 8)
    assert torch.allclose(maps[1, 2], alone, atol=1e-4)
    assert DEFAULT_DISPLAY.eccentricity_deg(torch.tensor([1, 2]), 6, 8).dtype == torch.float32


@pytest.mark.parametrize(
    "values", [(0, 10, 10), (180, 10, 10), (math.nan, 10, 10), (40, 0, 10), (40, 10, -1)]
)
def test_an_impossible_display_is_refused(values):
    with pytest.raises(InputError) as error:
        DisplayGeometry(*values)
    assert one_line(error)
