"""The folders of the data set REDS."""

from __future__ import annotations

from pathlib import Path

from ..config import InputError

SPLITS = ("train", "val", "test")


def split_folder(root: Path, split: str) -> Path:
    """Find the folder of one split of a data set.

    The names may be those of REDS, ``train/train_sharp``, ``val/val_sharp`` and
    ``test/test_sharp``, or the same without the outer folder, or ``train``, ``val`` and ``test`` if
    at least two of these exist. A folder with other names has no splits and is returned itself.

    Args:
        root: folder of the data set.
        split: one of :data:`SPLITS`.

    Raises:
        InputError: the data set has other splits, but not this one.
    """
    if split not in SPLITS:
        raise ValueError(f"received the split {split!r}, expected one of {SPLITS}")
    layouts = [
        {name: root / name / f"{name}_sharp" for name in SPLITS},
        {name: root / f"{name}_sharp" for name in SPLITS},
        {name: root / name for name in SPLITS},
    ]
    for folders, least in zip(layouts, (1, 1, 2), strict=True):
        found = [name for name, folder in folders.items() if folder.is_dir()]
        if split in found and len(found) >= least:
            return folders[split]
        if len(found) >= least:
            there = " and ".join(str(folders[name].relative_to(root)) for name in found)
            raise InputError(
                f"{root}: received {there}, expected {folders[split].relative_to(root)} too; "
                "add it, or give the folder of the videos itself"
            )
    return root
