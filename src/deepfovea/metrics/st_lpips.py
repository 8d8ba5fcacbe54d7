"""ST-LPIPS with the weights from its authors' package, so that nothing has to be downloaded.

The network is implemented here, as the package's own code imports IPython and torchsummary without
need, and the licence of its blur layers excludes commercial use.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.perceptual import load_frozen
from .base import Metric, Reference, Settings
from .lpips import distance_by_region, layer_distances

PACKAGE = "stlpips_pytorch"
MIN_SIDE = 32
"""Smallest side in pixels: in smaller frames the last layers see mainly the border. Our choice."""
BINOMIAL = (0.25, 0.5, 0.25)
"""The blur along each axis: the filter of three values in Zhang 2019, "Making convolutional
networks shift-invariant again"."""


class BlurDownsample(nn.Module):
    """Binomial 3×3 blur, then every second pixel; the border is reflected (Zhang 2019)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor(BINOMIAL)
        self.register_buffer("filt", torch.outer(line, line).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ⌊H/2⌋ + 1, ⌊W/2⌋ + 1]."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), self.filt, stride=2, groups=x.shape[1])


class ShiftTolerantLpips(nn.Module):
    """AlexNet with blur before every downsampling instead of strides, and the heads of ST-LPIPS.

    Source: Ghildyal and Liu 2022, "Shift-tolerant perceptual similarity metric", the variant on
    AlexNet. The names of the layers are those in its file of weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "slice1": _slice(0, nn.Conv2d(3, 64, 11, padding=2), BlurDownsample(64), nn.ReLU()),
                "slice2": _slice(
                    *(3, nn.MaxPool2d(3, 1), BlurDownsample(64)),
                    *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                ),
                "slice3": _slice(
                    *(7, nn.MaxPool2d(3, 1), BlurDownsample(192)),
                    *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                ),
                "slice4": _slice(11, nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                "slice5": _slice(13, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            }
        )
        for number, channels in enumerate((64, 192, 384, 256, 256)):
            self.add_module(f"lin{number}", nn.Conv2d(channels, 1, 1, bias=False))
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    @property
    def heads(self) -> list[Tensor]:
        """The weights of the channels of each layer, [1, C, 1, 1]."""
        return [self.get_parameter(f"lin{number}.weight") for number in range(len(self.net))]

    def forward(self, frame: Tensor) -> list[Tensor]:
        """[1, 3, H, W] in [0, 1] -> the features of each layer [1, C, h, w]."""
        x = (2.0 * frame - 1.0 - self.get_buffer("shift")) / self.get_buffer("scale")
        layers = []
        for part in self.net.values():
            x = part(x)
            layers.append(x)
        return layers


def _slice(first: int, *parts: nn.Module) -> nn.Sequential:
    """Layers in sequence, named by their numbers in the whole network."""
    named = nn.Sequential()
    for number, part in enumerate(parts, first):
        named.add_module(str(number), part)
    return named


@lru_cache(maxsize=1)
def load_st_lpips() -> ShiftTolerantLpips:
    """Load the network with the weights of the package, on the CPU.

    Raises:
        InputError: the file does not fit the network.
    """
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None  # see _unavailable
    path = Path(spec.origin).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    network = ShiftTolerantLpips()
    load_frozen(network, path, "ST-LPIPS", rename=_our_name)
    return network


def _our_name(key: str) -> str:
    return key.removeprefix("scaling_layer.").replace(".model.1.", ".")


@torch.inference_mode()
def features(frames: Tensor) -> list[Tensor]:
    """The features of one frame [1, 3, H, W], which is clamped to [0, 1]."""
    return load_st_lpips()(frames.clamp(0.0, 1.0))  # type: ignore[no-any-return]


def _true_features(reference: Reference) -> list[Tensor]:
    return features(reference.frames)


def st_lpips(prediction: Tensor, reference: Reference) -> dict[str, float]:
    """ST-LPIPS of one frame [1, 3, H, W] and its regions: 0 for equal frames, lower is better."""
    true_features = reference.cached(_true_features)
    layers = layer_distances(features(prediction), true_features, load_st_lpips().heads)
    return distance_by_region(layers, reference)


def _unavailable(settings: Settings) -> str | None:
    if find_spec(PACKAGE) is None:
        return f"needs {PACKAGE}, which is missing: pip install 'deepfovea[eval]'"
    return None


ST_LPIPS = Metric(
    name="st_lpips",
    label="ST-LPIPS",
    better="lower",
    digits=4,
    definition="Ghildyal and Liu 2022, AlexNet",
    scope="frame",
    function=st_lpips,
    group="st-lpips",
    by_region=True,
    min_side=MIN_SIDE,
    default=False,  # its first layer has no stride, so it takes longer than all other metrics
    unavailable=_unavailable,
)
