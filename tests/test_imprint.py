"""Claims about the loss that finds the pattern of the mask in a picture."""

import torch
import torch.nn.functional as F

from deepfovea.fovea import jitter_sequence
from deepfovea.losses.imprint import imprint_loss, sampled_cells


def clip(frames=3, size=256, seed=0):
    noise = torch.rand(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    picture = F.interpolate(noise, (size, size), mode="bicubic").clamp(0, 1)
    return picture.expand(1, frames, -1, -1, -1)


def cells_of(jitter=None, share=0.15, frames=3, side=64):
    mask = torch.rand(1, frames, 1, side, side, generator=torch.Generator().manual_seed(1)) < share
    return sampled_cells(mask.float(), jitter)


def with_dots(frames, fresh):
    """Blur a picture except at the samples."""
    flat = frames.flatten(0, 1)
    blurred = F.avg_pool2d(F.pad(flat, (4, 4, 4, 4), mode="replicate"), 9, 1)
    # A cell is the mean of the pixels 2i+1 and 2i+2.
    pixels = F.pad(F.interpolate(fresh.flatten(0, 1), scale_factor=2.0), (1, 0, 1, 0))[
        ..., :-1, :-1
    ]
    return (pixels * flat + (1 - pixels) * blurred).view_as(frames), blurred.view_as(frames)


def test_the_truth_has_no_imprint():
    truth = clip()
    assert imprint_loss(truth, truth, cells_of()) == 0


def test_samples_laid_over_a_blurred_picture_are_seen():
    truth, fresh = clip(), cells_of()
    dots, blurred = with_dots(truth, fresh)
    assert imprint_loss(dots, truth, fresh) > 3 * imprint_loss(blurred, truth, fresh)


def test_a_mask_that_has_nothing_to_do_with_the_dots_sees_none():
    truth, fresh = clip(), cells_of()
    dots, _ = with_dots(truth, fresh)
    other = torch.roll(fresh, (8, 14), (-2, -1))
    assert imprint_loss(dots, truth, other) < 0.3 * imprint_loss(dots, truth, fresh)


def test_the_cells_follow_the_grid():
    jitter = jitter_sequence("quad", 0, 4)[None]
    cells = cells_of(jitter, frames=4)
    for t, (x, y) in enumerate((2 * jitter[0]).long().tolist()):
        assert cells[0, t, :, y::2, x::2].sum() == cells[0, t].sum() > 0
    assert torch.equal(
        sampled_cells(torch.ones(1, 1, 1, 8, 8), None)[..., ::2, ::2], torch.ones(1, 1, 1, 8, 8)
    )
