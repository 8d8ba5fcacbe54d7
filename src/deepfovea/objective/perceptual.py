"""Perceptual loss: the distance between the features of a network trained on ImageNet.

It is not LPIPS: LPIPS weights the channels by human judgements, here all count alike. Its value
means something only beside the name of the backbone, which every log and table gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colour channels R, G, B in [0, 1]; what torchvision's networks were trained with."""


class PerceptualLoss(nn.Module):
    """Mean absolute difference of the features, averaged over the layers of the backbone.

    With the backbone :func:`vgg19` and ``resolution`` 0.5 it is the loss that Reich, Memmel and
    Grebe (2020) print as LPIPS, with the normalisation that their code left out.

    Args:
        backbone: where the features come from, see :func:`load_backbone`.
        resolution: factor on height and width before the backbone; at the published 0.5, every
            2×2 pixels become their mean.
    """

    def __init__(self, backbone: Backbone, resolution: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.resolution = resolution

    @property
    def name(self) -> str:
        """Name of the backbone, to stand wherever the value is logged or printed."""
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
            wanted = self.backbone(self._resized(target))
        found = self.backbone(self._resized(prediction))
        return torch.stack([F.l1_loss(f, w) for f, w in zip(found, wanted, strict=True)]).mean()

    def _resized(self, frames: Tensor) -> Tensor:
        flat = frames.reshape(-1, *frames.shape[-3:])
        if self.resolution == 1.0:
            return flat
        return F.interpolate(
            flat, scale_factor=self.resolution, mode="bilinear", align_corners=False
        )


class Backbone(nn.Module):
    """Features of a frozen network: [N, 3, H, W] in [0, 1] -> one [N, C, h, w] per stage.

    It always is in evaluation mode, whatever the module around it is set to; its weights take
    no gradient, its input does.

    Args:
        name: as it appears in logs and tables.
        stages: applied one after the other; the output of each is a feature.
        mean: subtracted from R, G, B.
        std: divides the differences.
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
        """Stays in evaluation mode."""
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
            takes torchvision's own from its cache, downloaded when missing.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    from torchvision.models import VGG19_Weights
    from torchvision.models import vgg19 as build

    state = pretrained(weights, VGG19_Weights.DEFAULT.url, "--perceptual-weights")
    # On "meta" nothing is allocated: the classifier, which we drop, has 120 million weights.
    with torch.device("meta"):
        features = build(weights=None).features[:31]
    prefix = "features."
    ours = {key.removeprefix(prefix): value for key, value in state.items() if prefix in key}
    wanted = features.state_dict()
    kept = {key: value for key, value in ours.items() if key in wanted or key not in _VGG_REST}
    load_frozen(features, kept, "vgg19")
    # torchvision's ReLUs work in place and would overwrite the features before they are compared.
    layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in features]
    cuts = (0, 3, 8, 13, 22, 31)
    stages = [nn.Sequential(*layers[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    return Backbone("vgg19", stages, IMAGENET_MEAN, IMAGENET_STD)
