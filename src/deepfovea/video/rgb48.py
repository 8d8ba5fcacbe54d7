"""PNG files whose 16-bit values are numbers, not colours, such as KITTI's motion."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from .container import reason_of, refuse


def read_rgb48(path: Path) -> np.ndarray:
    """Read a PNG of three channels of 16 bits without conversion: uint16 [H, W, 3].

    Raises:
        InputError: it is another kind of file.
        OSError: it cannot be opened.
    """
    expected = "a PNG of three channels of 16 bits"
    path.open("rb").close()  # if the file is missing, raises the usual OSError
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            if frame.format.name not in ("rgb48be", "rgb48le"):
                refuse(path, f"a picture of the format {frame.format.name}", expected)
            values: np.ndarray = frame.to_ndarray()
    except (av.FFmpegError, StopIteration, IndexError) as error:
        refuse(path, f"no picture that can be read ({reason_of(error)})", expected)
    return values.astype(np.uint16)
