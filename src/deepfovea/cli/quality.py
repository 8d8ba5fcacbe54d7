"""The verb that measures quality: evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from ..config import Density
from .words import DENSITY_HELP, Verbs, density, names, positive, seed, write_text


def add(verbs: Verbs) -> None:
    """Add these verbs to the command line."""
    verb = verbs.add_parser("evaluate", help="score models and baselines on a folder of videos")
    verb.add_argument("root", type=Path, metavar="DIR")
    verb.add_argument("--models", default="stream", metavar="NAME|PATH,…")
    verb.add_argument("--baselines", default="fill,accumulate,bicubic-all", metavar="NAME,…")
    verb.add_argument("--frames", type=positive, default=24, metavar="N", help="of every clip")
    verb.add_argument("--seed", type=seed, default=0)
    verb.add_argument("--density", type=density, default=Density(), help=DENSITY_HELP)
    verb.add_argument("--blue-noise", action="store_true", help="even draws")
    verb.add_argument("--json", type=Path, metavar="FILE")
    verb.add_argument("--markdown", type=Path, metavar="FILE")
    verb.set_defaults(handler=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from ..evaluate import evaluate, to_json, to_markdown

    rows = evaluate(
        options.root,
        names(options.models),
        names(options.baselines),
        frames=options.frames,
        seed=options.seed,
        density=options.density,
        blue_noise=options.blue_noise,
        on_row=lambda row: print(f"{row.clip}  {row.method}  {row.psnr:.2f} dB", file=sys.stderr),
    )
    print(to_markdown(rows))
    protocol = {
        "data": options.root.name,
        "frames": options.frames,
        "seed": options.seed,
        "density": dataclasses.asdict(options.density),
        "blue_noise": options.blue_noise,
        "gaze": "centre",
        "metric": "PSNR, RGB, peak 1.0, clamped, mean over frames, no padding",
        "reduction": "bilinear /4, no antialiasing",
    }
    for path, text in (
        (options.json, to_json(rows, protocol)),
        (options.markdown, to_markdown(rows)),
    ):
        if path:
            write_text(path, text + "\n")
