"""Checks before outputs are written: they must not replace inputs; and folders made for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from ..config import InputError


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would replace an input or lie inside one.

    An output must not be an input (also not by a link, a hard link or another spelling of its
    path), lie inside a folder that is an input, or be a folder that contains an input; and two
    outputs must not be the same. Inputs that do not exist are ignored.

    Raises:
        InputError: there is such an overlap; the message names both paths. Nothing was changed.
    """
    outputs = list(outputs)
    sources = [path for path in inputs if os.path.lexists(path)]
    for output in outputs:
        for source in sources:
            if how := _overlap(output, source):
                raise InputError(
                    f"{output}: received an output that {how} the input {source}; nothing was "
                    "written: choose another name or folder"
                )
    for one, other in combinations(outputs, 2):
        if os.path.realpath(one) == os.path.realpath(other):
            raise InputError(f"{one}: received this name for two outputs; choose two names")


def _overlap(output: Path, source: Path) -> str:
    """The verb that says how the output overlaps the input; empty if it does not."""
    target, origin = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    if _same(target, origin):
        return "is"
    if any(_same(parent, origin) for parent in target.parents):
        return "lies inside"
    if any(_same(parent, target) for parent in origin.parents):
        return "holds"
    with contextlib.suppress(OSError):  # not a folder, or its reader will report the error
        for entry in os.scandir(origin):
            # An image in the folder may be a link to the file that would be replaced.
            image = Path(os.path.realpath(entry.path)) if entry.is_symlink() else Path(entry.path)
            if entry.is_symlink() and target in (image, *image.parents):
                return "is linked from"
            if target.is_file() and entry.inode() == target.stat().st_ino and _same(image, target):
                return "is a hard link into"
    return ""


def _same(one: Path, other: Path) -> bool:
    """Whether two real paths are the same file, by their names or by the file system."""
    if one == other:
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def refuse_unusable_folder(folder: Path) -> None:
    """Check before a long run that :func:`ensure_folder` will succeed after it.

    Raises:
        InputError: the folder, or the nearest existing one above it, cannot be written.
    """
    nearest = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written into" if nearest.is_dir() else "is a file"
        raise InputError(f"{folder}: no folder for outputs ({nearest} {reason}); choose another")


@contextlib.contextmanager
def ensure_folder(folder: Path) -> Iterator[None]:
    """Make a folder for outputs, and its parents, where they are missing.

    If the block fails, the folders that were made are removed again, unless something is in them.

    Raises:
        InputError: the folder cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: no folder for outputs ({error.strerror}); choose another"
        ) from None
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # something is in it, or it is gone
                path.rmdir()
        raise
