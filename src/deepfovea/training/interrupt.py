"""Ctrl-C and SIGTERM end a training run after its current step, so that it can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """A signal stopped a run; the message says what is saved and how to continue.

    ``exit_code`` is the one that shells expect: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _CutShort(KeyboardInterrupt):
    """Ends the block of :meth:`StopSignals.cuts_short`."""


class StopSignals:
    """A context in which the first Ctrl-C or SIGTERM sets ``received``, and a second one aborts.

    A step that fails after a signal raises :class:`TrainingInterrupted`: it may have failed because
    another process of this training has ended already and does not answer any more.

    In other threads than the main one, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}
        self._cuts_short = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        now = b"now" if self._cuts_short else b"after this step"
        said = b"stopping %s to save it; once more stops at once and saves nothing\n" % now
        os.write(2, said)  # not print, which the signal may have interrupted
        if self._cuts_short:
            raise _CutShort

    @contextmanager
    def cuts_short(self) -> Iterator[None]:
        """A block that the first signal ends at once; the code after the block saves the run."""
        try:
            self._cuts_short = True
            yield
            self._cuts_short = False
        except _CutShort:
            pass
        finally:
            self._cuts_short = False

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.received and isinstance(error, RuntimeError):
            reason = " ".join(str(error).split())
            raise TrainingInterrupted(
                f"interrupted; the step under way failed and was not saved ({reason:.100})",
                128 + self.received,
            ) from error


def outlive_signals(_worker: int) -> None:
    """Make a process that reads clips ignore signals, as a run that stops needs it until the end.

    A terminal sends Ctrl-C, and torchrun or a batch system sends SIGTERM, to all processes of a
    group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
