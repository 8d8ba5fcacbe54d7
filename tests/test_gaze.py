"""Claims about where the eye looks: units, files, loss of the tracker, simulation, geometry."""

import math
import time as clock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
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
    read_track,
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


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "gaze.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_track(path, **{"frame_size": VIDEO, **options})

    return read


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


# --- files -----------------------------------------------------------------------------------


def test_own_schema_in_pixels(read):
    gaze = read("time,x,y\n0,-0.5,-0.5\n0.1,319.5,239.5\n0.2,639.5,479.5\n")
    assert gaze.time_seconds.tolist() == [0, 0.1, 0.2]
    assert gaze.position.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    assert gaze.valid.all()
    assert gaze.pixels([0.1], 120, 160).tolist() == [[79.5, 59.5]]


@pytest.mark.parametrize("name", ["time", "t", "Timestamp", "time_seconds", "time [seconds]"])
def test_names_of_the_time_column(read, name):
    assert read(f"{name},x,y\n1,2,3\n2,2,3").time_seconds.tolist() == [1, 2]


def test_frame_numbers_become_times(read):
    assert read("frame,x,y\n0,2,3\n30,2,3", frame_rate=30).time_seconds.tolist() == [0, 1]
    both = read("frame,time,x,y\n0,5,2,3\n30,7,2,3", frame_rate=30)
    assert both.time_seconds.tolist() == [5, 7]


@pytest.mark.parametrize("stated", ["x [{}],y [{}]", "x_{},y_{}", "X ({}),Y ({})", "x,y"])
@pytest.mark.parametrize(
    ("units", "row"),
    [("px", "159.5,119.5"), ("norm", ".25,.25"), ("ndc", "-.5,.5"), ("norm_up", ".25,.75")],
)
def test_units_are_stated_by_the_columns_or_by_the_caller(read, stated, units, row):
    given_units = units if stated == "x,y" else None
    gaze = read(f"t,{stated.format(units, units)}\n0,{row}\n", units=given_units)
    assert gaze.position.tolist() == [[0.25, 0.25]]


def test_units_in_the_columns_prevail(read):
    assert read("t,x_norm,y_norm\n0,.5,.5", units="px").position.tolist() == [[0.5, 0.5]]


def test_confidence_blinks_and_gaps_make_samples_invalid(read):
    gaze = read(
        "time,x,y,confidence,blink,valid\n"
        "0,5,5,0.6,0,1\n1,5,5,0.59,0,1\n2,5,5,1,1,1\n3,5,5,1,TRUE,1\n4,5,5,1,false,yes\n"
        "5,5,5,,0,1\n6,,5,1,0,1\n7,nan,5,1,0,1\n8,5,inf,1,0,1\n9,5,5,1,,\n10,5,5,1,0,False\n"
        "11,5\n12,5,5,1,no,1,extra\n"
    )
    assert np.flatnonzero(gaze.valid).tolist() == [0, 4, 9, 12]
    assert gaze.time_seconds.tolist() == list(range(13))


def test_the_confidence_limit_is_a_parameter(read):
    text = "time,x,y,confidence\n0,5,5,0.3\n1,5,5,0.7\n"
    assert read(text, min_confidence=0.2).valid.tolist() == [True, True]
    assert read(text, min_confidence=0.5).valid.tolist() == [False, True]


def test_rows_are_sorted_and_the_last_of_equal_times_counts(read):
    gaze = read("time,x,y\n2,2,2\n0,0,0\n1,1,1\n1,9,9\n,4,4\nnan,4,4\n\n")
    assert gaze.time_seconds.tolist() == [0, 1, 2]
    assert to_pixels(gaze.position, *VIDEO)[:, 0].round(6).tolist() == [0, 9, 2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_dialects_of_csv(read, delimiter, newline, bom):
    rows = ["time,x,y", "0,5,5", '"1", 6 ,7', ""]
    text = newline.join(rows).replace(",", delimiter)
    gaze = read(bom + text.encode())
    assert to_pixels(gaze.position, *VIDEO).round(6).tolist() == [[5, 5], [6, 7]]


def test_positions_outside_the_frame_are_kept(read):
    gaze = read("time,x,y\n0,5,5\n1,-700,5\n")
    assert gaze.valid.all()
    assert gaze.position[1, 0] < -1


def test_time_offset(read):
    text = "time,x,y\n1700000000,5,5\n1700000001,5,5\n"
    gaze = read(text, time_offset_seconds=-1.7e9)
    assert gaze.time_seconds.tolist() == [0, 1]


def test_pupil_labs_neon(read):
    gaze = read(
        "section id,recording id,timestamp [ns],gaze x [px],gaze y [px],worn,fixation id,"
        "blink id,azimuth [deg],elevation [deg]\n"
        "a,b,1700000000000000000,159.5,119.5,1.0,1,,0.0,0.0\n"
        "a,b,1700000000005000000,319.5,239.5,1.0,,,0.0,0.0\n"
        "a,b,1700000000010000000,319.5,239.5,1.0,,1,0.0,0.0\n"
        "a,b,1700000000015000000,319.5,239.5,0.0,,,0.0,0.0\n"
    )
    assert np.allclose(gaze.time_seconds, [0, 0.005, 0.010, 0.015], atol=1e-6)
    assert gaze.position[:2].tolist() == [[0.25, 0.25], [0.5, 0.5]]
    assert gaze.valid.tolist() == [True, True, False, False]


def test_pupil_core_counts_from_the_bottom(read):
    gaze = read(
        "gaze_timestamp,world_index,confidence,norm_pos_x,norm_pos_y,base_data\n"
        "-120.50,0,0.99,0.25,0.75,-120.5-0\n"
        "-120.49,0,0.10,0.25,0.75,-120.5-0\n"
        "-120.00,12,0.80,1.00,0.00,-120.5-1\n",
    )
    assert np.allclose(gaze.time_seconds, [0, 0.01, 0.5])
    assert gaze.position.tolist() == [[0.25, 0.25], [0.25, 0.25], [1, 1]]
    assert gaze.valid.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no rows, or no text"),
        (b"time,x,y\n", "no rows, or no text"),
        (b"time,x,y\n0,,\n", "no valid sample"),
        (b"time,x,y,blink\n0,5,5,1\n", "no valid sample"),
        (b"time,x,y\n,5,5\n", "no valid sample"),
        (b"a,b,c\n0,1,2\n", "columns 'a, b, c'; expected time"),
        (b"time,x\n0,1\n", "columns 'time, x'"),
        (b"x,y\n0,1\n", "columns 'x, y'"),
        (b"0,1,2\n3,4,5\n", "in the first line"),
        (b"frame,x,y\n0,1,2\n", "frame rate"),
        (b"time,x,y\n0,1,2\n1,oops,2\n", "'oops' as x in row 3"),
        (b"time;x;y\n0;1,5;2\n", "'1,5' as x in row 2; expected a number with a decimal point"),
        (b'time,x,y\n0,"a\nb",2\n', "as x in row 2"),
        (b"time,x,y,confidence\n0,1,2,high\n", "'high' as confidence in row 2"),
        (
            b"time,x,y\n0,5000,5\n1,5,-50\n",
            "no position inside the frame; expected some in px; the units are probably wrong",
        ),
        (b"time,x_norm,y_norm\n0,50,50\n", "expected some in norm"),
        (b"time,x,y\n0,.4,.3\n1,.5,.5\n", "only positions from -1 to 1"),
        (b"timestamp,x,y\n1700000000,5,5\n", "0 at the first frame"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no rows, or no text"),
        (b"\xff\xfet\0,\0x\0", "no rows, or no text"),
        (b"time,x,y\n0," + b"5" * 200_000 + b",5\n", "no rows, or no text"),
        (b"\0\1\2\3,\0\n\0,\0\n", ""),
    ],
)
def test_a_bad_file_is_refused_in_one_line(read, content, says):
    with pytest.raises(InputError) as error:
        read(content)
    assert says in str(error.value)
    assert one_line(error)


def test_unknown_units_are_refused(read):
    with pytest.raises(InputError, match="'cm'; expected one of px, norm, ndc") as error:
        read("time,x,y\n0,5,5\n", units="cm")
    assert one_line(error)


def test_stated_pixels_may_be_tiny(read):
    assert read("time,x,y\n0,0,1\n", units="px").valid.all()


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match="expected a readable CSV file") as error:
            read_track(path, frame_size=VIDEO)
        assert one_line(error)


HEADERS = [
    "time,x,y,confidence,blink",
    "frame,x [norm],y [norm],valid",
    "timestamp [ns],gaze x [px],gaze y [px],worn,blink id",
    "gaze_timestamp;confidence;norm_pos_x;norm_pos_y",
]
cell = st.one_of(
    st.floats().map(repr),
    st.floats(0, 1).map(repr),
    st.sampled_from(["", "0", "no", "1e400"]),
    st.text(max_size=4),
)
rows = st.lists(st.lists(cell, max_size=6).map(",".join), max_size=6).map("\n".join)
contents = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    st.tuples(st.sampled_from(HEADERS), rows).map(
        lambda t: "\n".join(t).encode("utf-8", "replace")
    ),
)


@pytest.mark.filterwarnings("error")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents, st.sampled_from([None, *UNITS, "?"]), st.sampled_from([None, 0.0, 25.0]))
def test_any_file_is_a_track_or_an_input_error(tmp_path, content, units, frame_rate):
    path = tmp_path / "fuzz.csv"
    path.write_bytes(content)
    try:
        gaze = read_track(path, units=units, frame_size=VIDEO, frame_rate=frame_rate)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(gaze, GazeTrack)
        assert not np.isnan(gaze.at(np.linspace(-1, 10, 50))).any()


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
