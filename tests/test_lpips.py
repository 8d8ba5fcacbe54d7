"""LPIPS: the metric equals the published distance; missing weights are named, not downloaded."""

import sys
from importlib.util import find_spec
from pathlib import Path

import media
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import AlexNet_Weights, alexnet

from deepfovea.config import PUBLISHED_DENSITY, InputError
from deepfovea.evaluate import Protocol, evaluate
from deepfovea.fovea import downsample
from deepfovea.metrics import METRICS, Reference
from deepfovea.metrics.lpips import MIN_SIDE, load_lpips
from deepfovea.resample import upsample_bicubic
from deepfovea.video import VideoWriter

pytest.importorskip("lpips", reason="the package lpips is not installed")

FILE = AlexNet_Weights.DEFAULT.url.rpartition("/")[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch, without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refused(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def backbone(cache):
    """A stand-in for AlexNet with random features and an empty classifier."""
    with torch.device("meta"):
        shapes = alexnet(weights=None).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.05 * torch.randn(shape.shape, generator=generator)
        if name.startswith("features")
        else torch.zeros(1).expand(shape.shape)
        for name, shape in shapes.items()
    }
    torch.save(state, cache / FILE)
    return state


def by_hand(first, second, state):
    """Zhang et al. 2018, equation 1, with the heads of the package's version 0.1."""
    folder = Path(find_spec("lpips").submodule_search_locations[0])
    heads = torch.load(folder / "weights" / "v0.1" / "alex.pth", "cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    layers = [(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]  # index, stride, padding
    x, y = ((2 * frame[None] - 1 - shift) / scale for frame in (first, second))
    total = 0.0
    for number, (index, stride, padding) in enumerate(layers):
        if number in (1, 2):
            x, y = (F.max_pool2d(features, 3, 2) for features in (x, y))
        weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        x, y = (F.relu(F.conv2d(f, weight, bias, stride, padding)) for f in (x, y))
        difference = F.normalize(x, dim=1) - F.normalize(y, dim=1)
        total += float(F.conv2d(difference**2, heads[f"lin{number}.model.1.weight"]).mean())
    return total


def distance(frame, truth):
    """The metric of a frame, called as in an evaluation: [3, H, W] each."""
    low = [-(-side // 4) for side in truth.shape[-2:]]
    mask, gaze, from_gaze = torch.ones(1, 1, *low), torch.zeros(1, 2), torch.zeros(1, *low)
    reference = Reference(truth[None], mask, gaze, from_gaze, PUBLISHED_DENSITY)
    return METRICS["lpips"].function(frame[None], reference)["frame"]


@pytest.mark.parametrize(("height", "width"), [(72, 88), (MIN_SIDE + 1, MIN_SIDE + 1)])
def test_the_metric_is_the_published_distance_and_the_packages_own(backbone, height, width):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 3, height, width, generator=generator)
    value = distance(first, second)
    assert value == pytest.approx(by_hand(first, second, backbone), rel=1e-4)
    with torch.inference_mode():
        theirs = float(load_lpips()(first[None], second[None], normalize=True))
    assert value == pytest.approx(theirs, rel=1e-5)
    assert value > 1e-3
    assert distance(second, first) == pytest.approx(value, rel=1e-5)
    assert distance(first, first) == 0.0
    beyond = 3.0 * first - 1.0
    assert distance(beyond, second) == distance(beyond.clamp(0, 1), second)  # as shown


def test_smaller_frames_are_too_small_for_its_last_layer(backbone):
    smaller = torch.zeros(3, MIN_SIDE - 1, 92)
    with pytest.raises(RuntimeError):
        distance(smaller, smaller)


def test_an_evaluation_has_its_mean_and_that_of_its_change(backbone, tmp_path):
    images = media.moving(3, 64, 64)
    with VideoWriter(tmp_path / "clip", frame_rate=24) as writer:
        for number, image in enumerate(images):
            writer.write(image, number / 24)
    protocol = Protocol(metrics=("lpips",))
    values = evaluate(tmp_path, [], ["bicubic-all"], protocol).rows[0].values
    truth = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    shown = upsample_bicubic(downsample(truth))
    expected = np.mean([distance(a, b) for a, b in zip(shown, truth, strict=True)])
    changes = [[distance(*video[t : t + 2]) for t in range(2)] for video in (shown, truth)]
    assert values["lpips"] == pytest.approx(expected, abs=1e-6)
    change = 100 * np.abs(np.subtract(*changes)).mean()
    assert values["t_lpips"] == pytest.approx(change, abs=1e-4)
    assert change > 0


def test_a_missing_backbone_is_named_and_not_downloaded(cache):
    with pytest.raises(InputError, match=rf"https://\S*{FILE} .*TORCH_HOME") as caught:
        load_lpips()
    assert len(str(caught.value).splitlines()) == 1
    assert list(cache.iterdir()) == []


def test_a_file_of_something_else_is_refused(cache):
    torch.save({"features.0.weight": torch.zeros(3)}, cache / FILE)
    with pytest.raises(InputError, match="another network"):
        load_lpips()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[eval\]'"):
        load_lpips()
