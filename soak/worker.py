"""A process that runs command lines of deepfovea one after the other and is watched from outside.

A command line that ends this process, or takes too long, is counted like any other outcome.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 10.0  # seconds; small files need a tenth of it


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command line.

    Attributes:
        kind: success, refused (one line, code 2), part failed (evaluate, code 1), traceback,
            crash, hang or unclear.
        lines: the lines on stderr.
        warnings: the messages that deepfovea logged.
        seconds: the duration.
    """

    kind: str
    lines: list[str]
    warnings: list[str]
    seconds: float

    @property
    def fine(self) -> bool:
        return self.kind in ("success", "refused", "part failed")


def environment(**more: str) -> dict[str, str]:
    """The environment variables of a process that imports this checkout and uses one processor."""
    paths = [str(ROOT / "src"), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(paths), **more)


class Worker:
    """The process: it starts at the first command line, and again after a crash or a hang."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.timeout_seconds = timeout_seconds
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(
        self, *words: object, timeout_seconds: float | None = None, file_limit: int | None = None
    ) -> Outcome:
        """Run a command line; ``file_limit``: largest size of a file, bytes, as on a full disk."""
        if self.process is None:
            command = [sys.executable, "-m", "soak.worker"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(command, env=environment(), cwd=ROOT, **pipes)
            self._answer(60.0)  # imports
        started = time.perf_counter()
        text = json.dumps([file_limit, [str(word) for word in words]])
        with contextlib.suppress(BrokenPipeError):  # the process has crashed, which _answer reports
            self.process.stdin.write(text.encode("ascii") + b"\n")
            self.process.stdin.flush()
        try:
            code, lines, warnings = self._answer(timeout_seconds or self.timeout_seconds)
        except (EOFError, TimeoutError) as error:
            self.end()
            kind = "hang" if isinstance(error, TimeoutError) else "crash"
            return Outcome(kind, [kind], [], time.perf_counter() - started)
        seconds = time.perf_counter() - started
        return Outcome(classify(code, lines, words[0]), lines, warnings, seconds)

    def _answer(self, timeout_seconds: float) -> list:
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_seconds)
        if not ready:
            raise TimeoutError
        if not (line := self.process.stdout.readline()):
            raise EOFError
        return json.loads(line)


def classify(code: int, lines: list[str], subcommand: object) -> str:
    """The kind of outcome of a command line, from its exit code and its lines on stderr."""
    if any("Traceback" in line for line in lines):
        return "traceback"
    if code == 0:
        return "success"
    if code == 1 and subcommand in ("evaluate", "validate"):
        return "part failed"
    # These also print on stderr what they have done with each clip, or what they will do.
    if subcommand in ("evaluate", "reconstruct", "infer"):
        lines = lines[-1:]
    if code == 2 and len(lines) == 1 and lines[0].startswith("deepfovea"):
        return "refused"
    return "unclear"


def main() -> None:
    """Answer each command line (one line of JSON) with [code, lines of stderr, warnings]."""
    # stdout and stderr are redirected at the system's level, to catch what C libraries print too.
    answers = os.fdopen(os.dup(1), "w")
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
    os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import torch

    from deepfovea.cli import main as deepfovea

    torch.set_num_threads(1)
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("deepfovea").addHandler(handler)
    logging.getLogger("deepfovea").propagate = False
    answers.write("[]\n")
    answers.flush()
    for line in sys.stdin:
        stderr.seek(0)
        stderr.truncate()
        logged.clear()
        limit, words = json.loads(line)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            code = deepfovea(words)
        except SystemExit as exit:
            code = exit.code
        except BaseException:
            traceback.print_exc()
            code = 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        sys.stderr.flush()
        stderr.seek(0)
        lines = stderr.read().decode(errors="replace").splitlines()
        answers.write(json.dumps([code, lines[-30:], logged]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
