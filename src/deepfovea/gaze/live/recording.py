"""Records the gaze with which frames were made, as a CSV file that ``--gaze`` reads.

It has one row per frame shown. ``time`` is the time in the video, so that the file replays exactly:
at the time of a frame, :func:`deepfovea.read_track` gives the position where it was sampled.
"""

from __future__ import annotations

from pathlib import Path

from ...config import InputError
from ...io.atomic import atomic_write
from ...io.outputs import ensure_folder, refuse_unusable_folder
from ..track import CLOCK_SLACK_SECONDS
from .sample import GazeEstimate

HEADER = (
    "time [s],x [norm],y [norm],asked own clock [s],sample own clock [s],sample tracker clock [s],"
    "sample valid,landing predicted"
)
_BEFORE_NEXT_SECONDS = 2 * CLOCK_SLACK_SECONDS  # an added row must not reach the next one


class GazeRecording:
    """Collects one row per frame of a video in memory, and writes the file when closed.

    If a frame is recorded several times, the last one counts, as on the screen. Memory grows only
    with the number of frames. A missing folder is created with the file. Raises InputError if the
    file exists and ``overwrite`` is false, or if the folder cannot be created.
    """

    def __init__(self, path: str | Path, frame_rate: float, *, overwrite: bool = False) -> None:
        self.path, self._interval = Path(path), 1 / frame_rate
        self._rows: dict[float, GazeEstimate] = {}
        if not overwrite and self.path.exists():
            raise InputError(f"{path}: exists already; choose another name or pass --overwrite")
        refuse_unusable_folder(self.path.parent)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, pts_seconds: float, look: GazeEstimate) -> None:
        """Record where the frame at a time of the video was sampled."""
        self._rows[pts_seconds] = look

    def close(self) -> None:
        """Write the file, complete or not at all; no file if no frame was shown.

        Raises InputError if it cannot be written.
        """
        if not self._rows:
            return
        shown = sorted(self._rows.items())
        ends = [pts for pts, _ in shown[1:]] + [shown[-1][0] + self._interval]
        lines = [HEADER]
        for (pts, look), end in zip(shown, ends, strict=True):
            # While a frame was skipped, the screen showed the picture, and so the gaze, of the
            # frame before.
            count = max(1, round((end - pts) / self._interval))
            for k in range(count):
                time = min(pts + k * self._interval, end - _BEFORE_NEXT_SECONDS) if k else pts
                lines.append(_row(time, look))
        try:
            with ensure_folder(self.path.parent), atomic_write(self.path) as file:
                file.write("\n".join([*lines, ""]).encode())
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose a "
                "folder with space and write permission"
            ) from None


def _row(time: float, look: GazeEstimate) -> str:
    sample = look.sample
    own = tracker = valid = ""
    if sample is not None:
        own, valid = repr(sample.own_seconds), str(int(sample.valid))
        tracker = "" if sample.tracker_seconds is None else repr(sample.tracker_seconds)
    x, y = look.position
    numbers = [repr(time), repr(float(x)), repr(float(y)), repr(look.seconds)]
    return ",".join([*numbers, own, tracker, valid, str(int(look.predicted))])
