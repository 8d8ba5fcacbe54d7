"""Updates docs/results.md from the results in docs/results.

python docs/results.py
"""

import re
from pathlib import Path

from deepfovea.evaluate import from_json
from deepfovea.evaluate.report import to_summary

PAGE = Path(__file__).with_suffix(".md")
FILES = Path(__file__).with_suffix("")
SETS = (
    "published",
    "best",
    "saccades",
    "renderer",
    "packages",
    "packages-best",
    "packages-saccades",
)
"""The results that `make results` measures, in the order of the page."""


def section(name):
    """The summary of one result, or a line that says that there is none."""
    file = FILES / f"{name}.json"
    if not file.exists():
        return "Not measured yet."
    result = from_json(file.read_text(encoding="utf-8"), str(file))
    link = f"Every clip, frame and definition: [{file.name}](results/{file.name})."
    return f"{to_summary(result)}\n\n{link}"


def render(text):
    """Return the page with new tables."""
    for name in SETS:
        between = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            between, lambda m, n=name: f"{m[1]}{section(n)}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(
                f"{PAGE}: expected the marks <!-- {name} --> and <!-- /{name} --> once"
            )
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
