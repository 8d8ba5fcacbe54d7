"""Optical flow: the loss on motion, the occlusion mask, the three estimators."""

import math
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F

from deepfovea.config import InputError
from deepfovea.flow import dis_flow
from deepfovea.losses.flow import clip_flow, flow_estimator, flow_loss, occlusion_mask
from deepfovea.losses.pwcnet import PWCNet, cost_volume, port_layer_names

# Name, output channels, input channels, kernel size and, where not 1, stride of every layer of
# the authors' checkpoint pwc_net.pth.tar. "=" : weight and bias directly under the name,
# otherwise under name.0; "^": a transposed convolution, whose weight has the inputs first.
CHECKPOINT = """
conv1a 16 3 3 | conv1aa 16 16 3 | conv1b 16 16 3
conv2a 32 16 3 | conv2aa 32 32 3 | conv2b 32 32 3
conv3a 64 32 3 | conv3aa 64 64 3 | conv3b 64 64 3
conv4a 96 64 3 | conv4aa 96 96 3 | conv4b 96 96 3
conv5a 128 96 3 | conv5aa 128 128 3 | conv5b 128 128 3
conv6aa 196 128 3 | conv6a 196 196 3 | conv6b 196 196 3
conv6_0 128 81 3 | conv6_1 128 209 3 | conv6_2 96 337 3 | conv6_3 64 433 3 | conv6_4 32 497 3
=predict_flow6 2 529 3 | ^deconv6 2 2 4 | ^upfeat6 2 529 4
conv5_0 128 213 3 | conv5_1 128 341 3 | conv5_2 96 469 3 | conv5_3 64 565 3 | conv5_4 32 629 3
=predict_flow5 2 661 3 | ^deconv5 2 2 4 | ^upfeat5 2 661 4
conv4_0 128 181 3 | conv4_1 128 309 3 | conv4_2 96 437 3 | conv4_3 64 533 3 | conv4_4 32 597 3
=predict_flow4 2 629 3 | ^deconv4 2 2 4 | ^upfeat4 2 629 4
conv3_0 128 149 3 | conv3_1 128 277 3 | conv3_2 96 405 3 | conv3_3 64 501 3 | conv3_4 32 565 3
=predict_flow3 2 597 3 | ^deconv3 2 2 4 | ^upfeat3 2 597 4
conv2_0 128 117 3 | conv2_1 128 245 3 | conv2_2 96 373 3 | conv2_3 64 469 3 | conv2_4 32 533 3
=predict_flow2 2 565 3 | ^deconv2 2 2 4
dc_conv1 128 565 3 | dc_conv2 128 128 3 | dc_conv3 128 128 3 | dc_conv4 96 128 3
dc_conv5 64 96 3 | dc_conv6 32 64 3 | =dc_conv7 2 32 3
"""


def pwcnet_state():
    """Small random weights under the checkpoint's names."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer in CHECKPOINT.replace("\n", "|").split("|"):
        if not layer.strip():
            continue
        name, out, before, kernel = layer.split()
        out, before, kernel = int(out), int(before), int(kernel)
        shape = (before, out) if name[0] == "^" else (out, before)
        key = name[1:] if name[0] in "=^" else f"{name}.0"
        weight = torch.randn(*shape, kernel, kernel, generator=generator)
        state[f"{key}.weight"] = weight / (before * kernel**2) ** 0.5
        state[f"{key}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return state


@pytest.fixture(scope="module")
def pwcnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pwcnet") / "pwc_net.pth.tar"
    # The format of 2018, which torch.save wrote before it used zip files.
    torch.save({"state_dict": pwcnet_state()}, path, _use_new_zipfile_serialization=False)
    return path


def constant_flow(x, y, pairs, size):
    return torch.tensor([x, y], dtype=torch.float32).view(1, 1, 2, 1, 1).expand(*pairs, 2, *size)


def nothing_occluded(flow):
    return torch.zeros_like(flow[:, :, :1], dtype=torch.bool)


def texture(height, width, seed=0):
    """[1, 3, height, width], smooth enough for every estimator."""
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)


def test_a_static_clip_has_no_flow_loss():
    clip = torch.rand(2, 1, 3, 32, 64).expand(2, 4, 3, 32, 64)
    flow = constant_flow(0, 0, (2, 3), (32, 64))
    assert flow_loss(clip, flow, nothing_occluded(flow)) == 0


def test_an_integer_shift_is_undone_exactly():
    wide = torch.rand(3, 40, 80)
    # The scene moves by 3 to the right and 2 down in every frame.
    clip = torch.stack([wide[:, 8 - 2 * t :, 12 - 3 * t :][:, :32, :64] for t in range(4)])[None]
    flow = constant_flow(3, 2, (1, 3), (32, 64))
    occlusion = occlusion_mask(flow[0], -flow[0])[None]
    assert flow_loss(clip, flow, occlusion) < 1e-6
    assert occlusion[..., :30, :61].sum() == 0
    assert occlusion[..., 30:, :].all() and occlusion[..., 61:].all()
    wrong = constant_flow(-3, -2, (1, 3), (32, 64))
    assert flow_loss(clip, wrong, occlusion) > 0.1


def test_the_gradient_reaches_both_frames():
    clip = torch.rand(1, 2, 3, 16, 16, requires_grad=True)
    flow = constant_flow(0.3, -0.4, (1, 1), (16, 16))
    flow_loss(clip, flow, nothing_occluded(flow)).backward()
    assert clip.grad[:, 0].abs().sum() > 0.1
    assert clip.grad[:, 1].abs().sum() > 0.1


def test_no_pair_crosses_the_border_between_two_clips():
    clips = torch.stack([torch.zeros(3, 3, 16, 16), torch.ones(3, 3, 16, 16)])
    seen = []

    def estimator(source, target):
        seen.append((source, target))
        return torch.zeros(len(source), 2, 16, 16)

    flow, occlusion = clip_flow(clips, estimator)
    assert flow.shape == (2, 2, 2, 16, 16) and occlusion.shape == (2, 2, 1, 16, 16)
    assert all(torch.equal(source, target) for source, target in seen)
    assert flow_loss(clips, flow, occlusion) == 0


def test_clip_flow_asks_for_the_flow_to_the_next_frame():
    clip = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 3, 16, 16)

    def estimator(source, target):
        return (source - target)[:, :2]

    flow, _ = clip_flow(clip, estimator)
    assert torch.equal(flow, torch.ones(1, 2, 2, 16, 16))


def test_one_frame_has_no_flow():
    with pytest.raises(InputError, match="clip of 1 frame"):
        flow_loss(torch.rand(1, 1, 3, 8, 8), torch.zeros(1, 0, 2, 8, 8), torch.zeros(1, 0, 1, 8, 8))


def covered_background():
    """A square moves 4 to the right over a resting background: frames, flow both ways, covered."""
    scene, square = torch.rand(3, 24, 32), torch.rand(3, 8, 8)
    first, second = scene.clone(), scene.clone()
    first[:, 8:16, 8:16] = square
    second[:, 8:16, 12:20] = square
    forward, backward = torch.zeros(2, 1, 2, 24, 32)
    forward[:, 0, 8:16, 8:16] = 4
    backward[:, 0, 8:16, 12:20] = -4
    covered = torch.zeros(1, 1, 24, 32, dtype=torch.bool)
    covered[..., 8:16, 16:20] = True
    return torch.stack([first, second])[None], forward, backward, covered


def test_the_mask_marks_what_is_covered_and_nothing_else():
    _, forward, backward, covered = covered_background()
    assert torch.equal(occlusion_mask(forward, backward), covered)


def test_occluded_pixels_do_not_count():
    clip, forward, _, covered = covered_background()
    flow = forward[None]
    assert flow_loss(clip, flow, torch.zeros_like(covered)[None]) > 0.01
    assert flow_loss(clip, flow, covered[None]) < 1e-6
    clip.requires_grad_()
    flow_loss(clip + torch.rand(clip.shape), flow, covered[None]).backward()
    assert (clip.grad[:, 0][covered.expand(1, 3, 24, 32)] == 0).all()
    assert flow_loss(clip, flow, torch.ones_like(covered)[None]) == 0


def test_the_mean_is_over_the_visible_pixels():
    clip = torch.tensor([0.0, 0.25]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 8, 8)
    flow = constant_flow(0, 0, (1, 1), (8, 8))
    half = torch.zeros(1, 1, 1, 8, 8)
    half[..., :4] = 1
    assert flow_loss(clip, flow, half) == 0.25


def test_half_precision_predictions_are_warped_in_single_precision():
    clip = torch.rand(1, 2, 3, 16, 512).half()
    flow = constant_flow(0, 0, (1, 1), (16, 512))
    loss = flow_loss(clip, flow, nothing_occluded(flow))
    expected = (clip[:, 0].float() - clip[:, 1].float()).abs().mean()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_dis_finds_an_integer_shift():
    pytest.importorskip("cv2")
    scene = texture(144, 176)
    clip = torch.stack([scene[..., 8:136, 8:168], scene[..., 6:134, 5:165]], 1)
    flow, occlusion = clip_flow(clip, flow_estimator("dis"))
    inner = flow[..., 16:-16, 16:-16]
    assert (inner - torch.tensor([3.0, 2.0]).view(2, 1, 1)).abs().mean() < 0.1
    assert occlusion[..., 16:-16, 16:-16].float().mean() < 0.01
    assert flow_loss(clip, flow, occlusion) < 0.01
    assert flow_estimator() is dis_flow


def test_the_cost_volume_equals_a_loop_over_displacements():
    first, second = torch.rand(2, 2, 5, 6, 7)
    expected = torch.zeros(2, 81, 6, 7)
    for channel in range(81):
        dy, dx = channel // 9 - 4, channel % 9 - 4
        for y in range(6):
            for x in range(7):
                if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                    product = first[:, :, y, x] * second[:, :, y + dy, x + dx]
                    expected[:, channel, y, x] = product.mean(1)
    torch.testing.assert_close(cost_volume(first, second), expected)


def test_pwcnet_has_the_names_and_shapes_of_the_checkpoint():
    expected = {key: tuple(value.shape) for key, value in pwcnet_state().items()}
    # In the checkpoint, but no output of the network depends on it.
    for part in ("weight", "bias"):
        del expected[f"deconv2.{part}"]
    assert {key: tuple(value.shape) for key, value in PWCNet().state_dict().items()} == expected


def test_pwcnet_loads_a_checkpoint_and_runs_at_odd_sizes(pwcnet_file):
    estimator = flow_estimator("pwcnet", pwcnet_file)
    source, target = torch.rand(2, 2, 3, 70, 91)
    flow = estimator(source.requires_grad_(), target)
    assert flow.shape == (2, 2, 70, 91)
    assert flow.isfinite().all() and flow.std() > 0 and not flow.requires_grad
    # Each pair is its own.
    torch.testing.assert_close(flow[1:], estimator(source[1:], target[1:]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(flow, estimator(target, source), atol=1e-2)


def independent_pwcnet(state, first, second):
    """PWC-Net from its paper (Sun et al. 2018, sections 3 and 4) by the names of the state dict.

    The cost volume is computed from patches, and the warp by a sum over four neighbours.
    """

    def conv(name, x, stride=1, dilation=1, activate=True):
        key = f"{name}.0" if activate else name
        x = F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, dilation, dilation)
        return F.leaky_relu(x, 0.1) if activate else x

    def double(name, x):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1)

    def correlate(a, b):
        batch, channels, height, width = b.shape
        patches = F.unfold(b, 9, padding=4).view(batch, channels, 81, height, width)
        return F.leaky_relu((a.unsqueeze(2) * patches).sum(1) / channels, 0.1)

    def warp(x, flow):
        """Warp bilinearly; 0 where a neighbour with a weight lies outside."""
        height, width = x.shape[-2:]
        out = torch.zeros_like(x)
        for row in range(height):
            for column in range(width):
                fx, fy = (
                    column + float(flow[0, 0, row, column]),
                    row + float(flow[0, 1, row, column]),
                )
                if not (0 <= fx <= width - 1 and 0 <= fy <= height - 1):
                    continue
                for y in (math.floor(fy), math.floor(fy) + 1):
                    for x_ in (math.floor(fx), math.floor(fx) + 1):
                        weight = (1 - abs(fy - y)) * (1 - abs(fx - x_))
                        if weight > 0:
                            out[0, :, row, column] += weight * x[0, :, y, x_]
        return out

    pyramids = []
    for image in (first, second):
        levels = []
        for level in range(1, 7):
            # The checkpoint swaps the first two names of level 6.
            letters = ("a", "aa", "b") if level < 6 else ("aa", "a", "b")
            image = conv(f"conv{level}{letters[0]}", image, stride=2)
            image = conv(f"conv{level}{letters[2]}", conv(f"conv{level}{letters[1]}", image))
            levels.append(image)
        pyramids.append(levels)
    flow = x = None
    for level in range(6, 1, -1):
        ours, theirs = (levels[level - 1] for levels in pyramids)
        if level == 6:
            x = correlate(ours, theirs)
        else:
            flow, features = double(f"deconv{level + 1}", flow), double(f"upfeat{level + 1}", x)
            cost = correlate(ours, warp(theirs, 20 / 2**level * flow))
            x = torch.cat((cost, ours, flow, features), 1)
        for i in range(5):
            x = torch.cat((conv(f"conv{level}_{i}", x), x), 1)
        flow = conv(f"predict_flow{level}", x, activate=False)
    for i, dilation in enumerate((1, 2, 4, 8, 16, 1), start=1):
        x = conv(f"dc_conv{i}", x, dilation=dilation)
    return 20 * (flow + conv("dc_conv7", x, activate=False))


@torch.no_grad()
def test_pwcnet_equals_an_independent_implementation():
    """In float64 with random weights, and for eight stored values of that implementation."""
    state = {key: value.double() for key, value in pwcnet_state().items()}
    draw = torch.Generator().manual_seed(3)
    first, second = torch.rand(2, 1, 3, 128, 64, generator=draw, dtype=torch.float64)
    expected = independent_pwcnet(state, first, second)
    network = PWCNet().double()
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("deconv2.")})
    received = network(first, second)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    numbers = [4.2805754, 4.1806768, 4.0269785, 4.6742749]
    numbers += [1.2593873, 0.73311993, -0.29075401, 0.38010845]
    assert expected[0, :, ::10, 5].flatten().tolist() == pytest.approx(numbers, rel=1e-6)


PORT = """
netExtractor.netOne.0 conv1a.0 | netExtractor.netOne.2 conv1aa.0 | netExtractor.netSix.0 conv6aa.0
netExtractor.netSix.2 conv6a.0 | netExtractor.netSix.4 conv6b.0 | netExtractor.netFou.4 conv4b.0
netSix.netOne.0 conv6_0.0 | netTwo.netFiv.0 conv2_4.0 | netTwo.netSix.0 predict_flow2
netFiv.netUpflow deconv6 | netFiv.netUpfeat upfeat6 | netTwo.netUpflow deconv3
netRefiner.netMain.0 dc_conv1.0 | netRefiner.netMain.10 dc_conv6.0 | netRefiner.netMain.12 dc_conv7
"""
"""Some names of pytorch-pwc's state dict and of the authors'."""


@pytest.mark.parametrize("word", ["net", "module"])
def test_the_file_of_the_port_is_told_apart_and_gives_the_same_flow(tmp_path, pwcnet_file, word):
    names = port_layer_names()
    for pair in PORT.replace("\n", "|").split("|"):
        if pair.strip():
            port, authors = pair.split()
            assert names[port] == authors
    state, back = pwcnet_state(), {ours: port for port, ours in names.items()}
    renamed = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if layer != "deconv2":  # which the port has not
            renamed[f"{back[layer].replace('net', word)}.{kind}"] = value
    torch.save(renamed, tmp_path / "network-default.pytorch")
    images = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    expected = flow_estimator("pwcnet", pwcnet_file)(*images)
    received = flow_estimator("pwcnet", tmp_path / "network-default.pytorch")(*images)
    assert torch.equal(received, expected)


def test_other_ports_are_refused_by_name(tmp_path):
    for name, keys, what in (
        ("first.pth", ("conv1a.0.weight", "dc_conv7.weight"), "without the layers conv1aa"),
        ("mmflow.pth", ("encoder.layers.0.w", "decoder.flow_decoder.0.w"), "wants RGB"),
    ):
        torch.save({key: torch.zeros(1) for key in keys}, tmp_path / name)
        with pytest.raises(InputError, match=what) as error:
            flow_estimator("pwcnet", tmp_path / name)
        assert one_line(error)


def test_pwcnet_is_fed_bgr(tmp_path):
    state = pwcnet_state()
    state["conv1a.0.weight"][:, 1:] = 0  # it sees its first channel only: blue
    torch.save(state, tmp_path / "blue.pth")
    estimator = flow_estimator("pwcnet", tmp_path / "blue.pth")
    images = torch.rand(2, 1, 3, 64, 64)
    flow = estimator(*images)
    no_red_green, no_blue = images.clone(), images.clone()
    no_red_green[:, :, :2] = 0
    no_blue[:, :, 2] = 0
    assert torch.equal(estimator(*no_red_green), flow)
    assert not torch.allclose(estimator(*no_blue), flow)


def test_pwcnet_counts_in_twentieths_of_the_image_and_its_flow_is_scaled_back(tmp_path):
    state = {key: torch.zeros_like(value) for key, value in pwcnet_state().items()}
    state["dc_conv7.bias"] = torch.tensor([0.5, -0.25])
    torch.save(state, tmp_path / "constant.pth")
    flow = flow_estimator("pwcnet", tmp_path / "constant.pth")(*torch.rand(2, 1, 3, 96, 80))
    expected = torch.tensor([10 * 80 / 128, -5 * 96 / 128]).view(1, 2, 1, 1)
    torch.testing.assert_close(flow, expected.expand(1, 2, 96, 80))


def test_raft_loads_a_file_and_runs_at_odd_sizes(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    estimator = flow_estimator("raft", tmp_path / "raft.pth")
    source, target = torch.rand(2, 1, 3, 128, 136)
    with torch.no_grad():
        expected = network(2 * target - 1, 2 * source - 1)[-1]
    torch.testing.assert_close(estimator(source, target), expected, atol=1e-3, rtol=1e-3)
    assert estimator(source[..., :90, :131], target[..., :90, :131]).shape == (1, 2, 90, 131)


def one_line(error):
    return "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["raft", "raft-large", "pwcnet"])
def test_a_missing_weight_file_is_named(tmp_path, name):
    with pytest.raises(InputError, match=r"--flow-weights.*none\.pth") as error:
        flow_estimator(name, tmp_path / "none.pth")
    assert one_line(error)


def test_pwcnet_says_where_its_weights_are():
    with pytest.raises(InputError, match=r"pwc_net\.pth\.tar.*--flow-weights") as error:
        flow_estimator("pwcnet")
    assert one_line(error)


def test_raft_offline_names_the_file_and_its_place(tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match="no route to host") as error:
        flow_estimator("raft")
    place = tmp_path / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    assert str(place) in str(error.value) and one_line(error)


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv1a.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="another network than PWCNet") as error:
        flow_estimator("pwcnet", path)
    assert "'conv1a.0.bias'" in str(error.value) and one_line(error)
    path.write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="holds no PyTorch state dict"):
        flow_estimator("pwcnet", path)


def test_unknown_names_and_needless_weights(tmp_path):
    with pytest.raises(InputError, match="did you mean 'pwcnet'"):
        flow_estimator("pwc-net")
    with pytest.raises(InputError, match="dis takes no weights"):
        flow_estimator("dis", tmp_path / "some.pth")
