"""Claims of docs/published.md: the code and the tests that it names are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
ROWS = PAGE.partition("sentence by sentence")[2]


def test_every_test_that_is_named_exists():
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", ROWS)
    assert len(named) > 25
    for file, function in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{file}::{function}"


def test_every_file_that_is_named_exists():
    names = re.findall(r"`(\w+(?:/\w+)*(?:\.py|/))`", ROWS)
    assert len(names) > 12
    for name in names:
        assert any((base / name).exists() for base in (ROOT, ROOT / "src" / "deepfovea")), name


def test_every_row_has_four_cells():
    rows = [line for line in ROWS.splitlines() if line.startswith("| ")]
    assert len(rows) > 28
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_the_four_numbers_of_paper_released_are_those_of_the_preset():
    import dataclasses

    from deepfovea.generators.unet.net import PAPER, PAPER_RELEASED

    fields = re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|$", PAGE, re.MULTILINE)
    paper, released = map(dataclasses.asdict, (PAPER, PAPER_RELEASED))
    assert set(fields) == {name for name in paper if paper[name] != released[name]}
