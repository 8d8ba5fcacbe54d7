"""Claims about intervals: independent quantiles, coverage, pairing, and what is no difference."""

import numpy as np
import pytest
from scipy import stats

from deepfovea.evaluate import Result, Row
from deepfovea.evaluate.statistics import (
    bootstrap,
    difference,
    intervals,
    pairs,
    sentence,
    student_quantile,
)


def result(**psnr):
    rows = [
        Row(method, str(clip), 24, 0.2, {"psnr": value})
        for clip in range(len(next(iter(psnr.values()))))
        for method, values in psnr.items()
        if (value := values[clip]) is not None
    ]
    return Result({"models": {"ours": "0"}}, rows)


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 8, 29, 150])
def test_student_quantiles_are_scipys(degrees):
    expected = stats.t.ppf(0.975, degrees)
    assert student_quantile(0.95, degrees) == pytest.approx(expected, rel=1e-9)


def test_for_many_clips_it_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).gamma(2.0, size=400)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", random_state=2)
    found = bootstrap(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


@pytest.mark.parametrize("clips", [6, 12])
def test_few_clips_are_covered_as_promised(clips):
    """Of 400 draws of so many clips, about 95 % of the intervals hold the true mean."""
    draws = np.random.default_rng(clips).normal(size=(400, clips))
    held = [found.low <= 0.0 <= found.high for found in map(bootstrap, draws.tolist())]
    assert 0.91 < np.mean(held) < 0.99, np.mean(held)


def test_the_same_values_give_the_same_interval_and_equal_ones_a_point():
    values = [20.0, 21.5, 30.25]
    assert bootstrap(values) == bootstrap(values)
    found = bootstrap([0.1] * 6)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert bootstrap([2.0])[:3] == (2.0, 2.0, 2.0)


def test_differences_are_paired_by_clip():
    """A difference of 0.5 dB on every clip is found although the clips differ by 10 dB."""
    hard = [20.0, 25.0, 30.0, 35.0, 22.0, None]
    there = result(fill=hard, ours=[0.5 + value for value in hard[:5]] + [40.0])
    found = difference(there, "ours", there, "fill", "psnr")
    assert found[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert found.clips == 5
    means = intervals(there, ["psnr"])
    assert means["fill"]["psnr"].high - means["fill"]["psnr"].low > 5.0
    assert difference(there, "ours", there, "fill", "ssim") is None


def test_sentences_say_when_a_difference_is_none():
    there = result(fill=[20.0, 21.0, 22.0], ours=[20.5, 20.4, 22.1])
    text = sentence(difference(there, "ours", there, "fill", "psnr"), "psnr", "ours", "fill")
    assert text.startswith("PSNR: no difference is shown (+0.00 dB, [")
    there = result(fill=[20.0, 21.0, 22.0], ours=[19.0, 19.9, 21.2])
    text = sentence(difference(there, "ours", there, "fill", "psnr"), "psnr", "ours", "fill")
    assert text.startswith("PSNR: fill is better (-0.97 dB, [")
    one = result(fill=[20.0], ours=[21.0])
    assert difference(one, "ours", one, "fill", "psnr").is_none
    assert "one clip" in sentence(difference(one, "ours", one, "fill", "psnr"), "psnr", "a", "b")
    assert pairs(there) == [("ours", "fill")]
