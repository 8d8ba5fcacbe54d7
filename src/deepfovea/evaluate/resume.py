"""Rows are kept on the disk as they come, so that an interrupted run continues where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..config import InputError
from .report import row_from, row_record
from .result import Cost, Row


class KeptRows:
    """Finished clips and costs beside the JSON that will hold them, a line each.

    A run uses them if it would compute the same, which the key of :meth:`open` says. Several
    processes write a file each and read the files of all.
    """

    def __init__(self, target: Path, inputs: Sequence[Path] = ()) -> None:
        """Nothing is read or written yet.

        Args:
            target: the file of the result; rows are kept in hidden files beside it.
            inputs: files that decide the figures besides clips and models, as those of the gaze.
        """
        self.folder, self.inputs = target.parent, inputs
        self.name = f".deepfovea-rows-{target.name}-"  # and the number of the process
        self.clips: dict[str, tuple[list[Row], list[str]]] = {}
        self.costs: dict[str, Cost] = {}

    def open(self, record: Any, files: Iterable[Path], rank: int) -> None:
        """Read what an interrupted run with the same key has kept, and write further rows.

        Args:
            record: all that decides the figures, as JSON.
            files: clips, and folders of other tools' frames.
            rank: the number of this process.

        Raises:
            InputError: nothing can be written there.
        """
        prints = [_fingerprint(path) for path in (*files, *self.inputs)]
        key = sha256(json.dumps([record, prints]).encode()).hexdigest()
        self.path = mine = self.folder / f"{self.name}{rank}"
        matches = False
        for path in self._paths():
            matches |= self._read(path, key) and path == mine
        if not matches:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                mine.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
            except OSError as error:
                with contextlib.suppress(OSError):
                    mine.unlink(missing_ok=True)
                raise InputError(
                    f"{mine}: cannot be written ({error.strerror}); choose another --json"
                ) from None

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        paths = (path for path in self.folder.iterdir() if path.name.startswith(self.name))
        return sorted(path for path in paths if path.name.removeprefix(self.name).isdigit())

    def _read(self, path: Path, key: str) -> bool:
        """Whether a file has that key; its complete lines are taken over."""
        try:
            text = path.read_text(encoding="utf-8")
            head, *lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
            if head != {"key": key}:
                return False
            for line in lines:
                if "clip" in line:
                    rows = [row_from(record) for record in line["rows"]]
                    self.clips[line["clip"]] = (rows, line["notes"])
                else:
                    self.costs[line["method"]] = Cost(**line["cost"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if path == self.path and not text.endswith("\n"):  # stopped while it wrote a line
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        return True

    def add(self, clip: str, rows: Sequence[Row], notes: Sequence[str]) -> None:
        """A clip is finished."""
        records = [row_record(row) for row in rows]
        self._append({"clip": clip, "rows": records, "notes": list(notes)})

    def add_cost(self, method: str, cost: Cost) -> None:
        """A method's cost is measured."""
        self._append({"method": method, "cost": asdict(cost)})

    def _append(self, line: Any) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and give the same "
                "command again"
            ) from None

    def remove(self) -> None:
        """The result is written: nothing is kept any longer."""
        for path in self._paths():
            path.unlink(missing_ok=True)


def _fingerprint(path: Path) -> list[Any]:
    """Name, size and time of a file, or of all that a folder holds."""
    if not path.is_dir():
        paths = [path]
    else:
        paths = sorted(found for found in path.rglob("*") if found.is_file())
    states = [(one, one.stat()) for one in paths if one.exists()]
    return [[str(one), state.st_size, state.st_mtime_ns] for one, state in states]
