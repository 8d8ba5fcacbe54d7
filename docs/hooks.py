"""Combines the pages in docs/ with README, CONTRIBUTING and benchmarks into one site.

MkDocs calls these functions. A page keeps the links that work in the repository; here they are
translated to the addresses of the site, where docs/x.md is x.md and README.md is index.md.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[1]
OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
OTHERS = ["Dockerfile"]
OTHERS += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.png")]


def in_site(path):
    """The path in the site of a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_files(files, config):
    """Add the files from outside docs/."""
    for path in OUTSIDE + OTHERS:
        source = str(ROOT / path)
        level = InclusionLevel.INCLUDED
        files.append(File.generated(config, in_site(path), abs_src_path=source, inclusion=level))
    return files


def on_page_markdown(markdown, page, config, files):
    """Translate the links of a page."""
    place = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    here = posixpath.dirname(in_site(place))

    def translate(match):
        before, link, after = match.groups()
        if re.match(r"[a-z]+:|#|/", link):
            return match[0]
        path, hash_sign, anchor = link.partition("#")
        target = in_site(posixpath.normpath(posixpath.join(posixpath.dirname(place), path)))
        return f"{before}{posixpath.relpath(target, here or '.')}{hash_sign}{anchor}{after}"

    parts = re.split(r"(^ *```.*?^ *```|`[^`\n]*`)", markdown, flags=re.DOTALL | re.MULTILINE)
    for number in range(0, len(parts), 2):  # code is not changed
        parts[number] = re.sub(r"(\]\()([^)\s]+)(\))", translate, parts[number])
        parts[number] = re.sub(r'(src=")([^"]+)(")', translate, parts[number])
        parts[number] = re.sub(r"(^\[[^\]]+\]: *)(\S+)()", translate, parts[number], flags=re.M)
    return "".join(parts)


def on_page_content(html, page, config, files):
    """Drop the roles of the docstrings (:func: and so on), which only Sphinx knows."""
    return re.sub(r":(func|class|meth|data|mod|attr):(?=<code>)", "", html)
