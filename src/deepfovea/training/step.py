"""One step of training: one pass through the generator, whatever the number of losses.

The gradient of each loss is taken with respect to the generator's *detached* output and its
graph freed; these gradients are added up, and one backward pass carries the sum through the
generator. By the chain rule this is the gradient of the weighted sum, without the memory of all
graphs at once, and without a pass through the generator for each loss as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..checkpoint import Generator
from ..config import TrainConfig
from ..generators.stream.net import StreamNet, StreamState
from ..generators.unet.net import RecurrentUNet
from ..losses.terms import DISCRIMINATORS, Output, Target, Term, check_finite, discriminator_loss
from ..metrics.pixel import psnr
from .chunks import Piece
from .state import State, Training, learned_by, rates

Mean = Callable[[Tensor], Tensor]
"""The mean of a tensor over all processes."""


def step(
    training: Training,
    terms: Mapping[str, Term],
    piece: Piece,
    config: TrainConfig,
    mean: Mean | None = None,
) -> tuple[dict[str, float], Output, Target]:
    """Learn from one chunk; ``training`` is changed in place.

    Args:
        training: the run.
        terms: the objective, see :func:`deepfovea.losses.terms.make_terms`.
        piece: the chunk.
        config: weights, rates, limits.
        mean: over all processes; None: there is one.

    Returns:
        The losses and metrics by name, means over all processes; the generator's output; what it
        should have been.

    Raises:
        InputError: a loss or the gradient is no finite number; it is named, and nothing was
            learned from it.
    """
    for name, optimizer in training.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates(config)[name] * schedule(training.step, config)
        optimizer.zero_grad()
    state = restart(training.state, piece.starts)

    with autocast(piece.frames.device, config):
        output, state = forward(training.net, training.heads, piece, state)
    output, target = counted(output, piece, training.net.scale)
    generator = training.optimizers["generator"]
    parameters = learned_by(generator)
    losses, leaves = output_gradients(
        terms, config.loss_weights(), output, target, parameters, config, training.scaler
    )
    backward(output, leaves)
    training.state = type(state)(*(tensor.detach() for tensor in state))

    with torch.no_grad():
        losses["psnr"] = psnr(leaves.frames, target.frames).mean()
    values = shared(parameters, losses, mean)
    check_finite(values, training.step)
    training.scaler.unscale_(generator)
    norm = nn.utils.clip_grad_norm_(training.net.parameters(), config.clip_gradient or math.inf)
    values["gradient_norm"] = float(norm)
    if not training.scaler.is_enabled():  # a scaler leaves such a step out and scales less
        check_finite({"gradient_norm": values["gradient_norm"]}, training.step)
    training.scaler.step(generator)
    average(training, config)

    for name in DISCRIMINATORS:
        if name in training.learned:
            values |= learn_to_tell(training, name, target.frames, leaves.frames, config, mean)
    training.scaler.update()
    training.position = piece.following
    training.step += 1
    return values, leaves, target


def schedule(step: int, config: TrainConfig) -> float:
    """Share of the full learning rates: linear rise, constant, linear fall.

    So a run can be cut short or prolonged at will. The fall takes half of the steps at most.
    """
    rise = (step + 1) / max(config.warmup, 1)
    fall = (config.steps - step) / max(min(config.cooldown, config.steps // 2), 1)
    return max(0.0, min(1.0, rise, fall))


def restart(state: State | None, starts: Tensor) -> State | None:
    """The state with zeros, as every generator begins with, in the clips that ``starts`` [B] names.

    None, which is a new start for all, where there is no state yet or all begin.
    """
    if state is None or bool(starts.all()):
        return None
    if not bool(starts.any()):
        return state
    new = starts.view(-1, 1, 1, 1).to(state[0].device)
    return type(state)(*(torch.where(new, 0.0, tensor) for tensor in state))


def forward(
    net: Generator, heads: nn.ModuleList, piece: Piece, state: State | None
) -> tuple[Output, State]:
    """The generator's output for a chunk, in float32, and its next state."""
    samples, mask = piece.samples, piece.mask
    height, width = piece.low.shape[-2:]
    if isinstance(net, StreamNet):
        frames, motion = [], []
        for t in range(samples.shape[1]):
            jitter = None if piece.jitter is None else piece.jitter[:, t : t + 1]
            frame, state = net(samples[:, t : t + 1], mask[:, t : t + 1], state, jitter=jitter)  # type: ignore[arg-type]
            frames.append(frame)
            assert isinstance(state, StreamState)
            motion.append(state.flow[..., :height, :width])
        assert state is not None
        return Output(torch.cat(frames, 1).float(), torch.stack(motion, 1).float()), state
    assert isinstance(net, RecurrentUNet)
    output, features, state = net.forward_stages(samples, mask, state)  # type: ignore[arg-type]
    stages = (
        head(stage.flatten(0, 1)).float().view(*output.shape[:3], *stage.shape[-2:])
        for head, stage in zip(heads, features, strict=False)  # without heads, no stages
    )
    return Output(output.float(), stages=tuple(stages)), state


def counted(output: Output, piece: Piece, scale: int) -> tuple[Output, Target]:
    """Output and target without the padding, which is never scored.

    A network that does not enlarge (``scale`` 1) is to make the low-resolution frames.
    """
    region = piece.scored
    reduced = piece.frames.shape[-1] // piece.low.shape[-1]

    def cut(frames: Tensor) -> Tensor:
        return region.of(frames, piece.frames.shape[-1] // frames.shape[-1])

    low = cut(piece.low)
    target = Target(
        frames=cut(piece.frames) if scale == reduced else low,
        low=low,
        before=None if piece.before is None else cut(piece.before),
    )
    motion = None if output.motion is None else cut(output.motion)
    return Output(cut(output.frames), motion, tuple(map(cut, output.stages))), target


def output_gradients(
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    output: Output,
    target: Target,
    parameters: Sequence[nn.Parameter],
    config: TrainConfig,
    scaler: torch.amp.GradScaler,
) -> tuple[dict[str, Tensor], Output]:
    """The gradient of the weighted sum with respect to a generator's output, term by term.

    Args:
        terms: of the objective.
        weights: of each.
        output: of the generator.
        target: what it should be.
        parameters: those among them that a loss has itself get their gradient here.
        config: precision.
        scaler: of losses.

    Returns:
        The value of each term, not weighted, and the detached output, whose tensors hold the
        (scaled) gradient in ``grad``; None where no term looks at one.
    """
    leaves = Output(
        _leaf(output.frames),
        None if output.motion is None else _leaf(output.motion),
        tuple(map(_leaf, output.stages)),
    )
    values = {}
    for name, term in terms.items():
        with autocast(output.frames.device, config):
            value = term(leaves, target)
        # Only what is named here gets a gradient: a discriminator's weights do not.
        inputs = [*_tensors(leaves), *parameters]
        torch.autograd.backward(scaler.scale(weights[name] * value), inputs=inputs)
        values[name] = value.detach()
    return values, leaves


def backward(output: Output, leaves: Output) -> None:
    """Carry the gradient that the leaves hold through the generator."""
    pairs = zip(_tensors(output), _tensors(leaves), strict=True)
    judged = [(tensor, leaf.grad) for tensor, leaf in pairs if leaf.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in judged], [grad for _, grad in judged])


def learn_to_tell(
    training: Training,
    name: str,
    real: Tensor,
    fake: Tensor,
    config: TrainConfig,
    mean: Mean | None,
) -> dict[str, float]:
    """A discriminator's step on what the generator made in this one."""
    discriminator, optimizer = training.learned[name], training.optimizers[name]
    with autocast(real.device, config):
        loss = discriminator_loss(
            discriminator, real, fake.detach(), config.adversarial_loss, config.r1, config.shift
        )
    torch.autograd.backward(training.scaler.scale(loss))
    parameters = list(discriminator.parameters())
    values = shared(parameters, {f"{name}/discriminator": loss.detach()}, mean)
    check_finite(values, training.step)
    training.scaler.step(optimizer)
    return values


def shared(
    parameters: Iterable[nn.Parameter], values: Mapping[str, Tensor], mean: Mean | None
) -> dict[str, float]:
    """Gradients, in place, and values as their means over all processes.

    One reduction of everything, instead of a wrapper around the networks that would have to know
    of the several calls that one backward pass goes through.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    numbers = torch.stack([value.float() for value in values.values()])
    if mean is not None:
        flat = mean(torch.cat([*(g.reshape(-1) for g in gradients), numbers]))
        *parts, numbers = torch.split(flat, [*(g.numel() for g in gradients), len(numbers)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    return dict(zip(values, numbers.tolist(), strict=True))


@torch.no_grad()
def average(training: Training, config: TrainConfig) -> None:
    """Follow the generator's weights; faster in the first steps, which begin far away."""
    decay = min(config.ema, (1 + training.step) / (10 + training.step))
    for name, parameter in training.net.named_parameters():
        training.averaged[name].lerp_(parameter, 1.0 - decay)


def autocast(device: torch.device, config: TrainConfig) -> AbstractContextManager[None]:
    """Mixed precision, where it is asked for."""
    dtype = torch.float16 if config.precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.precision != "fp32")


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _tensors(output: Output) -> list[Tensor]:
    return [t for t in (output.frames, output.motion, *output.stages) if t is not None]
