"""Claims about the documentation: its links lead somewhere, its commands exist, its tables are
readable, and it builds."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

import deepfovea
from deepfovea.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LONGEST_CELL = 300
"""Characters; a longer text belongs into a section."""


def prose(text):
    """A text without its code."""
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def links(text):
    """The targets of links and pictures of a page: inline, by reference and in HTML."""
    text = prose(text)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    return found + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"id=\"([^\"]+)\"", text)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.append(f"{slug}-{count}" if count else slug)
    return found


def dead(page, text):
    """The targets of a page's links that do not exist."""
    lost = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if (target != page and not (target.exists() and ROOT in target.parents)) or (
            anchor
            and anchor
            not in anchors(text if target == page else target.read_text(encoding="utf-8"))
        ):
            lost.append(link)
    return lost


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name):
    assert dead(ROOT / name, (ROOT / name).read_text(encoding="utf-8")) == []


def test_a_dead_link_is_found():
    page = ROOT / "docs" / "page.md"
    text = "# A *title*, twice\n[a](#a-title-twice) [b](#b) [c](no.md) ![d](../README.md#x)\n"
    text += '[e]: ../no.md\n<img src="no.png"> `[code](no.md)` [f](https://example.org)\n'
    assert dead(page, text) == ["#b", "no.md", "../README.md#x", "../no.md", "no.png"]


@pytest.mark.parametrize("name", NAMES)
def test_no_table_has_a_cell_that_nobody_reads(name):
    text = prose((ROOT / name).read_text(encoding="utf-8"))
    cells = [
        cell.strip()
        for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
        for cell in line.split("|")
    ]
    assert [cell for cell in cells if len(cell) > LONGEST_CELL] == []


def shown_commands():
    """The deepfovea commands in the shell blocks of all pages except those about the past.

    And those of docs/extending.md, whose recipes tests/test_extending.py runs.
    """
    for name in NAMES:
        if name.startswith("docs/research/") or name == "docs/extending.md":
            continue
        for block in re.findall(
            r"^ *```sh\n(.*?)^ *```", (ROOT / name).read_text(encoding="utf-8"), re.S | re.M
        ):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["deepfovea"]:
                    yield pytest.param(words[1:], id=f"{name}: {' '.join(words[1:])[:60]}")


@pytest.mark.parametrize("words", list(shown_commands()))
def test_every_command_that_is_shown_can_be_typed(words):
    try:
        assert _parser().parse_args(words).subcommand == words[0]
    except SystemExit as end:  # options such as --list-metrics print and end
        assert end.code == 0


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: deepfovea\.(\w+)$", text, re.MULTILINE)
    public = set(deepfovea.__all__) - {"__version__"}
    assert sorted(shown) == sorted(public), "docs/reference.md needs a line ::: deepfovea.NAME"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in set(NAMES) - {"MODEL_CARD.md"}:  # which only names their folder
        shown = "index.md" if name == "README.md" else name.removeprefix("docs/")
        found = re.search(rf"\b{re.escape(shown)}$", menu, re.MULTILINE)
        assert found, f"{name}: add it to nav in mkdocs.yml"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed (extra docs)")
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra docs)")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    for page in ("index.html", "CONTRIBUTING/index.html", "reference/index.html"):
        assert (tmp_path / "site" / page).is_file()
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="deepfovea.Reconstructor"' in reference
    site = tmp_path / "site"
    for page in site.rglob("*.html"):  # MkDocs lets links to unknown files pass
        for link in re.findall(r"(?:href|src)=\"([^\"#?]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|/", link):
                assert (page.parent / unquote(link)).exists(), f"{page.relative_to(site)}: {link}"
