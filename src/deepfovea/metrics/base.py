"""The class of metrics, and of what they may use besides the prediction.

The table of all metrics is :data:`deepfovea.metrics.METRICS`.

Legend: T frames; h, w low resolution; H, W high resolution, H = scale · h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor

from ..config import Density

Value = TypeVar("Value")

Scope = Literal["frame", "pair", "item", "clip"]
"""What a metric sees at once: every frame; every frame but the first with the one before it;
groups of :data:`ITEM_FRAMES` frames, the last of which may be shorter; the whole clip."""

ITEM_FRAMES = 6
"""Frames of an item of the published protocol (Reich, Memmel and Grebe 2020)."""


@dataclass(frozen=True)
class Settings:
    """What the user chose for the metrics that leave a choice.

    ``flow`` and ``flow_weights`` are arguments of :func:`deepfovea.losses.flow.flow_estimator`;
    ``fov_deg`` is the horizontal angle that the frames fill; ``device`` is for FovVideoVDP, as
    the other metrics are computed on the CPU.
    """

    flow: str = "dis"
    flow_weights: Path | None = None
    fov_deg: float | None = None
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Reference:
    """The true frames of one scope, and what is known of them.

    ``frames`` [T, 3, H, W], sRGB in [0, 1], of the scope ``clip`` uint8; ``mask`` [T, 1, h, w],
    1 where sampled; ``gaze_px`` [T, 2] low-resolution pixels; ``eccentricity`` [T, h, w], the
    distance from the gaze in the unit of the radii of ``density``; ``frame_number`` of the first
    of these frames, from 0; ``jitter`` [T, 2], the offset (x, y) of the sampling grid in
    low-resolution pixels, None where it rests.
    """

    frames: Tensor
    mask: Tensor
    gaze_px: Tensor
    eccentricity: Tensor
    density: Density
    frame_number: int = 0
    frames_per_second: float = 25.0  # chosen: a usual rate; an evaluation gives the clip's
    jitter: Tensor | None = None
    settings: Settings = Settings()
    _memo: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    @property
    def scale(self) -> int:
        """H / h."""
        return self.frames.shape[-2] // self.mask.shape[-2]

    @property
    def output_gaze_px(self) -> Tensor:
        """The gaze [T, 2] in pixels of the true frames, H × W."""
        return (self.gaze_px + 0.5) * self.scale - 0.5

    def cached(self, function: Callable[[Reference], Value]) -> Value:
        """``function(self)``, computed once for all the methods that are compared.

        For what depends on the true frames alone: their optical flow, their edges.
        """
        if function not in self._memo:
            self._memo[function] = function(self)
        value: Value = self._memo[function]
        return value


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it means, and how it is computed.

    ``function(prediction, reference)`` returns a number, nan where there is nothing to judge;
    where ``by_region`` is set, the numbers of :func:`deepfovea.metrics.regions.map_means`. The
    prediction is [T, 3, H, W], T that of the scope, and as the method left it: it may be beyond
    [0, 1]. Of the scope ``clip`` it is uint8, as it would be shown. The value of a clip is the
    mean of the numbers.
    """

    name: str
    """In the JSON of an evaluation."""
    label: str
    """In tables."""
    better: Literal["higher", "lower"]
    digits: int
    """Decimals in tables; the JSON has four more."""
    definition: str
    """What is measured, by whose definition, in one line."""
    scope: Scope
    function: Callable[[Tensor, Reference], Any]
    unit: str = ""
    group: str = ""
    """The word of ``evaluate --metrics`` that asks for it; several metrics may share one. Empty:
    the name. Those of ``psnr`` are always computed."""
    by_region: bool = False
    min_side: int = 1
    """Frames with a smaller side, in pixels, are not judged."""
    default: bool = True
    """Whether an evaluation computes it if ``--metrics`` is not given."""
    table: Literal["overview", "published", "none"] = "overview"
    """The table that shows it; the published definitions are comparable with nothing else."""
    unavailable: Callable[[Settings], str | None] = lambda settings: None
    """None, or what is missing and which ``pip install`` mends it."""
    details: Callable[[Settings], str | None] = lambda settings: None
    """What is to be quoted with every value, beyond the definition."""

    @property
    def selector(self) -> str:
        """The word of ``--metrics`` that asks for it."""
        return self.group or self.name

    @property
    def heading(self) -> str:
        """As it stands above a column, with the direction in which it improves."""
        arrow = "↑" if self.better == "higher" else "↓"
        return f"{self.label} {arrow}" + (f", {self.unit}" if self.unit else "")

    def rounded(self, value: float) -> float | None:
        """The value as it is kept: four digits more than tables show; None for nan."""
        return round(value, self.digits + 4) if math.isfinite(value) else None


def needs(
    *modules: str,
    package: str,
    extra: str,
    import_it: Callable[[str], object] = import_module,
) -> Callable[[Settings], str | None]:
    """A value of :attr:`Metric.unavailable`: these modules, which an extra installs."""

    def unavailable(settings: Settings) -> str | None:
        try:
            for module in modules:
                import_it(module)
        except ImportError:
            return f"needs {package}, which is missing: pip install 'deepfovea[{extra}]'"
        return None

    return unavailable
