"""The metrics of an evaluation; each is an object with its name, direction, unit and function.

To add one, write its function and its :class:`Metric` in a file beside this one and name it in
:data:`METRICS`; see ``docs/extending.md``.
"""

from .base import ITEM_FRAMES, Metric, Reference, Scope, Settings
from .cvvdp import CVVDP
from .features import FEATURES
from .flicker import FLICKER
from .jod import JOD
from .lpips import LPIPS, T_LPIPS
from .mask_imprint import MASK_IMPRINT
from .pixel import L1, MSE, PSNR, SSIM
from .published import PSNR_PUBLISHED, SSIM_PUBLISHED
from .raggedness import RAGGEDNESS
from .st_lpips import ST_LPIPS
from .temporal import E_WARP, E_WARP_ORIGINAL, T_OF

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        PSNR,
        SSIM,
        L1,
        MSE,
        FEATURES,
        LPIPS,
        ST_LPIPS,
        E_WARP,
        T_OF,
        T_LPIPS,
        FLICKER,
        MASK_IMPRINT,
        RAGGEDNESS,
        JOD,
        CVVDP,
        E_WARP_ORIGINAL,
        PSNR_PUBLISHED,
        SSIM_PUBLISHED,
    )
}
"""All metrics by name, in the order of the tables."""

__all__ = ["ITEM_FRAMES", "METRICS", "Metric", "Reference", "Scope", "Settings"]
