"""Claims about gaze files: every tracker's export, unit, clock and mark gives the same positions.

The samples are made by hand from the documentation that each test names.
"""

import gzip
import json
import logging
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfovea.config import InputError
from deepfovea.gaze import UNITS, GazeTrack, read_track, to_pixels

VIDEO = (480, 640)
SHOWN = {"frame_rate": 25, "frame_count": 50}  # a video of 2 s


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "gaze.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_track(path, **{"frame_size": VIDEO, **options})

    return read


@pytest.fixture
def refused(read):
    def refused(content, says, **options):
        with pytest.raises(InputError, match=says) as error:
            read(content, **options)
        assert one_line(error)

    return refused


@pytest.fixture
def warned(caplog):
    """Check that exactly one warning with this text was logged, or none."""

    def warned(says=None):
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        assert all(len(message.splitlines()) == 1 for message in messages)
        assert bool(messages) == (says is not None), messages
        return says is None or all(says in message for message in messages)

    caplog.set_level(logging.WARNING)
    return warned


def table(header, rows):
    return "\n".join([header, *rows]) + "\n"


def at_frames(gaze, count=50, rate=25):
    """Pixels [count, 2] at the frames of a video of constant rate."""
    frames = np.arange(count)
    return to_pixels(gaze.at(gaze.frame_times(frames, frames / rate)), *VIDEO).round(3)


CENTRE = [319.5, 239.5]
PATH = np.stack([100 + 5 * np.arange(50), 400 - 4 * np.arange(50)], axis=1)  # px at the frames


# --- our own schema --------------------------------------------------------------------------


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
    assert both.time_seconds.tolist() == [0, 1]
    assert read("frame,time,x,y\n0,5,2,3\n30,7,2,3").time_seconds.tolist() == [5, 7]


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
        "11,5\n12,5,5,1,no,1,\n"
    )
    assert np.flatnonzero(gaze.valid).tolist() == [0, 4, 9, 12]
    assert gaze.time_seconds.tolist() == list(range(13))


def test_the_confidence_limit_is_a_parameter(read):
    text = "time,x,y,confidence\n0,5,5,0.3\n1,5,5,0.7\n"
    assert read(text, min_confidence=0.2).valid.tolist() == [True, True]
    assert read(text, min_confidence=0.5).valid.tolist() == [False, True]


def test_rows_are_sorted_and_the_last_valid_one_of_equal_times_counts(read):
    gaze = read("time,x,y\n2,2,2\n0,3,3\n1,1,1\n1,9,9\n1,-,-\n,4,4\nnan,4,4\n\n")
    assert gaze.time_seconds.tolist() == [0, 1, 2]
    assert to_pixels(gaze.position, *VIDEO)[:, 0].round(6).tolist() == [3, 9, 2]


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
        (b"x,y\n0,1\n", "columns 'x, y', none of them a time; expected time"),
        (b"0,1,2\n3,4,5\n", "in the first line"),
        (b"frame,x,y\n0,1,2\n", "frame rate"),
        (b"time,x,y\n0,1,2\n1,oops,2\n", "'oops' as x in row 3"),
        (b"time;x;y\n0;1.234,5;2\n", "'1.234,5' as x in row 2; expected a number, or a mark"),
        (b"time,x,y\n0,1,2,3\n", "4 cells in row 2 under 3 names; expected as many"),
        (b'time,x,y\n0,"a\nb",2\n', "as x in row 2"),
        (b"time,x,y,confidence\n0,1,2,high\n", "'high' as confidence in row 2"),
        (
            b"time,x,y\n0,5000,5\n1,5,-50\n",
            "no position inside the frame of 640x480 (they reach from 5,-50 to 5000,5 px); "
            "expected some in px; the units are probably wrong",
        ),
        (b"time,x_norm,y_norm\n0,50,50\n", "expected some in norm"),
        (b"time,x,y\n0,.4,.3\n1,.5,.5\n", "only positions from -1 to 1"),
        (b"time,x,y,valid\n0,5,5,perhaps\n", "'perhaps' as valid; expected words such as"),
        (b"time,x [deg],y [deg]\n0,1,2\n", "directions of gaze"),
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
        with pytest.raises(InputError, match="expected a text file with a track") as error:
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
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
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


# --- cases from the field: docs/field-cases.md --------------------------------------------------

GLASSES = "".join(
    json.dumps({"type": kind, "timestamp": i / 25, "data": data}) + "\n"
    for i in range(50)
    for kind, data in (
        ("imu", {}),
        ("gaze", {} if i == 3 else {"gaze2d": [0.2 + i / 100, 0.5]}),
    )
)
"""Tobii Pro Glasses 3, gazedata (Developer Guide, Recording): a sample without gaze2d is lost."""


@pytest.mark.parametrize("packed", [False, True])
def test_tobii_glasses_3(read, packed):
    gaze = read(gzip.compress(GLASSES.encode()) if packed else GLASSES, **SHOWN)
    assert gaze.valid.sum() == 49
    expected = to_pixels(np.array([[0.2 + i / 100, 0.5] for i in (0, 2, 2, 4)]), *VIDEO)
    assert at_frames(gaze)[[0, 2, 3, 4]] == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        # The Eye Tribe (dev.theeyetribe.com/api) as PyTribe writes it
        (
            "timestamp\ttime\tfix\tstate\trawx\trawy\tavgx\tavgy",
            "{day}\t{ms}\tTrue\t7\t1\t1\t{x}\t{y}",
        ),
        # BIDS, eye tracking, and eye2bids
        ("timestamp [ms]\tx_coordinate\ty_coordinate", "{ms}\t{x}\t{y}"),
        ("eye_timestamp\teye1_x_coordinate\teye1_y_coordinate", "{ms}\t{x}\t{y}"),
        ("time [ms]\tx [%]\ty [%]", "{ms}\t{x_percent}\t{y_percent}"),
        ("time\tx\ty", "00:{s:06.3f}\t{x}\t{y}"),
    ],
)
def test_further_exports(read, header, row):
    rows = [
        row.format(
            day=f"2014-06-03 15:08:12.{i:03d}",
            ms=40 * i,
            s=i / 25,
            x=x,
            y=y,
            x_percent=(x + 0.5) / 6.4,
            y_percent=(y + 0.5) / 4.8,
        )
        for i, (x, y) in enumerate(PATH)
    ]
    assert at_frames(read(table(header, rows), **SHOWN)) == pytest.approx(PATH, abs=0.01)


def test_comments_between_rows_are_left_out(read):
    rows = [f"{i / 25},{x},{y}" for i, (x, y) in enumerate(PATH)]
    rows.insert(9, "# the participant coughs")
    assert at_frames(read(table("time,x,y", rows), **SHOWN)) == pytest.approx(PATH)


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("time,px,py", ("px", "py")),
        ("time,gx,gy", ("gx", "gy")),
        ("t,gaze_u,gaze_v", ("gaze u", "gaze v")),
        ("frame,row,col", ("col", "row")),
        ("time,xpl,ypl,pupil", ("xpl", "ypl")),
        ("time,gaze.x0,gaze.y0", ("gaze x0", "gaze y0")),
        ("time,horizontal,vertical", ("horizontal", "vertical")),
        ("time,hit_x,hit_y,hit_z", None),
        ("time,width,height", None),
        ("time,x", None),
    ],
)
def test_columns_that_look_like_positions_are_named(read, header, pair):
    row = ",".join("7" * (1 + header.count(",")))
    with pytest.raises(InputError) as error:
        read(f"{header}\n{row}\n")
    assert one_line(error)
    assert ("rename" in str(error.value)) == (pair is not None)
    assert pair is None or f"{pair[0]!r} and {pair[1]!r} are where" in str(error.value)


@pytest.mark.parametrize("header", ["sec", "ms", "us", "elapsed_ms", "elapsed"])
@pytest.mark.parametrize("between", [",", "|"])
def test_units_as_names_of_times_and_bars_between_cells(read, header, between):
    ticks = {"ms": 40, "us": 40_000, "elapsed_ms": 40}.get(header, 0.04)
    rows = [between.join(map(str, (i * ticks, *xy))) for i, xy in enumerate(PATH)]
    content = table(between.join((header, "x", "y")), rows)
    assert at_frames(read(content, **SHOWN)) == pytest.approx(PATH)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04 xlsx", "a workbook or an archive; expected text: save the sheet as CSV"),
        (b"SR_RESEARCH_COMBINED_FILE", "EyeLink's EDF; expected text: edf2asc makes it"),
        (b"\x1f\x8b cut off", "no file that can be read"),
        ("1000\t320\t240\n1040\t321\t240\n", "numbers in the first line; .*names first"),
        ('{"ts":1,"gp":[0.5,0.5]}\n', "JSON of another kind in line 1; .*gazedata"),
        ('{"type":"imu"}\n', "JSON without samples of gaze"),
        ('[{"x": 1, "y": 2, "t": 3}]', "JSON of another kind in line 1"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file; expected text: .* CSV"),
        (b"MATLAB 5.0 MAT-file\0\0", "a MATLAB file; expected text: .*writetable"),
        (b"XDF:\0\0", "LabRecorder's XDF; expected text: .*pyxdf"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS.*pull"),
        ("<!DOCTYPE html>\n<html>Sign in, please</html>\n", "a web page; .*download the file"),
        (
            "time,x,y\n00:00:01:12,3,4\n",
            "the time code 00:00:01:12 .*; expected seconds, or .*frame",
        ),
    ],
)
def test_what_is_often_given_instead_is_named(refused, content, says):
    refused(content, says)


def test_a_folder_names_the_file_in_it(tmp_path):
    (tmp_path / "gaze.csv").write_text("time,x,y\n0,1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a folder; expected .* as .*gaze\.csv"):
        read_track(tmp_path, frame_size=VIDEO)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("time,x [px],y [norm]", "x in px, y in norm; expected positions in one unit"),
        ("time,left x [px],left y [px],right x [norm],right y [norm]", "in px.* in norm"),
        ("time,x,y,x", "2 different columns named x"),
        ("frame,x,y,frame", "2 different columns named frame"),
    ],
)
def test_headers_that_mean_two_things_are_refused(refused, names, says):
    count = names.count(",") + 1
    rows = [",".join(map(str, (i, 0.5, i, i + 1, 0.5)[:count])) for i in range(5)]
    refused(table(names, rows), says, frame_rate=25)


@pytest.mark.parametrize("names", ["time,x,y [norm]", "time,x [norm],y [norm],x [norm]"])
def test_headers_that_say_it_once_or_twice_are_read(read, names):
    rows = [",".join(map(str, (i / 25, 0.25, 0.5, 0.25)[: names.count(",") + 1])) for i in range(9)]
    assert read(table(names, rows), **SHOWN).position[0].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("moment", ["{:05.2f}Z", "{:012.9f}+02:00", "{:06.3f}"])
def test_moments_of_iso_8601_with_any_number_of_decimals(read, moment):
    rows = [f"2024-05-01T12:00:{moment.format(i / 25)},{x},{y}" for i, (x, y) in enumerate(PATH)]
    assert at_frames(read(table("time,x,y", rows), **SHOWN)) == pytest.approx(PATH)


# --- one path, however it is written ---------------------------------------------------------

UNIX = 1_700_000_000  # s
CLOCKS = {  # header, the cell at a frame
    "time": lambda i: f"{i / 25:.4f}",
    "time [s]": lambda i: f"{i / 25:.4f}",
    "time_ms": lambda i: f"{40 * i}",
    "Timestamp (µs)": lambda i: f"{40_000 * i}",
    "t [ns]": lambda i: f"{40_000_000 * i}",
    "Time [msec]": lambda i: f"{40 * i:.1f}",
    "timestamp": lambda i: f"{40 * i}",  # ms, which nothing says
    "timestamp [ns]": lambda i: f"{UNIX * 10**9 + 40_000_000 * i}",
    "timestamp_sec": lambda i: f"{UNIX + i / 25:.3f}",
    "unix_time": lambda i: f"{1000 * UNIX + 40 * i}",
    "gaze_timestamp": lambda i: f"{-12.5 + i / 25:.4f}",
    "tracking_timestamp_us": lambda i: f"{98_765_432_100 + 40_000 * i}",
    "elapsed_time": lambda i: f"0:00:0{i // 25}.{40 * (i % 25):03d}",
    "utc": lambda i: (datetime(2024, 5, 6, tzinfo=timezone.utc) + timedelta(0, i / 25)).isoformat(),
    "frame": str,
    "world_index": str,
    "Frame Number": lambda i: str(i + 1),  # from 1, as the last one says
}
PLACES = {  # headers, the numbers of normalised x, y
    "x,y": lambda x, y: (640 * x - 0.5, 480 * y - 0.5),
    "x_px,y_px": lambda x, y: (640 * x - 0.5, 480 * y - 0.5),
    "x [norm],y [norm]": lambda x, y: (x, y),
    "X (normalized),Y (normalized)": lambda x, y: (x, y),
    "x_ndc,y_ndc": lambda x, y: (2 * x - 1, 1 - 2 * y),
    "x_norm_up,y_norm_up": lambda x, y: (x, 1 - y),
    "norm_pos_x,norm_pos_y": lambda x, y: (x, 1 - y),
    "gaze x [px],gaze y [px]": lambda x, y: (640 * x - 0.5, 480 * y - 0.5),
    "Gaze point X [DACS px],Gaze point Y [DACS px]": lambda x, y: (640 * x - 0.5, 480 * y - 0.5),
    "GazePointX (MCSnorm),GazePointY (MCSnorm)": lambda x, y: (x, y),
    "BPOGX,BPOGY": lambda x, y: (x, y),
    "LEFT_GAZE_X,LEFT_GAZE_Y": lambda x, y: (640 * x - 0.5, 480 * y - 0.5),
}
MARKS = ["", ".", "-", "NA", "N/A", "#N/A", "null", "nan", "None", "NaN", "-1.#IND"]


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    clock=st.sampled_from(list(CLOCKS)),
    place=st.sampled_from(list(PLACES)),
    dialect=st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    mark=st.sampled_from(MARKS),
    before=st.sampled_from(["", "# made by hand\n", "\n", "sep={}\n"]),
    seed=st.integers(0, 99),
)
def test_a_track_gives_the_same_positions_however_it_is_written(
    tmp_path, clock, place, dialect, encoding, mark, before, seed
):
    delimiter, point = dialect
    rng = np.random.default_rng(seed)
    position = rng.uniform(0.05, 0.95, (50, 2))
    lost = rng.random(50) < 0.2
    lost[[0, -1]] = False
    names = [clock, *place.split(",")]
    lines = [delimiter.join(names)]
    for i, (x, y) in enumerate(position):
        cells = [
            CLOCKS[clock](i),
            *(mark if lost[i] else repr(float(c)) for c in PLACES[place](x, y)),
        ]
        lines.append(delimiter.join(str(c).replace(".", point) if c != mark else c for c in cells))
    path = tmp_path / "gaze.csv"
    path.write_text(before.format(delimiter) + "\n".join(lines), encoding=encoding)
    gaze = read_track(path, frame_size=VIDEO, **SHOWN)
    assert gaze.valid.tolist() == (~lost).tolist()
    shown = gaze.at(gaze.frame_times(np.arange(50), np.arange(50) / 25))
    assert np.allclose(shown[~lost], position[~lost], atol=1e-9)


# --- samples of every tracker ----------------------------------------------------------------

# Rows of an eye that moves along PATH in steps of 40 ms, lost from sample 10 to 14.
ROWS = [(i, *PATH[i].tolist()) for i in range(50)]
LOST_ROWS = range(10, 15)


def check(gaze):
    assert np.flatnonzero(~gaze.valid).tolist() == list(LOST_ROWS)
    expected = PATH.astype(float)
    expected[10:12] = PATH[9]  # held for 100 ms
    seen = np.array([i for i in range(50) if not 12 <= i < 15])
    assert np.allclose(at_frames(gaze)[seen], expected[seen], atol=0.01)


def norm(x, y, up=False):
    return (x + 0.5) / 640, 1 - (y + 0.5) / 480 if up else (y + 0.5) / 480


def test_pupil_core(read, warned):
    """docs.pupil-labs.com/core/software/pupil-player, Raw Data Exporter: gaze_positions.csv."""
    rows = []
    for i, x, y in ROWS:
        for half in (0, 1):  # two samples for every frame of the scene
            a, b = norm(x, y, up=True)
            confidence = 0.1 if i in LOST_ROWS else 0.98
            time = 5012.25 + (i + half / 2) / 25
            rows.append(f"{time:.6f},{i},{confidence},{a:.6f},{b:.6f},5012.2-0 5012.2-1")
    gaze = read(
        table("gaze_timestamp,world_index,confidence,norm_pos_x,norm_pos_y,base_data", rows),
        **SHOWN,
    )
    check(gaze)
    assert gaze.frame_rate == 25 and warned()


def test_pupil_core_of_2015(read):
    """github.com/pupil-labs/pupil, Raw_Data_Exporter of 2016: timestamp, index."""
    rows = [
        f"{12345.678 + i / 25:.6f},{i},{0.0 if i in LOST_ROWS else 1.0},{{:.6f}},{{:.6f}}".format(
            *norm(x, y, up=True)
        )
        for i, x, y in ROWS
    ]
    check(read(table("timestamp,index,confidence,norm_pos_x,norm_pos_y", rows), **SHOWN))


@pytest.mark.parametrize(
    ("index", "on"), [("world_index", "on_surf"), ("world_frame_idx", "on_srf")]
)
def test_pupil_surfaces_count_from_the_bottom(read, index, on):
    """docs.pupil-labs.com/core/software/pupil-player, Surface Tracker: (0, 0) is bottom left."""
    rows = []
    for i, x, y in ROWS:
        a, b = norm(x, y, up=True)
        t = f"{5000 + i / 25:.4f}"
        rows.append(f"{t},{i},{t},{a:.6f},{b:.6f},{a * 7:.4f},{b * 7:.4f},{i not in LOST_ROWS},0.9")
    header = (
        f"world_timestamp,{index},gaze_timestamp,x_norm,y_norm,x_scaled,y_scaled,{on},confidence"
    )
    check(read(table(header, rows), **SHOWN))


def test_pupil_cloud_marker_mapper_counts_from_the_top(read):
    """docs.pupil-labs.com/neon/pupil-cloud/enrichments/marker-mapper: the top left is (0, 0)."""
    rows = [
        f"s,r,{UNIX * 10**9 + 40_000_000 * i},{i not in LOST_ROWS},{{:.6f}},{{:.6f}},,".format(
            *norm(x, y)
        )
        for i, x, y in ROWS
    ]
    header = (
        "section id,recording id,timestamp [ns],gaze detected on surface,"
        "gaze position on surface x [normalized],gaze position on surface y [normalized],"
        "fixation id,blink id"
    )
    check(read(table(header, rows), **SHOWN))


NEON = (
    "section id,recording id,timestamp [ns],gaze x [px],gaze y [px],worn,fixation id,blink id,"
    "azimuth [deg],elevation [deg]"
)


def neon_rows(start_ns, recording="r", step_ns=40_000_000):
    return [
        f"s,{recording},{start_ns + step_ns * i},{x},{y},1.0,1,"
        f"{3 if i in LOST_ROWS else ''},0.1,-2.5"
        for i, x, y in ROWS
    ]


def test_neon_and_invisible(read, warned):
    """docs.pupil-labs.com/neon/data-collection/data-format: gaze.csv; Invisible's is the same."""
    check(read(table(NEON, neon_rows(UNIX * 10**9)), **SHOWN))
    assert warned("another clock")


def test_tobii_pro_lab(read):
    """Tobii Pro Lab user manual, Data export: Validity is Valid or Invalid, an empty cell is lost.

    A recording of glasses has rows of the gyroscope between those of the eye tracker.
    """
    rows = []
    for i, x, y in ROWS:
        word, cells = ("Invalid", "\t\t\t") if i in LOST_ROWS else ("Valid", f"{x}\t{y}\t{x}\t{y}")
        rows.append(
            f"{40_000 * i}\tEye Tracker\tP1\tRecording 16\t{cells}\t{word}\t{word}\tFixation"
        )
        rows.append(f"{40_000 * i + 9}\tGyroscope\tP1\tRecording 16\t\t\t\t\t\t\t")
    header = (
        "Recording timestamp [µs]\tSensor\tParticipant name\tRecording name\t"
        "Gaze point X [MCS px]\tGaze point Y [MCS px]\tGaze point left X [DACS px]\t"
        "Gaze point left Y [DACS px]\tValidity left\tValidity right\tEye movement type"
    )
    check(read(table(header, rows).encode("utf-16"), **SHOWN))


@pytest.mark.parametrize("header", ["Recording timestamp", "Recording timestamp [ms]"])
def test_tobii_pro_lab_in_milliseconds(read, header):
    """Older exports have milliseconds, with or without a stated unit."""
    rows = [
        f"{40 * i}\t" + ("\t\tInvalid" if i in LOST_ROWS else f"{x}\t{y}\tValid")
        for i, x, y in ROWS
    ]
    check(read(table(f"{header}\tGaze point X\tGaze point Y\tValidity left", rows), **SHOWN))


def test_tobii_studio(read):
    """Tobii Studio 3 user manual, Data export; codes 0 and 1 are kept, 2 to 4 are discarded.

    The code 1 beside 3 means that only one eye was found, and that it is this one.
    """
    rows = []
    for i, x, y in ROWS:
        left, right = (4, 4) if i in LOST_ROWS else [(0, 0), (1, 3), (3, 1)][i % 3]
        cells = ["-1", "-1"] if left > 1 else [x, y]
        cells += ["-1", "-1"] if right > 1 else [x, y]
        rows.append("\t".join(map(str, [40 * i, *cells, left, right])))
    header = (
        "RecordingTimestamp\tGazePointLeftX (ADCSpx)\tGazePointLeftY (ADCSpx)\t"
        "GazePointRightX (ADCSpx)\tGazePointRightY (ADCSpx)\tValidityLeft\tValidityRight"
    )
    check(read(table(header, rows), **SHOWN))


def test_tobii_codes_of_zero_only_mean_that_all_is_well(read):
    gaze = read("RecordingTimestamp,GazePointX (MCSpx),GazePointY (MCSpx),ValidityLeft\n0,5,5,0\n")
    assert gaze.valid.all()


def test_tobii_sdk(read):
    """developer.tobiipro.com, Python, GazeData: validity 1 is valid, times are microseconds."""
    rows = []
    for i, x, y in ROWS:
        a, b = norm(x, y)
        left = f"{a:.6f},{b:.6f},1" if i % 2 else "nan,nan,0"
        right = f"{a:.6f},{b:.6f},1"
        eyes = "nan,nan,0,0.5,0.5,0" if i in LOST_ROWS else f"{left},{right}"
        rows.append(f"{777_000_000 + 40_000 * i},{999_000_000 + 40_000 * i},{eyes}")
    names = [
        f"{eye}_gaze_point_{what}"
        for eye in ("left", "right")
        for what in ("on_display_area_x", "on_display_area_y", "validity")
    ]
    header = ",".join(["device_time_stamp", "system_time_stamp", *names])
    check(read(table(header, rows), **SHOWN))


def eyelink_report(cells):
    header = (
        "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tTIMESTAMP\tAVERAGE_GAZE_X\tAVERAGE_GAZE_Y\t"
        "LEFT_GAZE_X\tLEFT_GAZE_Y\tLEFT_IN_BLINK\tRIGHT_GAZE_X\tRIGHT_GAZE_Y\tRIGHT_IN_BLINK"
    )
    return table(header, [f"s01\t1\t{4_123_456 + 40 * i}\t{cells(i, x, y)}" for i, x, y in ROWS])


def test_eyelink_sample_report(read):
    """EyeLink Data Viewer user manual, Sample report; AVERAGE_* is empty for one eye
    (sr-research.com/support/thread-157), a dot is missing."""

    def one_eye(i, x, y):
        if i in LOST_ROWS:
            return ".\t.\t.\t.\t.\t.\t.\t1"
        return f".\t.\t.\t.\t.\t{x}.0\t{y}.0\t0"

    check(read(eyelink_report(one_eye), **SHOWN))

    def both_eyes(i, x, y):
        blink = int(i in LOST_ROWS)
        return f".\t.\t{x - 4}\t{y - 2}\t{blink}\t{x + 4}\t{y + 2}\t{blink}"

    check(read(eyelink_report(both_eyes), **SHOWN))


def eyelink_asc(eyes="RIGHT", screen=(639, 479), blocks=1):
    lines = [
        "** CONVERTED FROM s01.edf using edfapi 4.2",
        "** TYPE: EDF_FILE BINARY EVENT SAMPLE",
        "",
    ]
    for block in range(blocks):
        t = 4_123_456 + 100_000 * block
        lines += [f"MSG\t{t - 9} DISPLAY_COORDS 0 0 {screen[0]} {screen[1]}"]
        lines += [f"START\t{t} \t{eyes}\tSAMPLES\tEVENTS", "PRESCALER\t1", "PUPIL\tAREA"]
        lines += [f"SAMPLES\tGAZE\t{eyes}\tRATE\t 250.00\tTRACKING\tCR\tFILTER\t2"]
        for i, x, y in ROWS:
            seen = f"  {x}.0\t  {y}.0\t 1050.0" if i not in LOST_ROWS else "   .\t   .\t    0.0"
            left = "   .\t   .\t    0.0\t" if "LEFT" in eyes else ""
            lines += [f"{t + 40 * i}\t{left}{seen}\t..."]
            if i == 10:
                lines += [f"SBLINK R {t + 40 * i}"]
        lines += [f"END\t{t + 2000} \tSAMPLES\tEVENTS\tRES\t  38.54\t  31.12"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("eyes", ["RIGHT", "LEFT\tRIGHT"])
def test_eyelink_asc(read, warned, eyes):
    """EyeLink 1000 user manual, 4.9 The ASC File Format: time; x, y, pupil of each eye."""
    check(read(eyelink_asc(eyes), **SHOWN))
    assert warned("another clock")


def test_eyelink_asc_of_several_trials_or_without_gaze_is_refused(refused):
    refused(eyelink_asc(blocks=2), "2 values of recording block")
    refused(eyelink_asc().replace("SAMPLES\tGAZE", "SAMPLES\tHREF"), "SAMPLES of HREF")


def test_smi_idf_converter(read):
    """SMI BeGaze manual, Export Raw Data: Time in microseconds, rows of SMP and MSG, 0 is lost."""
    rows = []
    for i, x, y in ROWS:
        at = "0.00\t0.00" if i in LOST_ROWS else f"{x}.00\t{y}.00"
        rows.append(f"{7_654_321_000 + 40_000 * i}\tSMP\t1\t{at}\t{at}")
    rows.insert(20, f"{7_654_321_000 + 795_000}\tMSG\t1\t# Message: clip.avi")
    before = (
        "## [iView]\n## Sample Rate:\t25\n## Calibration Area:\t640\t480\n## Format:\tLEFT, POR\n"
    )
    header = "Time\tType\tTrial\tL POR X [px]\tL POR Y [px]\tR POR X [px]\tR POR Y [px]"
    check(read(before + table(header, rows), **SHOWN))


def test_smi_begaze(read):
    """SMI BeGaze 3.7 manual, Raw data export: RecordingTime [ms], Category, - for nothing."""
    rows = []
    for i, x, y in ROWS:
        at = "Blink,0.0,0.0" if i in LOST_ROWS else f"Visual Intake,{x}.0,{y}.0"
        rows.append(f"{40 * i}.0,Trial001,clip.avi,P01,{at}")
    header = (
        "RecordingTime [ms],Trial,Stimulus,Participant,Category Binocular,"
        "Point of Regard Binocular X [px],Point of Regard Binocular Y [px]"
    )
    check(read(table(header, rows), **SHOWN))


def test_gazepoint(read):
    """Open Gaze API 2.0, Records: fractions of the screen, (0, 0) is the top left, valid is 1."""
    rows = []
    for i, x, y in ROWS:
        a, b = norm(x, y)
        best = "0.00000,0.00000,0" if i in LOST_ROWS else f"{a:.6f},{b:.6f},1"
        rows.append(f"0,clip,{i},{i / 25:.5f},{10**9 + 400_000 * i},0.5,0.5,1,{best},")
    header = (
        "MEDIA_ID,MEDIA_NAME,CNT,TIME(2021/03/25 14:03:11.123),TIMETICK(f=10000000),"
        "FPOGX,FPOGY,FPOGV,BPOGX,BPOGY,BPOGV,"
    )
    check(read(table(header, rows), **SHOWN))


def test_aria_gives_directions_which_are_refused_or_positions_projected_from_them(read, refused):
    """facebookresearch.github.io/projectaria_tools, MPS eye gaze: yaw and pitch in radians."""
    times = [f"{987_654_321 + 40_000 * i}" for i in range(50)]
    header = "tracking_timestamp_us,left_yaw_rads_cpf,right_yaw_rads_cpf,pitch_rads_cpf,depth_m"
    refused(table(header, [f"{t},0.1,0.1,-0.2,1.0" for t in times]), "directions of gaze", **SHOWN)
    rows = [
        f"{t}," + ("," if i in LOST_ROWS else f"{x},{y}")
        for t, (i, x, y) in zip(times, ROWS, strict=True)
    ]
    check(read(table("tracking_timestamp_us,x [px],y [px]", rows), **SHOWN))


def test_hololens(read, refused):
    """github.com/microsoft/MixedRealityToolkit-Unity, LogStructureEyeGaze; issue 5184: commas."""
    names = [
        f"{what}.{a}" for what in ("HeadOrigin", "EyeOrigin", "EyeDir", "EyeHitPos") for a in "xyz"
    ]
    header = ",".join(["UserId", "SessionType", "dt in ms", *names])
    refused(table(header, [",".join(["u", "s", "40", *["0.5"] * 12])]), "directions of gaze")
    german = [f"{40 * i},5;" + (";" if i in LOST_ROWS else f"{x},0;{y},0") for i, x, y in ROWS]
    check(read(table("dt in ms;x [px];y [px]", german), **SHOWN))
    comma_comma = [f"{i / 25:.2f},{x}.5,{y}.5".replace(".", ",") for i, x, y in ROWS]
    refused(table("time,x,y", comma_comma), "decimal comma between commas", **SHOWN)


# --- cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [*MARKS, "0", "-1", "-32768", "1e8", "1e400", "missing"])
def test_marks_of_a_lost_sample(read, mark):
    rows = [f"{i / 25}," + (f"{mark},{mark}" if i in LOST_ROWS else f"{x},{y}") for i, x, y in ROWS]
    check(read(table("time,x,y", rows), **SHOWN))


def test_zeros_of_a_path_through_the_corner_are_positions(read):
    ramp = read(table("time,x,y", [f"{i / 25},{10 * i},{9 * i}" for i in range(50)]), **SHOWN)
    assert ramp.valid.all()  # one alone begins it
    slow = [f"{i / 25},{max(0, i - 2)},{max(0, i - 2)}" for i in range(1, 50)]
    assert read(table("time,x,y", slow), **SHOWN).valid.tolist() == [False, *[True] * 48]
    assert read("time,x_ndc,y_ndc\n0,0,0\n1,0,0\n").valid.all()  # the centre


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("valid", "1", "0"),
        ("valid", "TRUE", "False"),
        ("valid", "", "NA"),
        ("Validity", "Valid", "Invalid"),
        ("Validity", "OK", "LOST"),
        ("is_valid", "yes", "no"),
        ("validity", "0", "4"),
        ("validity", "1", "2"),
        ("Gaze validity", "1.0", "0.0"),
        ("worn", "1.0", "0.0"),
        ("on_surf", "True", "False"),
        ("blink", "", "7"),
        ("blink", "0", "1"),
        ("blink", "False", "True"),
        ("blink id", "", "0"),
        ("confidence", "0.6", "0.59"),
        ("confidence", "100", "0"),
        ("confidence", "1.0001", "0"),
        ("Confidence [%]", "61", "59"),
        ("Eye movement type", "Fixation", "EyesNotFound"),
        ("Category", "Saccade", "Blink"),
    ],
)
def test_words_of_validity(read, name, good, bad):
    rows = [f"{i / 25},{x},{y},{bad if i in LOST_ROWS else good}" for i, x, y in ROWS]
    check(read(table(f"time,x,y,{name}", rows), **SHOWN))


@pytest.mark.parametrize("delimiter", [";", "\t", " "])
def test_spaces_and_decimal_commas(read, delimiter):
    rows = [
        delimiter.join(["0.04".replace(".", ","), "1,5", "2,5"]),
        delimiter.join(["8e-2".replace(".", ","), "-,5", "2,5e1"]),
    ]
    gaze = read(table(delimiter.join(["time", "x", "y"]), rows[:1]))
    assert to_pixels(gaze.position, *VIDEO).round(6).tolist() == [[1.5, 2.5]]


def test_quoted_decimal_commas_between_commas(read):
    gaze = read('time,x,y\n"0,04","1,5","2,5"\n')
    assert to_pixels(gaze.position, *VIDEO).round(6).tolist() == [[1.5, 2.5]]


def test_a_header_behind_a_hash_as_numpy_writes_it(read):
    assert read("# time x y\n0.0 1.5 2.5\n").valid.all()
    assert read("# by hand\n# time,x,y\n0.0,1.5,2.5\n").valid.all()


def test_windows_1252(read):
    assert read("time,x,y,Prüfer\n0,5,5,Jörg\n".encode("cp1252")).valid.all()


# --- clocks ----------------------------------------------------------------------------------


def rows_at(times, path=PATH):
    return [f"{t},{x},{y}" for t, (x, y) in zip(times, path, strict=False)]


def test_frame_numbers_meet_frames_of_any_time(read):
    gaze = read(table("frame,x,y", rows_at(range(50))), **SHOWN)
    times = np.cumsum(np.random.default_rng(0).uniform(0.001, 2.0, 50))
    shown = to_pixels(gaze.at(gaze.frame_times(np.arange(50), times)), *VIDEO)
    assert np.allclose(shown, PATH)


def test_frames_before_the_first_row_look_at_the_centre(read, warned):
    rows = [f"{5000 + i / 25:.4f},{i},{PATH[i][0]},{PATH[i][1]}" for i in range(30, 50)]
    gaze = read(table("gaze_timestamp,world_index,x,y", rows), **SHOWN)
    shown = at_frames(gaze)
    assert shown[:30].tolist() == [CENTRE] * 30
    assert np.allclose(shown[30:], PATH[30:])
    assert warned("frames 30 to 49, the video 50 frames: 40 % of the video have gaze")


def test_an_index_of_rows_is_no_number_of_frames(read):
    """The table has 120 rows a second with times, and the row numbers that pandas adds."""
    rows = [f"{i},{i / 120:.5f},{i},{i}" for i in range(1, 240)]
    gaze = read(table("index,time,x,y", rows), **SHOWN)
    assert gaze.frame_rate is None
    assert np.allclose(at_frames(gaze)[10], [48, 48])
    eye_camera = table("frame,time,x,y", rows)
    assert read(eye_camera, **SHOWN).frame_rate is None


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_a_unit_that_nothing_states_are_recognised(read, warned, unit):
    scale = {"ms": 40, "us": 40_000, "ns": 40_000_000}[unit]
    gaze = read(table("time,x,y", rows_at([scale * i for i in range(50)])), **SHOWN)
    assert np.allclose(at_frames(gaze), PATH)
    assert warned(f"taken for {unit}")


def test_a_tracker_of_1000_hz_in_milliseconds(read, warned):
    rows = [f"{i},{100 + i / 10},{100 + i / 10}" for i in range(2000)]
    gaze = read(table("time,x,y", rows), **SHOWN)
    assert at_frames(gaze)[25].tolist() == [200, 200]
    assert warned("taken for ms")


def test_ticks_of_an_unknown_time_base_are_no_times(read, refused):
    refused("pts,x,y\n0,5,5\n512,5,5\n", "expected time")
    assert read("pts_seconds,x,y\n0,5,5\n0.5,5,5\n").time_seconds.tolist() == [0, 0.5]


@pytest.mark.parametrize("times", [[0, 1], [0, 1, 2], [0.0, 0.5, 1.5], [0, 0.04, 2.0]])
def test_plain_seconds_stay_seconds(read, warned, times):
    gaze = read(table("time,x,y", rows_at(times)), **SHOWN)
    assert gaze.time_seconds.tolist() == times and warned()


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("timestamp", 12345.678),
        ("time", -500.0),
        ("timestamp", UNIX),
        ("timestamp", 1000 * UNIX),
        ("timestamp [ms]", 1000 * UNIX),
        ("gaze_timestamp", 0.5),
        ("Computer timestamp [s]", 98765.4),
    ],
)
def test_another_clock_counts_from_the_first_row_and_says_so(read, warned, name, first):
    step = 40 if first == 1000 * UNIX else 0.04
    gaze = read(table(f"{name},x,y", rows_at([first + step * i for i in range(50)])), **SHOWN)
    assert np.allclose(at_frames(gaze), PATH)
    assert warned("another clock")


def test_the_offset_shifts_times_and_frames(read):
    def shown(header, times, offset):
        text = table(f"{header},x,y", rows_at(times))
        return at_frames(read(text, **SHOWN, time_offset_seconds=offset))

    seconds = np.arange(50) / 25
    for header, times in (
        ("time", seconds),
        ("time [ms]", 1000 * seconds),
        ("gaze_timestamp", 77 + seconds),
        ("timestamp [ns]", (UNIX * 10**9 + 40_000_000 * np.arange(50)).tolist()),
        ("frame", range(50)),
    ):
        assert np.allclose(shown(header, times, 0.2)[5:], PATH[:45])
        assert shown(header, times, 0.2)[:5].tolist() == [CENTRE] * 5
        assert np.allclose(shown(header, times, -0.2)[:45], PATH[5:])
    absolute = shown("timestamp", 12345.5 + seconds, -12345.3)
    assert np.allclose(absolute[5:], PATH[:45])  # it brings the other clock into the video


@pytest.mark.parametrize(
    ("header", "times", "options"),
    [
        ("frame", range(100, 150), {}),
        ("world_index", range(50, 100), {}),
        ("time", np.arange(50) / 25, {"time_offset_seconds": 3.0}),
        ("time", np.arange(50) / 25, {"time_offset_seconds": -3.0}),
        ("gaze_timestamp", np.arange(50) / 25, {"time_offset_seconds": 3.0}),
    ],
)
def test_a_track_that_no_frame_meets_is_refused(refused, header, times, options):
    text = table(f"{header},x,y", rows_at(times))
    refused(text, "gaze from .* expected some that meets the video", **SHOWN, **options)


def test_a_track_that_barely_meets_the_video_is_warned_about(read, warned):
    read(table("time,x,y", rows_at(1.9 + np.arange(50) / 25)), **SHOWN)
    assert warned("5 % of the video have gaze")
    read(table("time,x,y", rows_at(np.arange(10) / 25)), **SHOWN)
    assert warned("the gaze lasts from 0.000 to 0.360 s, the video 2.000 s")
    read(table("time,x,y", rows_at(np.arange(50) / 25)), **SHOWN)
    assert warned()


def test_a_track_far_longer_than_the_video_is_warned_about(read, warned):
    rows = [f"{i / 25},{200 + i % 9},200" for i in range(5000)]
    read(table("time [s],x,y", rows), **SHOWN)
    assert warned("is it the track of this video")


def test_recordings_are_not_mixed(read, refused):
    rows = rows_at(np.arange(50) / 25)
    for name in ("recording id", "Participant name", "subject", "RECORDING_SESSION_LABEL", "trial"):
        two = [f"{row},{'ab'[i > 24]}" for i, row in enumerate(rows)]
        refused(table(f"time,x,y,{name}", two), f"2 values of {name.lower().replace('_', ' ')}")
        one = [f"{row},{'a' if i else '-'}" for i, row in enumerate(rows)]
        assert read(table(f"time,x,y,{name}", one)).valid.all()
    refused(table("time,x,y", rows + rows), "times that go back from 1.960 to 0.000 s in row 52")
    refused(table("frame,x,y", rows_at(range(50)) * 2), "times that go back", **SHOWN)
    assert read(table("time,x,y", rows[::-1])).time_seconds.size == 50  # sorted otherwise


def test_pixels_of_another_screen_are_refused_or_warned_about(read, refused, warned):
    times, screen = np.arange(50) / 25, np.random.default_rng(1).uniform(0, 1, (50, 2))
    away = screen * (1280, 960) + (640, 480)
    refused(table("time,x,y", rows_at(times, away)), "no position inside the frame", **SHOWN)
    far = np.concatenate([PATH[:3], screen[3:] * (3840, 2160) + (100, 0)])
    refused(table("time,x,y", rows_at(times, far)), "% of the positions inside the frame", **SHOWN)
    read(table("time,x,y", rows_at(times, screen * (1280, 960))), **SHOWN)
    assert warned("% of the positions are inside the frame of 640x480")


def test_pixels_of_a_screen_that_the_file_names(read, refused, warned):
    header = "time,Gaze point X,Gaze point Y,Recording resolution width,Recording resolution height"
    rows = rows_at(np.arange(50) / 25, 2 * PATH + 0.5)
    gaze = read(table(header, [f"{row},1280,960" for row in rows]), **SHOWN)
    assert np.allclose(at_frames(gaze), PATH)
    assert warned("taken to have filled it")
    refused(table(header, [f"{row},1920,1080" for row in rows]), "screen of 1920x1080", **SHOWN)
    refused(eyelink_asc(screen=(1919, 1079)), "pixels of a screen of 1920x1080", **SHOWN)


# --- Pupil Labs' world_timestamps.csv --------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    def folder(gaze, world, **options):
        (tmp_path / "gaze.csv").write_text(gaze, encoding="utf-8")
        (tmp_path / "world_timestamps.csv").write_text(world, encoding="utf-8")
        return read_track(tmp_path / "gaze.csv", frame_size=VIDEO, **{**SHOWN, **options})

    return folder


START = UNIX * 10**9


def neon_world(times_ns, recording="r"):
    rows = [f"s,{recording},{t}" for t in times_ns]
    return table("section id,recording id,timestamp [ns]", rows)


def test_neon_frames_are_met_by_their_own_times(folder, warned):
    """docs.pupil-labs.com/neon/data-collection/data-format: world_timestamps.csv."""
    later = [START + 10 * 40_000_000 + 40_000_000 * i for i in range(50)]
    shown = at_frames(folder(table(NEON, neon_rows(START)), neon_world(later)))
    assert np.allclose(shown[5:40], PATH[15:])
    assert warned()


def test_neon_frames_of_a_variable_rate(folder):
    steps = np.random.default_rng(2).choice([1, 2, 5], 20)
    samples = np.concatenate([[0], np.cumsum(steps)])
    samples = samples[samples < 50]
    rows = [row.replace(",3,0.1", ",,0.1") for row in neon_rows(START)]
    world = neon_world([START + 40_000_000 * int(i) + 1_000_000 for i in samples])
    gaze = folder(table(NEON, rows), world, frame_count=samples.size)
    index = np.arange(samples.size)
    shown = to_pixels(gaze.at(gaze.frame_times(index, index * 99.0)), *VIDEO)
    assert np.allclose(shown, PATH[samples])


def test_pupil_player_exports_times_of_frames_too(folder, warned):
    """Pupil Player, World Video Exporter; a trimmed export begins later than world_index."""
    rows = [
        f"{5000 + i / 25:.4f},{100 + i},0.9," + "{:.6f},{:.6f}".format(*norm(x, y, up=True))
        for i, x, y in ROWS
    ]
    gaze = table("gaze_timestamp,world_index,confidence,norm_pos_x,norm_pos_y", rows)
    world = table("# timestamps [seconds],pts", [f"{5000 + i / 25:.4f},{i}" for i in range(50)])
    assert np.allclose(at_frames(folder(gaze, world)), PATH, atol=0.01)
    assert warned()


def test_times_of_frames_of_something_else_are_not_used(folder, warned, caplog):
    hour = 3600 * 10**9
    gaze = folder(table(NEON, neon_rows(START)), neon_world([START + hour, START + 2 * hour]))
    assert gaze.frame_rate is None
    assert "not used" in caplog.text and "another clock" in caplog.text
    caplog.clear()
    folder(table(NEON, neon_rows(START)), neon_world([START + 40_000_000 * i for i in range(99)]))
    assert warned("has 99 frames, the video 50")


@pytest.mark.parametrize("mark", ["n.a.", r"\N", "N/A", "#NULL!"])
def test_marks_of_spreadsheets_and_databases_are_lost_samples(tmp_path, mark):
    file = tmp_path / "gaze.csv"
    file.write_text(f"time,x,y\n0,10,10\n0.1,{mark},{mark}\n0.2,12,12\n", encoding="utf-8")
    assert list(read_track(file, units="px", frame_size=VIDEO).valid) == [True, False, True]
