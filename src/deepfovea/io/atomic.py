"""Atomic writes: an output file or folder is complete or absent, however the program ends.

An output is first written to a temporary file or folder beside its target, named ``.deepfovea-``
and eight hexadecimal digits, and locked. If the program is killed, the system releases the lock; so
the next write into the same folder can tell stale temporaries and removes them.
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
except ImportError:  # Windows has no such locks, so stale temporaries stay there
    fcntl = None  # type: ignore[assignment]

_TEMPORARY_NAME = re.compile(r"\.deepfovea-[0-9a-f]{8}(\.(?!old$)\w*)?")
# Constants of Linux's renameat2(2)
_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` if the block ends without an error.

    Until then an existing file stays as it is. If ``path`` is a symbolic link, its target is
    replaced.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary, lock = create_temporary(target)
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


def create_temporary(target: Path, *, folder: bool = False) -> tuple[Path, int]:
    """Make an empty hidden file or folder beside ``target`` and lock it.

    Returns:
        Its path, and the lock: a file descriptor that the caller has to close.

    Raises:
        OSError: it cannot be created.
    """
    remove_stale(target.parent)
    while True:
        path = temporary_path(target)
        if folder:
            path.mkdir()
        else:
            path.touch(exist_ok=False)
        lock = os.open(path if fcntl is not None else os.devnull, os.O_RDONLY)
        # Before it was locked, another program may have removed it as stale.
        if _try_lock(lock) and path.exists():
            return path, lock
        os.close(lock)


def temporary_path(target: Path) -> Path:
    """A hidden name beside ``target``, with the same suffix."""
    return target.parent / f".deepfovea-{secrets.token_hex(4)}{target.suffix.lower()}"


def publish(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a complete file or folder to ``target`` in one step, and remove what was there.

    Raises:
        FileExistsError: ``target`` exists and ``overwrite`` is false.
        OSError: it cannot be renamed.
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
    else:  # not Linux, so in two steps; names with .old are never removed as stale
        old = temporary.with_suffix(".old")
        target.rename(old)
        try:
            temporary.replace(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def exclusive_lock(folder: Path) -> BinaryIO | None:
    """Lock a folder until the returned file is closed; None if another program has locked it.

    Child processes do not inherit the lock, so a child that outlives its parent blocks nobody.

    Raises:
        OSError: the folder cannot be written.
    """
    file = (folder / ".lock").open("ab")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # other errors: a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
    return file


def _try_lock(handle: int) -> bool:
    """Try to lock; False if another program holds the lock."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # a file system without locks: see remove_stale
            return error.errno != errno.EAGAIN
    return True


def remove_stale(folder: Path) -> None:
    """Remove the temporary files and folders that killed programs have left in a folder."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        left = [entry.path for entry in os.scandir(folder) if _TEMPORARY_NAME.fullmatch(entry.name)]
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
    """Call renameat2; False if it fails, or the system or the file system does not support it."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(source), os.fsencode(target)
    done: int = call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flags)
    return done == 0
