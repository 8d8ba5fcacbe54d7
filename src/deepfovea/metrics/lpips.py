"""LPIPS through its authors' package, if that and its backbone are here; nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..config import InputError
from ..losses.perceptual import load_frozen

MIN_SIDE = 31
"""Side in pixels below which the last layer of AlexNet has no position left."""


def load_lpips(device: str | torch.device = "cpu") -> Callable[[Tensor, Tensor], float]:
    """LPIPS, version 0.1 on AlexNet, 0 to about 1, lower is better.

    Zhang, Isola, Efros, Shechtman and Wang 2018, "The unreasonable effectiveness of deep
    features as a perceptual metric".

    Returns:
        A function of two frames [3, H, W], sRGB in [0, 1] (clamped), sides of at least
        :data:`MIN_SIDE` pixels; symmetric, 0 for equal frames.

    Raises:
        InputError: the package ``lpips`` or torchvision's file of AlexNet's weights is missing.
    """
    try:
        import lpips
    except ImportError:
        raise InputError(
            "LPIPS needs the package lpips, which is missing: pip install 'deepfovea[eval]'"
        ) from None
    from torchvision.models import AlexNet_Weights, alexnet

    url = AlexNet_Weights.DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        raise InputError(
            f"LPIPS needs AlexNet's weights, which are not here: place {url} in the folder "
            "hub/checkpoints of torch's cache (TORCH_HOME)"
        )
    with torch.device("meta"):  # nothing is allocated; the loaded tensors take the places
        backbone = alexnet(weights=None)
    features = load_frozen(backbone, path, str(path)).features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 speaks to torchvision in an older manner
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for part in network.net.children():
        for number in list(part._modules):
            part._modules[number] = features[int(number)]
    network.requires_grad_(False).eval().to(device)

    @torch.inference_mode()
    def distance(first: Tensor, second: Tensor) -> float:
        pair = [frame[None].clamp(0.0, 1.0).to(device) for frame in (first, second)]
        return float(network(*pair, normalize=True))

    return distance
