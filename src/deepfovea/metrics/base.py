"""The classes :class:`Metric` and :class:`Reference`, which is what metrics compare with.

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
"""The frames that a metric receives at once: one frame; a pair of consecutive frames; an item of
:data:`ITEM_FRAMES` frames, of which the last may be shorter; the whole clip."""

ITEM_FRAMES = 6
"""Frames of an item of the published protocol (Reich, Memmel and Grebe 2020)."""


@dataclass(frozen=True)
class Settings:
    """The user's choices for metrics that have options.

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
    """The true frames of one scope, and how they were sampled.

    ``frames`` [T, 3, H, W], sRGB in [0, 1], but uint8 for the scope ``clip``; ``mask``
    [T, 1, h, w], 1 where sampled; ``gaze_px`` [T, 2] in low-resolution pixels; ``eccentricity``
    [T, h, w], the distance from the gaze in the unit of the radii of ``density``; ``frame_number``
    of the first of these frames in the clip, from 0; ``jitter`` [T, 2], the offset (x, y) of the
    sampling grid in low-resolution pixels, None without jitter.
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
        """Return ``function(self)``, computed once and then kept for all methods that are compared.

        Use it for what depends on the true frames alone, such as their optical flow.
        """
        if function not in self._memo:
            self._memo[function] = function(self)
        value: Value = self._memo[function]
        return value


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its meaning, and the function that computes it.

    ``function(prediction, reference)`` returns a number, nan if it does not apply. If
    ``by_region`` is set, it returns the dictionary of :func:`deepfovea.metrics.regions.map_means`.
    The prediction is [T, 3, H, W], where T depends on the scope, and may be outside [0, 1]. For the
    scope ``clip`` it is uint8, as a screen would show it. The value of a clip is the mean of the
    numbers.
    """

    name: str
    """The name in the JSON of an evaluation."""
    label: str
    """The name in tables."""
    better: Literal["higher", "lower"]
    digits: int
    """Number of decimals in tables; the JSON has four more."""
    definition: str
    """The measured quantity, and who defined it, in one line."""
    scope: Scope
    function: Callable[[Tensor, Reference], Any]
    unit: str = ""
    group: str = ""
    """The word of ``evaluate --metrics`` that selects it; several metrics may share one. Empty: its
    name. The group ``psnr`` is always computed."""
    by_region: bool = False
    """Whether ``function`` returns a mean for each region."""
    min_side: int = 1
    """Frames with a smaller side, in pixels, get no value."""
    default: bool = True
    """Whether an evaluation computes it if ``--metrics`` is not given."""
    table: Literal["overview", "published", "none"] = "overview"
    """The table that shows it; values by the published definitions have a table of their own."""
    unavailable: Callable[[Settings], str | None] = lambda settings: None
    """Returns None, or a message that says what is missing and how to install it."""
    details: Callable[[Settings], str | None] = lambda settings: None
    """Returns what must be quoted with every value beside the definition, or None."""

    @property
    def selector(self) -> str:
        """The word of ``--metrics`` that selects it."""
        return self.group or self.name

    @property
    def heading(self) -> str:
        """The heading of its column, with an arrow for the direction that is better."""
        arrow = "↑" if self.better == "higher" else "↓"
        return f"{self.label} {arrow}" + (f", {self.unit}" if self.unit else "")

    def rounded(self, value: float) -> float | None:
        """The value as results store it: four digits more than tables show; None for nan."""
        return round(value, self.digits + 4) if math.isfinite(value) else None


def needs(
    *modules: str,
    package: str,
    extra: str,
    import_it: Callable[[str], object] = import_module,
) -> Callable[[Settings], str | None]:
    """Make the attribute :attr:`Metric.unavailable` of a metric that needs these modules."""

    def unavailable(settings: Settings) -> str | None:
        try:
            for module in modules:
                import_it(module)
        except ImportError:
            return f"needs {package}, which is missing: pip install 'deepfovea[{extra}]'"
        return None

    return unavailable
