"""PWC-Net (Sun et al. 2018), an estimator of optical flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..flow import backward_warp

LEAK = 0.1
"""Slope of the activation below 0. All constants but SLACK_PX are those of the authors' code."""
FLOW_UNIT = 20.0
"""The network's unit of flow, in pixels of the image."""
RADIUS = 4
"""Largest displacement per axis in a cost volume, pixels of its level."""
COARSEST, FINEST = 6, 2
"""First and last pyramid level of the estimation; level n has 1/2ⁿ of the image's size."""
SLACK_PX, WARP_SLACK_PX = 1e-3, 1e-4
"""Positions up to so many pixels beyond the border count as inside, as coordinates are rounded. The
first is our choice. The second is used where the network warps features; the authors' code drops
pixels of which the frame covers less than 0.9999."""


def is_inside(flow: Tensor, slack: float = SLACK_PX) -> Tensor:
    """[B, 2, H, W] -> [B, 1, H, W], True where p + flow(p) lies within the frame."""
    height, width = flow.shape[-2:]
    y = flow[:, 1:] + torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    x = flow[:, :1] + torch.arange(width, device=flow.device, dtype=flow.dtype)
    return (x > -slack) & (x < width - 1 + slack) & (y > -slack) & (y < height - 1 + slack)


class PWCNet(nn.ModuleDict):
    """PWC-Net (Sun, Yang, Liu and Kautz 2018), with the parameter names of its authors' checkpoint.

    Each pyramid level warps the second image's features by the flow of the next coarser level and
    refines that flow from a cost volume; a context network corrects the flow of the last level.
    """

    channels = (3, 16, 32, 64, 96, 128, 196)
    """Channels of the image and of the pyramid levels 1 to 6; each level halves the size."""
    decoder = (128, 128, 96, 64, 32)
    """Output channels of a level's convolutions; each reads the outputs of all before it."""
    context = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))
    """Output channels and dilations of the context network."""

    def __init__(self) -> None:
        super().__init__()
        for level in range(1, COARSEST + 1):
            before, after = self.channels[level - 1 : level + 1]
            first, second, third = self._encoder(level)
            self[first] = _conv(before, after, stride=2)
            self[second] = _conv(after, after)
            self[third] = _conv(after, after)
        matches = (2 * RADIUS + 1) ** 2
        for level in range(COARSEST, FINEST - 1, -1):
            width = matches if level == COARSEST else matches + self.channels[level] + 4
            for i, out in enumerate(self.decoder):
                self[f"conv{level}_{i}"] = _conv(width, out)
                width += out
            self[f"predict_flow{level}"] = nn.Conv2d(width, 2, 3, padding=1)
            if level > FINEST:
                self[f"deconv{level}"] = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
                self[f"upfeat{level}"] = nn.ConvTranspose2d(width, 2, 4, stride=2, padding=1)
        for i, (out, dilation) in enumerate(self.context, 1):
            self[f"dc_conv{i}"] = _conv(width, out, dilation=dilation)
            width = out
        self["dc_conv7"] = nn.Conv2d(width, 2, 3, padding=1)

    @staticmethod
    def _encoder(level: int) -> tuple[str, str, str]:
        """Layer names of one level in the order of use; level 6 has its first two swapped."""
        names = (f"conv{level}a", f"conv{level}aa", f"conv{level}b")
        return names if level < 6 else (names[1], names[0], names[2])

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow from ``first`` to ``second``, which is that of ``estimator(second, first)``.

        Args:
            first: [B, 3, H, W], **BGR** in [0, 1], H and W multiples of 64.
            second: the same.

        Returns:
            [B, 2, H/4, W/4], in pixels of H × W.
        """
        features = torch.cat([first, second])
        pyramid = [features]
        for level in range(1, COARSEST + 1):
            for name in self._encoder(level):
                features = self[name](features)
            pyramid.append(features)
        flow = state = features.new_zeros(0)
        for level in range(COARSEST, FINEST - 1, -1):
            ours, theirs = pyramid[level].chunk(2)
            if level == COARSEST:
                state = F.leaky_relu(cost_volume(ours, theirs), LEAK)
            else:
                flow = self[f"deconv{level + 1}"](flow)
                pixels = flow * (FLOW_UNIT / 2**level)
                warped = backward_warp(theirs, pixels) * is_inside(pixels, WARP_SLACK_PX)
                cost = F.leaky_relu(cost_volume(ours, warped), LEAK)
                state = torch.cat([cost, ours, flow, self[f"upfeat{level + 1}"](state)], 1)
            for i in range(len(self.decoder)):
                state = torch.cat([self[f"conv{level}_{i}"](state), state], 1)
            flow = self[f"predict_flow{level}"](state)
        for i in range(1, 8):
            state = self[f"dc_conv{i}"](state)
        return FLOW_UNIT * (flow + state)


_NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")


def port_layer_names() -> dict[str, str]:
    """Layer names of the port pytorch-pwc (Niklaus 2018), each with the authors' name.

    The port converts the weights of the authors' Caffe network and computes the same: it takes BGR
    in [0, 1] and returns a twentieth of the flow in pixels. Older files of it have ``module``
    instead of ``net``.
    """
    names = {}
    for level, number in enumerate(_NUMBERS, start=1):
        for i, name in enumerate(PWCNet._encoder(level)):
            names[f"netExtractor.net{number}.{2 * i}"] = f"{name}.0"
        if level == 1:
            continue
        for i, part in enumerate(_NUMBERS[:5]):
            names[f"net{number}.net{part}.0"] = f"conv{level}_{i}.0"
        names[f"net{number}.netSix.0"] = f"predict_flow{level}"
        if level < 6:
            names[f"net{number}.netUpflow"] = f"deconv{level + 1}"
            names[f"net{number}.netUpfeat"] = f"upfeat{level + 1}"
    for i in range(1, 7):
        names[f"netRefiner.netMain.{2 * i - 2}"] = f"dc_conv{i}.0"
    names["netRefiner.netMain.12"] = "dc_conv7"
    return names


def to_authors_name(key: str) -> str:
    """Translate a key of a state dict, of the port or of the authors, to the authors' name."""
    layer, _, kind = key.rpartition(".")
    names = port_layer_names()
    return f"{names.get(layer.replace('module', 'net'), layer)}.{kind}"


def _conv(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=dilation, dilation=dilation),
        nn.LeakyReLU(LEAK),
    )


def cost_volume(first: Tensor, second: Tensor, radius: int = RADIUS) -> Tensor:
    """Compare each feature of ``first`` with those of ``second`` around the same position.

    Args:
        first: [B, C, H, W].
        second: the same; zero beyond its border.
        radius: the largest displacement per axis, pixels.

    Returns:
        [B, (2 radius + 1)², H, W], the mean over C of the products. The channels list the
        displacements row by row, from (-radius, -radius) on, x fastest.
    """
    height, width = first.shape[-2:]
    around = F.pad(second, (radius,) * 4)
    matches = [
        (first * around[..., dy : dy + height, dx : dx + width]).mean(1)
        for dy in range(2 * radius + 1)
        for dx in range(2 * radius + 1)
    ]
    return torch.stack(matches, 1)
