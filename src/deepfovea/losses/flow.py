"""Optical flow: the estimators, the occlusion mask and the flow loss.

The direction is the same everywhere in this file: for every pixel p of ``target``, the flow of
``estimator(source, target)`` says that ``source`` shows the same point at p + flow(p), in pixels,
(x, y). With it, :func:`deepfovea.flow.backward_warp` aligns ``source`` with ``target``.
:data:`deepfovea.flow.FlowEstimator` calls the two ``previous`` and ``current``; here the source is
usually the *next* frame.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import InputError, expected_one_of
from ..flow import FlowEstimator, backward_warp, dis_flow
from .perceptual import download_weights, load_frozen
from .pwcnet import PWCNet, is_inside, to_authors_name

FLOW_WEIGHTS_OPTION = "--flow-weights"
OCCLUSION_SHARE, OCCLUSION_OFFSET = 0.01, 0.5
"""A pixel counts as occluded if its squared forward-backward error exceeds this share of the
squared lengths of both flows plus this offset in pixels²: α1 and α2 of UnFlow (Meister, Hur and
Roth 2018)."""


def flow_loss(prediction: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
    """L1 between each frame and the next one warped back onto it, without occluded pixels.

    The gradient reaches both frames of a pair; the flow is a constant. Pairs are of frames of the
    same clip.

    Args:
        prediction: [B, T, C, H, W], T >= 2.
        flow: [B, T-1, 2, H, W] pixels, by :func:`clip_flow` from the true frames.
        occlusion: [B, T-1, 1, H, W], True or 1 where a pixel is occluded.

    Returns:
        A scalar: the mean over the visible pixels and channels of each clip (0 if none is
        visible), then over the clips.

    Raises:
        InputError: the clip has fewer than two frames.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, flow.dtype))
    frame, next_frame = _consecutive_pairs(prediction)
    visible = occlusion.flatten(0, 1) == 0
    error = (frame - backward_warp(next_frame, flow.flatten(0, 1))).abs() * visible
    # Clip by clip, so that the loss of a batch is the mean of the losses of its parts.
    total, count = (x.reshape(len(prediction), -1).sum(1) for x in (error, visible))
    mean: Tensor = (total / (count * frame.shape[1]).clamp(min=1)).mean()
    return mean


def clip_flow(frames: Tensor, estimator: FlowEstimator) -> tuple[Tensor, Tensor]:
    """Estimate the motion in clips for :func:`flow_loss`, in float32 and without gradient.

    Args:
        frames: [B, T, 3, H, W] in [0, 1], T >= 2.
        estimator: see :func:`flow_estimator`.

    Returns:
        The flow [B, T-1, 2, H, W], from each frame to the next, and the occlusion
        [B, T-1, 1, H, W], True where a pixel is not visible in the next frame.

    Raises:
        InputError: the clip has fewer than two frames.
    """
    frame, next_frame = _consecutive_pairs(frames.float())
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        forward, backward = estimator(next_frame, frame), estimator(frame, next_frame)
        occlusion = occlusion_mask(forward, backward)
    # [B (T-1), ...] -> [B, T-1, ...]
    clips = [x.reshape(frames.shape[0], -1, *x.shape[1:]) for x in (forward, occlusion)]
    return clips[0], clips[1]


def _consecutive_pairs(clips: Tensor) -> tuple[Tensor, Tensor]:
    """[B, T, ...] -> all frames but the last, and the frames after them, [B (T-1), ...] each."""
    if clips.shape[1] < 2:
        raise InputError(f"flow: received a clip of {clips.shape[1]} frame, expected at least 2")
    return clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)


def occlusion_mask(forward: Tensor, backward: Tensor) -> Tensor:
    """Find the pixels that are not visible in the next frame, by forward-backward consistency.

    A pixel p counts as occluded if following the forward flow f and then the backward flow b does
    not lead back to it, |f + b|² > 0.01 (|f|² + |b|²) + 0.5 with b taken at p + f(p) (Sundaram,
    Brox and Keutzer 2010; thresholds of UnFlow, Meister, Hur and Roth 2018), or if p + f(p) lies
    outside the frame.

    Args:
        forward: [B, 2, H, W] pixels, the result of ``estimator(next, frame)``.
        backward: [B, 2, H, W] pixels, the result of ``estimator(frame, next)``.

    Returns:
        [B, 1, H, W], True where occluded.
    """
    back = backward_warp(backward, forward)

    def squared(flow: Tensor) -> Tensor:
        return flow.square().sum(1, keepdim=True)

    inconsistent = (
        squared(forward + back)
        > OCCLUSION_SHARE * (squared(forward) + squared(back)) + OCCLUSION_OFFSET
    )
    return inconsistent | ~is_inside(forward)


def raft(weights: Path | None = None, *, large: bool = False) -> FlowEstimator:
    """RAFT (Teed and Deng 2020) from torchvision, for images of any size.

    Args:
        weights: a state dict file as torchvision stores it; None takes torchvision's weights from
            its cache, and downloads them if they are missing.
        large: use the large network instead of the small one.

    Raises:
        InputError: the file is missing and cannot be downloaded, or does not fit the network.
    """
    from torchvision.models import optical_flow

    if large:
        url, build = optical_flow.Raft_Large_Weights.DEFAULT.url, optical_flow.raft_large
    else:
        url, build = optical_flow.Raft_Small_Weights.DEFAULT.url, optical_flow.raft_small
    network = load_frozen(
        build(weights=None),
        weights or download_weights(url, FLOW_WEIGHTS_OPTION),
        FLOW_WEIGHTS_OPTION,
    )

    @torch.no_grad()
    def estimate(source: Tensor, target: Tensor) -> Tensor:
        height, width = target.shape[-2:]
        # Multiples of 8, and at least 16 positions per side at an eighth of the size.
        right, bottom = (max(128, -(-side // 8) * 8) - side for side in (width, height))
        network.to(target.device)

        def padded(image: Tensor) -> Tensor:
            return F.pad(2.0 * image.float() - 1.0, (0, right, 0, bottom), mode="replicate")

        # One pair at a time: RAFT correlates all pairs of positions, 0.6 GB at 768×1024.
        pairs = zip(target[:, None], source[:, None], strict=True)
        flows = [network(padded(t), padded(s))[-1] for t, s in pairs]
        return torch.cat(flows)[..., :height, :width]

    return estimate


def pwcnet(weights: Path | None = None) -> FlowEstimator:
    """:class:`PWCNet` with the weights of its authors, for images of any size.

    As in the authors' code, images are resized to multiples of 64 and given as BGR in [0, 1].

    Args:
        weights: ``pwc_net.pth.tar`` of github.com/NVlabs/PWC-Net, folder PyTorch, or a file of
            github.com/sniklaus/pytorch-pwc (``network-default.pytorch``); the names of the
            parameters tell which. The weights are not part of this package, as their licence is CC
            BY-NC-SA 4.0 (no commercial use). Files of other ports, which may need RGB or another
            scale, are refused.

    Raises:
        InputError: no file was given, or it is missing or does not fit the network.
    """
    if weights is None:
        raise InputError(
            f"pwcnet: received no weights; download pwc_net.pth.tar from "
            "https://github.com/NVlabs/PWC-Net (PyTorch; CC BY-NC-SA 4.0), give it with "
            f"{FLOW_WEIGHTS_OPTION}"
        )
    network = load_frozen(
        PWCNet(), weights, FLOW_WEIGHTS_OPTION, unused=("deconv2.",), rename=to_authors_name
    )

    @torch.no_grad()
    def estimate(source: Tensor, target: Tensor) -> Tensor:
        height, width = target.shape[-2:]
        size = (-(-height // 64) * 64, -(-width // 64) * 64)
        network.to(target.device)

        def prepared(image: Tensor) -> Tensor:
            return _resized(image.float().flip(1), size)

        flow = _resized(network(prepared(target), prepared(source)), (height, width))
        return flow * flow.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)

    return estimate


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


def _dis(weights: Path | None) -> FlowEstimator:
    if weights is not None:
        raise InputError(
            f"{FLOW_WEIGHTS_OPTION}: received {weights}, but the estimator dis takes no weights"
        )
    return dis_flow


FLOW_ESTIMATORS: dict[str, Callable[[Path | None], FlowEstimator]] = {
    "dis": _dis,
    "raft": raft,
    "raft-large": lambda weights: raft(weights, large=True),
    "pwcnet": pwcnet,
}


def flow_estimator(name: str = "dis", weights: Path | None = None) -> FlowEstimator:
    """Make a flow estimator by its name in :data:`FLOW_ESTIMATORS`.

    ``dis`` (OpenCV) needs no weights and runs on the CPU; ``raft``, ``raft-large`` and
    ``pwcnet`` run on the device of the frames.

    Raises:
        InputError: the name is unknown, or the estimator raises it.
    """
    if name not in FLOW_ESTIMATORS:
        raise InputError(
            f"flow estimator: received {name!r}, {expected_one_of(name, FLOW_ESTIMATORS)}"
        )
    return FLOW_ESTIMATORS[name](weights)
