"""The tables of docs/speed.md show the figures of the JSON files beside the benchmarks."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_shows_what_was_measured():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    render = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))["render"]
    assert render(page) == page
    assert render(page.replace("ours, crf 17", "theirs")) == page  # and it would be noticed
