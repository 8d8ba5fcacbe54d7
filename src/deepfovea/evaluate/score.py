"""Scores one clip with every method and every metric, frame by frame.

All methods advance together. So the facts about the true frames that metrics need (motion, regions)
are computed once per frame, and only a few frames of each method are kept. Each frame is scored
alone, so that batches, workers and other clips cannot change a figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import SCALE
from ..fovea import eccentricity_map, jitter_sequence, sample
from ..gaze import DisplayGeometry, GazeTrack
from ..metrics import ITEM_FRAMES, Metric, Reference, Scope, Settings
from ..metrics.pixel import squared_error
from ..metrics.regions import upsample_nearest
from . import contact_sheets
from .clips import ReferenceClip
from .methods import FramesFrom, Method, jitter_of, run_method, takes_motion
from .result import COLUMNS, ECCENTRICITY_BIN, Protocol, Row


def score_clip(
    clip: ReferenceClip,
    methods: Mapping[str, Method],
    track: GazeTrack,
    protocol: Protocol,
    metrics: Sequence[Metric],
    settings: Settings,
    sheet: bool = False,
) -> tuple[list[Row], list[contact_sheets.Panels]]:
    """Score every method on one clip, with methods on ``settings.device`` and metrics on the CPU.

    Returns:
        A row per method, and the panels of a few frames for a contact sheet.

    Raises:
        InputError: the density does not fit the frames.
    """
    low = clip.low()
    count, _, h, w = low.shape
    gaze_px = track.pixels(track.frame_times(np.arange(count), clip.times), h, w)
    geometry = None
    if protocol.fov_deg is not None:
        geometry = DisplayGeometry(protocol.fov_deg, SCALE * w, SCALE * h)
    _, masks = sample(
        low[None],
        gaze_px[None],
        protocol.density,
        seed=protocol.seed,
        blue_noise=protocol.blue_noise,
        geometry=geometry,
    )
    mask = masks[0]

    def reference(scope: Scope, start: int, end: int) -> Reference:
        truth = torch.from_numpy(clip.frames[start:end]).permute(0, 3, 1, 2)
        if scope != "clip":
            truth = truth.float() / 255.0
        if scope == "item":  # summed in this order, on which the last digits depend
            truth = truth.contiguous()
        return Reference(
            frames=truth,
            mask=mask[start:end],
            gaze_px=gaze_px[start:end],
            eccentricity=eccentricity_map(gaze_px[start:end], h, w, protocol.density, geometry),
            density=protocol.density,
            frame_number=start,
            frames_per_second=clip.frames_per_second,
            settings=settings,
        )

    used = {metric.scope for metric in metrics}
    kinds = {name: jitter_of(method, protocol.jitter) for name, method in methods.items()}
    jitters = {kind: jitter_sequence(kind, 0, count) for kind in {"none", *kinds.values()}}
    grids = {kind: low if kind == "none" else clip.low(jitters[kind]) for kind in jitters}

    given = protocol.motion == "given"
    motions = {kind: clip.motion(jitters[kind]) if given else None for kind in jitters}

    def output(name: str) -> Iterator[Tensor]:
        method, kind = methods[name], kinds[name]
        if isinstance(method, FramesFrom):
            return method.frames(clip)
        motion = motions[kind] if takes_motion(method) else None
        return run_method(method, grids[kind], mask, settings.device, jitters[kind], motion)

    outputs = {name: output(name) for name in methods}
    accumulators = {name: MetricAccumulator(metrics) for name in methods}
    ring_width = ECCENTRICITY_BIN[protocol.density.unit]
    sheet_rows = contact_sheets.ROWS_PER_SHEET
    on_sheet = {(2 * row + 1) * count // (2 * sheet_rows) for row in range(sheet_rows)}
    panels = []
    for t in range(count):
        spans = _spans(t, count)
        references = {
            scope: reference(scope, *span) for scope, span in spans.items() if scope in used
        }
        sampled_on = {  # the references with the jitter of each sampling grid; caches are shared
            kind: references
            if jitter is None
            else {
                scope: replace(unshifted, jitter=jitter[slice(*spans[scope])])
                for scope, unshifted in references.items()
            }
            for kind, jitter in jitters.items()
        }
        truth = references["frame"].frames[0]
        rings = (references["frame"].eccentricity[0] // ring_width).long()
        frames = {name: next(outputs[name]) for name in methods}
        for name, frame in frames.items():
            known = sampled_on[kinds[name]]
            accumulators[name].add(frame, known, upsample_nearest(rings, SCALE))
        if sheet and t in on_sheet:
            x, y = gaze_px[t].tolist()
            panels.append(contact_sheets.Panels((x, y), low[t] * mask[t], frames, truth))
    gaze = tuple((round(x, 3), round(y, 3)) for x, y in gaze_px.tolist())
    if len(set(gaze)) == 1:
        gaze = gaze[:1]
    rows = []
    for name, accumulator in accumulators.items():
        values = accumulator.means()
        rows.append(
            Row(
                name,
                clip.name,
                count,
                round(float(mask.double().mean()), 6),
                {key: COLUMNS[key].rounded(values[key]) for key in COLUMNS if key in values},
                tuple(round(value, 6) for value in accumulator.values["psnr"]),
                accumulator.mse_by_eccentricity(),
                gaze,
            )
        )
    return rows, panels


def _spans(t: int, count: int) -> dict[Scope, tuple[int, int]]:
    """The scopes that end with frame t of a clip, with their frames (start, end)."""
    spans: dict[Scope, tuple[int, int]] = {"frame": (t, t + 1)}
    last = t + 1 == count
    if t > 0:
        spans["pair"] = (t - 1, t + 1)
    if last or (t + 1) % ITEM_FRAMES == 0:
        spans["item"] = (t - t % ITEM_FRAMES, t + 1)
    if last:
        spans["clip"] = (0, count)
    return spans


class MetricAccumulator:
    """Collects the values of one method on one clip, frame by frame."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.values: dict[str, list[float]] = defaultdict(list)
        self.recent: list[Tensor] = []  # [3, H, W] each, not clamped
        self.displayed: list[Tensor] = []  # uint8, if a metric needs the whole clip
        scopes = {metric.scope for metric in metrics}
        self.kept = ITEM_FRAMES if "item" in scopes else 2
        self.keeps_clip = "clip" in scopes
        self.error_sums = torch.zeros(0, dtype=torch.float64)  # sum of squared errors of each ring
        self.pixel_counts = torch.zeros(0, dtype=torch.float64)

    @torch.no_grad()
    def add(self, frame: Tensor, references: Mapping[Scope, Reference], rings: Tensor) -> None:
        """Score the next frame.

        Args:
            frame: [3, H, W].
            references: the true frames of each scope that ends with this frame.
            rings: int64 [H, W], for every pixel the number of its ring around the gaze.
        """
        self.recent = [*self.recent, frame][-self.kept :]
        if self.keeps_clip:
            self.displayed.append((frame.clamp(0.0, 1.0) * 255.0 + 0.5).byte())
        for metric in self.metrics:
            reference = references.get(metric.scope)
            if reference is None or min(frame.shape[-2:]) < metric.min_side:
                continue
            frames = self.displayed if metric.scope == "clip" else self.recent
            prediction = torch.stack(frames[-len(reference.frames) :])
            value = metric.function(prediction, reference)
            if not metric.by_region:
                self.values[metric.name].append(value)
                continue
            for region, mean in value.items():
                self.values[_column(metric.name, region)].append(mean)
        self._add_rings(squared_error(frame, references["frame"].frames[0]), rings)

    def _add_rings(self, error: Tensor, rings: Tensor) -> None:
        sums = torch.bincount(rings.flatten(), error.flatten().double(), len(self.error_sums))
        pixels = torch.bincount(rings.flatten(), minlength=len(self.pixel_counts)).double()
        more = len(sums) - len(self.error_sums)
        self.error_sums = F.pad(self.error_sums, (0, more)) + sums
        self.pixel_counts = F.pad(self.pixel_counts, (0, more)) + pixels

    def means(self) -> dict[str, float]:
        """The means over the frames (pairs, items) that have a value."""
        means = {}
        for name, values in self.values.items():
            present = [value for value in values if not math.isnan(value)]
            means[name] = float(np.mean(present)) if present else math.nan
        return means

    def mse_by_eccentricity(self) -> tuple[float | None, ...]:
        """The mean squared error of each ring around the gaze; None for a ring without pixels."""
        pairs = zip(self.error_sums.tolist(), self.pixel_counts.tolist(), strict=True)
        return tuple(round(error / pixels, 8) if pixels else None for error, pixels in pairs)


def _column(name: str, region: str) -> str:
    return name if region == "frame" else f"{name}_{region}"
