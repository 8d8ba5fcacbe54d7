"""LPIPS through its authors' package, if that and its backbone are here; nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..config import InputError
from ..losses.perceptual import load_frozen
from .base import Metric, Reference, Settings
from .temporal import t_lpips

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
    missing = _unavailable(Settings())
    if missing:
        raise InputError(f"LPIPS {missing}")
    import lpips
    from torchvision.models import alexnet

    path = _weights()[1]
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


def _weights() -> tuple[str, Path]:
    """Where AlexNet's weights come from, and where torch keeps them."""
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
def _loaded(weights: Path) -> Callable[[Tensor, Tensor], float]:
    return load_lpips()


def _lpips(prediction: Tensor, reference: Reference) -> float:
    return _loaded(_weights()[1])(prediction[0], reference.frames[0])


def _true_change(reference: Reference) -> float:
    return _loaded(_weights()[1])(*reference.frames)


def _t_lpips(prediction: Tensor, reference: Reference) -> float:
    return t_lpips(_loaded(_weights()[1])(*prediction), reference.once(_true_change))


LPIPS = Metric(
    name="lpips",
    label="LPIPS",
    better="lower",
    digits=4,
    definition="Zhang et al. 2018, version 0.1, AlexNet",
    scope="frame",
    function=_lpips,
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
