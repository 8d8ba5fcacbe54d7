"""All defaults in one place, as frozen dataclasses, which can be written to and read from JSON.

Legend used in the whole package: B batch, T time, C channels; h, w low resolution;
H, W high resolution; scale = H / h.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

SCALE = 4
"""Output size over low-resolution size, as published, in simulation, training and evaluation."""

LARGEST_SIDE = 4096
"""Largest h and w, pixels. The output is four times as large, which is the most that H.264 has."""


class InputError(ValueError):
    """An input of the user cannot be used.

    The message is one line: what was received, what was expected, what to do. The command
    line prints it and exits with code 2.
    """


DENSITY_FORMS = (
    "published | budget:PERCENT | uniform:PERCENT | CENTRE,PERIPHERY,INNER,OUTER in low-resolution "
    "pixels, with 'deg' behind it in degrees (needs --fov)"
)
"""The forms that :meth:`Density.parse` reads, for messages and help."""


@dataclass(frozen=True)
class Density:
    """Probability that a low-resolution pixel is sampled, by its distance from the gaze.

    It is ``center`` up to the radius ``inner`` and ``periphery`` from the radius ``outer`` on, with
    a straight line between. The defaults are the published ones (Reich, Memmel, Grebe 2020):
    0.98 / 0.15 at 20 / 40 low-resolution pixels.

    ``unit`` is the unit of the radii: low-resolution pixels, or degrees of visual angle, which need
    a display geometry. ``budget`` (0 to 1) sets the expected share of sampled pixels for any frame
    size: see :func:`deepfovea.fovea.density_map`.
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

        The forms are ``published``; ``budget:10`` (percent, published radii); ``uniform:20``
        (percent); ``0.98,0.15,20,40`` (centre, periphery and the two radii in low-resolution
        pixels); and ``0.98,0.15,5,10deg`` (the same with radii in degrees).
        """
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
            raise InputError(
                f"--density: received {text!r:.100}; expected {DENSITY_FORMS}"
            ) from None
        return cls(center, periphery, inner, outer, "deg" if text.endswith("deg") else "px")


PUBLISHED_DENSITY = Density()
"""0.98 within 20 px, 0.15 beyond 40 px: about 20 % of a 192x256 frame."""


JITTERS = ("none", "quad", "halton")
"""Names of the sequences of :func:`deepfovea.fovea.jitter_sequence`."""

MOTION_UNITS = ("px", "norm", "norm_up", "ndc")
"""Units of motion vectors in files. px: pixels of the file itself, y down; norm: shares of the
frame's width and height, y down; norm_up: the same, y up; ndc: normalised device coordinates, in
which the frame is 2 × 2, y up."""

NOISES = ("independent", "blue")
"""The ways to draw pixels, see :func:`deepfovea.fovea.draw_mask`."""
HWACCELS = ("none", "cuda")
"""Where videos are decoded and encoded: on the CPU, or on an NVIDIA GPU (NVDEC and NVENC)."""


@dataclass(frozen=True)
class Sampling:
    """Defaults for how pixels are drawn and how the sampling grid is shifted.

    noise: one of :data:`NOISES`; jitter: one of :data:`JITTERS`, for generators that take it.
    """

    noise: str = "independent"
    jitter: str = "none"


PUBLISHED_SAMPLING = Sampling()
"""The sampling of every published table."""

BEST_SAMPLING = Sampling(noise="blue", jitter="quad")
"""The best sampling that we have, with the same number of samples: the default for watching."""


PUBLISHED_LOSSES = ("supervised", "perceptual", "flow", "adversarial", "adversarial-fft")


def option(
    default: Any, help: str, *, group: str, least: float | None = None, most: float | None = None
) -> Any:
    """A field of :class:`TrainConfig` with its description for the command line and the docs.

    Args:
        default: default value.
        help: description, without the default.
        group: heading under which the command line lists it.
        least: smallest allowed value.
        most: largest allowed value.
    """
    metadata = {"help": help, "group": group, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


LENGTH, DATA, OBJECTIVE, OPTIMISERS, RUN = (
    "model and length",
    "clips",
    "objective",
    "optimisers",
    "checkpoints and log",
)
"""Groups of the options of a training."""


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run, which is stored in the run's ``config.json``.

    The defaults are those for ``stream``; :data:`PUBLISHED_TRAINING` has the published values. A
    resumed run may change all but the fields in :data:`FIXED_ON_RESUME`. Each field is an option of
    ``deepfovea train``, and the command line prints its description from here.
    """

    model: str = option("stream", "generator: stream, paper or deepfovea", group=LENGTH)
    steps: int = option(20_000, "optimiser steps, one per chunk", group=LENGTH, least=1)
    epochs: int = option(
        0,
        "passes over the published items, instead of --steps; 0 takes --steps",
        group=LENGTH,
        least=0,
        most=100_000,
    )
    clip: int = option(
        16,
        "frames of a clip, through which the state is carried",
        group=LENGTH,
        least=1,
        most=10_000,
    )
    chunk: int = option(
        4,
        "frames through which gradients flow (truncated back-propagation through time)",
        group=LENGTH,
        least=1,
    )
    batch: int = option(4, "clips per step and process", group=LENGTH, least=1, most=4096)
    seed: int = option(0, "seed of weights, clips and masks", group=LENGTH, least=0, most=2**32 - 1)
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32",
        "precision of the networks' convolutions; weights and losses stay in float32",
        group=LENGTH,
    )
    preprocessing: Literal["modern", "published"] = option(
        "modern",
        "random crops, flips, strides and gaze, or the six-frame items of the paper",
        group=DATA,
    )
    crop: int = option(
        256, "side of the high-resolution square, a multiple of 32", group=DATA, most=16384
    )
    sampling: Literal["varied", "published"] = option(
        "varied",
        "how random clips are sampled: many densities, saccades and blue noise, or the published "
        "density at one gaze per clip, for a network that is not told where it was sampled",
        group=DATA,
    )
    photos: str = option(
        "", "folder of photographs that a moving camera makes clips of", group=DATA
    )
    photo_share: float = option(
        0.3, "share of the random clips that are made of photographs", group=DATA, least=0, most=1
    )
    motion_given: float = option(
        0.0,
        "share of the batches in which stream is given the motion, as by a renderer",
        group=DATA,
        least=0,
        most=1,
    )
    render_noise: float = option(
        0.0,
        "share of the batches with given motion whose samples have the noise of a path tracer",
        group=DATA,
        least=0,
        most=1,
    )
    size: tuple[int, int] = option(
        (768, 1024), "height and width to which published items are cropped or padded", group=DATA
    )
    state: Literal["reset", "carry"] = option(
        "reset",
        "recurrent state at the first published item of a video: new, or carried on from the video "
        "before (the second published setting)",
        group=DATA,
    )
    workers: int = option(
        1, "processes that read clips, per training process", group=DATA, least=0, most=1024
    )
    losses: tuple[str, ...] = option(
        ("charbonnier", "motion", "endpoint"),
        "terms, NAME or NAME=WEIGHT; --list-losses says what there is",
        group=OBJECTIVE,
    )
    adversarial_loss: Literal["logistic", "wasserstein"] = option(
        "logistic", "non-saturating logistic, as published, or Wasserstein", group=OBJECTIVE
    )
    r1: float = option(
        0.0,
        "γ of the R1 penalty on the discriminators (Mescheder et al. 2018), 0 for none",
        group=OBJECTIVE,
        least=0,
    )
    discriminator_channels: tuple[int, ...] = option(
        (64, 256, 256, 128, 1),
        "channels of the five residual blocks of both discriminators; the published ones",
        group=OBJECTIVE,
    )
    # The strides of these networks and the pixel shuffle of a generator have the same period. So
    # without shifts the generator may learn a lattice of this period, which they cannot see.
    shift: int = option(
        0,
        "pixels by which the window that the perceptual loss and the discriminators see is shifted "
        "at random, 0 for none, as published",
        group=OBJECTIVE,
    )
    perceptual_backbone: str = option(
        "vgg19",
        "vgg19, as published, or efficientnet-lite0, whose weights come with a package",
        group=OBJECTIVE,
    )
    perceptual_weights: str = option(
        "", "file of the backbone's weights, where they cannot be downloaded", group=OBJECTIVE
    )
    perceptual_resolution: float = option(
        0.5,
        "share of the resolution that the perceptual loss sees, at most 1; published: 0.5",
        group=OBJECTIVE,
    )
    flow_estimator: str = option(
        "dis",
        "dis (OpenCV), raft, raft-large (torchvision) or pwcnet (published, needs weights)",
        group=OBJECTIVE,
    )
    flow_weights: str = option("", "file of the estimator's weights", group=OBJECTIVE)
    optimizer: Literal["adam", "muon"] = option(
        "adam",
        "optimiser of the generator: Adam, as published, or Muon for its convolutions and Adam for "
        "the rest, which learns paper several times faster",
        group=OPTIMISERS,
    )
    learning_rate: float = option(
        1e-3,
        "largest rate of the generator and of the parameters of the losses",
        group=OPTIMISERS,
        least=0,
        most=1,
    )
    discriminator_learning_rate: float = option(
        1e-4, "largest rate of both discriminators", group=OPTIMISERS, least=0, most=1
    )
    betas: tuple[float, float] = option(
        (0.9, 0.99), "Adam's decays of the first and second moment", group=OPTIMISERS
    )
    warmup: int = option(200, "steps of linearly rising learning rates", group=OPTIMISERS, least=0)
    cooldown: int = option(
        4_000, "steps of learning rates that fall to zero at the end", group=OPTIMISERS, least=0
    )
    # For stream the norm is mostly 0.02 to 0.06. Rarely, in a clip that moves fast, it is thirty
    # times as large and would stall Adam for a hundred steps.
    clip_gradient: float = option(
        0.1,
        "largest norm of the generator's gradient, 0 for no limit",
        group=OPTIMISERS,
        least=0,
    )
    ema: float = option(
        0.999,
        "decay per step of the averaged weights, which are what is saved as the model",
        group=OPTIMISERS,
    )
    save_minutes: float = option(5.0, "minutes between checkpoints", group=RUN, least=0)
    keep_minutes: float = option(
        0.0, "minutes between checkpoints that are kept for good, 0 for none", group=RUN, least=0
    )
    log_steps: int = option(
        50, "steps between rows of metrics, which are means over these steps", group=RUN, least=1
    )
    picture_steps: int = option(
        1000,
        "steps between pictures of input, prediction and label, the first after one; 0 for none",
        group=RUN,
        least=0,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            received = getattr(self, field.name)
            least, most = field.metadata["least"], field.metadata["most"]
            if least is not None and not least <= received < float("inf"):
                raise InputError(
                    f"{_flag(field.name)}: received {received}, expected at least {least}"
                )
            if most is not None and received > most:
                raise InputError(
                    f"{_flag(field.name)}: received {received}, expected at most {most}"
                )
        if not 0.0 < self.perceptual_resolution <= 1.0:
            raise InputError(
                f"--perceptual-resolution: received {self.perceptual_resolution}, "
                "expected above 0, at most 1"
            )
        if not 0 <= self.shift <= self.crop - 32:
            raise InputError(
                f"--shift: received {self.shift} pixels of --crop {self.crop}, "
                f"expected 0 to {self.crop - 32}"
            )
        if len(self.betas) != 2:
            raise InputError(f"--betas: received {self.betas}, expected two numbers")
        for decay in (self.ema, *self.betas):
            if not 0.0 <= decay < 1.0:
                raise InputError(f"--ema, --betas: received {decay}, expected 0 to below 1")
        if self.chunk > self.clip:
            raise InputError(
                f"--chunk: received {self.chunk} frames of clips of {self.clip}; "
                "lower it or raise --clip"
            )
        channels = self.discriminator_channels
        if len(channels) != 5 or not all(1 <= number <= 2048 for number in channels):
            raise InputError(
                f"--discriminator-channels: received {channels}, expected five numbers, 1 to 2048"
            )
        if self.epochs and self.preprocessing != "published":
            raise InputError(
                "--epochs: random clips have no epochs; give --steps instead, or add "
                "--preprocessing published"
            )
        if self.preprocessing == "published" and self.clip != 6:
            raise InputError(
                f"--clip: received {self.clip}, but the published items have six frames; "
                "expected --clip 6 and a --chunk of at most 6"
            )
        if self.state == "carry" and self.preprocessing == "modern":
            raise InputError(
                "--state carry: the clips of modern preprocessing are of independent videos; "
                "add --preprocessing published"
            )
        if self.chunk < 2 and any(text.partition("=")[0] == "flow" for text in self.losses):
            raise InputError(
                "--losses flow: received a --chunk of 1; it compares neighbouring frames: expected "
                "--chunk 2 or more"
            )


PUBLISHED_TRAINING = TrainConfig(
    model="paper",
    steps=46_080,  # 16 epochs of REDS: 240 videos of 24 items each, two at a time
    clip=6,
    chunk=6,
    batch=2,
    learning_rate=3e-4,
    warmup=0,
    cooldown=0,
    clip_gradient=0.0,
    ema=0.0,
    losses=PUBLISHED_LOSSES,
    betas=(0.1, 0.95),
    preprocessing="published",
)
"""The published training of DeepFovea++ (Reich, Memmel, Grebe 2020)."""

FIXED_ON_RESUME = (
    *("model", "losses", "seed", "preprocessing", "discriminator_channels", "optimizer"),
)
"""The fields that a resumed run must not change; of losses it may change the weights."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def expected_one_of(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: which names are known."""
    known = list(known)
    return f"expected one of {', '.join(known)}{did_you_mean(name, known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the most similar name; empty if there is none."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


Config = TypeVar("Config")


def from_json(kind: type[Config], values: Any, source: str = "JSON") -> Config:
    """Make a frozen dataclass from a decoded JSON object.

    Raises:
        InputError: it is not an object, has an unknown key (the message suggests a known one), or
            a value has another type than its field.
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
        value = _coerced(value, hints[key])
        if not _matches(value, hints[key]):
            raise InputError(
                f"{source}: {kind.__name__}.{key} received {value!r:.200}, "
                f"expected {getattr(hints[key], '__name__', hints[key])}"
            )
        converted[key] = value
    try:
        return kind(**converted)
    except TypeError as error:
        raise InputError(f"{source}: {error}") from None


def _coerced(value: Any, hint: Any) -> Any:
    """Convert lists to tuples, and integers to floats if the field is a float."""
    if isinstance(value, list):
        return tuple(value)
    if type(value) is int and (hint is float or float in get_args(hint)):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def _matches(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_matches(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_matches(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(map(_matches, value, inner))
    return type(value) is hint


def to_json(config: Any) -> str:
    """The JSON of a frozen dataclass, which :func:`from_json` reads back."""
    return json.dumps(dataclasses.asdict(config), indent=2)
