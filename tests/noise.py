"""A video in which every frame is a different noise, and functions that find it on the page."""

from __future__ import annotations

import base64
import io
import time

import media
import numpy as np
import torch
from PIL import Image

from deepfovea.checkpoint import save_model
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.video import VideoReader

HEIGHT, WIDTH, COUNT, RATE = 128, 192, 50, 25
LEFT, RIGHT = (0.2, 0.5), (0.8, 0.5)
RADIUS = 16  # of the fovea that the tests choose, pixels of the video
WINDOW = {"width": 1280, "height": 626}  # in which the stage is three times as large as the video
PATIENCE = 20.0  # seconds


def make_noise(folder):
    """The folder, with noise.mp4, an untrained tiny.safetensors and an empty temporary/."""
    noise = np.random.default_rng(0).integers(30, 225, (COUNT, HEIGHT // 4, WIDTH // 4, 3))
    frames = noise.astype(np.uint8).repeat(4, 1).repeat(4, 2)
    media.write_video(folder / "noise.mp4", list(frames), rate=RATE, options={"crf": "8"})
    torch.manual_seed(0)
    save_model(folder / "tiny.safetensors", StreamNet(StreamConfig(8, 8, 4, 4)), {})
    (folder / "temporary").mkdir()
    return folder


def frame_of_video(folder, number):
    """Float [H, W, 3]."""
    with VideoReader(folder / "noise.mp4") as reader:
        return [frame.image for frame in reader][number].astype(float)


def from_data_url(url):
    """The contents of a canvas in pixels of the video, float [H, W, 3]."""
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)).astype(float)


def around(picture, gaze, radius=RADIUS - 4):
    """The square of a picture around a normalised point."""
    x, y = round(gaze[0] * WIDTH), round(gaze[1] * HEIGHT)
    return picture[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius]


def known(picture, gaze):
    """The share of pixels around a point that are sampled, and so not black."""
    return (around(picture, gaze).max(-1) > 15).mean()


def wait_until(condition):
    """Wait until a value is true, and return it."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < until, "this did not come about"
        time.sleep(0.05)
    return value


def settled(pixels):
    """Wait until the picture no longer changes, and return it; ``pixels`` reads it."""
    before = pixels()

    def rests():
        nonlocal before
        time.sleep(0.2)
        before, now = pixels(), before
        return np.array_equal(before, now)

    wait_until(rests)
    return before
