"""Samples where a live eye tracker says that the eye looks: python examples/live_gaze.py [udp:5005]

Without an argument the program also plays the tracker: it sends JSON to itself.
"""

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np

import deepfovea
from deepfovea.gaze.live import GazeRecording

FRAME_RATE = 24


def simulated_tracker(port: int, frame: int) -> None:
    """Send one gaze position as a game engine would: normalised, with the sender's own time."""
    look = {"time": time.monotonic(), "x": 0.5 + 0.02 * frame, "y": 0.4, "confidence": 0.95}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(json.dumps(look).encode(), ("127.0.0.1", port))


def main(source: str, simulate: bool, recording_path: Path) -> None:
    """Reconstruct eight frames, and record the gaze position of each."""
    reconstructor = deepfovea.Reconstructor("stream")
    height, width = 96, 128
    video = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    recording = GazeRecording(recording_path, FRAME_RATE, overwrite=True)
    with deepfovea.LiveGaze(source) as gaze:
        for number, frame in enumerate(video):
            if simulate and gaze.port is not None:
                before = gaze.newest
                simulated_tracker(gaze.port, number)
                gaze.wait(1.0, after=before)
            look = gaze.look()
            x, y = look.position
            shown = reconstructor(frame, (x * width - 0.5, y * height - 0.5))
            recording.add(number / FRAME_RATE, look)
            print(number, f"{x:.2f}, {y:.2f}", shown.shape)
        print(gaze.counts)
    recording.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if arguments else "udp:0", not arguments, Path("live-gaze.csv"))
