"""What an evaluation is asked for and what it gives: values, and what the columns mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import PUBLISHED_DENSITY, Density
from ..gaze import DisplayGeometry

METRICS = ("ssim", "temporal", "features", "lpips", "jod", "published", "cost")
"""What can be asked for besides L1, MSE and PSNR, which are always there."""

DEFAULT_METRICS = ("ssim", "temporal", "features", "lpips", "published", "cost")
"""All but ``jod``: FovVideoVDP takes as long as everything else together."""


@dataclass(frozen=True)
class Protocol:
    """What decides the figures, besides the clips and the methods."""

    frames: int = 24
    """Of every clip, from its beginning."""
    gaze: str = "center"
    """How the command line put it; :func:`deepfovea.evaluate.evaluate` takes the tracks."""
    seed: int = 0
    density: Density = PUBLISHED_DENSITY
    blue_noise: bool = False
    fov_deg: float | None = None
    """Horizontal angle that the frames fill, for radii in degrees and FovVideoVDP."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    flow: str = "dis"
    """Estimator of the true motion for E_warp, one of ``FLOW_ESTIMATORS``."""

    def __post_init__(self) -> None:
        if self.fov_deg is not None:
            DisplayGeometry(self.fov_deg, 4, 3)  # refuses angles that no display has


@dataclass(frozen=True)
class Column:
    """A metric as tables show it: with its direction, its digits and its definition."""

    label: str
    better: str  # "higher" or "lower"
    digits: int
    definition: str
    unit: str = ""

    @property
    def heading(self) -> str:
        """As it stands above a column, with the direction in which it improves."""
        arrow = "↑" if self.better == "higher" else "↓"
        return f"{self.label} {arrow}" + (f", {self.unit}" if self.unit else "")

    def rounded(self, value: float) -> float | None:
        """The value as it is kept: four digits more than tables show; None for nan."""
        return round(value, self.digits + 4) if math.isfinite(value) else None


_SPATIAL = {
    "l1": Column("L1", "lower", 4, "mean absolute error; RGB in [0, 1], clamped"),
    "mse": Column("MSE", "lower", 5, "mean squared error; RGB in [0, 1], clamped"),
    "psnr": Column("PSNR", "higher", 2, "RGB, peak 1.0, clamped, nothing padded", "dB"),
    "ssim": Column(
        "SSIM", "higher", 4, "RGB, peak 1.0, clamped, 11x11 Gaussian of sigma 1.5 inside the frame"
    ),
}
_WHERE = {
    "fovea": "up to the density's inner radius",
    "blend": "between the density's radii",
    "periphery": "from the density's outer radius on",
    "sampled": "4x4 blocks of the low-resolution pixels that were sampled",
    "dropped": "4x4 blocks of the low-resolution pixels that were not sampled",
}
COLUMNS: dict[str, Column] = {
    **_SPATIAL,
    **{
        f"{name}_{region}": Column(
            f"{column.label} {region}",
            column.better,
            column.digits,
            f"{column.label}, {where}",
            column.unit,
        )
        for name, column in _SPATIAL.items()
        for region, where in _WHERE.items()
    },
    "e_warp": Column(
        "E_warp", "lower", 5, "Lai et al. 2018; flow and occlusion from the true frames"
    ),
    "e_warp_original": Column("E_warp of the original", "lower", 5, "that of the true frames"),
    "t_of": Column("tOF", "lower", 3, "Chu et al. 2020 (TecoGAN), Farneback flow", "px"),
    "features": Column(
        "EfficientNet-Lite0 distance",
        "lower",
        4,
        "L1 of the features of EfficientNet-Lite0, mean of 5 layers; not LPIPS",
    ),
    "lpips": Column("LPIPS", "lower", 4, "Zhang et al. 2018, version 0.1, AlexNet"),
    "t_lpips": Column("tLPIPS x100", "lower", 3, "Chu et al. 2020 (TecoGAN), with LPIPS"),
    "jod": Column("FovVideoVDP", "higher", 2, "Mantiuk et al. 2021, gaze frame by frame", "JOD"),
    "psnr_published": Column(
        "PSNR as published",
        "higher",
        2,
        "peak is the prediction's maximum; items of six frames",
        "dB",
    ),
    "ssim_published": Column(
        "SSIM as published", "higher", 4, "one global correlation per item of six frames"
    ),
}
"""Every metric by its name in the JSON. Values are means over the frames (or pairs) of a clip."""

ECCENTRICITY_BIN = {"px": 10.0, "deg": 5.0}
"""Width of the rings of :attr:`Row.mse_by_eccentricity`, in the unit of the density's radii."""


@dataclass(frozen=True)
class Row:
    """One method on one clip.

    ``values`` by the names of :data:`COLUMNS`, None where a metric has nothing to judge (no
    periphery in a small frame); ``sampled`` is the share of low-resolution pixels; ``gaze_px``
    holds (x, y) of every frame in low-resolution pixels, one for all if it rests. The errors of
    ring k of ``mse_by_eccentricity`` are those from k to k + 1 times :data:`ECCENTRICITY_BIN`.
    """

    method: str
    clip: str
    frames: int
    sampled: float
    values: Mapping[str, float | None]
    psnr_by_frame: tuple[float, ...] = ()
    mse_by_eccentricity: tuple[float | None, ...] = ()
    gaze_px: tuple[tuple[float, float], ...] = ()

    @property
    def psnr(self) -> float:
        """dB, the mean over the frames."""
        value = self.values["psnr"]
        assert value is not None
        return value


@dataclass(frozen=True)
class Cost:
    """What a method takes for a 192×256 frame, the median of several.

    On a machine that is busy with other things ``ms_per_frame`` (as a clock on the wall has it)
    grows, ``processor_ms_per_frame`` (of all threads together; of a GPU nothing) hardly does.
    """

    ms_per_frame: float
    processor_ms_per_frame: float
    peak_memory_mib: float | None  # beyond what the process had before; None where not told
    parameters: int
    threads: int
    """Of the processor that it was allowed to use."""


@dataclass(frozen=True)
class Result:
    """Rows, and what is needed to repeat and to read them."""

    protocol: Mapping[str, Any]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Clips that could not be read, with the reason."""
    cost: dict[str, Cost] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def clips(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row.clip for row in self.rows))

    def means(self) -> dict[str, dict[str, float]]:
        """By method and metric, the mean over the clips that have a value."""
        means: dict[str, dict[str, float]] = {method: {} for method in self.methods}
        for method, mean in means.items():
            for name, column in COLUMNS.items():
                scores = [row.values.get(name) for row in self.rows if row.method == method]
                present = [score for score in scores if score is not None]
                if present:
                    mean[name] = round(sum(present) / len(present), column.digits + 4)
        return means
