"""Metrics of frames against independent implementations, and their bounds."""

import numpy as np
import pytest
import torch
from skimage.metrics import (
    mean_squared_error,
    peak_signal_noise_ratio,
    structural_similarity,
)

from deepfovea.config import PUBLISHED_DENSITY, InputError
from deepfovea.metrics import METRICS, Reference, Settings
from deepfovea.metrics.acuity import cutoff_frequency
from deepfovea.metrics.pixel import l1, mse, psnr, psnr_from_mse, ssim, ssim_map


def test_psnr_equals_scikit_image_frame_by_frame():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 3, 20, 30, generator=generator)
    prediction = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    values = psnr(prediction, truth)
    assert values.shape == (2, 3)
    for b in range(2):
        for t in range(3):
            expected = peak_signal_noise_ratio(
                truth[b, t].numpy(), prediction[b, t].numpy(), data_range=1.0
            )
            assert abs(float(values[b, t]) - expected) < 1e-4


def test_what_is_beyond_the_range_counts_as_shown():
    truth = torch.ones(3, 4, 4)
    assert float(psnr(truth + 5.0, truth)) == 100.0


def test_equal_frames_have_the_highest_value_and_it_is_finite():
    frame = torch.rand(3, 8, 8)
    assert float(psnr(frame, frame)) == 100.0


def test_l1_and_mse_are_what_they_say():
    generator = torch.Generator().manual_seed(3)
    truth, prediction = torch.rand(2, 4, 3, 9, 13, generator=generator)
    for t in range(4):
        expected = mean_squared_error(truth[t].numpy(), prediction[t].numpy())
        assert float(mse(prediction, truth)[t]) == pytest.approx(expected, abs=1e-7)
        absolute = abs(truth[t].double() - prediction[t].double()).mean()
        assert float(l1(prediction, truth)[t]) == pytest.approx(float(absolute), abs=1e-7)
    for metric in (l1, mse):
        assert torch.equal(metric(prediction, truth), metric(truth, prediction))
        assert float(metric(truth, truth).max()) == 0.0
        assert float(metric(torch.full((3, 4, 4), 9.0), torch.zeros(3, 4, 4))) == 1.0
    assert torch.equal(psnr(prediction, truth), psnr_from_mse(mse(prediction, truth)))


def scikit_image_ssim(prediction, truth):
    return structural_similarity(
        *(truth.double().numpy(), prediction.double().numpy()),
        **{"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        **{"data_range": 1.0, "channel_axis": 0},
    )


@pytest.mark.parametrize(("height", "width"), [(11, 11), (40, 61)])
def test_ssim_equals_scikit_image_frame_by_frame(height, width):
    generator = torch.Generator().manual_seed(1)
    smooth = torch.rand(2, 2, 3, 8, 8, generator=generator).flatten(0, 1)
    truth = torch.nn.functional.interpolate(smooth, (height, width)).unflatten(0, (2, 2))
    noise = torch.randn(truth.shape, generator=generator)
    for strength in (0.0, 0.02, 0.3):
        prediction = (truth + strength * noise).clamp(0, 1)
        values = ssim(prediction, truth)
        assert values.shape == (2, 2)
        for b in range(2):
            for t in range(2):
                expected = scikit_image_ssim(prediction[b, t], truth[b, t])
                assert abs(float(values[b, t]) - expected) < 2e-5


def test_ssim_is_one_for_equal_frames_symmetric_and_bounded():
    generator = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 3, 20, 24, generator=generator).double()
    assert float(ssim(a, a)) == 1.0
    assert float(ssim(a, b)) == pytest.approx(float(ssim(b, a)), abs=1e-12)
    assert -1.0 <= float(ssim(1.0 - a, a)) < float(ssim(b, a)) < 1.0


def test_ssim_sees_frames_as_shown():
    truth = torch.rand(3, 16, 16)
    beyond = 3.0 * truth - 1.0
    assert float(ssim(beyond, truth)) == float(ssim(beyond.clamp(0, 1), truth))


def test_ssim_has_a_gradient():
    truth = torch.rand(3, 12, 12)
    prediction = (0.9 * truth).requires_grad_()
    ssim(prediction, truth).backward()
    assert prediction.grad is not None
    assert float(prediction.grad.abs().sum()) > 0.0


def test_ssim_of_frames_smaller_than_its_window_is_refused():
    with pytest.raises(InputError, match="40×10 pixels; expected at least 11×11"):
        ssim(torch.zeros(3, 10, 40), torch.zeros(3, 10, 40))


def by_acuity(values, gaze_px, fov_deg):
    """The weighted mean of a map [H, W], written out with NumPy from the papers' formulae."""
    height, width = values.shape
    distance = width / 2 / np.tan(np.radians(fov_deg) / 2)
    y, x = np.mgrid[:height, :width].astype(float)
    rays = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.full_like(x, distance)], -1)
    look = np.array([gaze_px[0] - (width - 1) / 2, gaze_px[1] - (height - 1) / 2, distance])
    cosine = rays @ look / np.linalg.norm(rays, axis=-1) / np.linalg.norm(look)
    eccentricity = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    cutoff = 2.3 * np.log(64) / (0.106 * (eccentricity + 2.3))
    nyquist = distance * np.radians(1) / 2
    return np.average(values, weights=np.minimum(cutoff, nyquist) ** 2)


@pytest.mark.parametrize("fov_deg", [None, 100.0])
def test_foveated_psnr_and_ssim_weigh_by_acuity(fov_deg):
    generator = torch.Generator().manual_seed(4)
    truth, prediction = torch.rand(2, 1, 3, 16, 640, generator=generator)
    prediction = truth + (prediction - truth) * torch.linspace(0.1, 1.0, 640)
    distance = torch.zeros(1, 4, 160)
    gaze, settings = torch.tensor([[3.0, 2.0]]), Settings(fov_deg=fov_deg)
    there = Reference(
        truth, torch.ones(1, 1, 4, 160), gaze, distance, PUBLISHED_DENSITY, settings=settings
    )
    error = (prediction - truth).square().mean(1)[0].numpy()
    expected = -10 * np.log10(by_acuity(error, (13.5, 9.5), fov_deg or 40.0))
    assert expected > -10 * np.log10(error.mean()) + 0.5
    assert METRICS["psnr"].function(prediction, there)["foveated"] == pytest.approx(
        expected, abs=1e-4
    )
    whole = np.zeros((16, 640))
    whole[5:-5, 5:-5] = ssim_map(prediction, truth).mean(1)[0].numpy()
    inside = np.zeros((16, 640))
    inside[5:-5, 5:-5] = 1.0
    expected = by_acuity(whole, (13.5, 9.5), fov_deg or 40.0)
    expected /= by_acuity(inside, (13.5, 9.5), fov_deg or 40.0)
    assert METRICS["ssim"].function(prediction, there)["foveated"] == pytest.approx(
        expected, abs=1e-5
    )


def test_the_eye_sees_39_cycles_per_degree_in_the_fovea_and_half_at_e2():
    fovea, half = cutoff_frequency(torch.tensor([0.0, 2.3])).tolist()
    assert fovea == pytest.approx(39.2, abs=0.05)
    assert half == pytest.approx(fovea / 2)
