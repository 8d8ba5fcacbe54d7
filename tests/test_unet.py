"""DeepFovea++, DeepFovea of 2019, and their deformable convolution."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from deepfovea.generators.unet import blocks, deform
from deepfovea.generators.unet.blocks import ModulatedDeformConv
from deepfovea.generators.unet.deform import DeformConv, deform_conv_by_sampling
from deepfovea.generators.unet.net import (
    DEEPFOVEA_2019,
    PAPER,
    PAPER_MULTIRESOLUTION,
    DeepFoveaState,
    RecurrentUNet,
    UNetConfig,
    UNetState,
)

PRESETS = pytest.mark.parametrize("config", [PAPER, DEEPFOVEA_2019], ids=["2020", "2019"])


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # too small to share, and threads that wait for a busy core are slow
    yield
    torch.set_num_threads(threads)


def unet(config):
    """A network whose deformable convolutions have offsets other than zero."""
    model = RecurrentUNet(config)
    for module in model.modules():
        if isinstance(module, ModulatedDeformConv):
            torch.nn.init.normal_(module.offset_and_mask.weight, std=0.05)
    return model


def clip(length, height=32, width=48, batch=1):
    mask = (torch.rand(batch, length, 1, height, width) < 0.3).float()
    return torch.rand(batch, length, 3, height, width) * mask, mask


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


# --- parameters -------------------------------------------------------------------------------


def conv(channels, out, k):
    """Parameters of an ordinary convolution with bias."""
    return out * (channels * k * k + 1)


def deformable(channels, out, k=3):
    """Parameters of the convolution that predicts two offsets and a mask for each tap."""
    return conv(channels, out, k) + conv(channels, 3 * k * k, k)


def test_the_published_part_has_the_published_parameters():
    model = RecurrentUNet(PAPER)
    encoder = sum(
        conv(i, i, 3) + conv(i, o, 3) + (conv(i, o, 1) if i != o else 0)
        for i, o in [(18, 32), (32, 64), (64, 128), (128, 128), (128, 128)]
    )
    decoder = sum(
        conv(i, o, 3) + conv(o, o, 3) + conv(i, o, 1)
        for i, o in [(384, 128), (384, 128), (256, 64), (112, 16)]
    )
    super_resolution = sum(
        deformable(i, o) + deformable(o, o) + conv(i, o, 1) for i, o in [(48, 8), (40, 18)]
    )
    assert (encoder, decoder, super_resolution) == (748_054, 1_499_888, 42_420)
    # The parameters of the published code without its layer normalisation and conv3.
    assert encoder + decoder + super_resolution == 2_290_362

    normalisation = parameters(*(block.norm for block in model.decoder))
    third = parameters(model.super_resolution[1].conv3)
    assert normalisation == 2 * (128 + 128 + 64 + 16)
    assert third == deformable(18, 18, 1)
    assert parameters(model.encoder) == encoder
    assert parameters(model.decoder) == decoder + normalisation
    assert parameters(model.super_resolution) == super_resolution + third
    assert parameters(model) == 2_290_362 + 672 + 399


def test_the_ancestor_has_as_many_parameters_as_the_released_weights():
    assert parameters(RecurrentUNet(DEEPFOVEA_2019)) == 3_174_691  # 6,349,382 bytes of float16


@PRESETS
def test_every_parameter_receives_gradient(config):
    model = RecurrentUNet(config)
    frames, _ = model(*clip(2 * model.frames_per_step))
    frames.square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_config_survives_json():
    for config in (PAPER, DEEPFOVEA_2019):
        assert UNetConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_impossible_config_is_refused():
    with pytest.raises(ValueError, match="3 decoder levels"):
        dataclasses.replace(PAPER, decoder=(128, 64, 16))
    with pytest.raises(ValueError, match="received 18 channels"):
        dataclasses.replace(PAPER, frames_per_step=1)


# --- deformable convolution ---------------------------------------------------------------------

IMPLEMENTATIONS = pytest.mark.parametrize(
    "implementation", [DeformConv.apply, deform_conv_by_sampling], ids=["kernels", "sampling"]
)


def deform_arguments(channels, out, k, reach=1.0, size=(13, 17)):
    shapes = [(2, channels, *size), (2, 2 * k * k, *size), (out, channels, k, k), (out,)]
    values = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    values[1] *= reach
    values.append(torch.rand(2, k * k, *size, dtype=torch.float64))
    return [value.requires_grad_() for value in values]


@IMPLEMENTATIONS
@pytest.mark.parametrize(("channels", "out", "k"), [(6, 4, 3), (4, 4, 3), (3, 5, 3), (4, 4, 1)])
@pytest.mark.parametrize("reach", [1.0, 30.0])
def test_equals_torchvision(implementation, channels, out, k, reach):
    # A reach of 30: most taps read far outside of the 13×17 image.
    values = x, offset, weight, bias, mask = deform_arguments(channels, out, k, reach)
    expected = deform_conv2d(x, offset, weight, bias, padding=k // 2, mask=mask)
    received = implementation(*values)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-11)

    direction = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(received, values, direction),
        torch.autograd.grad(expected, values, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@IMPLEMENTATIONS
def test_gradients_are_the_slopes(implementation):
    assert torch.autograd.gradcheck(implementation, deform_arguments(3, 2, 3, size=(4, 5)))


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize(("channels", "out"), [(12, 8), (8, 8)])
def test_block_equals_torchvision_in_float32(monkeypatch, numba, channels, out):
    monkeypatch.setattr(deform, "has_numba", lambda: numba)
    used = []
    monkeypatch.setattr(deform.DeformConv, "apply", watched(deform.DeformConv.apply, used))
    block = ModulatedDeformConv(channels, out)
    for parameter in block.offset_and_mask.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.rand(1, channels, 64, 512)
    with torch.no_grad():
        offset, mask = block.offset_and_mask(x).split([18, 9], 1)
        expected = deform_conv2d(
            x, offset, block.weight, block.bias, padding=1, mask=mask.sigmoid()
        )
        whole = block(x)
        assert (whole - expected).abs().max() < 1e-4
        monkeypatch.setattr(deform, "STRIP_ELEMENTS", 9 * out * 512 * 20)  # 20 rows of 64
        torch.set_num_threads(3)  # the fixture sets it back
        torch.testing.assert_close(block(x), whole, rtol=0, atol=1e-5)
    assert len(used) == (2 if numba else 0)


def watched(function, calls):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def test_threads_share_the_gradients():
    values = deform_arguments(5, 3, 3)
    gradients = []
    for threads in (1, 3, 20):  # the last are more than may sum up gradients
        torch.set_num_threads(threads)
        out = DeformConv.apply(*values)
        gradients.append(torch.autograd.grad(out.square().sum(), values))
    for some, others in zip(gradients[0] * 2, gradients[1] + gradients[2], strict=True):
        torch.testing.assert_close(some, others)


@IMPLEMENTATIONS
@pytest.mark.parametrize(("channels", "out"), [(3, 2), (2, 3)])
def test_an_infinite_offset_reads_nothing_and_nan_makes_its_pixel_nan(
    implementation, channels, out
):
    values = x, offset, weight, bias, mask = deform_arguments(channels, out, 3)
    with torch.no_grad():
        offset[0, 0, 5, 5] = offset[1, 7, 2, 3] = float("inf")
        offset[0, 1, 6, 6] = -float("inf")
    expected = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    received = implementation(*values)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-11)
    assert received.isfinite().all()
    for gradient in torch.autograd.grad(received.sum(), values):
        assert gradient.isfinite().all()
    with torch.no_grad():
        offset[0, 3, 4, 2] = offset[1, 16, 0, 0] = float("nan")
    expected[0, :, 4, 2] = expected[1, :, 0, 0] = float("nan")
    received = implementation(*values)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-11, equal_nan=True)
    torch.autograd.grad(received.sum(), values)  # ends without a crash
    with torch.no_grad():  # inference takes strips
        torch.testing.assert_close(
            implementation(*values), expected, rtol=0, atol=1e-11, equal_nan=True
        )


@IMPLEMENTATIONS
@pytest.mark.parametrize(("channels", "out"), [(3, 2), (2, 3)])
def test_a_batch_of_nothing_is_a_batch_of_nothing(implementation, channels, out):
    values = [v.detach() for v in deform_arguments(channels, out, 3)]
    for i in (0, 1, 4):
        values[i] = values[i][:0]
    values = x, offset, weight, bias, mask = [v.requires_grad_() for v in values]
    expected = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    received = implementation(*values)
    assert received.shape == expected.shape == (0, out, 13, 17)
    for ours, theirs in zip(
        torch.autograd.grad(received.sum(), values),
        torch.autograd.grad(expected.sum(), values),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_elu_without_gradient_is_elu():
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([0.0, -1e-7, float("inf")])])
    with torch.no_grad():
        before = x.clone()
        torch.testing.assert_close(blocks.elu(x), torch.nn.functional.elu(x), rtol=0, atol=1e-7)
        assert torch.equal(x, before)
        assert blocks.elu(torch.tensor(float("nan"))).isnan()


def test_new_block_is_half_a_plain_convolution():
    block = ModulatedDeformConv(3, 4)
    x = torch.rand(1, 3, 9, 11)
    plain = torch.nn.functional.conv2d(x, block.weight / 2, block.bias, padding=1)
    torch.testing.assert_close(block(x), plain, rtol=0, atol=1e-5)


# --- frames and state ---------------------------------------------------------------------------


@PRESETS
@torch.no_grad()
def test_a_clip_equals_its_parts(config):
    model = unet(config)
    k = model.frames_per_step
    samples, mask = clip(2 * k)
    whole, end = model(samples, mask)
    first, state = model(samples[:, :k], mask[:, :k])
    second, last = model(samples[:, k:], mask[:, k:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(tuple(last), tuple(end), rtol=0, atol=1e-6)
    forgetful, _ = model(samples[:, k:], mask[:, k:])
    assert (forgetful - second).abs().max() > 1e-3


@PRESETS
@torch.no_grad()
def test_a_video_starts_the_same_every_time(config):
    model = unet(config)
    samples, mask = clip(model.frames_per_step)
    first, _ = model(samples, mask)
    again, _ = model(samples, mask)
    explicit, _ = model(samples, mask, model.initial_state(samples))
    assert torch.equal(first, again)
    assert torch.equal(first, explicit)


@PRESETS
@torch.no_grad()
def test_later_items_change_nothing_earlier(config):
    model = unet(config)
    k = model.frames_per_step
    samples, mask = clip(2 * k)
    before, _ = model(samples, mask)
    samples[:, k:] = 1.0
    after, _ = model(samples, mask)
    assert torch.equal(before[:, :k], after[:, :k])
    assert not torch.equal(before[:, k:], after[:, k:])


@PRESETS
@torch.no_grad()
def test_state_has_the_same_shape_in_and_out(config):
    model = unet(config)
    samples, mask = clip(model.frames_per_step, 40, 56, batch=2)  # padded to 64×64
    start = model.initial_state(samples)
    _, state = model(samples, mask, start)
    assert type(state) is (UNetState if config is PAPER else DeepFoveaState)
    sizes = [4, 8, 16, 32, 64]
    for tensor, zero, channels, size in zip(state, start, config.decoder, sizes, strict=False):
        assert tensor.shape == zero.shape == (2, channels, size, size)
        assert tensor.dtype == zero.dtype == torch.float32


@PRESETS
@pytest.mark.parametrize("size", [(40, 56), (33, 31), (1, 1)])
@torch.no_grad()
def test_any_size(config, size):
    model = unet(config)
    frames, _ = model(*clip(model.frames_per_step, *size))
    assert frames.shape == (
        1,
        model.frames_per_step,
        3,
        model.scale * size[0],
        model.scale * size[1],
    )
    assert frames.isfinite().all()


@torch.no_grad()
def test_padding_is_unsampled_pixels():
    model = unet(PAPER)
    samples, mask = clip(6, 64, 64)
    samples[..., 40:, :] = samples[..., 56:] = 0.0
    whole, _ = model(samples, mask)
    frames, _ = model(samples[..., :40, :56], mask[..., :40, :56])
    torch.testing.assert_close(frames, whole[..., :160, :224], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 5, 7])
def test_incomplete_item_is_refused(length):
    with pytest.raises(ValueError, match=f"received {length} frames; .* multiple of 6"):
        RecurrentUNet(PAPER)(*clip(length))


@PRESETS
@torch.no_grad()
def test_videos_of_a_batch_do_not_meet(config):
    model = unet(config)
    samples, mask = clip(model.frames_per_step, batch=2)
    both, state = model(samples, mask)
    for i in range(2):
        alone, own = model(samples[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(alone, both[i : i + 1], rtol=0, atol=1e-5)
        mine = tuple(tensor[i : i + 1] for tensor in state)
        torch.testing.assert_close(tuple(own), mine, rtol=0, atol=1e-5)


@torch.no_grad()
def test_only_the_ancestor_reads_the_mask():
    samples, mask = clip(6)
    for config in (PAPER, DEEPFOVEA_2019):
        model = unet(config)
        same = torch.equal(model(samples, mask)[0], model(samples, 1 - mask)[0])
        assert same == (config is PAPER)


@PRESETS
def test_gradient_flows_through_the_state_until_detached(config):
    model = unet(config)
    k = model.frames_per_step
    samples, mask = clip(2 * k)
    early, late = samples[:, :k].requires_grad_(), samples[:, k:]
    _, state = model(early, mask[:, :k])
    frames, _ = model(late, mask[:, k:], state)
    (gradient,) = torch.autograd.grad(frames.sum(), early)
    assert gradient.abs().sum() > 0
    frames, _ = model(late, mask[:, k:], type(state)(*(tensor.detach() for tensor in state)))
    (gradient,) = torch.autograd.grad(frames.sum(), early, allow_unused=True)
    assert gradient is None


def test_low_resolution_frames_are_added_to_the_output():
    config = UNetConfig(2, False, True, (4, 4, 4, 4, 4), (4, 4, 4, 4), (4, 6))
    net = RecurrentUNet(dataclasses.replace(config, low_resolution_output=True))
    plain = RecurrentUNet(config)
    plain.load_state_dict(
        {k: v for k, v in net.state_dict().items() if not k.startswith("to_low.")}
    )
    samples, mask = torch.rand(1, 4, 3, 40, 48), torch.ones(1, 4, 1, 40, 48)  # padded to 64x64
    frames, _, low, _ = net.forward_with_aux(samples, mask)
    without, _, none, _ = plain.forward_with_aux(samples, mask)
    assert low.shape == samples.shape and none is None
    added = F.interpolate(low[0], scale_factor=4.0, mode="bilinear", align_corners=False)
    inside = (..., slice(150), slice(180))  # the border reads what lies in the padding
    torch.testing.assert_close((frames - without)[0][inside], added[inside], rtol=0, atol=1e-5)
    assert added.abs().mean() > 0.01


def test_the_experiment_adds_one_convolution():
    more = RecurrentUNet(PAPER_MULTIRESOLUTION)
    assert sum(p.numel() for p in more.to_low.parameters()) == 16 * 18 + 18
    assert not hasattr(RecurrentUNet(PAPER), "to_low")
