"""One version in all places, and a changelog that says whether it has been released."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import yaml

import m33d_hf

ROOT = Path(__file__).parents[1]


def test_the_citation_has_the_version_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert str(cited) == m33d_hf.__version__ == metadata.version("m33d-hf")


def test_the_changelog_begins_with_what_comes_next_or_was_just_released() -> None:
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    coming = re.fullmatch(r"\[Unreleased\] \(will be (\d+\.\d+\.\d+)\)", headings[0])
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]]
    assert coming is not None and all(released), headings
    numbers = [tuple(map(int, found[1].split("."))) for found in (coming, *released) if found is not None]
    assert numbers == sorted(set(numbers), reverse=True)
    assert m33d_hf.__version__ in {coming[1], *(found[1] for found in released[:1] if found is not None)}
