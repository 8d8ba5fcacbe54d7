"""The settings and the result of an evaluation as values, and the definitions of the columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import (
    JITTERS,
    PUBLISHED_DENSITY,
    Density,
    InputError,
    expected_one_of,
    from_json,
)
from ..gaze import DisplayGeometry
from ..metrics import METRICS, Metric

METRIC_GROUPS = (*dict.fromkeys(metric.selector for metric in METRICS.values()), "cost")
"""The groups that can be selected. ``psnr``, with L1 and MSE, is always computed."""

DEFAULT_METRICS = (
    *dict.fromkeys(metric.selector for metric in METRICS.values() if metric.default),
    "cost",
)
"""All groups but those that take about as long as everything else together."""


@dataclass(frozen=True)
class Protocol:
    """The settings that, besides clips and methods, decide the figures."""

    frames: int = 24
    """Number of frames of every clip, from its beginning."""
    gaze: str = "center"
    """The gaze as on the command line; :func:`deepfovea.evaluate.evaluate` takes the tracks."""
    seed: int = 0
    density: Density = PUBLISHED_DENSITY
    blue_noise: bool = False
    jitter: str = "none"
    """How the sampling grid is shifted from frame to frame, one of ``JITTERS``, for generators that
    take jitter; all other methods are sampled without jitter, with the same mask."""
    motion: str = "none"
    """``given``: files beside the frames of a clip contain its exact motion, which methods that
    take motion receive; ``none``: every method estimates its own."""
    fov_deg: float | None = None
    """Horizontal angle that the frames fill, for radii in degrees and FovVideoVDP."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """The selected ones of :data:`METRIC_GROUPS`."""
    flow: str = "dis"
    """Estimator of the true motion for E_warp, one of ``FLOW_ESTIMATORS``."""
    name: str = "published"
    """Name of the protocol from which the settings come, see :func:`load_protocol`."""
    version: int = 1

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the protocol ``name``."""
        own, named = asdict(self), asdict(load_protocol(self.name))
        return {key: own[key] for key in own if key != "metrics" and own[key] != named[key]}

    def __post_init__(self) -> None:
        if self.jitter not in JITTERS:
            raise InputError(
                f"--jitter: received {self.jitter!r:.100}, {expected_one_of(self.jitter, JITTERS)}"
            )
        if self.motion not in ("none", "given"):
            raise InputError(f"motion: received {self.motion!r:.100}, expected none or given")
        if self.fov_deg is not None:
            DisplayGeometry(self.fov_deg, 4, 3)  # raises InputError for impossible angles


PROTOCOLS = ("published", "best", "saccades", "renderer")
"""Fixed protocols, each a JSON file in ``evaluate/protocols``. A change raises the version. Figures
of two versions, or of two protocols, are never in the same table."""


def load_protocol(name: str) -> Protocol:
    """Load the protocol of this name, with the default metrics.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise InputError(f"--protocol: received {name!r:.100}, {expected_one_of(name, PROTOCOLS)}")
    path = Path(__file__).parent / "protocols" / f"{name}.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    return from_json(Protocol, {**values, "density": Density(**values["density"])}, str(path))


_WHERE = {
    "fovea": "up to the density's inner radius",
    "blend": "between the density's radii",
    "periphery": "from the density's outer radius on",
    "sampled": "4x4 blocks of the low-resolution pixels that were sampled",
    "dropped": "4x4 blocks of the low-resolution pixels that were not sampled",
    "foveated": "weighted by the eye's acuity (Geisler and Perry 1998), 40° wide or as --fov says",
}


def _columns(metric: Metric) -> Iterator[Metric]:
    """The columns of a metric: itself, and one for each region if it has regions."""
    yield metric
    for region, where in _WHERE.items() if metric.by_region else ():
        yield replace(
            metric,
            name=f"{metric.name}_{region}",
            label=f"{metric.label} {region}",
            definition=f"{metric.label}, {where}",
            table="none",
        )


COLUMNS: dict[str, Metric] = {
    column.name: column for metric in METRICS.values() for column in _columns(metric)
}
"""All columns by their names in the JSON. Values are means over the frames (or pairs) of a clip."""

ECCENTRICITY_BIN = {"px": 10.0, "deg": 5.0}
"""Width of the rings of :attr:`Row.mse_by_eccentricity`, in the unit of the density's radii."""


@dataclass(frozen=True)
class Row:
    """The figures of one method on one clip.

    ``values`` are by the names of :data:`COLUMNS`, None if a metric does not apply (a small frame
    has no periphery). ``sampled`` is the share of low-resolution pixels that are sampled.
    ``gaze_px`` has (x, y) of every frame in low-resolution pixels, or a single one if the gaze does
    not move. Ring k of ``mse_by_eccentricity`` extends from k to k + 1 times
    :data:`ECCENTRICITY_BIN`.
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
        """PSNR in dB, the mean over the frames."""
        value = self.values["psnr"]
        assert value is not None
        return value


@dataclass(frozen=True)
class Cost:
    """The cost of a method for a frame of 192×256, the median of several.

    On a busy machine ``ms_per_frame`` (elapsed time) grows, while ``processor_ms_per_frame`` (of
    all threads together, without a GPU) hardly does.
    """

    ms_per_frame: float
    processor_ms_per_frame: float
    peak_memory_mib: float | None  # in addition to what the process had before; None if unknown
    parameters: int
    threads: int
    """Number of CPU threads that it could use."""


@dataclass(frozen=True)
class Result:
    """The rows of an evaluation, and what is needed to repeat and to read them."""

    protocol: Mapping[str, Any]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Clips that could not be read, with the reason."""
    cost: dict[str, Cost] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the rows."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def clips(self) -> list[str]:
        """The clips, in the order of the rows."""
        return list(dict.fromkeys(row.clip for row in self.rows))

    def means(self) -> dict[str, dict[str, float]]:
        """The means over the clips that have a value, by method and metric."""
        means: dict[str, dict[str, float]] = {method: {} for method in self.methods}
        for method, mean in means.items():
            for name, column in COLUMNS.items():
                scores = [row.values.get(name) for row in self.rows if row.method == method]
                present = [score for score in scores if score is not None]
                if present:
                    mean[name] = round(sum(present) / len(present), column.digits + 4)
        return means
