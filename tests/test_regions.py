"""Claims about regions: every pixel is in one ring and in one of sampled and dropped."""

import math

import numpy as np
import pytest
import torch

from deepfovea.config import Density
from deepfovea.fovea import density_map, eccentricity_map
from deepfovea.gaze import DisplayGeometry
from deepfovea.metrics.regions import label_map, region_means, upsample_nearest

DENSITY = Density(0.9, 0.1, 4.0, 9.0)


@pytest.fixture
def frame():
    """Distance from the gaze and mask [12, 17], and a random map [48, 68]."""
    generator = torch.Generator().manual_seed(0)
    distance = eccentricity_map(torch.tensor([5.0, 3.0]), 12, 17)
    mask = (torch.rand(12, 17, generator=generator) < 0.4).float()
    return distance, mask, torch.rand(48, 68, generator=generator)


def test_the_means_equal_those_of_the_pixels_one_by_one(frame):
    distance, mask, values = frame
    found = region_means(values, label_map(distance, mask, DENSITY, 4))
    pixels = {name: [] for name in found}
    for y in range(48):
        for x in range(68):
            r = math.hypot(x // 4 - 5.0, y // 4 - 3.0)
            ring = "fovea" if r <= 4.0 else "periphery" if r >= 9.0 else "blend"
            kept = "sampled" if mask[y // 4, x // 4] else "dropped"
            for name in ("frame", ring, kept):
                pixels[name].append(float(values[y, x]))
    assert found == {name: pytest.approx(np.mean(v), abs=1e-12) for name, v in pixels.items()}


def test_rings_are_where_the_density_is_flat(frame):
    distance, mask, _ = frame
    probability = density_map(torch.tensor([5.0, 3.0]), 12, 17, DENSITY)[0]
    rings = label_map(distance, mask, DENSITY, 1) // 2
    assert torch.equal(rings == 0, (probability - 0.9).abs() < 1e-6)
    assert torch.equal(rings == 2, (probability - 0.1).abs() < 1e-6)


def test_the_windows_of_ssim_count_where_their_centre_is(frame):
    distance, mask, values = frame
    cells = label_map(distance, mask, DENSITY, 4)
    margin = torch.zeros(48, 68, dtype=torch.bool)
    margin[5:-5, 5:-5] = True
    found = region_means(values[5:-5, 5:-5], cells)
    for name, of in {"periphery": cells // 2 == 2, "dropped": cells % 2 == 1}.items():
        expected = values[of & margin].double().mean()
        assert found[name] == pytest.approx(float(expected), abs=1e-12)


def test_an_empty_region_is_not_a_number():
    far, all_sampled = torch.full((3, 3), 50.0), torch.ones(3, 3)
    found = region_means(torch.ones(12, 12), label_map(far, all_sampled, DENSITY, 4))
    assert [name for name, value in found.items() if math.isnan(value)] == [
        *("fovea", "blend", "dropped")
    ]
    assert found["frame"] == found["periphery"] == found["sampled"] == 1.0


def test_radii_in_degrees_make_rings_in_degrees():
    geometry = DisplayGeometry(90.0, 100, 50)
    density = Density(0.9, 0.1, 10.0, 30.0, "deg")
    distance = eccentricity_map(torch.tensor([49.5, 24.5]), 50, 100, density, geometry)
    rings = label_map(distance, torch.ones(50, 100), density, 1) // 2
    # 90° across 100 pixels: the tangent is 1 at 50 pixels, so 10° are 8.8 and 30° 28.9 pixels.
    row = rings[24].tolist()
    assert [row.count(ring) for ring in (0, 1, 2)] == [18, 40, 42]


def test_enlarging_repeats_pixels():
    small = torch.tensor([[1, 2], [3, 4]])
    assert upsample_nearest(small, 2).tolist() == [
        [1, 1, 2, 2],
        [1, 1, 2, 2],
        [3, 3, 4, 4],
        [3, 3, 4, 4],
    ]
