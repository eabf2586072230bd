"""MkDocs hook: pages that lie elsewhere in the repository become pages of the site, and links between them are turned.

A page keeps one text: README.md is the first page, results/ and benchmarks/ are part of the manual where they lie.
Links in them are those of the repository (`../results/README.md`), so that they also work where the repository is read.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
# Path in the repository -> path in the site.
PAGES = {
    "README.md": "index.md",
    "WEIGHTS.md": "weight_licences.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "results/README.md": "results.md",
    "results/archive/README.md": "results/archive/README.md",
    "results/archive/rooms/tables.md": "results/archive/rooms/tables.md",
    "results/archive/rooms/answers.md": "results/archive/rooms/answers.md",
    "results/archive/longer/tables.md": "results/archive/longer/tables.md",
    "results/archive/longer/answers.md": "results/archive/longer/answers.md",
}
ATTACHED = {"LICENSE": "LICENSE.txt", "CITATION.cff": "CITATION.cff"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_FENCE = re.compile(r"(?ms)^(```.*?^```)")
_FORMULA = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>')


def on_config(config: Any) -> Any:
    """Leave out entries of the navigation whose page does not exist; tests/test_docs_site.py knows which may lack."""
    config.nav = _present(config.nav)
    return config


def _present(entries: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _present(target)})
        elif target in PAGES.values() or (ROOT / "docs" / target).is_file():
            kept.append(entry)
    return kept


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and every file of the repository that a page links to; more Markdown stays out of the menu."""
    for place, uri in {**PAGES, **ATTACHED}.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
    waiting = [
        *PAGES,
        *(f"docs/{file.src_uri}" for file in files.documentation_pages() if file.src_uri not in PAGES.values()),
    ]
    while waiting:
        place = waiting.pop()
        for target in _LINK.findall(_without_code((ROOT / place).read_text(encoding="utf-8"))):
            linked = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
            uri = site_uri(linked)
            if linked.startswith("../") or not (ROOT / linked).is_file() or files.get_file_from_path(uri) is not None:
                continue
            new = File.generated(config, uri, abs_src_path=str(ROOT / linked), inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(new)
            waiting += [linked] if linked.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of the repository into those of the site, outside code."""
    uri = page.file.src_uri
    place = next((name for name, known in PAGES.items() if known == uri), f"docs/{uri}")
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _turned(part, place, uri) for part in parts)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Formulas as MathML, which browsers draw themselves."""
    return _FORMULA.sub(lambda found: convert(found[1].replace("&amp;", "&")), html)


def site_uri(place: str) -> str:
    """Path in the site of a file of the repository, whether or not the site has it."""
    known = {**PAGES, **ATTACHED}
    return known[place] if place in known else place.removeprefix("docs/")


def _turned(text: str, place: str, uri: str) -> str:
    def turn(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[1]))
        return posixpath.relpath(site_uri(target), posixpath.dirname(uri) or ".")

    return _LINK.sub(turn, text)


def _without_code(markdown: str) -> str:
    return _FENCE.sub("", markdown)
