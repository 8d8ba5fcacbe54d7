"""The networks: samples and mask in, frames out, state as a value.

:class:`Generator` is the interface of all; :data:`PRESETS` is the table of them. A new generator is
a file of its own, a row of the table, and its class in :data:`Network`.

Legend: B batch, T frames, k = ``frames_per_step``, s = ``scale``, h, w the size received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .stream.net import StreamConfig, StreamNet
from .unet.net import (
    DEEPFOVEA_2019,
    PAPER,
    PAPER_MULTIRESOLUTION,
    PAPER_RELEASED,
    RecurrentUNet,
    UNetConfig,
)

Network = StreamNet | RecurrentUNet
"""The classes that are generators and PyTorch modules."""

Config = StreamConfig | UNetConfig
"""Their configurations."""


class Generator(Protocol):
    """What reconstruction, training and export need of a network.

    A state is a NamedTuple of tensors whose first axis is the batch; None starts a video. A clip
    in one call equals the same clip in several calls, each with the state of the one before.

    Attributes:
        scale: s, output size over input size.
        frames_per_step: k, how many frames are read and written together.
        multiple: h and w must be multiples of it in :meth:`step`; a call pads to them itself.
        suits_engines: whether compiled engines run it faster than PyTorch on a CPU, and its wide
            convolutions may be computed in bfloat16 (docs/speed.md).
        takes_jitter: whether it takes jitter and motion.
        makes_low_frames: whether :meth:`forward_with_aux` returns low-resolution frames.
    """

    scale: int
    frames_per_step: int
    multiple: int
    suits_engines: bool
    takes_jitter: bool
    makes_low_frames: bool

    def __call__(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Reconstruct the next T frames of a video.

        Args:
            samples: [B, T, 3, h, w] in [0, 1], 0 where not sampled; T a multiple of k.
            mask: [B, T, 1, h, w], 1 where sampled.
            state: what the last call returned.
            motion: [B, T, 2, h, w], where each pixel was one frame ago (x, y), if that is known
                from elsewhere; low-resolution pixels.
            jitter: [B, T, 2], the offset (x, y) of the sampling grid, low-resolution pixels.

        Returns:
            frames [B, T, 3, s·h, s·w], about [0, 1], not clamped; and the state.

        Raises:
            InputError: T is 0 or not a multiple of k; motion or jitter is given to a network that
                cannot use it.
        """
        ...

    def step(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """One step, its k frames side by side in the channels; what is exported.

        Args:
            samples: [B, 3·k, h, w]; h and w multiples of ``multiple``.
            mask: [B, k, h, w].
            state: None or as returned.
            motion: [B, 2·k, h, w].
            jitter: [B, 2·k].

        Returns:
            frames [B, 3·k, s·h, s·w] and the state.
        """
        ...

    def initial_state(self, samples: Tensor) -> Any:
        """The state before the first step, for samples of the size, type and device of these.

        samples: [B, C, h, w], of any size: the state is that of the next multiples.
        """
        ...

    def forward_with_aux(
        self,
        samples: Tensor,
        mask: Tensor,
        state: Any = None,
        motion: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Any]:
        """As a call, with the auxiliary outputs that training judges.

        Returns:
            frames; the motion that was found [B, T, 2, h, w], None if the network searches for
            none; the low-resolution frames [B, T, 3, h, w] that were made on the way, None if
            there are none; and the state.
        """
        ...


@dataclass(frozen=True)
class Preset:
    """One row of the table.

    network: the class; config: its configuration; weights: the file of bundled weights, None if it
    has to be trained; summary: what it is, in one line for people; source: where it is published.
    """

    network: type[Network]
    config: Config
    weights: str | None
    summary: str
    source: str = "this project"

    def build(self) -> Network:
        """The untrained network."""
        return self.network(self.config)  # type: ignore[arg-type]


PRESETS = {
    "stream": Preset(
        StreamNet,
        StreamConfig(blend_channels=8),
        "stream.safetensors",
        "causal, one frame at a time, x4; trained for fidelity",
    ),
    "stream-perceptual": Preset(
        StreamNet,
        StreamConfig(blend_channels=8),
        "stream-perceptual.safetensors",
        "as stream; trained for the look of natural texture",
    ),
    "paper": Preset(
        RecurrentUNet,
        PAPER,
        "paper.safetensors",
        "DeepFovea++ as published, six frames at a time, x4",
        "Reich, Memmel, Grebe 2020",
    ),
    "paper-released": Preset(
        RecurrentUNet,
        PAPER_RELEASED,
        None,
        "DeepFovea++ as its authors' code has it; deepfovea convert reads their checkpoints",
        "Reich, Memmel, Grebe 2020",
    ),
    "paper-multiresolution": Preset(
        RecurrentUNet,
        PAPER_MULTIRESOLUTION,
        None,
        "DeepFovea++ that also makes low-resolution frames, an experiment that its authors dropped",
        "Reich, Memmel, Grebe 2020, branch Experimental",
    ),
    "deepfovea": Preset(
        RecurrentUNet,
        DEEPFOVEA_2019,
        None,
        "DeepFovea, one frame and its mask at a time, x1; no weights are bundled",
        "Kaplanyan et al. 2019",
    ),
}
"""By name: what loading, training, export and ``info`` read."""

NETWORKS: dict[str, type[Network]] = {
    preset.network.kind: preset.network for preset in PRESETS.values()
}
"""By the name that a file of weights gives its kind of network."""
