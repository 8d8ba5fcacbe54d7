"""Keeps finished rows on disk, so that an interrupted evaluation can continue."""

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
    """Finished clips and costs, one per line, in hidden files beside the JSON of the result.

    A run uses them if it would compute the same, by the key of :meth:`open`. If there are several
    processes, each writes a file of its own and reads all of them.
    """

    def __init__(self, target: Path, inputs: Sequence[Path] = ()) -> None:
        """Set the paths; nothing is read or written yet.

        Args:
            target: the file of the result.
            inputs: other files that decide the figures, beside clips and models: those of the gaze.
        """
        self.folder, self.inputs = target.parent, inputs
        self.name = f".deepfovea-rows-{target.name}-"  # and the number of the process
        self.clips: dict[str, tuple[list[Row], list[str]]] = {}
        self.costs: dict[str, Cost] = {}

    def open(self, record: Any, files: Iterable[Path], rank: int) -> None:
        """Read what an interrupted run with the same key has kept, and prepare to write.

        Args:
            record: everything that decides the figures, as JSON; it makes the key.
            files: clips, and folders of other tools' frames; their sizes and times make the key,
                too.
            rank: the number of this process.

        Raises:
            InputError: the folder cannot be written.
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
        """Whether a file has this key; if so, take over its complete lines."""
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
        if path == self.path and not text.endswith("\n"):  # remove an incomplete line
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        return True

    def add(self, clip: str, rows: Sequence[Row], notes: Sequence[str]) -> None:
        """Keep the rows of a finished clip."""
        records = [row_record(row) for row in rows]
        self._append({"clip": clip, "rows": records, "notes": list(notes)})

    def add_cost(self, method: str, cost: Cost) -> None:
        """Keep the cost of a method."""
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
        """Remove everything that was kept, as the result is written."""
        for path in self._paths():
            path.unlink(missing_ok=True)


def _fingerprint(path: Path) -> list[Any]:
    """Names, sizes and times of a file, or of all files in a folder."""
    if not path.is_dir():
        paths = [path]
    else:
        paths = sorted(found for found in path.rglob("*") if found.is_file())
    states = [(one, one.stat()) for one in paths if one.exists()]
    return [[str(one), state.st_size, state.st_mtime_ns] for one, state in states]
