"""The progress of a training run: a bar in a terminal, lines at intervals elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..wording import format_duration

LINE_SECONDS = 30.0
"""Seconds between two lines, if there is no terminal for a bar. Our choice."""

TIMED_STEPS = 100
"""Number of latest steps whose median gives the time left; the very first step, which compiles and
fills caches, does not count. Our choice."""


class TrainingProgress:
    """Shows steps, losses and the time left on stderr.

    Args:
        title: title of the run.
        steps: number of steps of the whole run.
        step: number of steps that are done already.
        visible: False in all processes but the main one.
    """

    def __init__(self, title: str, steps: int, step: int, visible: bool = True) -> None:
        self.steps = steps
        self.visible = visible
        self.in_terminal = visible and os.isatty(2)
        self.step_seconds: deque[float] = deque(maxlen=TIMED_STEPS)
        self._last_step: float | None = None
        self._last_line = -LINE_SECONDS
        self._told_left = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("loss {task.fields[loss]}"),
            console=Console(stderr=True),
            disable=not self.in_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, completed=step, loss="", left="")

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, losses: Mapping[str, float]) -> None:
        """Call it after every step with the losses by name; the bar shows the first one."""
        now = time.monotonic()
        if self._last_step is not None:
            self.step_seconds.append(now - self._last_step)
        self._last_step = now
        left = self.time_left(step)
        first = next(iter(losses.values()))
        self._bar.update(self._task, completed=step, loss=f"{first:.4f}", left=left)
        due = now - self._last_line >= LINE_SECONDS or step == self.steps
        due |= bool(left) and not self._told_left  # print the time left as soon as it is known
        if self.visible and not self.in_terminal and due:
            self._last_line, self._told_left = now, bool(left)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
            print(f"step {step}/{self.steps}  {shown}  {left}", file=sys.stderr, flush=True)

    def time_left(self, step: int) -> str:
        """The time left, in words, by the median of the latest steps; empty before two of them."""
        if len(self.step_seconds) < 2:
            return ""
        seconds = median(self.step_seconds)
        return f"{seconds:.2g} s/step, {format_duration((self.steps - step) * seconds)} left"
