"""Puts the result of examples/path_tracing into docs/path-tracing.md, its picture into README.md.

python docs/path_tracing.py
"""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent
RESULT, PICTURE = DOCS / "path-tracing.json", DOCS / "path-tracing.webp"
PAGE, README = DOCS / "path-tracing.md", DOCS.parent / "README.md"


def table(report):
    """The rows of result.json as Markdown."""
    lines = ["| | paths | rays per frame | s per frame | PSNR, dB | JOD |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for row in report["rows"]:
        jod = "not measured" if row["jod"] is None else f"{row['jod']:.2f}"
        cells = [row["method"], str(row["paths"]), f"{row['rays']:,.0f}", f"{row['seconds']:.2f}"]
        cells += [f"{row['psnr_db']:.2f}", jod]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def texts():
    """The texts between the marks of the page and of the README."""
    if not (RESULT.exists() and PICTURE.exists()):
        return "Not measured yet.\n", ""
    report = json.loads(RESULT.read_text(encoding="utf-8"))
    settings = report["settings"]
    about = (
        f"{settings['frames']} frames of {settings['height']}x{settings['width']} low-resolution "
        f"pixels, {report['share']:.1%} of them sampled; reference of "
        f"{settings['reference_paths']} paths. The seconds hold tracing and reconstruction, on the "
        "CPU."
    )
    names = "Left: the samples that were traced. Middle: `stream`. Right: all pixels traced"
    page = f"{about}\n\n{table(report)}\n\n![{names}]({PICTURE.name})\n"
    readme = (
        f"![{names}](docs/{PICTURE.name})\n\nA path tracer that traces {report['share'] / 16:.1%} "
        "of the pixels, and `stream`: [Path tracing](docs/path-tracing.md).\n"
    )
    return page, readme


def render(page, readme):
    """Both documents with the measured figures between their marks."""
    drawn = []
    for text, content in zip((page, readme), texts(), strict=True):
        between = r"(<!-- path-tracing -->\n).*?(<!-- /path-tracing -->)"
        text, count = re.subn(
            between, lambda m, c=content: f"{m[1]}{c}{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit("expected the marks <!-- path-tracing --> once in each file")
        drawn.append(text)
    return drawn


if __name__ == "__main__":
    files = (PAGE, README)
    for file, text in zip(
        files, render(*(file.read_text(encoding="utf-8") for file in files)), strict=True
    ):
        file.write_text(text, encoding="utf-8")
