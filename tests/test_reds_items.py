"""Claims about the published preprocessing and its ordered batches."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from deepfovea.config import InputError
from deepfovea.fovea import density_map, downsample
from deepfovea.io.decoded_cache import Source
from deepfovea.reds.items import FRAMES, PublishedItems, crop_or_pad, item_count
from deepfovea.training.sampler import stateful_batches

SMALL = (96, 128)


def video(name, frames, height=90, width=160):
    rng = np.random.default_rng(len(name) + frames)
    return Source(name, rng.integers(1, 256, (frames, height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def items():
    """Videos of 3, 1 and 2 items, and one that is too short."""
    sources = [video("a", 14), video("b", 9), video("short", 5), video("c", 11)]
    return PublishedItems(sources, seed=3, size=SMALL)


def same(a, b):
    return all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)


# --- items ------------------------------------------------------------------------------------


def test_reds_as_published():
    """24 items of 100 frames; 128 columns off each side, 24 black rows above and below."""
    frames = np.random.default_rng(0).integers(1, 256, (6, 720, 1280, 3), np.uint8)
    item = PublishedItems([Source("000", frames)], seed=0)[0]
    assert item_count(100) == 24
    cropped = torch.from_numpy(frames[:, :, 128:-128]).permute(0, 3, 1, 2)
    assert torch.equal(item["frames"], F.pad(cropped, (0, 0, 24, 24)))
    assert item["valid_region"].tolist() == [24, 0, 720, 1024]
    assert item["mask"].shape == (6, 1, 192, 256)
    assert item["frames"].dtype == item["mask"].dtype == torch.uint8
    assert not item["mask"][..., :6, :].any()
    assert not item["mask"][..., -6:, :].any()
    # The published order is to reduce, then to crop and pad by a quarter.
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255
    expected = F.interpolate(whole, scale_factor=0.25, mode="bilinear", align_corners=False)
    expected = F.pad(expected[..., 32:-32], (0, 0, 6, 6))
    torch.testing.assert_close(downsample(item["frames"].double() / 255), expected)


def test_masks_have_the_published_density_and_gaze():
    """Means over many videos: of the mask, the published probability; of the gaze, its range."""
    frames = np.ones((6, 720, 1280, 3), np.uint8)
    items = PublishedItems([Source("v", frames)], seed=1, size=(720, 1280))
    # The brightest point of the smoothed mask is the gaze, to some pixels.
    expected, seen, gaze = 0.0, 0.0, []
    for epoch in range(30):
        mask = items[epoch]["mask"].float().mean(0)
        # the fovea of radius 20, as a box of the same area
        smooth = F.avg_pool2d(mask[None], 35, 1, 17, count_include_pad=False)[0, 0]
        y, x = divmod(int(smooth.argmax()), 320)
        gaze.append((x, y))
        expected += float(density_map(torch.tensor([float(x), float(y)]), 180, 320).mean()) / 30
        seen += float(mask.mean()) / 30
    assert seen == pytest.approx(expected, abs=0.002)
    x, y = np.array(gaze).T
    assert 44 < x.min() < 100 < 220 < x.max() < 276
    assert 44 < y.min() < 75 < 105 < y.max() < 136
    assert len(set(gaze)) > 25


def test_the_published_share_of_samples_is_19_percent_of_an_item():
    """The published text says 19.7 %; by its own rule it is 19.0 %, 1.19 % of the output."""
    y, x = torch.meshgrid(torch.linspace(50, 130, 41), torch.linspace(50, 270, 56), indexing="ij")
    gazes = torch.stack((x, y), -1).view(-1, 2)
    # Trapezoidal weights: the mean over the whole range of the gaze.
    weights = torch.ones_like(x)
    weights[[0, -1]] /= 2
    weights[:, [0, -1]] /= 2
    cropped = torch.stack([density_map(gaze, 180, 320)[..., 32:-32].sum() for gaze in gazes])
    share = float((cropped * weights.flatten() / weights.sum()).sum()) / (192 * 256)
    assert share == pytest.approx(0.190, abs=0.0005)
    assert share / 16 == pytest.approx(0.0119, abs=0.00005)


def test_items_overlap_by_two_frames_and_know_where_videos_begin(items):
    assert len(items) == 6
    assert items.items_per_video == [3, 1, 2]
    assert [items[i]["is_clip_start"] for i in range(6)] == [True, False, False, True, True, False]
    for video, first in (("a", 0), ("c", 4)):
        frames = next(s.frames for s in items.sources if s.name == video)
        for k in range(2):
            now, then = items[first + k], items[first + k + 1]
            assert torch.equal(now["frames"][-2:], then["frames"][:2])
            expected = torch.from_numpy(np.array(frames[4 * k : 4 * k + 6])).permute(0, 3, 1, 2)
            top, left, height, width = now["valid_region"].tolist()
            shown = now["frames"][..., top : top + height, left : left + width]
            assert torch.equal(shown, expected[..., :88, 16:144])
            # one gaze, but new draws: every frame of every item has another mask
            masks = [*now["mask"], *then["mask"]]
            assert len({mask.numpy().tobytes() for mask in masks}) == 2 * FRAMES
            if first + k + 2 == len(items):
                break


def test_an_item_is_a_function_of_index_and_seed(items):
    expected = [items[i] for i in range(12)]
    for i in reversed(range(12)):
        assert same(items[i], expected[i])
    again = PublishedItems(items.sources[::-1], seed=3, size=SMALL)  # c, b, a
    assert same(again[3], expected[0])
    other = PublishedItems(items.sources, seed=4, size=SMALL)
    for i in range(6):
        assert torch.equal(expected[i]["frames"], expected[i + 6]["frames"])
        for different in (expected[i + 6], other[i]):
            assert not torch.equal(expected[i]["mask"], different["mask"])


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_and_workers_change_nothing(items, workers):
    order = [5, 0, 9, 3, 2, 7, 1, 4]
    pairs = [order[i : i + 2] for i in range(0, 8, 2)]
    loader = DataLoader(items, batch_sampler=pairs, num_workers=workers)
    for batch, pair in zip(loader, pairs, strict=True):
        for position, index in enumerate(pair):
            assert same({key: value[position] for key, value in batch.items()}, items[index])


@pytest.mark.parametrize("height", [7, 90, 97, 300])
@pytest.mark.parametrize("width", [160, 131, 18])
def test_any_size_is_fitted_about_its_centre(height, width):
    source = video("odd", 6, height, width)
    item = PublishedItems([source], seed=0, size=SMALL)[0]
    frames, mask = item["frames"], item["mask"]
    assert frames.shape == (6, 3, *SMALL)
    assert mask.shape == (6, 1, 24, 32)
    top, left, tall, wide = item["valid_region"].tolist()
    assert (tall, wide) == (min(96, height // 4 * 4), min(128, width // 4 * 4))
    assert abs(top - (96 - top - tall)) <= 4
    assert abs(left - (128 - left - wide)) <= 4
    inside = torch.zeros(SMALL, dtype=torch.bool)
    inside[top : top + tall, left : left + wide] = True
    assert torch.equal((frames > 0).all(1), inside.expand(6, -1, -1))  # no pixel of it is black
    assert not mask[..., ~inside[::4, ::4]].any()
    whole = torch.from_numpy(source.frames).permute(0, 3, 1, 2)[
        ..., : height // 4 * 4, : width // 4 * 4
    ]
    low, _ = crop_or_pad(downsample(whole.double()), (24, 32))
    torch.testing.assert_close(downsample(frames.double()), low)


def test_what_is_no_item_is_refused_in_one_line(items, caplog):
    PublishedItems([video("short", 5), video("a", 6)], 0)
    assert "short: left out" in caplog.text
    for sources, size, complaint in (
        ([video("short", 5)], SMALL, "none of 1 video has 6 frames"),
        ([], SMALL, "none of 0 videos"),
        ([video("flat", 6, 3, 99)], SMALL, "none of 1 video has"),
        ([video("a", 6)], (90, 128), "received 90x128; expected positive multiples of 4"),
        ([video("a", 6)], (0, 128), "received 0x128"),
    ):
        with pytest.raises(InputError, match=complaint) as caught:
            PublishedItems(sources, 0, size)
        assert "\n" not in str(caught.value)
    with pytest.raises(IndexError):
        items[-1]


# --- order ------------------------------------------------------------------------------------

COUNTS = [3, 1, 2, 5, 2]


def batches(count, batch_size=2, counts=COUNTS, seed=0, **arguments):
    stream = stateful_batches(counts, batch_size, seed, **arguments)
    return list(itertools.islice(stream, count))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_item_comes_once_per_epoch_and_in_order(batch_size):
    total, epochs = sum(COUNTS), 3
    firsts = set(np.cumsum([0, *COUNTS[:-1]]).tolist())
    # Enough batches for the slowest slot to finish the third epoch.
    played = batches(epochs * total + max(COUNTS), batch_size)
    seen = [index for batch in played for index in batch if index < epochs * total]
    assert sorted(seen) == list(range(epochs * total))
    for place in zip(*played, strict=True):
        assert place[0] % total in firsts
        for before, index in itertools.pairwise(place):
            assert index % total in firsts or index == before + 1


def test_batches_follow_items_of_a_data_set(items):
    state = [None, None]
    for batch in batches(12, 2, items.items_per_video):
        for place, index in enumerate(batch):
            assert items[index]["is_clip_start"] or index == state[place] + 1
            state[place] = index


def test_they_are_a_batch_sampler(items):
    sampler = stateful_batches(items.items_per_video, 2, seed=0, start=3)
    loader = DataLoader(items, batch_sampler=sampler, num_workers=2)
    expected = batches(4, 2, items.items_per_video, start=3)
    for batch, pair in zip(itertools.islice(loader, 4), expected, strict=True):
        assert torch.equal(batch["mask"], torch.stack([items[i]["mask"] for i in pair]))
        assert batch["is_clip_start"].tolist() == [items[i]["is_clip_start"] for i in pair]


def test_order_depends_on_seed_and_epoch():
    first, second = (
        [i % 13 for i in itertools.chain(*batches(13, 1, start=13 * epoch))] for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(13))
    assert first != second
    assert batches(9) == batches(9)
    assert batches(9) != batches(9, seed=1)


@pytest.mark.parametrize("start", [1, 7, 40])
def test_a_resumed_stream_is_the_rest(start):
    assert batches(9, 3, start=start) == batches(start + 9, 3)[start:]


def test_processes_share_the_batches_of_one():
    one = batches(20, 4)
    parts = [batches(20, 2, process=process, processes=2) for process in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == one


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"counts": []}, {"counts": [2, 0]}, {"process": 1}]
)
def test_batches_of_nothing_are_refused(arguments):
    with pytest.raises(ValueError, match="expected at least one"):
        batches(1, **arguments)
