"""Files and folders that are complete or absent, whatever ends the program.

What is being written lies beside its target under a hidden name, ``.deepfovea-`` and eight
hexadecimal digits, and is locked. The system drops the lock of a program that was killed, so
that the next one to write into that folder can tell what was left there, and removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing that was left is removed
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = re.compile(r"\.deepfovea-[0-9a-f]{8}(\.(?!old$)\w*)?")
# Of Linux: renameat2(2)
_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` once the block has ended well.

    Until then whatever was there stays; a link stays one, and what it points to is replaced.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary, lock = create(target)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        os.close(lock)


def create(target: Path, *, folder: bool = False) -> tuple[Path, int]:
    """An empty hidden file, or folder, beside ``target``, and its lock (to be closed).

    Raises:
        OSError: it cannot be made.
    """
    _sweep(target.parent)
    while True:
        path = unfinished(target)
        if folder:
            path.mkdir()
        else:
            path.touch(exist_ok=False)
        lock = os.open(path if fcntl is not None else os.devnull, os.O_RDONLY)
        # Another program may have taken it for a leftover before it was locked.
        if _locked(lock) and path.exists():
            return path, lock
        os.close(lock)


def unfinished(target: Path) -> Path:
    """A hidden name beside ``target``, with its suffix."""
    return target.parent / f".deepfovea-{secrets.token_hex(4)}{target.suffix.lower()}"


def publish(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give a complete file or folder its name in one step; what it replaces is removed.

    Raises:
        FileExistsError: there is something of that name now, and it is not to be replaced.
        OSError: the name cannot be given.
    """
    if not overwrite:
        if not _renameat2(temporary, target, _NOREPLACE):
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            temporary.replace(target)
    elif not target.is_dir():
        temporary.replace(target)
    elif _renameat2(temporary, target, _EXCHANGE):
        shutil.rmtree(temporary, ignore_errors=True)
    else:  # not Linux: two steps, and a name that is not taken for a leftover
        old = temporary.with_suffix(".old")
        target.rename(old)
        try:
            temporary.replace(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def only_here(folder: Path) -> BinaryIO | None:
    """A lock on a folder, held until it is closed; None if another program holds it.

    Child processes do not inherit it, so that one that outlives its parent is not in the way.

    Raises:
        OSError: the folder cannot be written.
    """
    file = (folder / ".lock").open("ab")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # else a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
    return file


def _locked(handle: int) -> bool:
    """Lock it; False if another program has."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # a file system without locks: see _sweep
            return error.errno != errno.EAGAIN
    return True


def _sweep(folder: Path) -> None:
    """Remove what programs that were killed have left in a folder."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        left = [entry.path for entry in os.scandir(folder) if _UNFINISHED.fullmatch(entry.name)]
        for path in left:
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if Path(path).is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        Path(path).unlink()
                finally:
                    os.close(handle)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Whether Linux could do it; False too where a system or file system knows no such call."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(source), os.fsencode(target)
    done: int = call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flags)
    return done == 0
