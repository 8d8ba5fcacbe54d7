"""One clip: every method and every metric, frame by frame.

The methods go in step, so that what a metric needs of the truth (its motion, its regions) is
computed once per frame and no more than two frames of each method are kept. Each frame is judged
alone: no batch, no worker and no other clip can change a figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..fovea import eccentricity_map, sample
from ..gaze import DisplayGeometry, GazeTrack
from ..metrics.jod import load_jod
from ..metrics.lpips import MIN_SIDE as LPIPS_MIN_SIDE
from ..metrics.pixel import SSIM_WINDOW, absolute_error, psnr_from_mse, squared_error, ssim_map
from ..metrics.published import published_psnr, published_ssim
from ..metrics.regions import label_map, region_means, upsample_nearest
from ..metrics.temporal import e_warp, farneback_flow, t_lpips, t_of, true_flow
from . import contact_sheets
from .clips import ReferenceClip
from .methods import SCALE, Method, run_method
from .metrics import Judges
from .result import COLUMNS, ECCENTRICITY_BIN, Protocol, Row

FEATURES_MIN_SIDE = 64
"""Side in pixels from which half of it is enough for EfficientNet-Lite0."""

PUBLISHED_ITEM = 6
"""Frames over which the published definitions are pooled."""


def score_clip(
    clip: ReferenceClip,
    methods: Mapping[str, Method | None],
    track: GazeTrack,
    protocol: Protocol,
    judges: Judges,
    device: str | torch.device = "cpu",
    sheet: bool = False,
) -> tuple[list[Row], list[contact_sheets.Panels]]:
    """Every method on one clip; the methods run on ``device``, the metrics on the CPU.

    Returns:
        A row per method, and for a contact sheet the panels of a few frames.

    Raises:
        InputError: a density that does not fit the frames.
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
    frames = {name: run_method(method, low, mask, device) for name, method in methods.items()}
    accumulators = {name: MetricAccumulator(judges) for name in methods}
    sheet_rows = contact_sheets.ROWS_PER_SHEET
    shown = {(2 * row + 1) * count // (2 * sheet_rows) for row in range(sheet_rows)}
    panels, before = [], None
    for t in range(count):
        distance = eccentricity_map(gaze_px[t], h, w, protocol.density, geometry)
        truth = _Truth(
            clip.frame(t),
            label_map(distance, mask[t, 0], protocol.density, SCALE),
            upsample_nearest((distance // ECCENTRICITY_BIN[protocol.density.unit]).long(), SCALE),
            before,
            judges,
        )
        found = {name: next(frames[name]) for name in methods}
        for name, frame in found.items():
            accumulators[name].add(frame, truth)
        if sheet and t in shown:
            x, y = gaze_px[t].tolist()
            panels.append(contact_sheets.Panels((x, y), low[t] * mask[t], found, truth.frame))
        before = truth.frame
    height, width = SCALE * h, SCALE * w
    jod = None
    if judges.jod:
        metric, _ = load_jod(height, width, protocol.fov_deg, device)
        video = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
        gaze_high = (gaze_px + 0.5) * SCALE - 0.5
        jod = (metric, video, gaze_high, clip.frames_per_second)
    looked_at = tuple((round(x, 3), round(y, 3)) for x, y in gaze_px.tolist())
    if len(set(looked_at)) == 1:
        looked_at = looked_at[:1]
    rows = []
    for name, accumulator in accumulators.items():
        values = accumulator.means()
        if jod is not None:
            metric, video, gaze_high, rate = jod
            values["jod"] = metric(torch.stack(accumulator.shown), video, gaze_high, rate)
        rows.append(
            Row(
                name,
                clip.name,
                count,
                round(float(mask.double().mean()), 6),
                {key: COLUMNS[key].rounded(values[key]) for key in COLUMNS if key in values},
                tuple(round(value, 6) for value in accumulator.values["psnr"]),
                accumulator.eccentricity(),
                looked_at,
            )
        )
    return rows, panels


class _Truth:
    """One true frame and what the metrics need of it, computed once for all methods."""

    def __init__(
        self, frame: Tensor, cells: Tensor, rings: Tensor, before: Tensor | None, judges: Judges
    ) -> None:
        self.frame, self.cells, self.rings = frame, cells, rings
        self.motion = self.farneback = self.lpips = None
        self.e_warp = math.nan
        if before is not None:
            if judges.flow:
                self.motion = true_flow(before, frame, judges.flow)
                self.e_warp = e_warp(before, frame, *self.motion)
                self.farneback = farneback_flow(before, frame)
            if judges.lpips and min(frame.shape[-2:]) >= LPIPS_MIN_SIDE:
                self.lpips = judges.lpips(before, frame)


class MetricAccumulator:
    """The values of one method, frame by frame."""

    def __init__(self, judges: Judges) -> None:
        self.judges = judges
        self.values: dict[str, list[float]] = defaultdict(list)
        self.shown: list[Tensor] = []  # uint8 [3, H, W] each, if FovVideoVDP will look at them
        self.before: Tensor | None = None
        self.item: list[tuple[Tensor, Tensor]] = []
        self.error = torch.zeros(0, dtype=torch.float64)  # squared, summed by ring
        self.pixels = torch.zeros(0, dtype=torch.float64)

    def add(self, frame: Tensor, truth: _Truth) -> None:
        """Judge the next frame [3, H, W]."""
        error = squared_error(frame, truth.frame)
        of_errors = region_means(error, truth.cells)
        self._regions("mse", of_errors)
        self._regions(
            "psnr",
            {k: float(psnr_from_mse(torch.tensor(v).double())) for k, v in of_errors.items()},
        )
        self._regions("l1", region_means(absolute_error(frame, truth.frame), truth.cells))
        self._rings(error, truth.rings)
        smallest = min(frame.shape[-2:])
        if self.judges.ssim and smallest >= SSIM_WINDOW:
            similarity = ssim_map(frame, truth.frame).mean(-3)
            self._regions("ssim", region_means(similarity, truth.cells))
        if self.judges.features and smallest >= FEATURES_MIN_SIDE:
            with torch.inference_mode():
                distance = self.judges.features(frame[None].clamp(0.0, 1.0), truth.frame[None])
            self.values["features"].append(float(distance))
        if self.judges.lpips and smallest >= LPIPS_MIN_SIDE:
            self.values["lpips"].append(self.judges.lpips(frame, truth.frame))
        if self.before is not None:
            self._pair(self.before, frame, truth)
        if self.judges.jod:
            self.shown.append((frame.clamp(0.0, 1.0) * 255.0 + 0.5).byte())
        if self.judges.published:
            self.item.append((frame, truth.frame))
            if len(self.item) == PUBLISHED_ITEM:
                self._published()
        self.before = frame

    def _pair(self, before: Tensor, frame: Tensor, truth: _Truth) -> None:
        if truth.motion is not None:
            self.values["e_warp"].append(e_warp(before, frame, *truth.motion))
            self.values["e_warp_original"].append(truth.e_warp)
        if truth.farneback is not None:
            self.values["t_of"].append(t_of(farneback_flow(before, frame), truth.farneback))
        if truth.lpips is not None and self.judges.lpips:
            distance = self.judges.lpips(before, frame)
            self.values["t_lpips"].append(t_lpips(distance, truth.lpips))

    def _regions(self, name: str, by_region: Mapping[str, float]) -> None:
        for region, value in by_region.items():
            self.values[name if region == "frame" else f"{name}_{region}"].append(value)

    def _rings(self, error: Tensor, rings: Tensor) -> None:
        sums = torch.bincount(rings.flatten(), error.flatten().double(), len(self.error))
        pixels = torch.bincount(rings.flatten(), minlength=len(self.pixels)).double()
        more = len(sums) - len(self.error)
        self.error = torch.nn.functional.pad(self.error, (0, more)) + sums
        self.pixels = torch.nn.functional.pad(self.pixels, (0, more)) + pixels

    def _published(self) -> None:
        frames, truths = (torch.stack(part) for part in zip(*self.item, strict=True))
        self.values["psnr_published"].append(float(published_psnr(frames, truths)))
        self.values["ssim_published"].append(float(published_ssim(frames, truths)))
        self.item.clear()

    def means(self) -> dict[str, float]:
        """The mean over the frames (pairs, items) in which there was something to judge."""
        if self.item:
            self._published()
        means = {}
        for name, values in self.values.items():
            present = [value for value in values if not math.isnan(value)]
            means[name] = float(np.mean(present)) if present else math.nan
        return means

    def eccentricity(self) -> tuple[float | None, ...]:
        """Mean squared error ring by ring around the gaze, None for a ring without pixels."""
        pairs = zip(self.error.tolist(), self.pixels.tolist(), strict=True)
        return tuple(round(error / pixels, 8) if pixels else None for error, pixels in pairs)
