"""The geometry of display and eye: angles between the gaze and every pixel.

Legend: h, w low resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import InputError


@dataclass(frozen=True)
class DisplayGeometry:
    """A flat display with square pixels, and an eye in front of its centre.

    Video of any resolution fills the display. Raises InputError for values out of range.
    """

    horizontal_fov_deg: float  # the angle that the width subtends, between 0 and 180
    width_px: int  # the display's own pixels
    height_px: int

    def __post_init__(self) -> None:
        if not (0 < self.horizontal_fov_deg < 180 and self.width_px > 0 and self.height_px > 0):
            raise InputError(
                f"display: received {self.horizontal_fov_deg:g} degrees across {self.width_px}x"
                f"{self.height_px} pixels; expected 0 to 180 degrees and positive sizes"
            )

    @property
    def pixels_per_degree(self) -> float:
        """Display pixels per degree at the centre of the display; more towards the edges."""
        distance_px = self.width_px / 2 / math.tan(math.radians(self.horizontal_fov_deg) / 2)
        return distance_px * math.radians(1)

    def eccentricity_deg(self, gaze_px: Tensor, height: int, width: int) -> Tensor:
        """Return the angle [..., h, w] between the gaze and every pixel, in degrees.

        gaze_px is [..., 2] in px of the h x w frame, which fills the display. The angle is that
        between the two view directions, not pixels / pixels_per_degree.
        """
        half_x = math.tan(math.radians(self.horizontal_fov_deg) / 2)
        half_y = half_x * self.height_px / self.width_px

        def direction(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (x, y, 1), not unit length
            return half_x * ((2 * x + 1) / width - 1), half_y * ((2 * y + 1) / height - 1)

        # In float64, so that other libraries' atan2 gives the same float32.
        dtype = gaze_px.dtype if gaze_px.is_floating_point() else torch.float32
        gaze = gaze_px.double()
        x, y = direction(torch.arange(width).to(gaze), torch.arange(height).to(gaze)[:, None])
        gaze_x, gaze_y = direction(gaze[..., 0, None, None], gaze[..., 1, None, None])
        # arctan(|a x b|, a . b) keeps its precision at small angles, where arccos has none
        cross = ((gaze_x - x) ** 2 + (gaze_y - y) ** 2 + (gaze_x * y - gaze_y * x) ** 2).sqrt()
        return torch.rad2deg(torch.atan2(cross, 1 + gaze_x * x + gaze_y * y)).to(dtype)


DEFAULT_DISPLAY = DisplayGeometry(horizontal_fov_deg=40.0, width_px=1024, height_px=768)
"""The published output size as a window on a desk: about 25 pixels per degree. Our choice."""
