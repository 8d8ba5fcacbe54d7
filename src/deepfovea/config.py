"""Every default in one place, as frozen dataclasses; strict JSON in and out.

Legend used in the whole package: B batch, T time, C channels; h, w low resolution;
H, W high resolution; scale = H / h.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was received, what was expected, what to do. The command
    line prints it and exits with code 2.
    """


@dataclass(frozen=True)
class Density:
    """Probability that a low-resolution pixel is sampled, by its distance from the gaze.

    ``center`` up to the radius ``inner``, ``periphery`` from the radius ``outer`` on, the
    straight line between. The defaults are the published ones (Reich, Memmel, Grebe 2020):
    0.98 / 0.15 at 20 / 40 low-resolution pixels.

    ``unit`` is that of the radii: low-resolution pixels, or degrees of visual angle (which
    needs a display geometry). ``budget`` (0 to 1) asks for that expected share of sampled
    pixels, whatever the frame size: see :func:`deepfovea.fovea.density_map`.
    """

    center: float = 0.98
    periphery: float = 0.15
    inner: float = 20.0
    outer: float = 40.0
    unit: Literal["px", "deg"] = "px"
    budget: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.periphery <= self.center <= 1.0:
            raise InputError(
                f"density: received center {self.center} and periphery {self.periphery}; "
                "expected 0 <= periphery <= center <= 1"
            )
        if not 0.0 <= self.inner < self.outer < float("inf"):
            raise InputError(
                f"density: received radii {self.inner} and {self.outer}; "
                "expected 0 <= inner < outer, finite"
            )
        if self.unit not in ("px", "deg"):
            raise InputError(f"density: received the unit {self.unit!r}; expected 'px' or 'deg'")
        if self.budget is not None and not 0.0 < self.budget <= 1.0:
            raise InputError(
                f"density: received a budget of {100 * self.budget:g} %; "
                "expected more than 0 and at most 100"
            )

    @classmethod
    def parse(cls, text: str) -> Density:
        """Read a density from the command line.

        ``published``; ``budget:10`` (percent, published radii); ``uniform:20`` (percent);
        ``0.98,0.15,20,40`` (centre, periphery and the two radii in low-resolution pixels), the
        last with ``deg`` behind it for radii in degrees: ``0.98,0.15,5,10deg``.
        """
        expected = (
            "expected 'published', 'budget:PERCENT', 'uniform:PERCENT' or "
            "'CENTRE,PERIPHERY,INNER,OUTER' with 'deg' behind it for degrees"
        )
        kind, _, percent = text.partition(":")
        try:
            if text == "published":
                return cls()
            if kind == "budget":
                return cls(budget=float(percent) / 100.0)
            if kind == "uniform":
                share = float(percent) / 100.0
                return cls(center=share, periphery=share)
            numbers = [float(part) for part in text.removesuffix("deg").split(",")]
            center, periphery, inner, outer = numbers
        except InputError:
            raise
        except ValueError:
            raise InputError(f"--density: received {text!r:.100}; {expected}") from None
        return cls(center, periphery, inner, outer, "deg" if text.endswith("deg") else "px")


PUBLISHED_DENSITY = Density()
"""0.98 within 20 px, 0.15 beyond 40 px: about 20 % of a 192x256 frame."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Everything here is stored in the run's ``config.json``."""

    model: str = "stream"
    steps: int = 20_000
    """Optimiser steps, one per chunk."""
    clip: int = 16
    """Frames of one clip; the state is carried through it."""
    chunk: int = 4
    """Frames through which gradients flow (truncated back-propagation through time)."""
    batch: int = 4
    """Clips per step and process."""
    crop: int = 384
    """Side of the high-resolution square, pixels."""
    learning_rate: float = 4e-4
    warmup: int = 200
    """Steps of linear rise of the learning rate."""
    cooldown: int = 4_000
    """Steps of linear fall to zero at the end."""
    motion_weight: float = 0.2
    """Weight of the photometric loss on the motion that the network found."""
    clip_gradient: float = 0.05
    """Largest norm of the gradient. The usual one is 0.01 to 0.05; a rare one, through the warps
    of a clip that moves fast, is thirty times that and would stall Adam for a hundred steps."""
    ema: float = 0.999
    """Decay per step of the averaged weights, which are what is saved as the model."""
    seed: int = 0
    workers: int = 1
    save_minutes: float = 5.0


Config = TypeVar("Config")


def from_json(kind: type[Config], values: Any, source: str = "JSON") -> Config:
    """A frozen dataclass from a decoded JSON object.

    Raises:
        InputError: no object, an unknown key (the nearest known one is suggested) or a value of
            another type than the field's.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source}: received {type(values).__name__}, expected a JSON object")
    hints = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    converted = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {sorted(known)}"
            raise InputError(f"{source}: unknown key {key!r} of {kind.__name__}; {hint}")
        value = _plain(value, hints[key])
        if not _fits(value, hints[key]):
            raise InputError(
                f"{source}: {kind.__name__}.{key} received {value!r:.200}, "
                f"expected {getattr(hints[key], '__name__', hints[key])}"
            )
        converted[key] = value
    try:
        return kind(**converted)
    except TypeError as error:
        raise InputError(f"{source}: {error}") from None


def _plain(value: Any, hint: Any) -> Any:
    """JSON's lists as tuples, and whole numbers as floats where a float is due."""
    if isinstance(value, list):
        return tuple(value)
    if type(value) is int and (hint is float or float in get_args(hint)):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    return type(value) is hint


def to_json(config: Any) -> str:
    """The JSON of a frozen dataclass, which :func:`from_json` reads back."""
    return json.dumps(dataclasses.asdict(config), indent=2)
