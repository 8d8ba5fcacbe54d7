"""Bootstrap confidence intervals of means over clips, and of differences between methods.

The clips are treated as a random sample of all clips. The frames of a clip are not independent of
each other, so a clip counts once, however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from .result import COLUMNS, Result

CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0
"""The intended probability that an interval contains the true mean; the number of resamplings of
the clips, and the seed of their draws. Our choice: usual values."""


class Interval(NamedTuple):
    """A mean over clips, and the ends of its interval, which equal it if there is only one clip."""

    mean: float
    low: float
    high: float
    clips: int

    @property
    def is_none(self) -> bool:
        """Whether no difference is shown: 0 lies in the interval, or there is no interval."""
        return self.clips < 2 or self.low <= 0.0 <= self.high


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean of one number per clip, with its interval of :data:`CONFIDENCE`.

    This is the expanded percentile interval of Hesterberg 2015, "What teachers should know about
    the bootstrap: resampling in the undergraduate statistics curriculum". For few clips the
    interval between plain percentiles is too narrow, by the factor between Student's distribution
    and the normal one and by √((n - 1) / n), so percentiles farther out are used. The same values
    give the same interval. An interval never exceeds the range of the values, so with fewer than
    six clips it contains the true mean less often than its confidence says.

    Args:
        values: one or more.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, mean, mean, 1)
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(CONFIDENCE, n - 1))
    means = _resampling(n) @ np.asarray(values, np.float64)
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(mean, float(low), float(high), n)


@lru_cache(maxsize=8)
def _resampling(n: int) -> np.ndarray:
    """How often each of n values is drawn, over n: [RESAMPLES, n]."""
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    counts = np.zeros((RESAMPLES, n))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1.0 / n)
    return counts


@lru_cache(maxsize=64)
def student_quantile(confidence: float, degrees: int) -> float:
    """The t for which Student's distribution has this probability between -t and t."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (
            (middle, high) if _student_within(middle, degrees) < confidence else (low, middle)
        )
    return high


def _student_within(t: float, degrees: int) -> float:
    """The probability of -t to t: Abramowitz and Stegun 1964, equations 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    power = degrees % 2
    term, total = math.cos(angle) ** power, 0.0
    while power <= degrees - 2:
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
        power += 2
    within = math.sin(angle) * total
    return within if degrees % 2 == 0 else 2.0 / math.pi * (angle + within)


def intervals(result: Result, names: Iterable[str]) -> dict[str, dict[str, Interval]]:
    """By method and metric, the mean with its interval over the clips that have a value."""
    found: dict[str, dict[str, Interval]] = {}
    for method in result.methods:
        rows = [row for row in result.rows if row.method == method]
        found[method] = {}
        for name in names:
            values = [value for row in rows if (value := row.values.get(name)) is not None]
            if values:
                found[method][name] = _rounded(bootstrap(values), name)
    return found


def difference(one: Result, method: str, two: Result, other: str, name: str) -> Interval | None:
    """The mean difference of a metric between methods of two results, paired by clip.

    As the values are paired, the difficulty of a clip cancels. None if no clip has both values.
    """
    theirs = {row.clip: row.values.get(name) for row in two.rows if row.method == other}
    pairs = [
        (row.values.get(name), theirs.get(row.clip)) for row in one.rows if row.method == method
    ]
    differences = [mine - their for mine, their in pairs if mine is not None and their is not None]
    return _rounded(bootstrap(differences), name) if differences else None


def _rounded(interval: Interval, name: str) -> Interval:
    digits = COLUMNS[name].digits + 4
    mean, low, high, clips = interval
    return Interval(round(mean, digits), round(low, digits), round(high, digits), clips)


def pairs(result: Result) -> list[tuple[str, str]]:
    """The pairs of methods to compare: each model with everything that is not a model, and with
    the models that come before it."""
    models = [name for name in result.methods if name in result.protocol["models"]]
    others = [name for name in result.methods if name not in models]
    return [
        (model, other)
        for number, model in enumerate(models)
        for other in (*others, *models[:number])
    ]


def sentence(found: Interval | None, name: str, one: str, other: str) -> str:
    """A sentence that says what a difference shows."""
    column = COLUMNS[name]
    if found is None:
        return f"{column.label}: no clip has a value for both."
    unit = f" {column.unit}" if column.unit else ""
    value = f"{found.mean:+.{column.digits}f}{unit}"
    if found.clips < 2:
        return f"{column.label}: {value} on one clip, which says nothing about others."
    over = f"[{found.low:+.{column.digits}f}, {found.high:+.{column.digits}f}]"
    if found.is_none:
        return f"{column.label}: no difference is shown ({value}, {over} holds 0)."
    better = (found.mean > 0) == (column.better == "higher")
    return f"{column.label}: {one if better else other} is better ({value}, {over})."
