"""Makes docs/architecture.svg: the path of the data through the package.

python docs/architecture.py [--output docs/architecture.svg]
"""

import argparse
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1100, 500
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1d2b33; text-anchor: middle }
.name { font-weight: 600; font-size: 14px }
.module, .shape { font: 12px ui-monospace, Menlo, Consolas, monospace }
.module { fill: #00695c }
.shape { fill: #50626c }
.box { fill: #ffffff; stroke: #8fa3ad; stroke-width: 1.2 }
.net { fill: #e0f2f1; stroke: #00897b; stroke-width: 1.8 }
.loop { fill: #f0f7f7; stroke: #80b8b3; stroke-dasharray: 5 4 }
.side { fill: #f4f6f7; stroke: #b6c3ca; stroke-dasharray: 4 3 }
.arrow { stroke: #50626c; stroke-width: 1.6; fill: none; marker-end: url(#head) }
.state { stroke: #00897b; stroke-width: 1.8; fill: none; marker-end: url(#green) }
.stateword { fill: #00695c; font-weight: 600 }
"""
# x, y, width, height, class, name, module
BOXES = [
    (438, 62, 448, 238, "loop", "", ""),
    (20, 108, 112, 62, "box", "video file", "video/"),
    (236, 108, 124, 62, "box", "reduce by 4", "resample"),
    (236, 214, 124, 62, "box", "gaze track", "gaze"),
    (458, 108, 112, 62, "box", "sampling", "fovea"),
    (458, 214, 112, 62, "box", "density", "fovea"),
    (734, 108, 132, 62, "net", "generator", "generators/"),
    (970, 108, 112, 62, "box", "video file", "video/"),
    (20, 398, 250, 78, "side", "training", "losses/  training/"),
    (290, 398, 250, 78, "side", "evaluation", "metrics/  evaluate/"),
    (560, 398, 250, 78, "side", "engines and export", "runtime/"),
    (830, 398, 252, 78, "side", "browser", "viewer/"),
]
ARROWS = [
    "M132 139 H230",
    "M360 139 H452",
    "M360 245 H452",
    "M514 214 V176",
    "M570 130 H728",
    "M570 148 H728",
    "M866 139 H964",
]
# x, y, class, text
WORDS = [
    (181, 130, "shape", "[B,T,3,H,W]"),
    (397, 128, "shape", "[…,h,w]"),
    (398, 236, "shape", "x, y"),
    (649, 122, "shape", "samples [B,T,3,h,w]"),
    (649, 166, "shape", "mask [B,T,1,h,w]"),
    (927, 130, "shape", "[B,T,3,H,W]"),
    (800, 222, "stateword", "state: a value"),
    (730, 292, "module", "reconstructor: the loop, frame by frame"),
    (WIDTH / 2, 372, "", "What uses the path. The path never imports it."),
    (145, 462, "", "gradients of the frames"),
    (415, 462, "", "numbers about the frames"),
    (685, 462, "", "the generator, compiled"),
    (956, 462, "", "your pointer is the gaze"),
    (WIDTH / 2, 32, "name", "Data flows one way"),
]


def picture():
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Video and gaze become samples and mask; the generator makes frames of them</title>",
        f"<style>{STYLE}</style><defs>",
    ]
    for name, colour in (("head", "#50626c"), ("green", "#00897b")):
        parts.append(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto" markerUnits="userSpaceOnUse">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        )
    parts.append(f'</defs><rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fbfcfc"/>')
    for x, y, width, height, kind, name, module in BOXES:
        middle, top = x + width / 2, y + (26 if kind != "side" else 24)
        parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
            f'<text class="name" x="{middle}" y="{top}">{escape(name)}</text>'
            f'<text class="module" x="{middle}" y="{top + 20}">{escape(module)}</text>'
        )
    parts += [f'<path class="arrow" d="{path}"/>' for path in ARROWS]
    parts.append('<path class="state" d="M836 170 V202 H764 V176"/>')
    parts += [
        f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>' for x, y, kind, text in WORDS
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".svg"))
    parser.parse_args().output.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
