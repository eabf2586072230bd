"""Links between the Markdown files lead to files and headings that exist, on GitHub and in the manual alike.

The manual's own build checks the same of its pages (``test_docs_site.py``), but needs an extra: this one is quick.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    line
    for line in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if (ROOT / line).is_file()
)


def prose(path: Path) -> str:
    """The text without fenced code: a ``#`` there is a comment, and a bracket no link."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """What a heading is called in a link on GitHub, and the anchors that are written out."""
    text = prose(path)
    headings = [re.sub(r"\]\([^)]*\)|[`*]", "", line) for line in re.findall(r"(?m)^#{1,6} +(.*?) *#*$", text)]
    names = {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return names | set(re.findall(r'<a id="([^"]+)"', text))


def test_a_heading_is_called_as_github_calls_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Own data\n\n```\n# no heading\n```\n## Read: `--plan a_b`, [then](x.md) on\n<a id='no'></a>\n")
    assert anchors(page) == {"own-data", "read---plan-a_b-then-on"}


@pytest.mark.parametrize("name", FILES)
def test_relative_links_lead_somewhere(name: str) -> None:
    page, wrong = ROOT / name, []
    for link in re.findall(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, fragment = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif fragment and target.suffix == ".md" and fragment not in anchors(target):
            wrong.append(f"{link}: no such heading")
        elif "--" in fragment:
            wrong.append(f"{link}: GitHub and the manual call this heading differently: link to the page alone")
    assert wrong == []


def test_the_files_are_found() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone of the repository")
    assert {"README.md", "docs/rgbd.md", "results/README.md", "benchmarks/README.md"} <= set(FILES)
