"""Reconstructs frame by frame, as for a display with an eye tracker.

python examples/gaze_contingent_loop.py
"""

import numpy as np

import deepfovea


def camera(frame: int) -> np.ndarray:
    """A stand-in for a renderer or camera: uint8 [96, 128, 3]."""
    y, x = np.mgrid[:96, :128]
    return np.stack([2 * x, 2 * y, (x + y + 4 * frame) % 256], -1).astype(np.uint8)


def eye_tracker(frame: int) -> tuple[float, float]:
    """A stand-in for an eye tracker: (x, y) in pixels of the frame."""
    return 64.0 + 20.0 * np.cos(frame / 5), 48.0 + 20.0 * np.sin(frame / 5)


def main() -> None:
    """Reconstruct eight frames at four times their size."""
    reconstructor = deepfovea.Reconstructor("stream")
    for number in range(8):
        shown = reconstructor(camera(number), eye_tracker(number))
        print(number, shown.shape, shown.dtype)


if __name__ == "__main__":
    main()
