"""The manual as a site: its navigation holds every page, and the built pages lead nowhere wrong and fetch nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# Entries that stand in the navigation before their page is written.
MAY_LACK = {"publishing.md", "demo.md"}


def settings() -> dict[str, object]:
    return dict(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8")))


def targets(entries: object) -> list[str]:
    """Pages of a navigation, in its order."""
    if isinstance(entries, str):
        return [entries]
    if isinstance(entries, list):
        return [page for entry in entries for page in targets(entry)]
    assert isinstance(entries, dict)
    return [page for entry in entries.values() for page in targets(entry)]


def brought_in() -> dict[str, str]:
    """Pages that lie elsewhere in the repository, read from the text of the hook: importing it needs MkDocs."""
    text = (ROOT / "docs" / "_site" / "repository_pages.py").read_text(encoding="utf-8")
    table = re.search(r"(?s)^PAGES = \{(.*?)^\}", text, flags=re.M)
    assert table is not None
    return dict(re.findall(r'"(.*?)": "(.*?)"', table[1]))


def test_the_navigation_holds_every_page_once() -> None:
    named = targets(settings()["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) - MAY_LACK == pages - MAY_LACK | set(brought_in().values())
    assert pages & MAY_LACK <= set(named)


def test_pages_that_are_brought_in_exist() -> None:
    assert len(brought_in()) >= 10 and [place for place in brought_in() if not (ROOT / place).is_file()] == []


def test_every_named_object_of_the_reference_exists() -> None:
    import importlib

    found = [
        name
        for path in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"(?m)^::: (\S+)$", path.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 20
    for name in found:
        module, _, last = name.rpartition(".")
        if last.islower() and "m33d" in last:
            importlib.import_module(name)
        else:
            assert getattr(importlib.import_module(module), last).__doc__, name


def test_public_names_are_in_the_reference() -> None:
    import m33d_hf

    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    assert [name for name in m33d_hf.__all__ if name != "__version__" and f".{name}\n" not in text + "\n"] == [
        "M33DError"  # with its whole tree, by the module
    ]
    assert "::: m33d_hf.modeling.errors_m33d" in text


class _Page(HTMLParser):
    """Links, anchors, and what a browser would fetch without being asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in {"img", "script", "iframe", "source"} and "src" in given:
            self.fetched.append(given["src"])
        elif tag == "link" and given.get("rel", "") in {"stylesheet", "icon", "preload"}:
            self.fetched.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Page]:
    """Every built page by its path, after a strict build: a warning is an error there."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = {
        path.relative_to(folder).as_posix(): _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")
    }
    for path in folder.rglob("*"):
        pages.setdefault(path.relative_to(folder).as_posix(), _Page(""))
    return pages


@pytest.mark.extras
def test_links_and_pictures_of_the_built_pages_exist(site: dict[str, _Page]) -> None:
    assert len([name for name in site if name.endswith(".html")]) >= 35
    wrong = []
    for name, page in site.items():
        if name == "404.html":
            continue  # its links are absolute, for any place it is shown at
        for link in (*page.links, *page.fetched):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = os.path.normpath(Path(name).parent / unquote(parts.path)) if parts.path else name
            target = "index.html" if target == "." else target
            if target not in site or (parts.fragment and unquote(parts.fragment) not in site[target].anchors):
                wrong.append((name, link))
    assert wrong == []


@pytest.mark.extras
def test_the_pages_fetch_nothing_from_elsewhere(site: dict[str, _Page]) -> None:
    foreign = {(name, place) for name, page in site.items() for place in page.fetched if urlsplit(place).netloc}
    assert foreign == set()


@pytest.mark.extras
def test_links_outside_are_https(site: dict[str, _Page]) -> None:
    outside = sorted({link for page in site.values() for link in page.links if urlsplit(link).scheme})
    print("\n".join(outside))  # listed, not fetched
    assert outside and [link for link in outside if not link.startswith(("https://", "mailto:"))] == []
