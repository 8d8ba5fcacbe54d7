"""Where outputs may go: never onto or into what is read; into folders that are made for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from ..config import InputError


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would replace, or land inside, what is read.

    An output must not be an input (the same file by whatever name: a link, a hard link, another
    spelling), lie inside a folder that is an input, or be a folder that holds an input; nor may
    two outputs be the same. Inputs that do not exist are passed over.

    Raises:
        InputError: names both paths. Nothing has been touched.
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
    """How they overlap, in words; empty if they do not."""
    target, origin = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    if _same(target, origin):
        return "is"
    if any(_same(parent, origin) for parent in target.parents):
        return "lies inside"
    if any(_same(parent, target) for parent in origin.parents):
        return "holds"
    with contextlib.suppress(OSError):  # no folder, or one that its reader will complain about
        for entry in os.scandir(origin):
            # An image of the folder may be a link to what would be replaced.
            image = Path(os.path.realpath(entry.path)) if entry.is_symlink() else Path(entry.path)
            if entry.is_symlink() and target in (image, *image.parents):
                return "is linked from"
            if target.is_file() and entry.inode() == target.stat().st_ino and _same(image, target):
                return "is a hard link into"
    return ""


def _same(one: Path, other: Path) -> bool:
    """Whether two real paths are one file: by name, or by what the file system says."""
    if one == other:
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def refuse_unusable_folder(folder: Path) -> None:
    """Say at the start that :func:`ensure_folder` will fail at the end.

    Raises:
        InputError: the folder, or the next one above it that exists, cannot be written into.
    """
    nearest = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written into" if nearest.is_dir() else "is a file"
        raise InputError(f"{folder}: no folder for outputs ({nearest} {reason}); choose another")


@contextlib.contextmanager
def ensure_folder(folder: Path) -> Iterator[None]:
    """A folder for outputs, made with its parents where it is missing.

    What was made is removed again if the block fails and left it empty.

    Raises:
        InputError: it cannot be made.
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
