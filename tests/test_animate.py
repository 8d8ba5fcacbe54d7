"""Claims about clips that a moving camera makes of photographs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from deepfovea.config import InputError
from deepfovea.flow import backward_warp
from deepfovea.fovea import downsample
from deepfovea.io.decoded_cache import Source
from deepfovea.training.animate import animate
from deepfovea.training.dataset import ClipDataset, find_photos

pytest.importorskip("cv2")


def photograph(seed, height=200, width=240):
    """A photograph so smooth that its low resolution can be warped."""
    noise = torch.rand(
        1, 3, height // 20, width // 20, generator=torch.Generator().manual_seed(seed)
    )
    smooth = F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * smooth[0]).byte().permute(1, 2, 0).numpy()


def animated(seed, frames=6, side=128):
    return animate(photograph(1), photograph(2), frames, side, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(6))
def test_the_motion_leads_to_where_each_pixel_was(seed):
    clip = animated(seed)
    low = downsample(torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255)
    warped = backward_warp(low[:-1], torch.from_numpy(clip.motion[1:]))
    missed = (warped - low[1:]).abs().mean(1)
    rested = (low[:-1] - low[1:]).abs().mean(1)
    # Only where nothing enters at the border or appears behind the object: most of the frame.
    assert float(missed.median()) < 0.01
    if float(rested.median()) > 0.01:
        assert float(missed.median()) < 0.5 * float(rested.median())


def test_some_cameras_rest_and_some_run():
    speeds = [np.hypot(*np.moveaxis(animated(seed).motion[1:], 1, 0)).max() for seed in range(24)]
    assert min(speeds) < 0.05 and max(speeds) > 2.0


def test_the_seed_decides():
    first, second, other = animated(3), animated(3), animated(4)
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.motion, second.motion)
    assert not np.array_equal(first.frames, other.frames)


def test_a_data_set_of_photographs_alone_knows_all_motion(tmp_path):
    for number in range(3):
        Image.fromarray(photograph(number)).save(tmp_path / f"{number}.png")
    photos = find_photos(tmp_path)
    dataset = ClipDataset([], 4, 64, 0, photos=photos, photo_share=1.0)
    item = dataset[0]
    assert item["frames"].shape == (4, 3, 64, 64) and item["frames"].dtype == torch.uint8
    assert item["motion"].shape == (4, 2, 16, 16)
    assert item["motion_trust"][1:].min() == 1 and item["motion_trust"][0].max() == 0


def test_the_motion_of_a_video_is_estimated_where_it_explains_the_frames():
    asked = []

    def flow(previous, current):
        asked.append((previous, current))
        return torch.cat([torch.full_like(current[:, :1], 8.0), 0.0 * current[:, :1]], 1)

    # A texture that moves to the left by eight pixels a frame: from each frame, 8 to the right is
    # where it was before.
    wide = photograph(5, 64, 160)
    video = np.stack([wide[:, 8 * t : 8 * t + 64] for t in range(4)])
    source = Source("pan", video)
    steps = []
    for index in range(8):
        item = ClipDataset([source], 4, 64, 0, flow=flow)[index]
        previous, current = asked[-1]
        frames = item["frames"].float() / 255
        torch.testing.assert_close(previous, frames[:-1])
        torch.testing.assert_close(current, frames[1:])
        assert item["motion"][1:, 0].unique().tolist() == [2.0]
        assert item["motion_trust"][0].max() == 0
        steps.append(float(item["motion_trust"][1:].mean()))
    # Clips are also played backwards and mirrored: half of them move the other way.
    assert max(steps) > 0.9 and min(steps) < 0.8


def test_a_folder_without_photographs_is_refused(tmp_path):
    assert find_photos("") == []
    with pytest.raises(InputError, match=r"received no photograph; expected a folder"):
        find_photos(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken.jpg: cannot be read as a picture"):
        ClipDataset([], 4, 64, 0, photos=find_photos(tmp_path), photo_share=1.0)[0]
