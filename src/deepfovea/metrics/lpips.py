"""LPIPS by its authors' package, if it and the weights of its backbone are installed; nothing is
downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import InputError
from ..losses.perceptual import load_frozen
from .base import Metric, Reference, Settings
from .regions import map_means
from .temporal import t_lpips

MIN_SIDE = 31
"""Smallest side in pixels: for smaller frames the last layer of AlexNet has no values."""


def layer_distances(
    first: Sequence[Tensor], second: Sequence[Tensor], heads: Sequence[Tensor]
) -> list[Tensor]:
    """Maps of the differences between the features of two frames, one per layer.

    They are those of Zhang et al. 2018, equation 1, before its means over the frame: the weighted
    squares of the differences of normalised features.

    Args:
        first: the features of one frame: for each layer [1, C, h, w].
        second: the features of the other frame.
        heads: the weights of the channels: for each layer [1, C, 1, 1].

    Returns:
        For each layer [1, 1, h, w].
    """
    return [
        F.conv2d((F.normalize(x, dim=1) - F.normalize(y, dim=1)).square(), head)
        for x, y, head in zip(first, second, heads, strict=True)
    ]


def distance_by_region(layers: Sequence[Tensor], reference: Reference) -> dict[str, float]:
    """The means of the maps of :func:`layer_distances` over regions, summed over the layers.

    The value of the frame is that of the authors: the mean of every layer at its own size. For the
    regions and for ``foveated`` the maps are enlarged to the frame (bilinear). A feature depends on
    hundreds of pixels around it, so fine regions such as ``sampled`` and ``dropped`` say little.
    """
    size = reference.frames.shape[-2:]
    enlarged = [F.interpolate(layer, size, mode="bilinear")[0, 0] for layer in layers]
    return {**map_means(torch.stack(enlarged).sum(0), reference), "frame": _total(layers)}


def load_lpips() -> Any:
    """Load the package's network, LPIPS 0.1 on AlexNet, with torchvision's weights, on the CPU.

    Source: Zhang, Isola, Efros, Shechtman and Wang 2018, "The unreasonable effectiveness of deep
    features as a perceptual metric".

    Raises:
        InputError: the package ``lpips`` or torchvision's file of AlexNet's weights is missing, or
            the file holds another network.
    """
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"LPIPS {missing}")
    import lpips
    from torchvision.models import alexnet

    path = _weights()[1]
    with torch.device("meta"):  # without memory; the loaded tensors replace the parameters
        backbone = alexnet(weights=None)
    features = load_frozen(backbone, path, str(path)).features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 uses deprecated arguments of torchvision
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for part in network.net.children():
        for number in list(part._modules):
            part._modules[number] = features[int(number)]
    return network.requires_grad_(False).eval()


def _weights() -> tuple[str, Path]:
    """The address of AlexNet's weights, and their path in PyTorch's cache."""
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.DEFAULT.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _unavailable(settings: Settings) -> str | None:
    try:
        import lpips  # noqa: F401
    except ImportError:
        return "needs the package lpips, which is missing: pip install 'deepfovea[eval]'"
    url, path = _weights()
    if not path.is_file():
        return (
            f"needs AlexNet's weights, which are not here: place {url} in the folder "
            "hub/checkpoints of torch's cache (TORCH_HOME)"
        )
    return None


@lru_cache(maxsize=1)
def _loaded(weights: Path) -> Any:
    return load_lpips()


@torch.inference_mode()
def _features(frame: Tensor) -> list[Tensor]:
    """The features of one frame [3, H, W], one tensor per layer."""
    network = _loaded(_weights()[1])
    shifted = network.scaling_layer(2.0 * frame[None].clamp(0.0, 1.0) - 1.0)
    return list(network.net(shifted))


def _distances(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    heads = [head.model[-1].weight for head in _loaded(_weights()[1]).lins]
    return layer_distances(first, second, heads)


def _total(layers: Sequence[Tensor]) -> float:
    return sum(float(layer.double().mean()) for layer in layers)


def _true_features(reference: Reference) -> list[list[Tensor]]:
    return [_features(frame) for frame in reference.frames]


def _lpips(prediction: Tensor, reference: Reference) -> dict[str, float]:
    """LPIPS of one frame [1, 3, H, W] and of its regions: 0 for equal frames, lower is better."""
    (true_features,) = reference.cached(_true_features)
    return distance_by_region(_distances(_features(prediction[0]), true_features), reference)


def _true_change(reference: Reference) -> float:
    return _total(_distances(*reference.cached(_true_features)))


def _t_lpips(prediction: Tensor, reference: Reference) -> float:
    change = _total(_distances(*map(_features, prediction)))
    return t_lpips(change, reference.cached(_true_change))


LPIPS = Metric(
    name="lpips",
    label="LPIPS",
    better="lower",
    digits=4,
    definition="Zhang et al. 2018, version 0.1, AlexNet",
    scope="frame",
    function=_lpips,
    by_region=True,
    min_side=MIN_SIDE,
    unavailable=_unavailable,
)
T_LPIPS = Metric(
    name="t_lpips",
    label="tLPIPS x100",
    better="lower",
    digits=3,
    definition="Chu et al. 2020 (TecoGAN), with LPIPS",
    scope="pair",
    function=_t_lpips,
    group="lpips",
    min_side=MIN_SIDE,
    unavailable=_unavailable,
)
