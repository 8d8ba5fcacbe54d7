"""Optical flow: three estimators, the occlusion mask and the loss on motion.

Direction, everywhere in this file: the flow of ``estimator(source, target)`` says for every pixel
p of ``target`` where ``source`` shows the same thing: at p + flow(p). It is what
:func:`deepfovea.flow.backward_warp` needs to lay ``source`` over ``target``, in pixels, (x, y).
:data:`deepfovea.flow.FlowEstimator` calls them ``previous`` and ``current``; here the source is
mostly the *next* frame.
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
from .pwcnet import PWCNet, lands_inside, name_as_authors

FLOW_WEIGHTS_OPTION = "--flow-weights"
OCCLUSION_SHARE, OCCLUSION_OFFSET = 0.01, 0.5
"""Squared forward-backward error, as a share of the squared lengths of both flows and in pixels²,
from which a pixel is occluded: α1 and α2 of UnFlow (Meister, Hur and Roth 2018)."""


def flow_loss(prediction: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
    """L1 between each frame and the next one warped back onto it, where it is not occluded.

    The gradient reaches both frames of a pair; the flow is taken as given. No pair crosses the
    border between two clips.

    Args:
        prediction: [B, T, C, H, W], T >= 2.
        flow: [B, T-1, 2, H, W] pixels, from :func:`clip_flow` of the frames aimed at.
        occlusion: [B, T-1, 1, H, W], True or 1 where a pixel is left out.

    Returns:
        The mean over the visible pixels and channels of each clip (0 when nothing is visible),
        then over the clips: a scalar.

    Raises:
        InputError: the clip has fewer than two frames.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, flow.dtype))
    frame, next_frame = _consecutive_pairs(prediction)
    visible = occlusion.flatten(0, 1) == 0
    error = (frame - backward_warp(next_frame, flow.flatten(0, 1))).abs() * visible
    # Clip by clip, so that a batch has the mean of the losses of its parts.
    total, count = (x.reshape(len(prediction), -1).sum(1) for x in (error, visible))
    mean: Tensor = (total / (count * frame.shape[1]).clamp(min=1)).mean()
    return mean


def clip_flow(frames: Tensor, estimator: FlowEstimator) -> tuple[Tensor, Tensor]:
    """The motion of clips, as :func:`flow_loss` takes it; always in float32, without gradient.

    Args:
        frames: [B, T, 3, H, W] in [0, 1], T >= 2.
        estimator: see :func:`flow_estimator`.

    Returns:
        flow [B, T-1, 2, H, W], from each frame to the next, and occlusion [B, T-1, 1, H, W],
        True where the next frame does not show a pixel.

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
    """[B, T, ...] -> every frame but the last and its successor, [B (T-1), ...] each."""
    if clips.shape[1] < 2:
        raise InputError(f"flow: received a clip of {clips.shape[1]} frame, expected at least 2")
    return clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)


def occlusion_mask(forward: Tensor, backward: Tensor) -> Tensor:
    """Pixels of a frame that the next frame does not show, by forward-backward consistency.

    A pixel is occluded where going there and back misses it:
    |f + b|² > 0.01 (|f|² + |b|²) + 0.5, with b the backward flow at p + f(p) (Sundaram, Brox and
    Keutzer 2010; the thresholds as in UnFlow, Meister, Hur and Roth 2018), or where p + f(p)
    lies outside the frame.

    Args:
        forward: [B, 2, H, W] pixels, of ``estimator(next, frame)``.
        backward: [B, 2, H, W] pixels, of ``estimator(frame, next)``.

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
    return inconsistent | ~lands_inside(forward)


def raft(weights: Path | None = None, *, large: bool = False) -> FlowEstimator:
    """RAFT (Teed and Deng 2020) of torchvision, any image size.

    Args:
        weights: a state dict file as torchvision stores it; None takes torchvision's own from
            its cache, downloaded when missing.
        large: the large network instead of the small one.

    Raises:
        InputError: the file is missing and cannot be downloaded, or holds something else.
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

        # One pair at a time: all pairs of positions are correlated, 0.6 GB at 768×1024.
        pairs = zip(target[:, None], source[:, None], strict=True)
        flows = [network(padded(t), padded(s))[-1] for t, s in pairs]
        return torch.cat(flows)[..., :height, :width]

    return estimate


def pwcnet(weights: Path | None = None) -> FlowEstimator:
    """:class:`PWCNet` with the weights of its authors, any image size.

    Images are resized to multiples of 64 and handed over as BGR in [0, 1], as the authors do.

    Args:
        weights: ``pwc_net.pth.tar`` of github.com/NVlabs/PWC-Net, folder PyTorch, or a file of
            github.com/sniklaus/pytorch-pwc (``network-default.pytorch``), which are told apart by
            their names. Their licence is CC BY-NC-SA 4.0 (no commercial use), so they are not part
            of this package. Other ports, which may want RGB or another scale, are refused.

    Raises:
        InputError: no file was given, or it is missing or holds something else.
    """
    if weights is None:
        raise InputError(
            f"pwcnet: received no weights; download pwc_net.pth.tar from "
            "https://github.com/NVlabs/PWC-Net (PyTorch; CC BY-NC-SA 4.0), give it with "
            f"{FLOW_WEIGHTS_OPTION}"
        )
    network = load_frozen(
        PWCNet(), weights, FLOW_WEIGHTS_OPTION, unused=("deconv2.",), rename=name_as_authors
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
    """The flow estimator of that name, one of :data:`FLOW_ESTIMATORS`.

    ``dis`` (OpenCV) needs no weights and runs on the CPU; ``raft``, ``raft-large`` and
    ``pwcnet`` run where the frames are.

    Raises:
        InputError: unknown name, or what the estimator itself raises.
    """
    if name not in FLOW_ESTIMATORS:
        raise InputError(
            f"flow estimator: received {name!r}, {expected_one_of(name, FLOW_ESTIMATORS)}"
        )
    return FLOW_ESTIMATORS[name](weights)
