"""Draws renderer.svg, the picture of renderer.md: python docs/renderer.py"""

from pathlib import Path

CELL = 24
"""Units of the drawing per output pixel; a low-resolution pixel is 4 × 4 of them."""
SIZE = 4 * CELL
GRAY, TEAL, RED, ORANGE = "#8a8f98", "#0f8b8d", "#c8553d", "#e09f3e"


def text(x, y, words, color="#555", anchor="start"):
    return f'<text x="{x}" y="{y}" fill="{color}" text-anchor="{anchor}">{words}</text>'


def circle(x, y, radius, color, fill=None):
    fill = color if fill is None else fill
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}" stroke="{color}"/>'


def grid(left, top):
    """Three by two low-resolution pixels and their output pixels."""
    lines = []
    for step in range(0, 13):
        width = 1.6 if step % 4 == 0 else 0.4
        x = left + step * CELL
        lines.append(f'<path d="M{x} {top}v{2 * SIZE}" stroke="{GRAY}" stroke-width="{width}"/>')
    for step in range(0, 9):
        width = 1.6 if step % 4 == 0 else 0.4
        y = top + step * CELL
        lines.append(f'<path d="M{left} {y}h{3 * SIZE}" stroke="{GRAY}" stroke-width="{width}"/>')
    return lines


def arrow(x0, y0, x1, y1, color):
    return (
        f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{color}" stroke-width="2.5" '
        f'marker-end="url(#{"teal" if color == TEAL else "red"})"/>'
    )


def marker(name, color):
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>'
    )


def picture():
    left, top = 50, 60
    parts = [*grid(left, top)]
    for row in range(2):
        for column in range(3):
            x, y = left + (column + 0.5) * SIZE, top + (row + 0.5) * SIZE
            parts.append(circle(x, y, 4, GRAY, "white"))
            parts.append(circle(x + 0.25 * SIZE, y - 0.25 * SIZE, 4, TEAL))
    x, y = left + SIZE / 2, top + SIZE / 2
    parts.append(arrow(x, y, x + 0.25 * SIZE - 4, y - 0.25 * SIZE + 4, TEAL))
    parts.append(text(x - 10, y + 20, "(0, 0)", anchor="middle"))
    parts.append(text(x + SIZE, y + 20, "(1, 0)", anchor="middle"))
    parts.append(text(x, y + SIZE + 20, "(0, 1)", anchor="middle"))
    parts.append(text(left, 30, "Sampling grid of one frame: jitter (0.25, -0.25)", "#222"))
    parts.append(circle(left + 8, 282, 4, GRAY, "white"))
    parts.append(text(left + 20, 286, "centre of a low-resolution pixel"))
    parts.append(circle(left + 8, 302, 4, TEAL))
    parts.append(text(left + 20, 306, "where it is sampled: centre + jitter"))

    left = 420
    parts += grid(left, top)
    hidden = (left + 4.0 * CELL, top + 2 * CELL, 3 * CELL, 4 * CELL)
    now = (left + 7.0 * CELL, top + 2 * CELL, 4 * CELL, 4 * CELL)
    before = (left + 4.0 * CELL, top + 2 * CELL, 4 * CELL, 4 * CELL)
    for (x, y, w, h), look in (
        (hidden, f'fill="{ORANGE}" fill-opacity="0.55"'),
        (before, f'fill="none" stroke="{RED}" stroke-width="1.5" stroke-dasharray="5 4"'),
        (now, f'fill="{RED}" fill-opacity="0.45" stroke="{RED}" stroke-width="1.5"'),
    ):
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" {look}/>')
    x, y = left + 9 * CELL, top + SIZE
    parts.append(circle(x, y, 4, RED))
    parts.append(arrow(x, y, x - 3 * CELL, y, RED))
    parts.append(text(left, 30, "Motion (-0.75, 0): from now to one frame ago", "#222"))
    parts.append(
        f'<rect x="{left + 2}" y="276" width="12" height="12" fill="{RED}" fill-opacity="0.45"/>'
    )
    parts.append(text(left + 20, 286, "the object now; dashed: one frame ago"))
    parts.append(
        f'<rect x="{left + 2}" y="296" width="12" height="12" fill="{ORANGE}" fill-opacity="0.55"/>'
    )
    parts.append(text(left + 20, 306, "disoccluded: was hidden one frame ago"))
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 320" '
        'font-family="sans-serif" font-size="14">\n'
        f"<defs>{marker('teal', TEAL)}{marker('red', RED)}</defs>\n"
        '<rect width="760" height="320" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture(), encoding="utf-8")
