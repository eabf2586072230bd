"""docs/method.md names switches, code and rows that exist, and nothing refers to a document that is not here."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from m33d_hf.data.sources.actions.ucf101 import Ucf101Source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.training.recipe.arguments import RunArguments, fields_of

ROOT = Path(__file__).parents[1]
METHOD = ROOT / "docs" / "method.md"
CODE = ("modeling", "m33d_hf", "scripts")
# A file of this name would have to lie in the repository; a heading "REFERENCE ROW" would not.
ABSENT = re.compile(
    r"REFERENCE(?! ROW)(\.md)?[ ,):]|§|\bFINDINGS\b|\b(DESIGN|HOUSE|USERS|STYLE|HF_CONVENTIONS|PAPER|REFERENCE)\.md\b"
)


@cache
def tracked() -> tuple[Path, ...]:
    """Text files of the repository; links of folders are listed once, as git does."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = [name for name in listed.split("\0") if name] or _walked()
    kinds = {".py", ".md", ".yaml", ".yml", ".cfg", ".toml", ".cff", ".txt", ".j2", ""}
    return tuple(ROOT / name for name in names if Path(name).suffix in kinds and (ROOT / name).is_file())


def _walked() -> list[str]:
    folders = ("modeling", "m33d_hf", "scripts", "docs", "tests", "benchmarks")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [str(path.relative_to(ROOT)) for path in [*found, *ROOT.glob("*.md")] if "__pycache__" not in path.parts]


def rows() -> list[list[str]]:
    """Cells of every row of the tables that name a switch."""
    lines = METHOD.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith('| <a id="')]


def switches() -> set[str]:
    """Keys in the column of switches, and those that the last section names."""
    text = METHOD.read_text(encoding="utf-8").partition("## Beyond the paper")[2]
    named = re.findall(r"`((?:model|modalities|optim|data)\.[\w.]+)`", text)
    return {key for row in rows() for key in re.findall(r"`([^`]+)`", row[4])} | set(named)


@cache
def recipe_keys() -> frozenset[str]:
    """Every key of a recipe, with those of the model, of its modalities and of the sources."""
    found = {key for key, _, _ in fields_of(RunArguments())}
    found |= {f"model.{field.name}" for field in dataclasses.fields(M33DConfig)}
    found |= {f"modalities.{name}.{f.name}" for name in ("rgb", "depth") for f in dataclasses.fields(ModalitySpec)}
    for source in (FolderSource, PhasesSource, Ucf101Source):
        found |= {f"data.options.{name}" for name in inspect.signature(source).parameters}
    return frozenset(found)


@cache
def symbols() -> frozenset[str]:
    """`module.name` of every function, method and class of the package."""
    found = set()
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in CODE:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found.add(f"{path.stem}.{node.name}")
    return frozenset(found)


def test_every_row_is_whole() -> None:
    assert len(rows()) >= 60
    for row in rows():
        assert len(row) == 6 and all(row), row
        anchor, name = re.fullmatch(r'<a id="([\w-]+)"></a>([\w-]+)', row[0]).groups()  # type: ignore[union-attr]
        assert anchor == name


def test_rows_have_names_of_their_own() -> None:
    names = re.findall(r'<a id="([\w-]+)">', METHOD.read_text(encoding="utf-8"))
    assert len(names) == len(set(names))


def test_every_switch_is_a_key_of_recipes() -> None:
    assert switches() - recipe_keys() == set()
    assert all(row[4] == "no switch" or "`" in row[4] for row in rows())


def test_the_code_of_every_row_exists() -> None:
    named = {name for row in rows() for name in re.findall(r"`([^`]+)`", row[5])}
    assert named - symbols() == set()


def test_defaults_are_those_of_the_configuration() -> None:
    """Values that the table states, read here a second time from the classes."""
    config = M33DConfig()
    assert (config.contrastive_temperature, config.contrastive_learnable_temperature) == (0.07, False)
    assert (config.contrastive_tokens, config.contrastive_negatives) == ("visible", "sample")
    assert (config.contrastive_normalize, config.contrastive_symmetric) == (True, False)
    assert config.contrastive_projection_dim == 0
    assert (config.matching_pool, config.matching_fusion, config.matching_negatives) == ("mean", "concat", "roll")
    assert (config.decoder_fusion, config.decoder_attention, config.encoder_sharing) == ("joint", "full", "separate")
    assert (config.depth_standardization, config.depth_standardization_scope) == ("trimmed", "clip")
    assert (config.loss_reduction, config.head_norm, config.joint_encoding) == ("batch", False, False)
    assert [spec.weight for spec in config.specs] == [0.1, 1.0]
    assert [(spec.loss, spec.target_norm) for spec in config.specs] == [("mse", "pooled"), ("l1", "none")]
    assert M33DConfig(num_frames=16, tubelet_size=2).use_cls_token is False and config.use_cls_token is True


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if ABSENT.search(line) and "u00a7" not in line
    ]
    assert found == []


def test_every_reference_to_a_row_finds_it() -> None:
    known = set(re.findall(r'<a id="([\w-]+)">', METHOD.read_text(encoding="utf-8")))
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in tracked()
        for name in re.findall(r"\bmethod\.md#([\w-]+)", path.read_text(encoding="utf-8", errors="ignore"))
    }
    assert named and {name for _, name in named} <= known, sorted(name for name in named if name[1] not in known)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
)
def test_links_of_the_documents_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
