"""The cards of the paper's checkpoints: no weights, no numbers of ours, and commands that can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import TASKS

ROOT = Path(__file__).parents[2]
# name -> (table, metric of the row "M33D")
CARDS = {
    "m33d-vitb-scannet": ("table_3", "miou"),
    "m33d-vitb-nyuv2-semseg": ("table_4", "miou"),
    "m33d-vitb-nyuv2-depth": ("table_5", "delta1"),
    "m33d-vitb-ucf101": ("table_1", "top1"),
    "m33d-vitb-orar": ("table_2", "map_100"),
}
TASK_OF = {f"run_{task}.py": task for task in TASKS} | {"run_pretrain.py": "pretraining"}


def test_there_is_a_card_for_each() -> None:
    assert {path.stem for path in (ROOT / "model_cards").glob("m33d-*.md")} == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_claims_nothing(name: str) -> None:
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    assert card.data.license == "cc-by-nc-4.0" and "model-index" not in card.data.to_dict()
    assert "**No weights are released.**" in card.text and "None of this package." in card.text
    table, metric = CARDS[name]
    paper = yaml.safe_load((ROOT / "m33d_hf/recipes/paper_results.yaml").read_text(encoding="utf-8"))["tables"]
    own = [row[metric] for row in paper[table]["rows"] if row["method"] == "M33D"]
    (printed,) = re.findall(r"prints \*\*([\d.]+)\*\*", card.text)
    assert float(printed) == max(own)


@pytest.mark.parametrize("name", CARDS)
def test_its_commands_resolve(name: str) -> None:
    text = (ROOT / "model_cards" / f"{name}.md").read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"(?ms)^```bash\n(.*?)^```", text)).replace("\\\n", " ").splitlines()
    trained = []
    for words in filter(None, (shlex.split(line, comments=True) for line in lines)):
        place = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
        task = TASK_OF.get(Path(words[place]).name)
        if words[place] == "scripts/extract_depth.py":
            continue  # makes the depth that the next line reads
        if task is None:
            assert words[place] == "scripts/publish.py" and words[place + 1] == trained[-1].output_dir
            assert words[place + 2] == f"ORG/{name}"
            continue
        args = resolve(words[place + 1 :], task).args
        if not args.eval_only:
            assert not trained or args.init_from == trained[-1].output_dir  # each goes on from the one before
            trained.append(args)
    assert trained[0].init_from in ("mae_pretrain_vit_base.pth", "MCG-NJU/videomae-base")
