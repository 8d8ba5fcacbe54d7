"""Charts of a result."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from ..config import InputError
from .result import Result

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which people with any colour vision can tell apart."""
MARKERS = "osD^vPX"


def charts(result: Result) -> dict[str, bytes]:
    """Draw all charts; return PNG files by their names.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    drawn = {
        "psnr-by-eccentricity.png": _by_eccentricity(result),
        "psnr-over-time.png": _over_time(result),
    }
    if result.cost:
        drawn["quality-against-cost.png"] = _against_cost(result)
    return drawn


def _by_eccentricity(result: Result) -> bytes:
    """PSNR of the mean squared error of each ring, as the mean over the clips with this ring."""
    figure, axes = _axes()
    width, unit = result.protocol["eccentricity_bin"], result.protocol["density"]["unit"]
    for number, method in enumerate(result.methods):
        rows = [row.mse_by_eccentricity for row in result.rows if row.method == method]
        # Rings that few clips have are left out, as their mean would depend on the choice of clips.
        points = [
            ((ring + 0.5) * width, value)
            for ring, value in enumerate(_column_means(rows, _decibels))
            if value is not None
        ]
        axes.plot(*zip(*points, strict=True), **_style(number), label=method)
    for name in ("inner", "outer"):
        axes.axvline(result.protocol["density"][name], color="0.35", linestyle="--", linewidth=1)
    unit = "low-resolution pixels" if unit == "px" else "degrees"
    axes.set_xlabel(f"distance from the gaze, {unit} (dashed: the density's radii)")
    axes.set_ylabel("PSNR, dB")
    axes.set_title("PSNR by eccentricity, mean over the clips")
    return _png(figure, axes)


def _over_time(result: Result) -> bytes:
    figure, axes = _axes()
    for number, method in enumerate(result.methods):
        rows = [row.psnr_by_frame for row in result.rows if row.method == method]
        means = [value for value in _column_means(rows, float) if value is not None]
        axes.plot(range(len(means)), means, **_style(number), label=method)
    axes.set_xlabel("frames since the first one")
    axes.set_ylabel("PSNR, dB")
    axes.set_title("PSNR over time, mean over the clips")
    return _png(figure, axes)


def _against_cost(result: Result) -> bytes:
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _axes()
    means, on_cpu = result.means(), result.protocol["device"] == "cpu"
    for number, method in enumerate(result.methods):
        cost = result.cost.get(method)
        if cost:
            ms = cost.processor_ms_per_frame if on_cpu else cost.ms_per_frame
            style = {**_style(number), "markersize": 9, "linestyle": ""}
            axes.plot([ms], [means[method]["psnr"]], **style, label=method)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    time = "processor ms" if on_cpu else "ms"
    axes.set_xlabel(f"{time} per frame, {result.protocol['cost_of']}, {result.protocol['device']}")
    axes.set_ylabel("PSNR, dB")
    axes.set_title("quality against cost")
    return _png(figure, axes)


def _decibels(mse: float) -> float:
    return -10.0 * math.log10(max(mse, 1e-10))


def _column_means(rows: Sequence[Sequence[float | None]], convert: Any) -> list[float | None]:
    """The mean of each column over the rows that have it; None if less than half of them do."""
    means: list[float | None] = []
    for place in range(max(map(len, rows))):
        values = [row[place] for row in rows if place < len(row)]
        present = [convert(value) for value in values if value is not None]
        enough = 2 * len(present) >= len(rows)
        means.append(sum(present) / len(present) if enough else None)
    return means


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        # If there are more methods than colours, colours repeat, dashed and with another marker.
        "marker": MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
        "linestyle": ("-", "--", ":")[number // len(COLORS) % 3],
        "markersize": 4,
        "linewidth": 1.5,
    }


def require_matplotlib() -> None:
    """Raise InputError if matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError(
            "charts need matplotlib, which is missing: pip install 'deepfovea[eval]'"
        ) from None


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Any, axes: Any) -> bytes:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
