"""Helpers of the viewer's tests: a small video and model, a reader of frames, a browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import media
import numpy as np
import torch
from PIL import Image

from deepfovea.checkpoint import load, save_model
from deepfovea.generators.stream.net import StreamConfig, StreamNet
from deepfovea.viewer.session import Catalog, LoadedModel

HEIGHT, WIDTH, COUNT, RATE = 64, 96, 12, 25
DISC = "1,0,4,4.01"
"""A density: everything within four low-resolution pixels of the gaze, and nothing else."""


def make_catalog(folder, *, models=("tiny",), videos=1, count=COUNT, rate=RATE):
    """A catalog of videos (each with its own phase) and a small untrained model."""
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    save_model(path, StreamNet(StreamConfig(8, 8, 4, 4)), {"trained": "not at all"})
    made = {}
    for number in range(videos):
        video = folder / f"video{number}.mp4"
        images = media.moving(count, HEIGHT, WIDTH, seed=number)
        media.write_video(video, images, rate=rate, options={"crf": "10"})
        made[str(number)] = (video, video.name)
    return Catalog(made, list(models), lambda name: LoadedModel(load(path), f"PyTorch for {name}"))


def unpack(message):
    """Header and pictures, uint8 [H, W, 3], of one frame."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    at, pictures = 4 + length, {}
    for view, _, size in header["pictures"]:
        image = Image.open(io.BytesIO(message[at : at + size])).convert("RGB")
        pictures[view] = np.asarray(image)
        at += size
    assert at == len(message)
    return header, pictures


# ---- a real server and a real browser ----

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def running_viewer(*arguments, temporary=None, threads=1):
    """Run ``deepfovea view`` as a process; yield its address. It must end with 0.

    ``threads``: of the network; None leaves their number to it.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    source = str(Path(__file__).parents[1] / "src")
    environment["PYTHONPATH"] = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    if temporary:
        environment["TMPDIR"] = str(temporary)
    command = [sys.executable, "-m", "deepfovea", "view", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--no-browser", "--port", "0"], stdout=subprocess.PIPE, env=environment
    )
    try:
        words = process.stdout.readline().decode().split()
        yield words[2]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    assert code == 0


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder):
    """Serve static files; yield the address."""
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def accessibility_faults(page):
    """The faults that axe-core finds, as one text; empty if there are none."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page, options={"resultTypes": ["violations"]})
    return "\n".join(
        f"{fault['id']}: {node['html']}"
        for fault in results.response["violations"]
        for node in fault["nodes"]
    )


@contextlib.contextmanager
def chromium():
    """Debian's Chromium, controlled by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
