"""`--help` names everything that can be set, says what it means, and imports nothing heavy."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.options import argument_sentences
from m33d_hf.data.sources import SOURCES, describe_options, source_options
from m33d_hf.data.sources.option_help import SHARED, meaning
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import FIELD_CLASSES, ModalitySpec, field_types
from m33d_hf.modeling.modalities_m33d import modality_types
from m33d_hf.training.recipe.help import help_text, model_help

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("[a-z]*.py"))
HEAVY = ("torch", "transformers", "numpy", "PIL", "pandas", "scipy", "av", "matplotlib", "datasets")

# Runs the help of every script in one fresh interpreter: what is imported by then, plain help imports.
_ALL_HELP = """
import contextlib, io, runpy, sys
sys.path.insert(0, {root!r})
for name in {scripts!r}:
    sys.argv = [name + ".py", "--help"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(f"{root}/scripts/{{name}}.py", run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, (name, stop.code)
    assert "--help" in said.getvalue() or "--output" in said.getvalue(), (name, said.getvalue()[:300])
    heavy = [module for module in {heavy!r} if module in sys.modules]
    assert not heavy, f"{{name}} --help imports {{heavy}}"
"""


def test_plain_help_of_no_script_imports_anything_heavy() -> None:
    heavy = tuple(name for name in HEAVY if name != "numpy")
    code = _ALL_HELP.format(root=str(ROOT), scripts=SCRIPTS, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


# Too slow to be paid for a text: torch's distributed tensors and its compiler, which models need and settings do not.
_MODEL_HELP = """
import sys
sys.path.insert(0, {root!r})
from m33d_hf.training.recipe.help import help_text
assert "--model.hidden_act" in help_text("pretraining", ["--help", "--model"])
assert "--data.options.every" in help_text("pretraining", ["--help", "--data.source", "folder"])
heavy = [name for name in ("torch.distributed.tensor", "torch._dynamo", "transformers.modeling_utils", "scipy",
                           "matplotlib", "datasets") if name in sys.modules]
assert not heavy, heavy
"""


def test_help_of_the_model_and_of_a_source_import_no_model() -> None:
    code = _MODEL_HELP.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _entries(lines: list[str]) -> dict[str, str]:
    """Key with its brackets -> what is said of it."""
    entries: dict[str, str] = {}
    key = ""
    for line in lines:
        if line.startswith("  --"):
            key = line.strip()
            entries[key] = ""
        elif line.startswith("      ") and key:
            entries[key] += " " + line.strip()
    return entries


@pytest.mark.parametrize("source", SOURCES)
def test_help_says_what_every_option_of_a_source_means(source: str) -> None:
    lines = describe_options(source)
    entries = _entries(lines)
    assert len(entries) == len(source_options(source))
    for key, said in entries.items():
        assert len(said.strip()) > 10, f"{source}: nothing is said of {key}"
    text = "\n".join(lines)
    assert not re.search(r"`|\bNone\b|as in the|see [a-z_]+\.[a-z]|PhaseSource|LabelRules", text)


def test_an_option_is_told_with_its_default_and_range() -> None:
    text = help_text("pretraining", ["--data.source", "folder", "--help"])
    assert "  --data.options.every (default 1; an integer)\n      keep every k-th frame" in text
    assert "At least 1 and at most 1000000000." in text
    assert "--data.options.every" not in help_text("pretraining")
    assert "--data.options.every" in help_text("pretraining", ["--help", "--recipe=scannet_stage1"])  # names scannet
    with pytest.raises(ConfigError, match="folder"):
        help_text("pretraining", ["--data.source", "foldr"])


def test_the_offset_of_labels_is_told_with_its_sign() -> None:
    number = re.search(r"such as (-?\d+) where they count from 1", meaning("label_offset", ""))
    assert number is not None
    rules = LabelRules(3, offset=int(number[1]))
    assert rules.apply(np.array([[1, 2, 3]], np.uint8), "f").tolist() == [[0, 1, 2]]


def test_references_between_docstrings_become_what_they_refer_to() -> None:
    assert meaning("every", "as in the `folder` source.") == SHARED["every"] + "."
    told = meaning("depth_unit", "as in the `folder` source, but the default is `m`.")
    assert told == f"{SHARED['depth_unit']}. the default is m."
    assert meaning("backend", "reader of the videos, see `a.b.probe`.") == "reader of the videos."
    assert meaning("of_my_own", "") == ""


def test_help_lists_the_fields_of_the_model_and_of_its_modalities() -> None:
    entries = _entries(model_help())
    told = {key.split(" ")[0].removeprefix("--") for key in entries}
    expected = {f"model.{name}" for name in field_types() if name != "modalities"} | {"model.num_labels"}
    expected |= {f"modalities.NAME.{name}" for name in modality_types() if name != "name"}
    assert told == expected
    assert [key for key, said in entries.items() if len(said.strip()) < 8] == []
    assert not re.search(r"`|\bNone\b", "\n".join(model_help()))
    text = help_text("depth_estimation", ["--help", "--model"])
    assert "--model.hidden_size (default 768; an integer)" in text and "At least 1 and at most 65536." in text
    assert "--model.hidden_size" not in help_text("depth_estimation", ["--help"])


def test_the_docstrings_have_no_entries_of_fields_that_are_not_there() -> None:
    for cls in FIELD_CLASSES:
        own = set(inspect.get_annotations(cls))
        assert set(argument_sentences(cls.__doc__)) <= own and own, cls
    assert set(argument_sentences(ModalitySpec.__doc__)) == set(modality_types())


def test_plain_help_says_the_choices_and_how_to_see_more() -> None:
    text = help_text("pretraining")
    assert "--optim.schedule (default cosine; one of cosine, constant)" in text
    assert "--help --data.source NAME" in text and "--help --model" in text
    files = re.findall(r"\b(?:docs|scripts|m33d_hf)/[\w/]+(?:\.\w+)?", text)
    assert files and all((ROOT / name).exists() for name in files), files
