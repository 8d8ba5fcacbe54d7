"""Reads a gaze file as a table: encodings, delimiters, lines before the header, ASC, JSON.

Legend: N rows.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..foreign import stand_in
from .track import Floats, Size, refusal

# fmt: off
LOST = frozenset((
    "", ".", "..", "...", "-", "--", "---", "*", "?", "na", "n/a", "n.a.", "#n/a", "<na>", "nan",
    "-nan", "null", "\\n", "#null!", "none", "nil", "missing", "missing_data", "lost", "undefined",
    "void",
    "nan(ind)", "-nan(ind)", "nan(snan)", "1.#qnan", "-1.#ind", "1.#ind",
))
# fmt: on
"""Marks of a value that was not measured: EyeLink writes ".", R NA, Tobii nothing, Windows -1.#IND,
SPSS #NULL!, SQL \\N, Excel #N/A, Python None and nan, JavaScript null and undefined."""

NO_VALUE = -32768  # EyeLink's MISSING_DATA (EyeLink 1000 User Manual)
NOWHERE = 1e7  # larger positions are missing: EyeLink's libraries write 1e8 for a missing float
_MAX_NUMBER = 1e30  # larger numbers count as infinite: sums would overflow

TIME_UNITS = dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0)
TIME_UNITS |= dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3)
TIME_UNITS |= dict.fromkeys(("us", "usec", "usecs", "micros", "microsecond", "microseconds"), 1e-6)
TIME_UNITS |= dict.fromkeys(("ns", "nsec", "nsecs", "nanos", "nanosecond", "nanoseconds"), 1e-9)
POSITION_UNITS = dict.fromkeys(("px", "pixel", "pixels", "pix"), "px")
POSITION_UNITS |= dict.fromkeys(("norm", "normalized", "normalised"), "norm")
POSITION_UNITS |= {"ndc": "ndc", "normup": "norm_up"}
POSITION_UNITS |= dict.fromkeys(("percent", "pct"), "percent")
POSITION_UNITS |= dict.fromkeys(("mm", "cm", "m", "meter", "meters"), "length")
POSITION_UNITS |= dict.fromkeys(("deg", "degree", "degrees", "rad", "rads", "radians"), "angle")

_MEDIA = ("mcs", "rcs")  # Tobii: coordinates of the media shown, of a snapshot; not of the screen


@dataclass(frozen=True)
class Column:
    """A column: its name in plain words (``gaze point x``), its unit, and its index in a row."""

    name: str
    unit: str = ""  # one of TIME_UNITS or POSITION_UNITS, "" if the header states none
    of_media: bool = False  # positions in the picture shown, not on the screen
    place: int = 0


@dataclass(frozen=True)
class Table:
    """Named columns of text."""

    path: Path
    columns: tuple[Column, ...]
    rows: tuple[tuple[int, list[str]], ...]  # the number of the line in the file, the cells
    screen: Size | None = None  # height, width in px, if the lines before the header state it

    def find(self, name: str) -> Column | None:
        """Return the first column of that name, in the words of :func:`parse_name`.

        Raises InputError as :meth:`unambiguous`.
        """
        found = next((c for c in self.columns if c.name == name), None)
        return found and self.unambiguous(found)

    def unambiguous(self, column: Column) -> Column:
        """Return the column; raises InputError if another has its name and other cells."""

        def header(of: Column) -> tuple[str, str, bool]:
            return of.name, of.unit, of.of_media

        alike = [c for c in self.columns if header(c) == header(column)]
        if any(self.text(c) != self.text(column) for c in alike if c is not column):
            received = f"{len(alike)} different columns named {column.name}"
            raise refusal(self.path, received, "one: rename the others, or leave them out")
        return column

    def text(self, column: Column) -> list[str]:
        """Return the cells [N] of a column, stripped, in lower case."""
        place = column.place
        return [row[place].strip().lower() if place < len(row) else "" for _, row in self.rows]

    def numbers(self, column: Column) -> Floats:
        """Return the numbers [N] of a column, nan for :data:`LOST`; times of day in seconds.

        Raises InputError for text that is neither.
        """
        cells = self.text(column)
        try:
            values = np.array(cells, dtype=np.float64)  # all plain, as in most files
        except ValueError:
            values = np.array([self._number(column, i, cell) for i, cell in enumerate(cells)])
        values[(np.abs(values) > _MAX_NUMBER) | (values == NO_VALUE)] = np.nan
        return values

    def keep(self, chosen: NDArray[np.bool_]) -> Table:
        """Return a table of the selected rows [N]."""
        rows = tuple(row for row, wanted in zip(self.rows, chosen, strict=True) if wanted)
        return Table(self.path, self.columns, rows, self.screen)

    def _number(self, column: Column, row: int, cell: str) -> float:
        if cell in LOST:
            return np.nan
        with contextlib.suppress(ValueError):
            return float(cell)
        if re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", cell):  # a decimal comma
            return float(cell.replace(",", "."))
        # Hours, minutes, seconds; SMI's Time of Day puts a colon before its milliseconds.
        clock = re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d(?:[.,]\d+|:\d{3})?)", cell)
        if clock and (clock[1] or not clock[3].isdecimal()):  # 1:30 may be hours or minutes
            hours, minutes, seconds = clock.groups(default="0")
            seconds = re.sub("[,:]", ".", seconds)
            return 3600.0 * float(hours) + 60.0 * float(minutes) + float(seconds)
        if re.fullmatch(r"\d+:\d\d:\d\d[:;]\d\d", cell):
            found = f"the time code {cell} as {column.name} in row {self.rows[row][0]}"
            expected = "seconds, or a column frame with the number of the frame from 0"
            raise refusal(self.path, found, expected)
        try:
            # Python 3.10 knows neither Z nor any number of decimals but 3 and 6.
            moment = re.sub(r"[.,](\d+)", lambda part: f".{part[1]:0<6.6}", cell.upper())
            return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError):
            found = f"{cell!r:.200} as {column.name} in row {self.rows[row][0]}"
            marks = "a number, or a mark of a lost sample (nothing, '.', '-', NA, null)"
            raise refusal(self.path, found, marks) from None


def parse_name(header: str) -> tuple[str, str, bool]:
    """Split a header into plain words, the unit, and whether it is a position in the media.

    ``GazePointX (ADCSpx)`` is ("gaze point x", "px", False); ``timestamp_us`` ("timestamp",
    "us", False); ``Gaze point X [MCS norm]`` ("gaze point x", "norm", True).
    """
    header = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", header)
    header = re.sub("[\u00b5\u03bc]", "u", header.lower())  # micro sign, Greek mu
    header = header.replace("%", " percent ")
    brackets = re.findall(r"[\[(]([^\])]*)", header)
    words = re.findall(r"[a-z0-9]+", re.sub(r"[\[(][^\])]*[\])]?", " ", header))
    of_media = False
    for bracket in reversed(brackets):
        stated = re.sub(r"[^a-z]", "", bracket)
        system, unit = re.fullmatch(r"(adcs|dacs|mcs|rcs|sccs|ucs|hucs|)(.*)", stated).groups()  # type: ignore[union-attr]
        if unit in TIME_UNITS or unit in POSITION_UNITS:
            return " ".join(words), unit, system in _MEDIA
    for count in (2, 1):
        unit = "".join(words[-count:])
        if len(words) > count and (unit in TIME_UNITS or unit in POSITION_UNITS):
            return " ".join(words[:-count]), unit, of_media
    return " ".join(words), "", of_media


def read_table(path: str | Path) -> Table:
    """Read a file of rows under a line of names, EyeLink's ASC, or Tobii Glasses' gazedata.

    UTF-8, UTF-16 with a byte order mark, or Windows-1252; comma, semicolon, tab, bar, or else
    spaces between cells; quotes as in CSV. Lines that begin with ``#`` and Excel's ``sep=;`` may
    come before the header. If numbers follow the last ``#`` line, it is the header, as NumPy writes
    it. Raises InputError for a file without names and rows, and for a row longer than the header.
    """
    path = Path(path)
    text = _text(path)
    if re.search(r"(?m)^SAMPLES\s+\w+", text) and re.search(r"(?m)^START\s+\d", text):
        return _eyelink(path, text)
    if re.match(r"\s*(\{|\[\s*[\[{\d])", text):
        return _tobii_glasses(path, text)
    lines = text.splitlines()
    first = 0
    while first < len(lines) and _is_before_header(lines[first]):
        first += 1
    preamble = lines[:first]
    header = lines[first] if first < len(lines) else ""
    delimiter = max(",;\t|", key=header.count)
    if preamble and _are_numbers(re.split(r"[,;\t| ]+", header.strip())):
        first, header = first - 1, preamble[-1].lstrip("# ")
        delimiter = max(",;\t|", key=header.count)
    if delimiter not in header and len(header.split()) > 1:
        lines[first + 1 :] = [" ".join(line.split()) for line in lines[first + 1 :]]
        header, delimiter = " ".join(header.split()), " "
    try:
        body = "\n".join((header, *lines[first + 1 :]))
        names, *cells = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter)
        rows = tuple(
            (first + i, row)
            for i, row in enumerate(cells, 2)
            if not (row and row[0].lstrip().startswith("#"))
        )
    except (ValueError, csv.Error):
        rows = ()
    if not rows:
        raise refusal(path, "no rows, or no text", "CSV or other text: a line of names, then rows")
    if _are_numbers(names):
        raise refusal(path, "numbers in the first line", "a line of names first, as time,x,y")
    for number, row in rows:
        if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            raise refusal(
                path,
                f"{len(row)} cells in row {number} under {len(names)} names",
                "as many cells as names; a decimal comma between commas makes two cells of one: "
                "export with decimal points, or with semicolons between cells",
            )
    columns = tuple(Column(*parse_name(name), i) for i, name in enumerate(names))
    return Table(path, columns, rows, _screen(preamble))


_BINARY = {
    b"PK\x03\x04": ("a workbook or an archive", "text: save the sheet as CSV, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "text: save the sheet as CSV"),
    b"SR_RESEARCH": ("EyeLink's EDF", "text: edf2asc makes it"),
    b"PAR1": ("a Parquet file", "text: write it as CSV"),
    b"\x93NUMPY": ("a NumPy array", "text: numpy.savetxt with a header time,x,y"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "text: write the samples of gaze as CSV"),
    b"MATLAB": ("a MATLAB file", "text: MATLAB's writetable makes it"),
    b"XDF:": ("LabRecorder's XDF", "text: write its stream of gaze as CSV, read by pyxdf"),
}
"""Binary formats that users try instead of text: first bytes, name, and how to convert it."""


def _text(path: Path) -> str:
    if path.is_dir():
        named = sorted(p for p in path.iterdir() if p.is_file() and "gaze" in p.name.lower())
        example = f", as {named[0]}" if named else ""
        raise refusal(path, "a folder", f"a text file with a track of gaze{example}")
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        received = f"no file that can be read ({reason})"
        raise refusal(path, received, "a text file with a track of gaze; check the path") from None
    if instead := stand_in(data[:1024]):
        raise refusal(path, instead.what, f"a text file with a track of gaze; {instead.advice}")
    for start, (received, expected) in _BINARY.items():
        if data.startswith(start):
            raise refusal(path, received, expected)
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf_16 else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise refusal(path, "no rows, or no text", "CSV or other text: a line of names, then rows")


def _is_before_header(line: str) -> bool:
    return not line.strip() or line.startswith("#") or line.lower().startswith("sep=")


def _are_numbers(cells: list[str]) -> bool:
    try:
        [float(cell.strip()) for cell in cells]
    except ValueError:
        return False
    return True


def _screen(preamble: list[str]) -> Size | None:
    """The size in px in SMI's header (BeGaze manual: ``## Stimulus Dimension [px]:``)."""
    for name in ("stimulus dimension", "calibration area"):
        for line in preamble:
            found = re.match(rf"##\s*{name}\s*(?:\[px\])?:\s*(\d+)\s+(\d+)", line.lower())
            if found:
                return int(found[2]), int(found[1])
    return None


def _tobii_glasses(path: Path, text: str) -> Table:
    """The samples of Tobii Pro Glasses 3, ``gazedata``: an object of JSON in each line.

    ``gaze2d`` is a fraction of the scene video from the top left; ``timestamp`` seconds of the
    recording (Tobii Pro Glasses 3 Developer Guide, Recording: gazedata). A sample without gaze2d
    is lost.
    """
    rows: list[tuple[int, list[str]]] = []
    expected = "CSV, or the gazedata of Tobii Pro Glasses 3 (a line of JSON for each sample)"
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
            if sample["type"] != "gaze":
                continue
            x, y = map(str, map(float, sample["data"].get("gaze2d") or ("nan", "nan")))
            rows.append((number, [str(float(sample["timestamp"])), x, y]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise refusal(path, f"JSON of another kind in line {number}", expected) from None
    if not rows:
        raise refusal(path, "JSON without samples of gaze", expected)
    names = ("timestamp [s]", "gaze x [norm]", "gaze y [norm]")
    columns = tuple(Column(*parse_name(name), i) for i, name in enumerate(names))
    return Table(path, columns, tuple(rows))


def _eyelink(path: Path, text: str) -> Table:
    """The samples of an ASC file (EyeLink 1000 User Manual, "The ASC File Format").

    Sample lines contain time, x, y and pupil of one eye or both; a SAMPLES line says which.
    """
    rows: list[tuple[int, list[str]]] = []
    block, eyes, screen = "", ["left"], None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if words[0][0].isdigit():
            step = 3 * len(eyes) + 1
            cells = {eye: [".", "."] for eye in ("left", "right")}
            for eye, i in zip(eyes, range(1, step, 3), strict=True):
                cells[eye] = [*words[i : i + 2], ".", "."][:2]
            rows.append((number, [block, words[0], *cells["left"], *cells["right"]]))
        elif words[0] == "START":
            block = f"from {words[1]} ms" if len(words) > 1 else ""
        elif words[0] == "SAMPLES":
            if "GAZE" not in words:
                kind = words[1] if len(words) > 1 else "nothing"
                raise refusal(path, f"SAMPLES of {kind}", "gaze on the screen (edf2asc -sg)")
            eyes = [eye for eye in ("left", "right") if eye.upper() in words] or ["left"]
        elif re.match(r"MSG\s+\S+\s+(GAZE|DISPLAY)_COORDS", line):
            corners = [float(w) for w in words[3:] if re.fullmatch(r"[+-]?\d+(\.\d*)?", w)]
            if len(corners) == 4:  # left, top, right, bottom pixel
                screen = (round(corners[3] - corners[1] + 1), round(corners[2] - corners[0] + 1))
    if not rows:
        raise refusal(path, "an ASC file without samples", "samples (edf2asc without -ns)")
    names = ["recording block", "timestamp [ms]"]
    names += ["LEFT_GAZE_X", "LEFT_GAZE_Y", "RIGHT_GAZE_X", "RIGHT_GAZE_Y"]
    columns = tuple(Column(*parse_name(name), i) for i, name in enumerate(names))
    return Table(path, columns, tuple(rows), screen)
