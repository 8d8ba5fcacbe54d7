"""Claims about copies between host and GPU; on a CPU they are no copies, and the bits are equal."""

import media
import numpy as np
import pytest
import torch

from deepfovea.arrays import to_unit_range
from deepfovea.checkpoint import load
from deepfovea.images import to_image
from deepfovea.reconstructor import Input, Reconstructor
from deepfovea.runtime.transfer import OnItsWay, to_device

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_levels_become_the_same_numbers_everywhere(device):
    numbers = to_unit_range(to_device(LEVELS, torch.device(device)))
    assert numbers.device.type == device
    wanted = (np.arange(256) / np.float32(255)).astype(np.float32)
    assert np.array_equal(numbers.cpu().numpy().reshape(-1), wanted)
    assert to_unit_range(numbers) is numbers
    assert np.array_equal(to_image(numbers)[..., 0], LEVELS[0].numpy())


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_comes_back_is_complete_when_one_has_waited(device):
    tensors = [torch.full((3, 500, 500), k, dtype=torch.uint8, device=device) for k in range(3)]
    coming = [OnItsWay([tensor, tensor + 1]) for tensor in tensors]
    for k, pair in enumerate(coming):
        first, second = pair.wait()
        assert (first.device.type, second.device.type) == ("cpu", "cpu")
        assert bool((first == k).all() & (second == k + 1).all())
    if device == "cpu":
        assert coming[0].wait()[0] is tensors[0]


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_frames_of_levels_are_reconstructed_as_the_same_frames_of_numbers(device):
    images = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in media.moving(3)]
    model = load("stream", device)
    made = {}
    for kind, convert in (("levels", lambda x: x), ("numbers", lambda x: x.float() / 255.0)):
        inputs = [Input(convert(image), (20.0, 15.0)) for image in images]
        made[kind] = [result.frame for result in Reconstructor(model).stream(inputs)]
        planes = [result.planes for result in Reconstructor(model).stream_yuv(iter(inputs))]
        made[f"{kind}, YCbCr"] = [plane for of_frame in planes for plane in of_frame]
        assert all(plane.device.type == "cpu" for plane in made[f"{kind}, YCbCr"])
    for way in ("", ", YCbCr"):
        pairs = zip(made["levels" + way], made["numbers" + way], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
