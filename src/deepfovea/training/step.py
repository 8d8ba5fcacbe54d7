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

from ..config import TrainConfig
from ..generators import Generator
from ..losses.imprint import sampled_cells
from ..losses.terms import (
    DISCRIMINATORS,
    Output,
    Target,
    Term,
    check_finite,
    discriminator_loss,
    loss_weights,
)
from ..metrics.pixel import psnr
from .chunks import Chunk
from .state import State, TrainingState, learning_rates, parameters_of

ReduceMean = Callable[[Tensor], Tensor]
"""The mean of a tensor over all processes."""


def train_step(
    training: TrainingState,
    terms: Mapping[str, Term],
    chunk: Chunk,
    config: TrainConfig,
    reduce_mean: ReduceMean | None = None,
) -> tuple[dict[str, float], Output, Target]:
    """Train on one chunk; ``training`` is changed in place.

    Args:
        training: the run.
        terms: the objective, see :func:`deepfovea.losses.terms.make_terms`.
        chunk: the chunk.
        config: weights, learning rates, limits.
        reduce_mean: computes means over all processes; None: there is only one.

    Returns:
        The losses and metrics by name, as means over all processes; the generator's output; and the
        target.

    Raises:
        InputError: a loss or the gradient is not finite; the message names it, and no weights were
            changed.
    """
    for name, optimizer in training.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rates(config)[name] * learning_rate_factor(training.step, config)
        optimizer.zero_grad()
    first = training.net.initial_state(chunk.low.flatten(1, 2))
    state = reset_starting_clips(training.state, chunk.is_clip_start, first)

    with autocast(chunk.frames.device, config):
        output, state = forward(training.net, chunk, state)
    output, target = crop_to_valid(output, chunk, training.net.scale)
    generator = training.optimizers["generator"]
    parameters = parameters_of(generator)
    losses, leaves = output_gradients(
        terms, loss_weights(config.losses), output, target, parameters, config, training.scaler
    )
    backward(output, leaves)
    training.state = type(state)(*(tensor.detach() for tensor in state))

    with torch.no_grad():
        losses["psnr"] = psnr(leaves.frames, target.frames).mean()
    values = all_reduce_mean(parameters, losses, reduce_mean)
    check_finite(values, training.step)
    training.scaler.unscale_(generator)
    norm = nn.utils.clip_grad_norm_(training.net.parameters(), config.clip_gradient or math.inf)
    values["gradient_norm"] = float(norm)
    if not training.scaler.is_enabled():  # a scaler skips such a step and lowers its scale
        check_finite({"gradient_norm": values["gradient_norm"]}, training.step)
    training.scaler.step(generator)
    update_ema(training, config)

    for name in DISCRIMINATORS:
        if name in training.loss_modules:
            values |= discriminator_step(
                training, name, target.frames, leaves.frames, config, reduce_mean
            )
    training.scaler.update()
    training.position = chunk.next_position
    training.step += 1
    return values, leaves, target


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Factor of the learning rates: it rises linearly, stays at 1, and falls linearly at the end.

    So a run can be shortened or prolonged. The fall takes at most half of the steps.
    """
    rise = (step + 1) / max(config.warmup, 1)
    fall = (config.steps - step) / max(min(config.cooldown, config.steps // 2), 1)
    return max(0.0, min(1.0, rise, fall))


def reset_starting_clips(
    state: State | None, is_clip_start: Tensor, first: State | None = None
) -> State | None:
    """Replace the state of the clips that begin (``is_clip_start`` [B]) by ``first`` or zeros.

    Returns None, which starts all clips, if there is no state yet or all clips begin.
    """
    if state is None or bool(is_clip_start.all()):
        return None
    if not bool(is_clip_start.any()):
        return state
    new = is_clip_start.view(-1, 1, 1, 1).to(state[0].device)
    if first is None:
        first = type(state)(*map(torch.zeros_like, state))
    pairs = zip(first, state, strict=True)
    return type(state)(*(torch.where(new, begin, tensor) for begin, tensor in pairs))


def forward(net: Generator, chunk: Chunk, state: State | None) -> tuple[Output, State]:
    """The generator's output for a chunk, in float32, and its next state."""
    frames, motion, low, state = net.forward_with_aux(
        chunk.samples,
        chunk.mask,
        state,
        chunk.motion if chunk.motion_given else None,
        chunk.jitter if net.takes_jitter else None,
    )
    aux = (None if tensor is None else tensor.float() for tensor in (motion, low))
    return Output(frames.float(), *aux), state


def crop_to_valid(output: Output, chunk: Chunk, scale: int) -> tuple[Output, Target]:
    """Cut the padding off output and target, as it is never scored.

    For a network that does not upsample (``scale`` 1), the target are the low-resolution frames.
    """
    region = chunk.valid_region
    reduced = chunk.frames.shape[-1] // chunk.low.shape[-1]

    def cut(frames: Tensor) -> Tensor:
        return region.crop(frames, chunk.frames.shape[-1] // frames.shape[-1])

    low = cut(chunk.low)
    target = Target(
        frames=cut(chunk.frames) if scale == reduced else low,
        low=low,
        before=None if chunk.previous_low is None else cut(chunk.previous_low),
        motion=None if chunk.motion is None else cut(chunk.motion),
        motion_trust=None if chunk.motion_trust is None else cut(chunk.motion_trust),
        sampled=cut(sampled_cells(chunk.mask, chunk.jitter)),
    )
    aux = (None if tensor is None else cut(tensor) for tensor in (output.motion, output.low))
    return Output(cut(output.frames), *aux), target


def output_gradients(
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    output: Output,
    target: Target,
    parameters: Sequence[nn.Parameter],
    config: TrainConfig,
    scaler: torch.amp.GradScaler,
) -> tuple[dict[str, Tensor], Output]:
    """Compute the gradient of the weighted sum with respect to a generator's output, term by term.

    Args:
        terms: the terms of the objective.
        weights: the weight of each term.
        output: the generator's output.
        target: the target.
        parameters: parameters; those of losses get their gradient here, too.
        config: the precision is used.
        scaler: scales the losses.

    Returns:
        The value of each term, not weighted, and the detached output, whose tensors have the
        (scaled) gradient in ``grad``, or None if no term depends on them.
    """
    leaves = Output._make(None if tensor is None else _detached_leaf(tensor) for tensor in output)
    values = {}
    for name, term in terms.items():
        with autocast(output.frames.device, config):
            value = term(leaves, target)
        # Only these inputs get a gradient; the weights of discriminators do not.
        inputs = [*_tensors_of(leaves), *parameters]
        torch.autograd.backward(scaler.scale(weights[name] * value), inputs=inputs)
        values[name] = value.detach()
    return values, leaves


def backward(output: Output, leaves: Output) -> None:
    """Propagate the gradient in the leaves back through the generator."""
    pairs = zip(_tensors_of(output), _tensors_of(leaves), strict=True)
    # Given motion requires no gradient, so a loss on it trains nothing.
    used = [(x, leaf.grad) for x, leaf in pairs if leaf.grad is not None and x.requires_grad]
    torch.autograd.backward([tensor for tensor, _ in used], [grad for _, grad in used])


def discriminator_step(
    training: TrainingState,
    name: str,
    real: Tensor,
    fake: Tensor,
    config: TrainConfig,
    reduce_mean: ReduceMean | None,
) -> dict[str, float]:
    """Train a discriminator on the frames that the generator made in this step."""
    discriminator, optimizer = training.loss_modules[name], training.optimizers[name]
    with autocast(real.device, config):
        loss = discriminator_loss(
            discriminator, real, fake.detach(), config.adversarial_loss, config.r1, config.shift
        )
    torch.autograd.backward(training.scaler.scale(loss))
    parameters = list(discriminator.parameters())
    values = all_reduce_mean(parameters, {f"{name}/discriminator": loss.detach()}, reduce_mean)
    check_finite(values, training.step)
    training.scaler.step(optimizer)
    return values


def all_reduce_mean(
    parameters: Iterable[nn.Parameter], values: Mapping[str, Tensor], reduce_mean: ReduceMean | None
) -> dict[str, float]:
    """Replace gradients, in place, and values by their means over all processes.

    Everything is reduced at once. A wrapper around the networks, such as DistributedDataParallel,
    would have to be told about the several calls before one backward pass.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    numbers = torch.stack([value.float() for value in values.values()])
    if reduce_mean is not None:
        flat = reduce_mean(torch.cat([*(g.reshape(-1) for g in gradients), numbers]))
        *parts, numbers = torch.split(flat, [*(g.numel() for g in gradients), len(numbers)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    return dict(zip(values, numbers.tolist(), strict=True))


@torch.no_grad()
def update_ema(training: TrainingState, config: TrainConfig) -> None:
    """Update the moving averages of the generator's weights; faster in the first steps."""
    # As tf.train.ExponentialMovingAverage with its argument num_updates.
    decay = min(config.ema, (1 + training.step) / (10 + training.step))
    for name, parameter in training.net.named_parameters():
        training.ema[name].lerp_(parameter, 1.0 - decay)


def autocast(device: torch.device, config: TrainConfig) -> AbstractContextManager[None]:
    """A context with mixed precision, if the configuration asks for it."""
    dtype = torch.float16 if config.precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.precision != "fp32")


def _detached_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _tensors_of(output: Output) -> list[Tensor]:
    return [tensor for tensor in output if tensor is not None]
