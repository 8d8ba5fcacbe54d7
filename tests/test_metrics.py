"""PSNR against an independent implementation."""

import torch
from skimage.metrics import peak_signal_noise_ratio

from deepfovea.objective.metrics import psnr


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
