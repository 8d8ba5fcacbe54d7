"""Scores all methods on all clips; several processes may share the clips."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from .. import __version__, checkpoint
from ..config import SCALE, InputError, did_you_mean
from ..gaze import GazeTrack, center
from ..metrics import METRICS, Metric, Settings
from ..runtime.engine import load_engine
from ..video import find_videos
from ..wording import pluralize
from . import profile
from .clips import ReferenceClip, Unreadable, read_all
from .contact_sheets import Panels
from .datasets import DataSet
from .methods import BASELINES, FramesFrom, Method, baselines_by_name
from .result import COLUMNS, ECCENTRICITY_BIN, METRIC_GROUPS, Protocol, Result, Row
from .resume import KeptRows
from .score import score_clip


def evaluate(
    root: Path,
    models: Sequence[str],
    baselines: Sequence[str],
    protocol: Protocol = Protocol(),  # noqa: B008, it is a value
    *,
    others: Mapping[str, Path] = MappingProxyType({}),
    track: Callable[[ReferenceClip], GazeTrack] = lambda clip: center(),
    flow_weights: Path | None = None,
    device: str | torch.device = "cpu",
    engine: str = "torch",
    workers: int = 0,
    on_row: Callable[[Row], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_sheet: Callable[[str, list[Panels]], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    keep: KeptRows | None = None,
    dataset: DataSet | None = None,
) -> Result:
    """Score methods on every clip of a folder; the clips are the ground truth.

    The first frames of a clip, at their own resolution (cropped to a multiple of four), are
    downsampled by four without antialiasing, sampled at the gaze, reconstructed, and scored by
    every metric of the protocol. The same arguments give the same figures, except for the cost, for
    any number of workers, threads and processes. A clip is computed on one core. To use more, start
    several processes by ``torchrun`` or ``accelerate launch``: they share the clips, and each
    returns the whole result (only the first one with the cost).

    Args:
        root: folder with videos or folders of images, at any depth; or one video.
        models: names or paths, see :func:`deepfovea.load`.
        baselines: names of :data:`deepfovea.evaluate.methods.BASELINES`.
        others: folders of frames from other tools, by the name for the tables. Each contains a
            video or a folder of images for every clip, with the clip's name.
        protocol: the settings.
        track: returns where the eye looks in a clip; ``protocol.gaze`` is only its description.
        flow_weights: weights of the estimator ``protocol.flow``.
        device: device of methods and FovVideoVDP; other metrics are computed on the CPU.
        engine: engine of the models, see :func:`deepfovea.runtime.engine.load_engine`. The default
            is PyTorch, so that the figures do not depend on what is installed: with other engines
            they differ in the last digits.
        workers: number of processes that decode clips ahead.
        on_row: called with each row of this process.
        on_note: called with each message for the user, in this process.
        on_sheet: called with a clip's name and frames for a contact sheet.
        on_progress: called after each clip of this process with the numbers of clips that are done
            in this call and that are left.
        keep: keeps finished clips; those that an interrupted run with the same arguments has kept
            are not computed again.
        dataset: a data set, whose folder is ``root``: its subset for evaluations is used, if it is
            complete. None: all clips.

    Raises:
        InputError: there is nothing to evaluate, no clip can be read, or a method or metric is
            unknown.
    """
    log = on_note or (lambda line: None)
    rank, processes = _rank_and_world_size()  # also selects the GPU, where there are several
    methods, engines = _methods(models, baselines, others, device, engine)
    root_name = root.resolve().name
    if dataset:
        root_name = dataset.name
        videos = dataset.clips(root)
    else:
        videos = [
            (video, root_name if video == root else video.relative_to(root).as_posix())
            for video in ([root] if root.is_file() else find_videos(root))
        ]
    for other in (method for method in methods.values() if isinstance(method, FramesFrom)):
        for _, name in videos:
            other.find(name)  # before anything is computed
    settings = Settings(protocol.flow, flow_weights, protocol.fov_deg, str(device))
    metrics, unavailable = _metrics(protocol, settings)
    for line in unavailable if rank == 0 else []:
        log(line)
    record = _protocol_record(
        root_name, baselines, tuple(others), protocol, metrics, settings, engines
    )
    mine = videos[rank::processes]
    rows: list[Row] = []
    notes: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    if keep:
        keep.open(
            [record, on_sheet is not None],
            [*(video for video, _ in videos), *others.values()],
            rank,
        )
        kept = {name: keep.clips[name] for _, name in mine if name in keep.clips}
        for name, (scored, lines) in kept.items():
            rows += scored
            notes += [(name, line) for line in lines]
        if kept:
            clips = pluralize(len(mine), "clip")
            log(f"{len(kept)} of {clips} kept from a run that was interrupted")
        mine = [(video, name) for video, name in mine if name not in kept]
    for done, clip in enumerate(read_all(mine, protocol.frames, workers), 1):
        if isinstance(clip, Unreadable):
            log(f"{clip.name}: left out: {clip.reason}")
            failed.append((clip.name, clip.reason))
            continue
        said = clip.notes(protocol.frames)
        for line in said:
            log(line)
        notes += [(clip.name, line) for line in said]
        with _one_thread():
            scored, panels = score_clip(
                clip, methods, track(clip), protocol, metrics, settings, on_sheet is not None
            )
        rows += scored
        for row in scored if on_row else []:
            on_row(row)  # type: ignore[misc]
        if on_sheet:
            on_sheet(clip.name, panels)
        if keep:
            keep.add(clip.name, scored, said)
        if on_progress:
            on_progress(done, len(mine) - done)
    rows, notes, failed = _gather(rows, notes, failed, [name for _, name in videos])
    if not rows:
        raise InputError(f"{root}: no clip can be used; {failed[0][0]}: {failed[0][1]}")
    costs, unmeasured = {}, []
    for name in methods if "cost" in protocol.metrics and rank == 0 else ():
        if name in others:
            continue
        if keep and name in keep.costs:
            costs[name] = keep.costs[name]
            continue
        try:
            costs[name] = profile.measure(name, str(device), engines.get(name, "torch"))
        except RuntimeError as error:
            unmeasured.append(f"{name}: its cost could not be measured: {error}")
            log(unmeasured[-1])
            continue
        if keep:
            keep.add_cost(name, costs[name])
    return Result(
        record,
        rows,
        [*unavailable, *(line for _, line in notes), *unmeasured],
        [f"{name}: {reason}" for name, reason in failed],
        costs,
    )


def _methods(
    models: Sequence[str],
    baselines: Sequence[str],
    others: Mapping[str, Path],
    device: str | torch.device,
    engine: str,
) -> tuple[dict[str, Method], dict[str, str]]:
    """All methods by name, and the engines of the models among them."""
    methods = baselines_by_name(baselines)
    engines: dict[str, str] = {}
    for name in models:
        network = load_engine(name, engine, device, in_background=False)
        if network.scale != SCALE:
            raise InputError(
                f"model {name}: it enlarges by {network.scale}; expected one that enlarges by "
                f"{SCALE}, as the protocol reduces"
            )
        methods[name] = network
        engines[name] = network.name
    for name, folder in others.items():
        if name in methods:
            raise InputError(
                f"--method: received the name {name!r:.100} of a model or baseline; choose another"
            )
        if not folder.is_dir():
            raise InputError(f"--method: received {folder}, expected a folder of frames")
        methods[name] = FramesFrom(folder)
    if not methods:
        raise InputError("no methods: received neither models nor baselines, expected at least one")
    return methods, engines


def _metrics(protocol: Protocol, settings: Settings) -> tuple[list[Metric], list[str]]:
    """The requested metrics that can be computed, and a line about the others."""
    for name in protocol.metrics:
        if name not in METRIC_GROUPS:
            raise InputError(
                f"--metrics: received {name!r}, expected some of {_choices()}"
                f"{did_you_mean(name, METRIC_GROUPS)}"
            )
    asked = [m for m in METRICS.values() if m.selector in ("psnr", *protocol.metrics)]
    missing = {metric.name: metric.unavailable(settings) for metric in asked}
    reasons: dict[str, list[str]] = {}
    for metric in asked:
        reason = missing[metric.name]
        if reason is not None and metric.table != "none":
            reasons.setdefault(reason, []).append(metric.label)
    lines = [f"{', '.join(labels)}: unavailable: {reason}" for reason, labels in reasons.items()]
    return [metric for metric in asked if missing[metric.name] is None], lines


def _choices() -> str:
    return f"{', '.join(METRIC_GROUPS)}, all"


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as the last bits of PyTorch's interpolation depend on the number.

    Optical flow amplifies these differences. To use more cores, start several processes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_first_process() -> bool:
    """Whether this process is the one of those that share the clips that writes the result."""
    return not _is_shared() or os.environ.get("RANK", "0") == "0"


def _is_shared() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _rank_and_world_size() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if not _is_shared():
        return 0, 1
    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError(
            "several processes need Accelerate, which is missing: pip install 'deepfovea[eval]'"
        ) from None
    # By default Accelerate treats several CPU processes as separate runs.
    state = PartialState(cpu=not torch.cuda.is_available())
    # A process whose group still exists when the interpreter ends sometimes aborts there.
    atexit.register(state.destroy_process_group)
    return state.process_index, state.num_processes


def _gather(
    rows: list[Row],
    notes: list[tuple[str, str]],
    failed: list[tuple[str, str]],
    order: list[str],
) -> tuple[list[Row], list[tuple[str, str]], list[tuple[str, str]]]:
    """The results of all processes, in the order of the clips."""
    if _is_shared():
        from accelerate import PartialState
        from accelerate.utils import gather_object

        rows, notes, failed = (gather_object(part) for part in (rows, notes, failed))
        # PyTorch may close a group with Python's lock, for which the group's own threads still wait
        # to drop what they gathered (seen with 2.4). While this waits for the others, they get it.
        PartialState().wait_for_everyone()
    at = {name: number for number, name in enumerate(order)}
    return (
        sorted(rows, key=lambda row: at[row.clip]),
        sorted(notes, key=lambda note: at[note[0]]),
        sorted(failed, key=lambda note: at[note[0]]),
    )


def _protocol_record(
    data: str,
    baselines: Sequence[str],
    others: Sequence[str],
    protocol: Protocol,
    metrics: Sequence[Metric],
    settings: Settings,
    engines: Mapping[str, str],
) -> dict[str, Any]:
    """The settings needed to repeat the figures, and the definitions of the columns."""
    columns = {name: f"{c.heading}: {c.definition}" for name, c in COLUMNS.items()}
    details = {metric.name: metric.details(settings) for metric in metrics}
    for name, text in details.items():
        if text:
            columns[name] += f"; {text}"

    def digest(file: Path) -> str:
        return sha256(file.read_bytes()).hexdigest()

    return {
        "data": data,
        "models": {name: digest(checkpoint.resolve_path(name)) for name in engines},
        "baselines": list(baselines),
        "others": list(others),
        "methods": {
            name: BASELINES[name].definition if name in BASELINES else "frames of another tool"
            for name in (*baselines, *others)
        },
        **asdict(protocol),
        "changed": protocol.changed(),
        "flow_weights": digest(settings.flow_weights) if settings.flow_weights else None,
        "reduction": f"bilinear /{SCALE}, no antialiasing",
        "means": "over the frames of a clip, then over the clips",
        "eccentricity_bin": ECCENTRICITY_BIN[protocol.density.unit],
        "columns": columns,
        "jod_info": details.get("jod"),
        "cost_of": f"{profile.HEIGHT}x{profile.WIDTH} -> "
        f"{SCALE * profile.HEIGHT}x{SCALE * profile.WIDTH}",
        "device": settings.device,
        "engine": dict(engines),
        "versions": {
            "deepfovea": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
