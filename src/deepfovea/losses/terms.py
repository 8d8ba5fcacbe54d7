"""The objective: a weighted sum of named terms, each a function of output and target.

:data:`LOSSES` lists them. To add one, write a function of output, target and context in a file
beside this one and name it there; see ``docs/extending.md``.

Source: Reich, Memmel, Grebe 2020 (DeepFovea++), L = 5·L_sv + L_LPIPS + 2·L_flow + 0.01·L_adv +
0.01·L_adv,fft; the other terms are ours. Every term is a mean over the clips of a batch, so that
several processes, which share a batch, only need to average theirs.

Legend: B batch, T time, H, W high resolution, h, w low resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PUBLISHED_LOSSES, InputError, expected_one_of
from ..flow import FlowEstimator, backward_warp
from .adversarial import (
    DISCRIMINATOR_CHANNELS,
    SpectrumDiscriminator,
    VideoDiscriminator,
    logistic_discriminator_loss,
    logistic_generator_loss,
    r1_penalty,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from .flow import clip_flow, flow_loss
from .imprint import imprint_loss
from .perceptual import PerceptualLoss
from .robust import AdaptiveRobustLoss
from .texture import texture_distance

CHARBONNIER_EPS = 1e-6
"""Added to squared colour differences: the loss is quadratic for differences below its root, a
thousandth of [0, 1]. No experiment of docs/research/log.md varies it."""
ENDPOINT_EPS, MAX_ENDPOINT_ERROR = 1e-3, 20.0
"""Added to squared endpoint errors, low-resolution pixels², so that the loss is quadratic near 0;
and the endpoint error, low-resolution pixels, at which the loss is clamped. No experiment varies
them."""
STILL_LIMIT = 3 / 255
"""A pixel counts as still if its colours, in [0, 1], change by less from frame to frame: a little
more than the noise of a camera. No experiment varies it."""
MIN_CROP = 32
"""Side in pixels of the smallest crop: no loss needs more."""

AdversarialLoss = Literal["logistic", "wasserstein"]


class Output(NamedTuple):
    """The output of a generator for some frames.

    frames [B, T, 3, H, W], about [0, 1]; motion [B, T, 2, h, w]: the estimated motion from each
    frame back to the one before, low-resolution pixels, None if the network estimates none; low
    [B, T, 3, h, w]: the low-resolution frames, None if the network makes none.
    """

    frames: Tensor
    motion: Tensor | None = None
    low: Tensor | None = None


class Target(NamedTuple):
    """What a generator should have returned for some frames.

    frames [B, T, 3, H, W] in [0, 1]: the true frames; low [B, T, 3, h, w]: the true frames at the
    low resolution; before [B, 3, h, w]: the low-resolution frame before the first, None if there is
    none; motion [B, T, 2, h, w]: the true motion from each frame back to the one before,
    low-resolution pixels; motion_trust [B, T, 1, h, w] in [0, 1]: how reliable that motion is;
    sampled [B, T, 1, H/2, W/2]: the cells that were sampled, see :func:`.imprint.sampled_cells`.
    """

    frames: Tensor
    low: Tensor
    before: Tensor | None = None
    motion: Tensor | None = None
    motion_trust: Tensor | None = None
    sampled: Tensor | None = None


class LossContext(NamedTuple):
    """What a term may use besides output and target.

    modules: the modules from :func:`make_loss_modules`; perceptual: the loss with its backbone,
    None if no term needs it; flow: the estimator of the true flow, None if no term needs it;
    adversarial: the kind of adversarial loss; shift: the argument of :func:`random_crop` for the
    inputs of the discriminators and of the terms perceptual and texture.
    """

    modules: nn.ModuleDict
    perceptual: PerceptualLoss | None = None
    flow: FlowEstimator | None = None
    adversarial: AdversarialLoss = "logistic"
    shift: int = 0


Term = Callable[[Output, Target], Tensor]
"""One term of the objective, with its context bound: returns the scalar to minimise."""


@dataclass(frozen=True)
class Loss:
    """One entry of :data:`LOSSES`."""

    weight: float
    """The default weight; ``--losses NAME=WEIGHT`` overrides it."""
    definition: str
    function: Callable[[Output, Target, LossContext], Tensor]
    """Returns a scalar, the mean over the clips of a batch."""
    module: Callable[[Sequence[int]], nn.Module] | None = None
    """Makes the module that is trained beside the generator, given the discriminators' channels."""
    discriminator: bool = False
    """Whether that module is a discriminator, which has an optimiser of its own."""
    needs: tuple[Literal["perceptual", "flow", "low"], ...] = ()
    """What it needs: parts of the context, or low-resolution frames (low) from the network."""


def loss_weights(losses: Iterable[str]) -> dict[str, float]:
    """Read the chosen terms and their weights.

    Args:
        losses: NAME or NAME=WEIGHT, see :attr:`deepfovea.config.TrainConfig.losses`.

    Raises:
        InputError: an unknown or repeated name, a weight that is not finite or below 0, or none.
    """
    weights: dict[str, float] = {}
    for text in losses:
        name, equals, number = text.partition("=")
        if name not in LOSSES or name in weights:
            raise InputError(f"--losses: received {text!r}, {expected_one_of(name, LOSSES)}")
        try:
            weights[name] = float(number) if equals else LOSSES[name].weight
        except ValueError:
            weights[name] = -1.0
        if not 0.0 <= weights[name] < math.inf:
            raise InputError(f"--losses: received {text!r}, expected NAME=WEIGHT from 0 on")
    if not weights:
        raise InputError("--losses: received none, expected at least one")
    return weights


def make_loss_modules(
    names: Iterable[str], channels: Sequence[int] = DISCRIMINATOR_CHANNELS
) -> nn.ModuleDict:
    """Make the modules that are trained beside the generator, by the name of their term.

    The generator's optimiser also trains the parameters of adaptive losses; each discriminator
    (:data:`DISCRIMINATORS`) has an optimiser of its own.

    Args:
        names: names of the chosen terms; those without a module are ignored.
        channels: channels of the discriminators' residual blocks.
    """
    modules = nn.ModuleDict()
    for name in names:
        make = LOSSES[name].module
        if make is not None:
            modules[name] = make(channels)
    return modules


def make_terms(
    names: Iterable[str],
    loss_modules: nn.ModuleDict,
    *,
    perceptual: PerceptualLoss | None = None,
    flow: FlowEstimator | None = None,
    adversarial: AdversarialLoss = "logistic",
    shift: int = 0,
) -> dict[str, Term]:
    """Make the terms of these names; the other arguments are those of :class:`LossContext`."""
    context = LossContext(loss_modules, perceptual, flow, adversarial, shift)

    def with_context(function: Callable[[Output, Target, LossContext], Tensor]) -> Term:
        return lambda output, target: function(output, target, context)

    return {name: with_context(LOSSES[name].function) for name in names}


def charbonnier(difference: Tensor) -> Tensor:
    """Mean of sqrt(d² + 1e-6), a smooth L1 (the Charbonnier loss)."""
    return (difference.square() + CHARBONNIER_EPS).sqrt().mean()


def _charbonnier(output: Output, target: Target, context: LossContext) -> Tensor:
    return charbonnier(output.frames - target.frames)


def _supervised(output: Output, target: Target, context: LossContext) -> Tensor:
    value: Tensor = context.modules["supervised"](output.frames, target.frames)
    return value


def _texture(output: Output, target: Target, context: LossContext) -> Tensor:
    return texture_distance(*random_crop(context.shift, output.frames, target.frames))


def _perceptual(output: Output, target: Target, context: LossContext) -> Tensor:
    assert context.perceptual is not None
    value: Tensor = context.perceptual(*random_crop(context.shift, output.frames, target.frames))
    return value


def _flow(output: Output, target: Target, context: LossContext) -> Tensor:
    assert context.flow is not None
    return flow_loss(output.frames, *clip_flow(target.frames, context.flow))


def _motion(output: Output, target: Target, context: LossContext) -> Tensor:
    """Photometric loss: warp the last true low-resolution frame along the motion, and compare.

    Only this loss and ``endpoint`` train the motion, see :meth:`.StreamNet.step`.
    """
    motion, low = _require_motion(output, "motion"), target.low
    if target.before is None:  # the first frame has nothing to be compared with
        previous, low, motion = low[:, :-1], low[:, 1:], motion[:, 1:]
    else:
        previous = torch.cat([target.before.unsqueeze(1), low[:, :-1]], 1)
    if not low.shape[1]:
        return motion.sum()  # over nothing: 0, with a gradient of 0
    warped = backward_warp(previous.flatten(0, 1), motion.flatten(0, 1))
    return charbonnier(warped - low.flatten(0, 1))


def _endpoint(output: Output, target: Target, context: LossContext) -> Tensor:
    """Endpoint error of the motion, low-resolution pixels, weighted by trust in the true motion.

    Its gradient is right also where the motion is far off and the photometric loss has none.
    """
    motion = _require_motion(output, "endpoint")
    if target.motion is None or target.motion_trust is None:
        raise InputError(
            "--losses endpoint: the published items have no motion; expected --preprocessing modern"
        )
    distance = ((motion - target.motion).square().sum(2, keepdim=True) + ENDPOINT_EPS).sqrt()
    return (target.motion_trust * distance).clamp(max=MAX_ENDPOINT_ERROR).mean()


def _imprint(output: Output, target: Target, context: LossContext) -> Tensor:
    if target.sampled is None or target.sampled.shape[-1] * 2 != output.frames.shape[-1]:
        raise InputError("--losses imprint: this network does not enlarge by four; leave it out")
    return imprint_loss(output.frames, target.frames, target.sampled)


def _temporal(output: Output, target: Target, context: LossContext) -> Tensor:
    """Change of the output from frame to frame, compared with the truth, where the truth is still.

    This is the temporal loss of Chaitanya et al. 2017, "Interactive reconstruction of Monte Carlo
    image sequences using a recurrent denoising autoencoder", restricted to still pixels: where
    things move, the errors of consecutive frames have little to do with each other. It is 0 for a
    single frame.
    """
    if output.frames.shape[1] < 2:
        return output.frames.sum() * 0.0
    made, true = output.frames.diff(dim=1), target.frames.diff(dim=1)
    still = (true.abs().amax(2, keepdim=True) < STILL_LIMIT).float()
    return (still * ((made - true).square() + CHARBONNIER_EPS).sqrt()).mean()


def _require_motion(output: Output, term: str) -> Tensor:
    if output.motion is None:
        raise InputError(f"--losses {term}: this network finds no motion; expected --model stream")
    return output.motion


def _low_resolution(output: Output, target: Target, context: LossContext) -> Tensor:
    return F.l1_loss(_require_low(output, "low-resolution"), target.low)


def _low_perceptual(output: Output, target: Target, context: LossContext) -> Tensor:
    assert context.perceptual is not None
    low = _require_low(output, "low-perceptual")
    value: Tensor = PerceptualLoss(context.perceptual.backbone, 1.0)(low, target.low)
    return value


def _require_low(output: Output, term: str) -> Tensor:
    if output.low is None:
        raise InputError(no_low_frames(term))
    return output.low


def no_low_frames(term: str) -> str:
    """The message about a term of :data:`LOW_RESOLUTION_TERMS` for networks without such frames."""
    return (
        f"--losses {term}: this network makes no low-resolution frames; "
        "expected --model paper-multiresolution"
    )


def random_crop(shift: int, *clips: Tensor) -> tuple[Tensor, ...]:
    """Cut the same random part from clips [..., H, W], smaller by ``shift`` pixels.

    A side is not made smaller than MIN_CROP pixels.
    """

    def part(side: int) -> slice:
        length = max(side - shift, min(side, MIN_CROP))
        start = int(torch.randint(side - length + 1, ())) if length < side else 0
        return slice(start, start + length)

    rows, columns = (part(side) for side in clips[0].shape[-2:])
    # Contiguous, as sums in another memory layout may differ in the last bit.
    return tuple(clip[..., rows, columns].contiguous() for clip in clips)


def _adversarial(output: Output, context: LossContext, name: str) -> Tensor:
    kind = context.adversarial
    loss = logistic_generator_loss if kind == "logistic" else wasserstein_generator_loss
    # In evaluation mode, so that the call does not update the spectral normalisation.
    return loss(context.modules[name].eval()(*random_crop(context.shift, output.frames)))


LOSSES: dict[str, Loss] = {
    "charbonnier": Loss(1.0, "L1 with a rounded tip, which trains stream", _charbonnier),
    "motion": Loss(0.1, "photometric loss on the motion that stream found", _motion),
    "endpoint": Loss(0.02, "distance of that motion from the true one", _endpoint),
    "texture": Loss(1.0, "distance of local texture statistics, see texture.py", _texture),
    "imprint": Loss(
        0.01, "whether samples stand out from their neighbours, see imprint.py", _imprint
    ),
    "temporal": Loss(
        2.0,
        "change from frame to frame where the truth rests: flicker",
        _temporal,
    ),
    "supervised": Loss(
        5.0,
        "L_sv: the adaptive robust loss (Barron 2019), with learned α and c",
        _supervised,
        module=lambda channels: AdaptiveRobustLoss(),
    ),
    "perceptual": Loss(
        1.0,
        "L_LPIPS of the paper: distance of ImageNet features, see perceptual.py",
        _perceptual,
        needs=("perceptual",),
    ),
    "flow": Loss(
        2.0,
        "L_flow: neighbouring frames agree along the optical flow of the truth",
        _flow,
        needs=("flow",),
    ),
    "adversarial": Loss(
        0.01,
        "L_adv: what the 3-D discriminator says of the output",
        lambda output, target, context: _adversarial(output, context, "adversarial"),
        module=VideoDiscriminator,
        discriminator=True,
    ),
    "adversarial-fft": Loss(
        0.01,
        "L_adv,fft: what the discriminator of the 3-D spectrum says of it",
        lambda output, target, context: _adversarial(output, context, "adversarial-fft"),
        module=SpectrumDiscriminator,
        discriminator=True,
    ),
    "low-resolution": Loss(
        2.0,
        "L1 of the low-resolution frames of paper-multiresolution",
        _low_resolution,
        needs=("low",),
    ),
    "low-perceptual": Loss(
        1.0,
        "perceptual at low resolution, of the same frames",
        _low_perceptual,
        needs=("perceptual", "low"),
    ),
}
"""All terms by name, with their default weights.

Those from ``supervised`` to ``adversarial-fft`` are the published objective with its weights
(Reich, Memmel, Grebe 2020). ``charbonnier``, ``motion`` and ``endpoint`` train ``stream``, with
``texture`` for a natural look, ``imprint`` against dots and ``temporal`` against flicker.
``low-resolution`` and ``low-perceptual`` are an experiment that its authors dropped
(docs/published.md).
"""

DISCRIMINATORS = {name: loss.module for name, loss in LOSSES.items() if loss.discriminator}
"""The adversarial terms, each with the function that makes its discriminator."""

LOW_RESOLUTION_TERMS = tuple(name for name, loss in LOSSES.items() if "low" in loss.needs)
"""The terms that need low-resolution frames from the network."""


def discriminator_loss(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    kind: AdversarialLoss,
    r1: float = 0.0,
    shift: int = 0,
) -> Tensor:
    """The loss of a discriminator. Computing it makes one step of the power iteration.

    Args:
        discriminator: one of :data:`DISCRIMINATORS`.
        real: [B, T, 3, H, W], the true frames.
        fake: the same shape, the generator's frames without a graph.
        kind: the kind of adversarial loss.
        r1: γ of the penalty γ/2·‖∂D/∂real‖².
        shift: see :func:`random_crop`, which cuts both.
    """
    real, fake = random_crop(shift, real, fake)
    real = real.detach().requires_grad_(r1 > 0)
    # Both in one call, so that the same normalised weights judge them.
    logits = discriminator.train()(torch.cat([real, fake]))
    of_real, of_fake = logits.split([len(real), len(fake)])
    loss = logistic_discriminator_loss if kind == "logistic" else wasserstein_discriminator_loss
    total = loss(of_real, of_fake)
    return total + 0.5 * r1 * r1_penalty(of_real, real) if r1 > 0 else total


def check_finite(values: Mapping[str, float], step: int) -> None:
    """Check that all values are finite.

    Raises:
        InputError: names the value that is not, and the step.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name!r} is {value} at step {step}, so training stopped and saved nothing of it; "
                "--resume the last checkpoint with a lower --learning-rate or --clip-gradient"
            )


def deviations_from_published(names: Iterable[str], perceptual: str, flow: str) -> list[str]:
    """In what a run differs from the published objective, as sentences for its log and tables.

    Args:
        names: names of the terms; the result is empty if none of them is a published one.
        perceptual: name of the backbone.
        flow: name of the flow estimator.
    """
    chosen = set(names)
    if not chosen & set(PUBLISHED_LOSSES):
        return []
    lines = [f"without the published term {n!r}" for n in PUBLISHED_LOSSES if n not in chosen]
    if "perceptual" in chosen and perceptual != "vgg19":
        lines.append(f"perceptual loss by the features of {perceptual}, not of VGG-19 as published")
    if "flow" in chosen and flow != "pwcnet":
        lines.append(f"flow loss by the optical flow of {flow}, not of PWC-Net as published")
    return lines
