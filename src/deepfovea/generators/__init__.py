"""The networks: samples and mask in, frames out, state as a value.

:class:`Generator` is the interface that all of them share; :data:`PRESETS` lists them. To add a
generator, write it in a file of its own, name its class in :data:`Network`, and add a row to
:data:`PRESETS`.

Legend: B batch, T frames, k = ``frames_per_step``, s = ``scale``, h, w the size of the input.
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
"""The classes of generators that this package has; each is a PyTorch module, too."""

Config = StreamConfig | UNetConfig
"""Their configurations."""


class Generator(Protocol):
    """The methods and attributes of a network that reconstruction, training and export use.

    A state is a NamedTuple of tensors whose first axis is the batch; None starts a video. A clip
    in one call equals the same clip in several calls, if each call receives the state that the
    call before returned.

    Attributes:
        scale: s, output size over input size.
        frames_per_step: k, the number of frames that one step reads and writes together.
        multiple: h and w must be multiples of it in :meth:`step`; a call pads its input to them.
        suits_engines: whether a compiled engine runs it faster than PyTorch on a CPU, and may
            compute its wide convolutions in bfloat16 (docs/speed.md).
        takes_jitter: whether it accepts jitter and motion.
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
            state: the state that the last call returned; None starts a video.
            motion: [B, T, 2, h, w], the vector (x, y) from each pixel to where it was one frame
                ago, low-resolution pixels; None if it is not known.
            jitter: [B, T, 2], the offset (x, y) of the sampling grid, low-resolution pixels.

        Returns:
            The frames [B, T, 3, s·h, s·w], about [0, 1], not clamped; and the next state.

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
        """Reconstruct k frames, which are stacked along the channels. Exports contain this method.

        Args:
            samples: [B, 3·k, h, w]; h and w multiples of ``multiple``.
            mask: [B, k, h, w].
            state: the state that the last step returned; None starts a video.
            motion: [B, 2·k, h, w].
            jitter: [B, 2·k].

        Returns:
            The frames [B, 3·k, s·h, s·w] and the next state.
        """
        ...

    def initial_state(self, samples: Tensor) -> Any:
        """Make the state before the first step.

        Args:
            samples: [B, C, h, w], which give size, type and device. h and w may be any size; the
                state is made for the next multiples of ``multiple``.
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
        """Do what a call does, and also return the auxiliary outputs that some losses use.

        Returns:
            The frames; the estimated motion [B, T, 2, h, w], None if the network estimates none;
            the low-resolution frames [B, T, 3, h, w], None if the network makes none; and the next
            state.
        """
        ...


@dataclass(frozen=True)
class Preset:
    """One generator that users can choose by name.

    network: the class; config: its configuration; weights: the file of the bundled weights, None if
    the package has none; summary: a description in one line; source: who published it.
    """

    network: type[Network]
    config: Config
    weights: str | None
    summary: str
    source: str = "this project"

    def build(self) -> Network:
        """Make the network, untrained."""
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
"""All generators by name. Loading, training, export and ``info`` read this table."""

NETWORKS: dict[str, type[Network]] = {
    preset.network.kind: preset.network for preset in PRESETS.values()
}
"""The classes by ``kind``, the name that a file of weights stores."""
