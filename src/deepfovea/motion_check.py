"""Finds out which convention motion vectors follow, by warping the frame before.

The right convention, here called the contract, is that of :mod:`deepfovea.motion`. The frame before
is warped by each reading of the vectors: the contract, and the usual mistakes. The vectors follow
the reading with the smallest difference from this frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .config import InputError
from .fill import pull_push
from .flow import backward_warp

CONTRACT = "the contract"
# All constants are our choice.
KEPT_SHARE = 0.8
"""Share of the pixels that count, those with the smallest differences: for pixels that were hidden
one frame ago, no vector is right."""
TIE_RATIO = 1.1
"""The contract is accepted up to this multiple of the smallest error, as other readings may fit as
well: a steady motion also fits one frame too late, and a motion along x also with y flipped."""
MAX_ERROR_SHARE = 0.75
"""A reading must have at most this share of the error without motion."""
NEIGHBOURHOOD, KNOWN_DENSELY = 5, 0.8
"""A pixel counts if this share of the square of this side, in pixels, around it is known, as
colours between few samples are guesses."""
ENOUGH_DENSE = 0.01
"""If fewer pixels than this share are known so densely, all known pixels count."""
FLAT = 1e-3
"""Mean difference in [0, 1] from which on frames differ: a quarter of a level of 8 bits."""
REST = 1e-3
"""Shorter vectors, in pixels, count as no motion."""


class MotionCheck(NamedTuple):
    """The result of :func:`check_motion`.

    errors: the mean absolute difference in [0, 1] for each reading of the vectors; at_rest: the
    same without motion; fits: the name of the reading that fits, None if none does or it cannot be
    decided; why: a sentence about it.
    """

    errors: dict[str, float]
    at_rest: float
    fits: str | None
    why: str


def check_motion(
    frames: Tensor,
    motion: Tensor,
    mask: Tensor | None = None,
    jitter: Tensor | None = None,
    scale: int = 4,
) -> MotionCheck:
    """Compare given vectors with the contract and with eight usual mistakes.

    Args:
        frames: [T, 3, h, w] in [0, 1], T at least 2.
        motion: [T, 2, h, w], the given vectors, as pixels of the frames; NaN where unknown; the
            first one is not used, as there is no frame before it.
        mask: [T, 1, h, w], 1 where a frame is known; None: everywhere.
        jitter: [T, 2], the offset (x, y) of each frame's sampling grid in pixels of the frames.
        scale: output pixels per pixel of the frames, for vectors in output pixels.

    Raises:
        InputError: there are fewer than two frames, or the shapes do not fit.
    """
    count, _, height, width = frames.shape
    if count < 2 or motion.shape != (count, 2, height, width):
        raise InputError(
            f"check-motion: received {count} frames of {width}x{height} and motion "
            f"{list(motion.shape)}; expected at least two frames, and [T, 2, h, w] to match them"
        )
    if mask is None:
        mask = torch.ones_like(frames[:, :1])
    jitter = torch.zeros(count, 2) if jitter is None else jitter
    shift = torch.zeros_like(jitter)
    shift[1:] = jitter[1:] - jitter[:-1]  # from the pixels of the frame before to those of this
    steps = shift[:, :, None, None]
    filled = pull_push(frames, mask)
    known = ~motion.isnan().any(1, keepdim=True)
    field = motion.nan_to_num(0.0)

    # A point at p + jitter was at p + jitter + v, which the frame before has at that minus its own
    # jitter.
    readings = {name: read + steps for name, read in _readings(field, scale).items()}
    if shift.abs().max() > REST:
        readings["jitter included"] = field
    at_rest = steps.expand_as(field)
    last = count
    if count > 2:
        late = field.roll(-1, 0)
        readings["one frame late"] = late + steps
        known = known & known.roll(-1, 0)
        last = count - 1  # the vectors of the last frame would be in the file of the next one

    # Compare pixels that move by any reading, and around which the frames are known densely.
    moves = torch.stack([(r - at_rest).abs().amax(1, keepdim=True) for r in readings.values()])
    valid = known & (mask > 0) & (moves.amax(0) > REST)
    near = torch.nn.functional.avg_pool2d(
        mask, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
    )
    dense = valid & (near > KNOWN_DENSELY) & (near.roll(1, 0) > KNOWN_DENSELY)
    valid = dense if dense[1:last].float().mean() > ENOUGH_DENSE else valid
    if not valid[1:last].any():
        everywhere = known & (mask > 0)
        rest = _error(filled, at_rest, everywhere, last)
        if rest > 10 * FLAT:  # noise alone may make frames differ a little
            why = "the vectors say that nothing moves, but the frames differ"
            return MotionCheck({}, rest, "no motion", why)
        return MotionCheck({}, rest, None, "cannot tell: nothing moves; give frames of a motion")
    errors = {name: _error(filled, r, valid, last) for name, r in readings.items()}
    rest = _error(filled, at_rest, valid, last)
    return MotionCheck(errors, rest, *_verdict(errors, rest))


def _readings(field: Tensor, scale: int) -> dict[str, Tensor]:
    """The vectors converted to the contract, for each convention in which they may be written."""
    height, width = field.shape[-2:]
    x, y = field[:, :1], field[:, 1:]
    return {
        CONTRACT: field,
        "sign: from the frame before to this one": -field,
        "x and y swapped": torch.cat([y, x], 1),
        "y up": torch.cat([x, -y], 1),
        "twice too long": field / 2,
        "half too long": field * 2,
        f"resolution: pixels of {scale} times the size": field / scale,
        "NDC: -1 to 1, y up": torch.cat([x * width / 2, -y * height / 2], 1),
        "shares of the frame: 0 to 1": torch.cat([x * width, y * height], 1),
    }


def _error(frames: Tensor, field: Tensor, valid: Tensor, last: int) -> float:
    """Mean over pairs of frames of the trimmed mean difference along a field, where valid."""
    errors = []
    for t in range(1, last):
        if valid[t].any():
            warped = backward_warp(frames[t - 1 : t], field[t : t + 1])
            difference = (warped[0] - frames[t]).abs().mean(0)[valid[t, 0]].sort().values
            errors.append(difference[: max(1, round(KEPT_SHARE * len(difference)))].mean())
    return float(torch.stack(errors).mean()) if errors else 0.0


def _verdict(errors: dict[str, float], at_rest: float) -> tuple[str | None, str]:
    best = min(errors, key=errors.__getitem__)
    least = errors[best]
    if at_rest < FLAT and least < FLAT:
        return None, "cannot tell: nothing moves, or there is no texture; give frames of a motion"
    if at_rest < least:
        return "no motion", "the frames fit best without any motion: the vectors belong elsewhere"
    if least > MAX_ERROR_SHARE * at_rest:
        return None, "cannot tell: no reading explains the frames; give larger motion or textures"
    if errors[CONTRACT] <= TIE_RATIO * least:
        return CONTRACT, "the vectors follow the contract"
    return best, f"the vectors do not follow the contract; what fits is: {best}"


def to_table(check: MotionCheck) -> str:
    """The errors of all readings, the smallest first."""
    rows: Sequence[tuple[str, float]] = sorted(
        [*check.errors.items(), ("no motion at all", check.at_rest)], key=lambda row: row[1]
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {error:.5f}" for name, error in rows)
