"""The page without a server: a folder of static files that runs the network in the browser.

The front end is that of :mod:`.server`; ``static/page`` contains the back end. ONNX Runtime comes
from its npm package, which is checked by its hash and kept in the user's cache.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import resources
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import load
from ..config import BEST_SAMPLING, InputError
from ..io import atomic
from ..io.outputs import ensure_folder
from ..io.user_cache import user_cache
from ..runtime.export import Size, Step, export_onnx, round_to_float16
from ..runtime.onnx import fold_constants, record_sizes
from ..video import VideoReader, VideoWriter
from .methods import Accumulator
from .scene import harbour
from .scene_balls import balls
from .scene_reading import reading
from .thumbnail import thumbnail

STATIC = Path(__file__).parent / "static"
FRONT_END = (".html", ".css", ".js", ".svg")

RUNTIME_URL = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
RUNTIME_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""The SHA-512 of that file in base64, which the npm registry states as ``integrity``."""
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
WEBGPU_RUNTIME_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""The files instead of those if the page uses a GPU; they support WASM, too."""
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
"""Files of the Python package of ONNX Runtime; the npm package only names its licence (MIT)."""
FETCH_SECONDS = 60.0
"""Time limit of the download, seconds. Our choice."""

AUTOMATIC = "auto"
SIZES = (AUTOMATIC, "384", "512", "768", "1024")
"""Longer side in pixels of the network's output; the page offers the same (LONG_SIDES)."""

DRAWN = {"harbour": harbour, "text": reading, "balls": balls}
"""The videos that are drawn when the page is built, by their names; the page starts with the
first."""
DEMO_SIZE, DEMO_FRAMES = (768, 1024), 200
"""Of the first drawn video: height and width in pixels, and number of frames. Our choice."""
FURTHER_SIZE, FURTHER_FRAMES = (576, 768), 100
"""Of each other drawn video. Our choice."""
DEMO_RATE, DEMO_CRF = 25, 24
"""Of all drawn videos: frames per second, and quality on the scale of x264. Our choice."""
PLAYED = (".mp4", ".webm")
"""Suffixes of videos that browsers play. The drawn videos are written as both (H.264 and VP9), as
some browsers lack one of them."""
ACCUMULATED_FILE = "models/accumulated.onnx"
MARKER = "page.json"
"""A file that shows that this module has written the folder."""


class Page(NamedTuple):
    """The written folder, the bytes of all its files, and the compressed bytes (gzip) that a first
    visit loads without and with WebGPU."""

    folder: Path
    total: int
    first_visit: int
    first_visit_webgpu: int


def build_page(
    folder: Path,
    models: Sequence[str],
    *,
    videos: Sequence[Path] = (),
    size: str = AUTOMATIC,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Page:
    """Write the page into a folder, complete or not at all.

    Args:
        folder: a new folder, or with ``overwrite`` one with an earlier page.
        models: names or paths of generators that take one frame at a time; the page starts with
            the first.
        videos: MP4 or WebM files, which are copied unchanged and offered beside the drawn ones.
        size: one of :data:`SIZES`, with which the page starts.
        overwrite: replace an earlier page.
        log: called with a message for each step.

    Raises:
        InputError: a model, video or folder cannot be used, or the runtime cannot be downloaded.
    """
    _check_target(folder, overwrite)
    rates = [_frame_rate(video) for video in videos]
    if size not in SIZES:
        raise InputError(f"--size: received {size!r:.100}, expected one of {', '.join(SIZES)}")
    names = [Path(model).stem for model in models]
    if len(set(names)) < len(names):
        raise InputError(f"--model: received {', '.join(names)}; expected different names")
    networks = [load(model) for model in models]
    for model, network in zip(models, networks, strict=True):
        if (
            network.frames_per_step != 1
            or network.scale != 4
            or network.multiple != 8
            or not network.takes_jitter
        ):
            raise InputError(
                f"--model: received {model}, which the page cannot run; expected a stream network"
            )
    licences = _licences()
    runtime = fetch_runtime(log)
    with ensure_folder(folder.parent):
        temporary, lock = atomic.create_temporary(folder, folder=True)
        try:
            _copy_front_end(temporary)
            (temporary / "runtime").mkdir()
            for name, content in {**runtime, **licences}.items():
                (temporary / "runtime" / name).write_bytes(content)
            (temporary / "models").mkdir()
            for name, network in zip(names, networks, strict=True):
                log(f"exporting {name}")
                round_to_float16(network)  # half as many bytes once they are compressed
                _export(network, temporary / "models" / f"{name}.onnx", jitter=True)
            log("exporting the method without a network")
            _export(Accumulator(), temporary / ACCUMULATED_FILE, jitter=False)
            (temporary / "videos").mkdir()
            for number, name in enumerate(DRAWN):
                log(f"drawing the video {name}")
                of_first = number == 0
                _draw(
                    [temporary / "videos" / f"{name}{suffix}" for suffix in PLAYED],
                    DRAWN[name],
                    DEMO_SIZE if of_first else FURTHER_SIZE,
                    DEMO_FRAMES if of_first else FURTHER_FRAMES,
                )
            for number, video in enumerate(videos, 1):
                shutil.copyfile(video, temporary / "videos" / _address(number, video))
            described: list[tuple[str, str, str | None, float]] = [
                *(
                    (f"{name} (drawn)", f"videos/{name}.mp4", f"videos/{name}.webm", DEMO_RATE)
                    for name in DRAWN
                ),
                *(
                    (video.name, f"videos/{_address(number, video)}", None, rate)
                    for number, (video, rate) in enumerate(zip(videos, rates, strict=True), 1)
                ),
            ]
            (temporary / "thumbnails").mkdir()
            page: dict[str, Any] = {
                "models": [{"name": name, "file": f"models/{name}.onnx"} for name in names],
                "videos": [
                    {
                        "name": name,
                        "file": file,
                        "webm": webm,
                        "rate": rate,
                        "picture": _write_thumbnail(temporary, file, name),
                    }
                    for name, file, webm, rate in described
                ],
                "accumulated": ACCUMULATED_FILE,
                "size": size,
                "sampling": {
                    "blue_noise": BEST_SAMPLING.noise == "blue",
                    "jitter": BEST_SAMPLING.jitter,
                },
            }
            first_visit = _first_visit(temporary, page)
            page["download_bytes"] = _compressed_size(temporary, first_visit)
            page["webgpu_download_bytes"] = (
                page["download_bytes"]
                - _compressed_size(temporary, [f"runtime/{name}" for name in RUNTIME_FILES])
                + _compressed_size(temporary, [f"runtime/{name}" for name in WEBGPU_RUNTIME_FILES])
            )
            (temporary / MARKER).write_text(json.dumps(page), encoding="utf-8")
            _configure_service_worker(temporary, [*first_visit, MARKER])
            atomic.publish(temporary, folder, overwrite=overwrite and folder.exists())
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); choose a folder with space and "
                "write permission"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Page(folder, total, page["download_bytes"], page["webgpu_download_bytes"])


def _export(network: Any, path: Path, *, jitter: bool) -> None:
    """Write a model for one video, up to the largest of SIZES, that loads quickly."""
    longest_side = int(SIZES[-1]) // network.scale
    export_onnx(
        network, path, name=path.stem, jitter=jitter, one_video=True, longest_side=longest_side
    )
    sides = range(network.multiple, longest_side + 1, network.multiple)
    widths = random.Random(0).sample(sides, len(sides))  # so that no sum or product is constant
    step = Step(network, jitter=jitter)
    examples = (_example(step, *size) for size in zip(sides, widths, strict=True))
    path.write_bytes(record_sizes(fold_constants(path.read_bytes()), step.input_names, examples))


def _example(step: Step, height: int, width: int) -> list[Tensor]:
    """Inputs of a step, in the order of their names."""
    return step.arguments(
        torch.zeros(1, 1, 3, height, width),
        torch.zeros(1, 1, 1, height, width),
        step.initial_state(1, height, width),
        jitter=torch.zeros(1, 1, 2) if "jitter" in step.given else None,
    )


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder}: exists; choose another folder, or --overwrite to replace it")
    if not (folder / MARKER).is_file():
        raise InputError(f"{folder}: holds no page, so it is not replaced; choose another folder")


def _draw(
    paths: Sequence[Path],
    scene: Callable[[int, int, int], Iterator[np.ndarray]],
    size: Size,
    frames: int,
) -> None:
    """Write a drawn scene as videos."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(VideoWriter(path, frame_rate=DEMO_RATE, crf=DEMO_CRF))
            for path in paths
        ]
        for number, image in enumerate(scene(*size, frames)):
            for writer in writers:
                writer.write(image, number / DEMO_RATE)


def _write_thumbnail(folder: Path, video: str, name: str) -> str | None:
    """Write the small picture of a video of the folder; return its address in the folder, None for
    a video that browsers play but we do not."""
    address = f"thumbnails/{Path(video).stem}.jpg"
    try:
        (folder / address).write_bytes(thumbnail(folder / video, name))
    except InputError:
        return None
    return address


def _frame_rate(video: Path) -> float:
    """The frame rate of a video, frames per second; InputError if browsers do not play it."""
    if video.suffix.lower() not in PLAYED:
        raise InputError(
            f"--video: received {video}, expected {' or '.join(PLAYED)}, which browsers play"
        )
    with VideoReader(video) as reader:
        next(iter(reader))
        return float(reader.frame_rate)


def _address(number: int, video: Path) -> str:
    """The file name of a copied video, which is safe in an address."""
    return f"{number}{video.suffix.lower()}"


def _licences() -> dict[str, bytes]:
    """The licences of ONNX Runtime and of what it contains, by file name."""
    spec = find_spec("onnxruntime")
    if spec is None or not spec.origin:
        raise InputError(
            "page needs onnxruntime, which is missing: pip install 'deepfovea[export]'"
        )
    package = Path(spec.origin).parent
    return {name: (package / name).read_bytes() for name in LICENCES if (package / name).is_file()}


def fetch_runtime(log: Callable[[str], None] = lambda _: None) -> dict[str, bytes]:
    """The files of ONNX Runtime by name, from the user's cache or else from npm's registry.

    Raises:
        InputError: the package cannot be downloaded, or its hash is wrong.
    """
    kept = user_cache("runtime") / RUNTIME_URL.rpartition("/")[2]
    try:
        content = kept.read_bytes()
    except OSError:
        content = b""
    if not _is_runtime(content):
        log(f"fetching {RUNTIME_URL}")
        try:
            with urllib.request.urlopen(RUNTIME_URL, timeout=FETCH_SECONDS) as answer:
                content = answer.read()
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise InputError(
                f"{RUNTIME_URL}: cannot be fetched ({reason}); with a connection it is fetched "
                f"once, or put it into {kept.parent}"
            ) from None
        if not _is_runtime(content):
            raise InputError(
                f"{RUNTIME_URL}: received a file whose hash is not the one expected; a proxy may "
                f"have changed it: put the right one into {kept.parent}"
            )
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic.atomic_write(kept) as file:
                file.write(content)
        except OSError:
            pass  # without a cache it is downloaded again next time
    files = {}
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        for name in (*RUNTIME_FILES, *WEBGPU_RUNTIME_FILES):
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # as the hash is right
            files[name] = member.read()
    return files


def _is_runtime(content: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(content).digest()).decode() == RUNTIME_SHA512


def _copy_front_end(folder: Path) -> None:
    """Copy the front end, then the back end of this page, which replaces some of its files."""
    for source in (STATIC, STATIC / "page"):
        for file in sorted(source.iterdir()):
            if file.suffix in FRONT_END:
                shutil.copyfile(file, folder / file.name)
    ranks = resources.files("deepfovea").joinpath("blue_noise.npy").read_bytes()
    (folder / "blue_noise.npy").write_bytes(ranks)


def _files(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def _first_visit(folder: Path, page: dict[str, Any]) -> list[str]:
    """The files that a first visit loads: not the licences, the files for WebGPU, the models and
    videos after the first, and the videos as WebM."""
    later = {item["file"] for kind in ("models", "videos") for item in page[kind][1:]}
    later |= {
        page["accumulated"],
        *(video["webm"] for video in page["videos"]),
        *(f"runtime/{name}" for name in (*LICENCES, *WEBGPU_RUNTIME_FILES)),
    }
    return [name for name in _files(folder) if name not in later]


def _compressed_size(folder: Path, names: Sequence[str]) -> int:
    """The total size of files in bytes, each compressed by gzip."""
    return sum(len(gzip.compress((folder / name).read_bytes(), 6)) for name in names)


def _configure_service_worker(folder: Path, first_visit: Sequence[str]) -> None:
    """Write into the service worker the files that it caches at once, and a hash of all files."""
    version = hashlib.sha256()
    for name in _files(folder):
        version.update(hashlib.sha256((folder / name).read_bytes()).digest())
    worker = "service-worker.js"
    large = ("models/", "videos/", "runtime/")
    shell = ["./", *(n for n in first_visit if n != worker and not n.startswith(large))]
    text = (folder / worker).read_text(encoding="utf-8")
    for empty, full in (
        ('VERSION = "development"', f'VERSION = "{version.hexdigest()[:16]}"'),
        ("SHELL = []", f"SHELL = {json.dumps(shell)}"),
    ):
        assert text.count(empty) == 1, empty
        text = text.replace(empty, full)
    (folder / worker).write_text(text, encoding="utf-8")
