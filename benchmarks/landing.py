"""Measures the error of predicted landing points on a simulated eye: python benchmarks/landing.py

Prints the table of docs/live-gaze.md. The simulated saccades follow the profile that the prediction
assumes, so the figures are a bound for the method, not a measurement of people.
"""

import numpy as np

from deepfovea.gaze import DEFAULT_DISPLAY, synthetic
from deepfovea.gaze.live import LiveSample
from deepfovea.gaze.live.saccade import SaccadeDetector

SECONDS, SEED = 40.0, 1


def error(rate_hz, noise_deg):
    track = synthetic(SEED, SECONDS, rate_hz=rate_hz)
    size_px = np.array([DEFAULT_DISPLAY.width_px, DEFAULT_DISPLAY.height_px])
    frame_deg = size_px / DEFAULT_DISPLAY.pixels_per_degree
    noise = np.random.default_rng(SEED).normal(0, noise_deg, track.position.shape) / frame_deg
    detector = SaccadeDetector()
    for t, (x, y) in zip(
        track.time_seconds.tolist(), (track.position + noise).tolist(), strict=True
    ):
        detector.add(LiveSample((x, y), (x, y), True, t, t, None))
    return detector.error


def main():
    print("| rate | noise | guess | newest sample |\n|---:|---:|---:|---:|")
    for rate_hz in (120, 250, 1000):
        for noise_deg in (0.0, 0.05, 0.2):
            found = error(rate_hz, noise_deg)
            print(
                f"| {rate_hz} Hz | {noise_deg:g}° | {found.predicted_deg:.2f}° | "
                f"{found.newest_deg:.2f}° |"
            )


if __name__ == "__main__":
    main()
