"""The meaning of each column of a table: names, units and marks of the known trackers.

Each entry cites the documentation from which it was made. Names are written as the trackers write
them; :func:`.table.parse_name` turns both these and the names in files into plain words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .table import LOST, NOWHERE, POSITION_UNITS, Column, Table, parse_name
from .track import Floats, refusal


class Eye(NamedTuple):
    """The columns of one eye, or of both eyes combined."""

    x: str
    y: str
    # Columns that say that the sample is valid, of which one is enough, or the opposite (blinks).
    valid: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class Source(NamedTuple):
    """The columns in which one tracker writes where the eye looked."""

    eyes: tuple[Eye, ...]  # combined, or left and right
    units: str = ""  # one of UNITS, "" if the header or the user must state it
    time_unit: str = ""  # the usual unit of a time whose header states none


_SOURCES = (
    # Pupil Cloud, Marker Mapper and Reference Image Mapper, origin at the top left
    # (docs.pupil-labs.com/neon/pupil-cloud/enrichments/marker-mapper, … /reference-image-mapper)
    Source((Eye("gaze position on surface x", "gaze position on surface y"),), "norm"),
    Source(
        (Eye("gaze position in reference image x", "gaze position in reference image y"),), "px"
    ),
    # Pupil Player, gaze_positions.csv, origin at the bottom left
    # (docs.pupil-labs.com/core/software/pupil-player, Raw Data Exporter)
    Source((Eye("norm_pos_x", "norm_pos_y"),), "norm_up"),
    # Pupil Cloud and Neon Player, gaze.csv (docs.pupil-labs.com/neon/data-collection/data-format)
    Source((Eye("gaze x", "gaze y"),)),
    # Tobii Pro Lab and Tobii Studio (user manuals, Data export)
    Source((Eye("Gaze point X", "Gaze point Y", ("Validity left", "Validity right")),), "px"),
    Source(
        (
            Eye("Gaze point left X", "Gaze point left Y", ("Validity left",)),
            Eye("Gaze point right X", "Gaze point right Y", ("Validity right",)),
        ),
        "px",
    ),
    Source(  # Tobii Studio before 3.3
        (
            Eye("GazePointXLeft", "GazePointYLeft", ("ValidityLeft",)),
            Eye("GazePointXRight", "GazePointYRight", ("ValidityRight",)),
        ),
        "px",
    ),
    # Tobii Pro SDK, origin at the top left (developer.tobiipro.com, Python: GazeData)
    Source(
        (
            Eye(
                "left_gaze_point_on_display_area_x",
                "left_gaze_point_on_display_area_y",
                ("left_gaze_point_validity", "left_gaze_point_valid"),
            ),
            Eye(
                "right_gaze_point_on_display_area_x",
                "right_gaze_point_on_display_area_y",
                ("right_gaze_point_validity", "right_gaze_point_valid"),
            ),
        ),
        "norm",
        "us",
    ),
    # EyeLink Data Viewer, sample report (user manual); AVERAGE is empty for one eye
    Source((Eye("AVERAGE_GAZE_X", "AVERAGE_GAZE_Y", (), ("AVERAGE_IN_BLINK",)),), "px", "ms"),
    Source(
        (
            Eye("LEFT_GAZE_X", "LEFT_GAZE_Y", (), ("LEFT_IN_BLINK",)),
            Eye("RIGHT_GAZE_X", "RIGHT_GAZE_Y", (), ("RIGHT_IN_BLINK",)),
        ),
        "px",
        "ms",
    ),
    # SMI BeGaze, and the IDF converter, whose Time is in microseconds (BeGaze manual)
    Source((Eye("Point of Regard Binocular X", "Point of Regard Binocular Y"),), "px", "ms"),
    Source(
        (
            Eye("Point of Regard Left X", "Point of Regard Left Y"),
            Eye("Point of Regard Right X", "Point of Regard Right Y"),
        ),
        "px",
        "ms",
    ),
    Source((Eye("B POR X", "B POR Y"),), "px", "us"),
    Source((Eye("L POR X", "L POR Y"), Eye("R POR X", "R POR Y")), "px", "us"),
    # Gazepoint, fractions of the screen from the top left (Open Gaze API 2.0)
    Source((Eye("BPOGX", "BPOGY", ("BPOGV",)),), "norm", "s"),
    Source((Eye("LPOGX", "LPOGY", ("LPOGV",)), Eye("RPOGX", "RPOGY", ("RPOGV",))), "norm", "s"),
    Source((Eye("FPOGX", "FPOGY", ("FPOGV",)),), "norm", "s"),
    # The Eye Tribe, as its API and PyTribe write it (dev.theeyetribe.com/api: avg, time in ms)
    Source((Eye("avgx", "avgy"),), "px", "ms"),
    # BIDS, eye tracking (bids-specification.readthedocs.io: x_coordinate); the names of eye2bids
    Source((Eye("x_coordinate", "y_coordinate"),)),
    Source(
        (
            Eye("eye1_x_coordinate", "eye1_y_coordinate"),
            Eye("eye2_x_coordinate", "eye2_y_coordinate"),
        )
    ),
    # our own
    Source((Eye("x", "y"),)),
    Source((Eye("gaze pos x", "gaze pos y"),)),
    Source((Eye("pos x", "pos y"),)),
    Source((Eye("x pos", "y pos"),)),
    Source((Eye("left x", "left y"), Eye("right x", "right y"))),
    Source((Eye("x left", "y left"), Eye("x right", "y right"))),
)
_PUPIL_SURFACE = ("on surf", "on srf", "x scaled")
"""Columns that, beside x_norm and y_norm, mark Pupil Player's surfaces, with origin at bottom left
(docs.pupil-labs.com/core/software/pupil-player, Surface Tracker)."""

_ACROSS_AND_DOWN = (
    *(("x", "y"), ("u", "v"), ("h", "v"), ("column", "row"), ("col", "row")),
    ("horizontal", "vertical"),
)
"""Words and letters in which the names of the two columns of a position differ."""

# fmt: off
_DIRECTIONS = {
    # Project Aria, general_eye_gaze.csv (facebookresearch.github.io/projectaria_tools, MPS)
    "yaw rads cpf", "left yaw rads cpf", "pitch rads cpf",
    # HoloLens, the log of Microsoft's Mixed Reality Toolkit (LogStructureEyeGaze)
    "eye dir x", "eye hit pos x", "gaze dir x", "gaze direction x",
    "azimuth", "elevation", "gaze direction left x",
    # OpenFace (github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format)
    "gaze 0 x", "gaze angle x",
}
# fmt: on

# fmt: off
_VALID = (
    "valid", "is valid", "validity", "gaze valid", "gaze validity", "tracking valid", "worn",
    "on surf", "on srf", "on surface", "gaze detected on surface",
    "gaze detected in reference image",
)
# fmt: on
_LOST = ("blink", "blinks", "is blink", "in blink", "lost", "missing")
_CATEGORIES = ("eye movement type", "gaze event type", "category binocular", "category")
_LOST_CATEGORIES = ("blink", "eyesnotfound", "eyes not found", "eyesnotfoundmovement")
_CONFIDENCE = ("confidence", "gaze confidence")

_TRUE = ("1", "1.0", "true", "yes", "valid", "t", "y", "ok", "good")
_FALSE = ("0", "0.0", "-1", "false", "no", "invalid", "not valid", "f", "n", "bad")
_LAST_VALID_CODE = 1  # Tobii: 0 certain, 1 the probable eye of one, 2 to 4 discarded
_PERCENT_ABOVE = 1.5
"""If a confidence in a file is larger than this, it is in percent, not from 0 to 1. Our choice."""
_NEAR_ZERO = 0.05
"""Up to this share of the largest coordinate, a sample is near the corner, so that a 0, 0 next to
it may be a real position. Our choice."""

# fmt: off
_ONE_EACH = (
    "recording id", "recording name", "recording", "recording session label", "session label",
    "participant name", "participant", "participant id", "wearer id", "wearer name", "subject",
    "subject id", "subject name", "user id", "session", "session id", "recording block",
    "trial index", "trial", "trial id", "trial label", "media name", "media id",
    "presented media name", "presented stimulus name", "stimulus", "stimulus name",
)
# fmt: on
"""Columns whose values distinguish recordings; a track may contain only one recording."""


def samples_only(table: Table) -> Table:
    """Remove rows of other sensors and of messages (Tobii's Sensor; SMI's Type SMP, MSG)."""
    for name, wanted in (("sensor", ("eye tracker", "gaze")), ("type", ("smp",))):
        column = table.find(name)
        if column is not None:
            chosen = np.isin(table.text(column), wanted)
            table = table.keep(chosen) if chosen.any() else table
    return table


def refuse_mixture(table: Table, used: NDArray[np.bool_]) -> None:
    """Raise InputError if the used rows [N] come from several recordings, people or trials."""
    for column in table.columns:
        if column.name in _ONE_EACH:
            cells = [c for c, u in zip(table.text(column), used, strict=True) if u]
            found = [cell for cell in dict.fromkeys(cells) if cell not in LOST]
            if len(found) > 1:
                named = ", ".join(repr(value) for value in found[:3])
                more = ", …" if len(found) > 3 else ""
                received = f"rows of {len(found)} values of {column.name} ({named:.150}{more})"
                raise refusal(table.path, received, "one recording: keep the rows of one")


def positions(table: Table) -> tuple[Floats, NDArray[np.bool_], str, str, bool]:
    """Find where the eye looked.

    Returns:
        Positions [N, 2]; whether they are valid [N]; their units, "" if nothing states them;
        the usual unit of a time without a stated one, "" if unknown; whether the positions are
        relative to the picture shown and not to the screen.

    Raises InputError if no columns hold positions in a picture.
    """
    best = None
    for source, eyes in _present(table):
        read = _read_source(table, source, eyes)
        if np.isfinite(read[0]).any():
            return read
        best = best or read
    if best is not None:
        return best
    names = ", ".join(c.name for c in table.columns)
    columns = {c.name for c in table.columns}
    no_place = any(
        c.name.split()[-1:] == ["x"] and POSITION_UNITS.get(c.unit) in ("length", "angle")
        for c in table.columns
    )
    if no_place or columns & _DIRECTIONS:
        expected = (
            "positions in the frame; project directions into the video with the calibration of "
            "the camera, and write time, x, y (px)"
        )
        raise refusal(table.path, f"directions of gaze ({names:.150})", expected)
    expected = "time (or frame, and the frame rate given), x and y in the first line"
    if pair := _likely_pair([c.name for c in table.columns]):
        expected += (
            f"; if {pair[0]!r:.50} and {pair[1]!r:.50} are where the eye looks, rename them: x and "
            "y for pixels of the video, x [norm] and y [norm] for 0 to 1"
        )
    raise refusal(table.path, f"the columns {names!r:.200}", expected)


def _likely_pair(names: list[str]) -> tuple[str, str] | None:
    """Two columns with names such as gx and gy; none if there is a third one such as gz."""
    for name in names:
        for across, down in _ACROSS_AND_DOWN:
            for found in re.finditer(rf"(?<![a-z]){across}|{across}(?![a-z])", name):
                before, after = name[: found.start()], name[found.end() :]
                if before + down + after in names and before + "z" + after not in names:
                    return name, before + down + after
    return None


def validity(table: Table, min_confidence: float) -> NDArray[np.bool_]:
    """Read the columns that apply to a whole row: valid, worn, on_surf, blinks, confidence."""
    valid = np.ones(len(table.rows), dtype=np.bool_)
    for column in table.columns:
        if column.name in _VALID:
            valid &= _is_valid(table, [column], missing_is_valid=True)[0]
        elif column.name in _LOST:
            valid &= _is_not_lost(table, column)
        elif column.name == "blink id":
            valid &= np.isin(table.text(column), list(LOST))
        elif column.name in _CATEGORIES:
            valid &= ~np.isin(table.text(column), _LOST_CATEGORIES)
        elif column.name in _CONFIDENCE:
            confidence = table.numbers(column)
            percent = np.nanmax(confidence, initial=0.0) > _PERCENT_ABOVE
            valid &= confidence >= min_confidence * (100 if percent else 1)
    return valid


def _present(table: Table) -> Iterator[tuple[Source, list[tuple[Eye, Column, Column]]]]:
    """Sources for which the table has both columns of an eye; pictures before screens."""
    for source in _SOURCES:
        for of_media in (True, False):
            eyes = []
            for eye in source.eyes:
                x = _find(table, parse_name(eye.x)[0], of_media)
                y = _find(table, parse_name(eye.y)[0], of_media)
                if x is not None and y is not None:
                    eyes.append((eye, x, y))
            if eyes:
                yield source, eyes


def _find(table: Table, name: str, of_media: bool) -> Column | None:
    found = [c for c in table.columns if c.name == name and c.of_media == of_media]
    found = [c for c in found if POSITION_UNITS.get(c.unit, "") not in ("length", "angle")]
    best = next((c for c in found if POSITION_UNITS.get(c.unit) == "norm"), next(iter(found), None))
    return best and table.unambiguous(best)


def _read_source(
    table: Table, source: Source, eyes: list[tuple[Eye, Column, Column]]
) -> tuple[Floats, NDArray[np.bool_], str, str, bool]:
    """See :func:`positions`. Two eyes give the mean of those that are valid."""
    stated = _stated_units(table, [column for _, x, y in eyes for column in (x, y)])
    percent = 100.0 if stated == "percent" else 1.0
    units = "norm" if stated == "percent" else stated or source.units
    if units == "norm" and eyes[0][1].name == "x" and any(map(table.find, _PUPIL_SURFACE)):
        units = "norm_up"
    xy = np.stack([[table.numbers(x), table.numbers(y)] for _, x, y in eyes])  # [eyes, 2, N]
    xy /= percent
    known = [[c for name in e.valid if (c := table.find(parse_name(name)[0]))] for e, _, _ in eyes]
    columns = [column for of_eye in known for column in of_eye]
    valid_of = dict(zip(columns, _is_valid(table, columns), strict=True))
    for i, (eye, _, _) in enumerate(eyes):
        valid = (np.abs(xy[i]) < NOWHERE).all(axis=0) & ~_is_no_position(xy[i], units, source)
        if known[i]:
            valid &= np.any([valid_of[c] for c in known[i]], axis=0)
        for name in eye.lost:
            column = table.find(parse_name(name)[0])
            if column is not None:
                valid &= _is_not_lost(table, column)
        xy[i][:, ~valid] = np.nan
    count = np.isfinite(xy[:, 0]).sum(axis=0)
    mean = np.nansum(xy, axis=0) / np.where(count, count, np.nan)
    return mean.T, count > 0, units, source.time_unit, eyes[0][1].of_media


def _stated_units(table: Table, columns: list[Column]) -> str:
    """The units that the headers of positions state, "" for none; InputError if they differ."""
    stated = {c.name: units for c in columns if (units := POSITION_UNITS.get(c.unit))}
    if len(set(stated.values())) > 1:
        received = ", ".join(f"{name} in {units}" for name, units in stated.items())
        raise refusal(table.path, received, "positions in one unit: convert them")
    return next(iter(stated.values()), "")


def _is_no_position(xy: Floats, units: str, source: Source) -> NDArray[np.bool_]:
    """Whether positions [2, N] are 0, 0 or -1, -1, as SMI, Gazepoint and Tobii mark a lost eye.

    Next to a sample near that corner, such a position counts as real, as the eye may look there. In
    files of unknown trackers a single one is real too: the start of a path.
    """
    no = np.zeros(xy.shape[1], dtype=np.bool_)
    marks = (xy == 0).all(axis=0) | (xy == -1).all(axis=0)
    if units in ("ndc", "norm_up") or marks.sum() < (1 if source.units else 2):
        return no
    beside = _NEAR_ZERO * np.nanmax(np.abs(xy), initial=0.0)
    near = np.concatenate([[False], ~marks & (np.abs(xy) <= beside).all(axis=0), [False]])
    return np.asarray(marks & ~(near[:-2] | near[2:]))


def _is_valid(
    table: Table, columns: list[Column], *, missing_is_valid: bool = False
) -> list[NDArray[np.bool_]]:
    """Whether samples are valid, from words, 0 and 1, or Tobii's codes 0 to 4.

    The values of all columns together decide which of them it is. Tobii gives an eye the code 1
    only if the other one has 3, and 0 if it is found. So the codes are Tobii's if there are values
    above 1, or if columns named as the validity of an eye contain only 0.
    """
    cells = [table.text(column) for column in columns]
    known = {cell for of_column in cells for cell in of_column} - LOST
    codes = {"0", "0.0", "1", "1.0", "2", "2.0", "3", "3.0", "4", "4.0"}
    per_eye = any(column.name.startswith("validity ") for column in columns)
    is_code = known <= codes and bool(known & {"2", "2.0", "3", "3.0", "4", "4.0"})
    is_code |= per_eye and bool(known) and known <= {"0", "0.0"}
    good = [c for c in codes if float(c) <= _LAST_VALID_CODE] if is_code else list(_TRUE)
    bad = codes - set(good) if is_code else set(_FALSE)
    result = []
    for column, of_column in zip(columns, cells, strict=True):
        strange = next((c for c in of_column if c not in LOST and c not in bad.union(good)), None)
        if strange is not None:
            expected = "words such as valid and invalid, true and false, 0 and 1, or codes 0 to 4"
            raise refusal(table.path, f"{strange!r:.100} as {column.name}", expected)
        result.append(np.isin(of_column, [*good, ""] if missing_is_valid else good))
    return result


def _is_not_lost(table: Table, column: Column) -> NDArray[np.bool_]:
    return np.isin(table.text(column), (*LOST, *_FALSE))
