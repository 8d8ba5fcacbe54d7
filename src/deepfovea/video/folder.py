"""Finds the clips in a folder, which are videos and folders of images, among other files."""

from __future__ import annotations

import itertools
import logging
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .container import IMAGE_SUFFIXES, READ_ONLY_SUFFIXES, VIDEO_SUFFIXES, reason_of, refuse

_SUFFIXES = (*VIDEO_SUFFIXES, *READ_ONLY_SUFFIXES)
_POSTERS = ("cover", "fanart", "folder", "poster", "preview", "thumb", "thumbnail")
_log = logging.getLogger(__name__)


def list_images(folder: str | Path) -> list[Path]:
    """The images in ``folder``, sorted by name, with numbers in names compared as numbers.

    So ``frame2.png`` comes before ``frame10.png``. Hidden files and other suffixes are left out.
    Raises InputError if the folder cannot be listed; without images the list is empty.
    """

    def natural(path: Path) -> tuple[list[str | int], str]:
        parts = re.split(r"(\d+)", path.name.casefold())
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    try:
        entries = list(Path(folder).iterdir())
    except OSError as error:
        refuse(folder, f"no folder that can be listed ({reason_of(error)})", "a folder of images")
    images = (p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted((p for p in images if p.is_file()), key=natural)


def is_video(path: Path) -> bool:
    """Whether a path is a file with the suffix of a video."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def find_videos(root: str | Path) -> list[Path]:
    """Find video files and folders with images in ``root`` and below it, sorted by path.

    Suffixes decide what a file is; hidden files are left out. Images beside videos are assumed to
    be their thumbnails. Links to folders are followed, each folder once. Raises InputError if
    nothing is found.
    """
    expected = "a folder that holds videos or folders of images"
    if not Path(root).is_dir():
        refuse(root, "no such folder", expected)
    found: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        real = os.path.realpath(folder)
        if real in seen:  # links can lead in a circle
            folders.clear()
            continue
        seen.add(real)
        paths = [Path(folder, name) for name in files if name[0] != "."]
        videos = [p for p in paths if p.suffix.lower() in _SUFFIXES]
        images = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES]
        found.extend(videos)
        if images and not videos:
            found.append(Path(folder))
        elif others := _not_thumbnails(images, videos):
            _log.warning(
                "%s: holds videos and %d images, %s among them; the images are left out: "
                "put them into a folder of their own if they are a clip",
                *(folder, len(others), others[0].name),
            )
    if not found:
        refuse(root, "neither videos nor images", expected)
    return sorted(found)


def _not_thumbnails(images: list[Path], videos: list[Path]) -> list[Path]:
    """The images whose names neither begin with a video's name nor are usual for a poster."""
    names = tuple(video.stem.casefold() for video in videos)
    return [
        image
        for image in sorted(images)
        if not image.stem.casefold().startswith((*names, *_POSTERS))
    ]


def odd_numbering(images: Sequence[Path]) -> list[str]:
    """Warnings about a folder's images as frames of one clip: several sequences, or gaps."""
    sequences: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in images:
        match = re.fullmatch(r"(.*?)(\d{1,18})(\D*)", image.stem)
        if match:
            sequences[match[1], match[3]].append(int(match[2]))
    said = []
    several = {name: numbers for name, numbers in sequences.items() if len(numbers) > 1}
    if len(several) > 1:
        names = [f"{before}…{after}" for before, after in several]
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        said.append(
            f"holds {len(names)} numbered sequences ({listed}), which are taken for one clip, one "
            "after the other; give each a folder of its own if they are not"
        )
    for numbers in several.values():
        ordered = sorted(set(numbers))
        steps = [b - a for a, b in itertools.pairwise(ordered)]
        if not steps or min(steps) != statistics.median_low(steps):
            continue  # the numbers are times, or something else
        gaps = [(a, b) for a, b in itertools.pairwise(ordered) if b - a > min(steps)]
        if gaps:
            missing = sum((b - a) // min(steps) - 1 for a, b in gaps)
            said.append(
                f"{missing} numbers are missing, the first between {gaps[0][0]} and "
                f"{gaps[0][1]}; the frames follow one another without a pause"
            )
            break
    return said
