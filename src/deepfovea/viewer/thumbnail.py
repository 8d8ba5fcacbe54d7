"""A small picture of a video, for the page's list of videos."""

from __future__ import annotations

import io
import time
from pathlib import Path

from PIL import Image

from ..files_to_files import to_tensor
from ..images import to_image
from .player import Player

# All are our choice.
SIZE = (192, 144)  # largest width and height, pixels: twice what the page shows, for fine displays
JPEG_QUALITY = 80
SEEK_SECONDS = 2.0  # longest time of the way to the middle; then an earlier frame is taken


def thumbnail(path: Path, name: str) -> bytes:
    """Draw the frame in the middle of a video small; return a JPEG.

    Raises InputError as :class:`.player.Player`, which names the video ``name``.
    """
    player = Player(path, name)
    try:
        until = time.monotonic() + SEEK_SECONDS
        player.seek((player.duration or 0.0) / 2, lambda: time.monotonic() < until)
        image = Image.fromarray(to_image(to_tensor(player.frame.image)))
    finally:
        player.close()
    image.thumbnail(SIZE)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
