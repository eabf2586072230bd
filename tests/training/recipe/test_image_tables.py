"""Tables 3 to 8: the file of the paper's numbers cell by cell, and docs/recipes.md, which says how each row is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments

PAGE = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
MAE = "mae_pretrain_vit_base.pth"
BOTH, ALL = "RGB + Depth", "RGB + Depth + Segmentation"
SCANNET = "ImageNet+ScanNet"
# As printed, row by row: (method, reconstruction task, backbone, pre-training, number).
PRINTED: dict[int, list[tuple[Any, ...]]] = {
    3: [
        ("Scratch", None, "ViT-B", None, 32.6),
        ("MultiMAE", BOTH, "ViT-B", SCANNET, 64.0),
        ("Pri3D", None, "ViT-B", SCANNET, 59.3),
        ("Pri3D", None, "ResNet-50", SCANNET, 60.2),
        ("DINO", None, "ViT-B", SCANNET, 58.1),
        ("MAE", "RGB", "ViT-B", "ImageNet", 64.8),
        ("MAE", "RGB", "ViT-B", SCANNET, 64.5),
        ("Mask3D", "Depth", "ViT-B", SCANNET, 66.0),
        ("Mask3D", BOTH, "ViT-B", SCANNET, 65.5),
        ("M33D", BOTH, "ViT-B", SCANNET, 67.3),
        ("MultiMAE", ALL, "ViT-B", "ImageNet", 66.4),
    ],
    4: [
        ("MultiMAE", BOTH, "ViT-B", SCANNET, 49.1),
        ("MAE", "RGB", "ViT-B", "ImageNet", 46.9),
        ("MAE", "RGB", "ViT-B", SCANNET, 48.3),
        ("Mask3D", "Depth", "ViT-B", SCANNET, 50.5),
        ("M33D", BOTH, "ViT-B", SCANNET, 51.2),
        ("MultiMAE", ALL, "ViT-B", "ImageNet", 51.5),
    ],
    5: [
        ("MultiMAE", BOTH, "ViT-B", SCANNET, 85.3),
        ("MAE", "RGB", "ViT-B", "ImageNet", 85.1),
        ("Mask3D", "Depth", "ViT-B", SCANNET, 85.4),
        ("CroCo", BOTH, "ViT-B", "Habitat", 85.6),
        ("MultiMAE", ALL, "ViT-B", "ImageNet", 83.0),
        ("M33D", BOTH, "ViT-B", SCANNET, 86.7),
        ("MultiMAE", ALL, "ViT-B", "ImageNet", 86.4),
    ],
}
RATIOS = [
    (0.2, 0.2, 65.5), (0.2, 0.5, 65.4), (0.2, 0.8, 65.4), (0.5, 0.2, 66.0), (0.5, 0.5, 65.3), (0.8, 0.2, 66.1),
    (0.8, 0.8, 67.3),
]  # fmt: skip
ABLATIONS = {
    7: [("Train from Scratch", 32.6), ("Mask3D", 41.3), ("M33D", 42.5)],
    8: [("w/out contrastive loss", 65.5), ("w/out RGB task", 66.8), ("M33D", 67.3)],
}


def printed() -> dict[str, Any]:
    return recipes.parse_yaml((recipes.RECIPES / "paper_results.yaml").read_text(), "paper_results")["tables"]


def documented() -> dict[int, list[tuple[str, float, str]]]:
    """Table -> (row, number, start) in the order of the page."""
    found: dict[int, list[tuple[str, float, str]]] = {}
    for table, row, number, start in re.findall(r"^\| (\d) \| (.+?) \| ([\d.]+) \| (.+?) \|$", PAGE, flags=re.M):
        found.setdefault(int(table), []).append((row, float(number), start.strip("`")))
    return found


def pretrainings() -> dict[str, list[str]]:
    """Output folder -> words of the command."""
    text = "\n".join(re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if "run_pretrain.py" in line]
    return {words[words.index("--output_dir") + 1]: words[words.index("--recipe") :] for words in lines}


def run(start: str) -> RunArguments:
    return parse_arguments(pretrainings()[start], "pretraining")


def config(start: str) -> M33DConfig:
    made = M33DConfig(**run(start).model)
    made.check()
    return made


def test_tables_3_to_8_cell_by_cell() -> None:
    tables = printed()
    for number, rows in PRINTED.items():
        table = tables[f"table_{number}"]
        columns = ("method", "reconstruction", "backbone", "pretrain", table["metric"])
        assert [tuple(row[name] for name in columns) for row in table["rows"]] == rows
        assert {row["finetune_modality"] for row in table["rows"]} == {"RGB"}
    assert [(r["rgb_ratio"], r["depth_ratio"], r["miou"]) for r in tables["table_6"]["rows"]] == RATIOS
    for number, ablation in ABLATIONS.items():
        assert [(row["method"], row["miou"]) for row in tables[f"table_{number}"]["rows"]] == ablation


def test_the_page_has_every_row_with_its_number() -> None:
    rows = documented()
    for number, expected in PRINTED.items():
        assert [cell for _, cell, _ in rows[number]] == [row[-1] for row in expected]
        for (name, _, _), row in zip(rows[number], expected, strict=True):
            assert name.split(",")[0].rstrip("*") == row[0]
    assert [cell for _, cell, _ in rows[6]] == [row[-1] for row in RATIOS]
    for number, ablation in ABLATIONS.items():
        assert [(name, cell) for name, cell, _ in rows[number]] == ablation


def test_every_start_is_a_command_or_a_published_file() -> None:
    starts = {start for rows in documented().values() for _, _, start in rows}
    assert starts - {"nothing", "cited", MAE, "multimae.pth"} <= set(pretrainings())
    for words in pretrainings().values():
        origin = words[words.index("--init_from") + 1] if "--init_from" in words else MAE
        assert origin == MAE or origin in pretrainings()


@pytest.mark.parametrize("number", sorted(PRINTED))
def test_a_start_reconstructs_what_the_paper_prints(number: int) -> None:
    """The column "Reconstruction task" against the configuration, and "Pre-train" against the first weights."""
    names = {"rgb": "RGB", "norm_rgb": "RGB", "depth": "Depth"}
    for (_, _, start), (_, task, _, origin, _) in zip(documented()[number], PRINTED[number], strict=True):
        if start not in pretrainings():
            assert (start, origin) in ((MAE, "ImageNet"), ("multimae.pth", "ImageNet"), ("nothing", None)) or (
                start == "cited"
            )
            continue
        targets = dict.fromkeys(names[spec.name] for spec in config(start).target_specs)
        assert " + ".join(targets) == task
        args, first = run(start), start
        while args.init_from in pretrainings():
            first = str(args.init_from)
            args = run(first)
        assert args.init_from == MAE and origin == SCANNET and args.data.source == "scannet"


def test_mask_ratios_are_those_of_table_6() -> None:
    for (_, _, start), (rgb, depth, _) in zip(documented()[6], RATIOS, strict=True):
        made = config(start)
        assert (made.spec("rgb").mask_ratio, made.spec("depth").mask_ratio) == (rgb, depth)
        assert run(start).init_from == "outputs/stage1"


def test_without_imagenet_and_without_single_losses() -> None:
    assert [run(start).init_from for start in ("outputs/mask3d_scratch", "outputs/stage1_scratch")] == [None, None]
    assert run("outputs/m33d_scratch").init_from == "outputs/stage1_scratch"
    assert config("outputs/m33d_scratch").to_dict() == config("outputs/m33d").to_dict()
    # Without the contrastive loss: no stage 1, and the stage 2 of the method; that is Mask3D with both targets.
    assert run("outputs/rgbd_mae").init_from == MAE
    assert config("outputs/rgbd_mae").to_dict() == config("outputs/m33d").to_dict()
    words = ["--recipe", "scannet_stage2", "--method", "mask3d", "--modalities.rgb.role", "both"]
    both = parse_arguments([*words, "--modalities.rgb.weight", "0.1"], "pretraining")
    assert M33DConfig(**both.model).to_dict() == config("outputs/rgbd_mae").to_dict()
    # Without the RGB task: stage 1, and the stage 2 of the method with depth as the only target.
    assert run("outputs/m33d_depth").init_from == "outputs/stage1"
    words = ["--recipe", "scannet_stage2", "--modalities.rgb.role", "input", "--modalities.rgb.weight", "0"]
    alone = M33DConfig(**parse_arguments(words, "pretraining").model)
    assert alone.to_dict() == config("outputs/m33d_depth").to_dict()
