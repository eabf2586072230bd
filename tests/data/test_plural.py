"""data/plural: numbers of things in sentences, against a dictionary; no sentence leaves them open."""

import ast
import re
from pathlib import Path

import pytest

from m33d_hf.data.plural import agree, plural


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [
        (1, "file", "1 file"),
        (0, "file", "0 files"),
        (2, "micro-batch", "2 micro-batches"),
        (3, "process", "3 processes"),
        (2, "box", "2 boxes"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
        (2, "label map", "2 label maps"),
        (1, "training frame", "1 training frame"),
    ],
)
def test_the_noun_follows_the_number(number: int, noun: str, told: str):
    assert plural(number, noun) == told


def test_a_verb_agrees_with_the_number():
    assert [agree(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


def test_no_sentence_leaves_the_plural_open(repository: Path):
    """No "file(s)" in any text for people: words are followed by the ending in brackets in none."""
    open_endings = re.compile(r"[a-z]\((s|es|ies)\)[ ,.;:]")
    files = [*(repository / "m33d_hf").rglob("*.py"), *(repository / "modeling").rglob("*.py")]
    found = {
        f"{path.relative_to(repository)}: {line.strip()}"
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if '"' in line and open_endings.search(line.partition('"')[2])
    }
    assert len(files) > 300 and not found


# Of one thing these cannot speak, or they speak of none.
_NEVER_ONE = {
    ("palettes.py", "classes"), ("subsets.py", "labels"), ("subsets.py", "rows"), ("ucf101_lists.py", "classes"),
    ("base.py", "phases"), ("base.py", "phase labels"), ("reconstruction.py", "depth maps"),
    ("classification_metrics.py", "keys"), ("classes.py", "classes"),
}  # fmt: skip
_THINGS = re.compile(
    r" ((?:[a-z]+ )?(?:files|samples|frames|clips|videos|maps|pictures|sequences|scenes|classes|steps|weights|inputs|"
    r"labels|names|recordings|annotations|columns|keys|items|lines|rows|folders|phases|cameras|tensors))\b"
)
_OF_SEVERAL = re.compile(r"\b(of|the|than|most|least|all|none|its|these|every|first) $")


def test_no_sentence_counts_things_without_looking_at_their_number(repository: Path):
    """No "1 files": a number of things, `len(...)`, and a noun beside it go through `plural`."""
    found = set()
    for path in (repository / "m33d_hf").rglob("*.py"):
        if "modeling" in path.parts:  # which travels to the Hub without the rest of the package
            continue
        for text in (each for each in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(each, ast.JoinedStr)):
            for before, value, after in zip([None, *text.values], text.values, text.values[1:]):
                counts = isinstance(value, ast.FormattedValue) and isinstance(value.value, ast.Call)
                if not counts or getattr(value.value.func, "id", "") != "len":
                    continue
                noun = _THINGS.match(after.value) if isinstance(after, ast.Constant) else None
                several = isinstance(before, ast.Constant) and _OF_SEVERAL.search(before.value)
                if noun and not several:
                    found.add((path.name, noun[1]))
    assert found == _NEVER_ONE
