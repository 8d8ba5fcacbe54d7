"""The log of a run: rows of metrics, TensorBoard, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..config import InputError
from ..images import prediction_grid
from ..io.atomic import atomic_write, exclusive_lock


class Log:
    """Writes ``metrics.jsonl``, ``pictures/`` and ``tensorboard/`` of a run folder.

    Args:
        run: the folder.
        step: the step at which the run begins or continues; later rows of an interrupted run are
            removed.
        names: new names for terms that are logged under another name.

    Raises:
        InputError: the folder cannot be written, or another training run writes into it.
    """

    def __init__(self, run: Path, step: int, names: Mapping[str, str]) -> None:
        self.metrics = run / "metrics.jsonl"
        self.pictures = run / "pictures"
        self.names = names
        with explained_write_errors(run):
            self.lock = exclusive_lock(run)  # held until this object is deleted
            if self.lock is None:
                raise InputError(
                    f"{run}: received a folder that another training is writing into; wait for "
                    "it, or choose another folder"
                )
            if self.metrics.exists():
                _drop_rows_after(self.metrics, step)
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row of metrics."""
        row = {self.names.get(name, name): float(f"{value:.6g}") for name, value in values.items()}
        with explained_write_errors(self.metrics):
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
            for name, value in row.items():
                self.board.add_scalar(name, value, step)

    def picture(self, step: int, samples: Tensor, prediction: Tensor, label: Tensor) -> None:
        """Write the picture of one clip: see :func:`deepfovea.images.prediction_grid`."""
        sheet = prediction_grid(samples, prediction, label)
        with explained_write_errors(self.pictures):
            self.pictures.mkdir(exist_ok=True)
            with atomic_write(self.pictures / f"{step:07d}.png") as file:
                Image.fromarray(sheet).save(file, "PNG")
            self.board.add_image("frames", sheet, step, dataformats="HWC")

    def notes(self, notes: Sequence[str]) -> None:
        """Write how the run differs from the published one."""
        if notes:
            self.board.add_text("objective", "\n".join(f"- {note}" for note in notes), 0)

    def close(self) -> None:
        """Write the rest, unless the disk is full."""
        with suppress(OSError):
            self.board.close()


@contextmanager
def explained_write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system about a file or folder into an InputError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: cannot be written ({reason}); choose a folder with space and permission"
        ) from None


def _drop_rows_after(metrics: Path, after: int) -> None:
    """Remove the rows after a step, as a resumed run writes them again."""
    rows = [
        line
        for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        if _step_of(line) <= after
    ]
    with atomic_write(metrics) as file:
        file.write("".join(rows).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # an incomplete line
