"""Adds the head of normals_head.py to the table of heads as if it were part of the package; prints what follows.

Usage: head_in_the_table.py FOLDER. The last line is JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from m33d_hf.modeling import auto_m33d, task_heads_m33d

NORMALS = task_heads_m33d.TaskHead(
    task="toy_normals",
    model="normals_head.ForNormals",
    auto_class="AutoModelForImageToImage",
    parts={"toy_head": "the toy head"},
    weights=(rf"^toy_head{task_heads_m33d.PAIR}$",),
    fields=("segmentation_head_width",),  # it reads none; this one shows that the table is asked
    output=task_heads_m33d.GraphOutput("normals", ("batch", "three", "height", "width"), "unit vectors"),
)


def enter() -> None:
    """Write the head into the table, in an interpreter where the auto map alone has read it."""
    task_heads_m33d.HEADS = (*task_heads_m33d.HEADS, NORMALS)
    importlib.reload(auto_m33d)
    sys.modules["m33d_hf.modeling.normals_head"] = importlib.import_module("helpers.normals_head")


def names() -> dict[str, Any]:
    """What the parts of the package that know heads make of it."""
    from helpers.flop_formulas import task_formula
    from helpers.normals_head import ForNormals
    from helpers.tiny import tiny_config
    from m33d_hf.evaluation.flops import count_task
    from m33d_hf.training.settling import architecture
    from m33d_hf.weights.export.source import CLASSES
    from m33d_hf.weights.folder import MODELS

    counted, formula = (count(tiny_config(), NORMALS.task) for count in (count_task, task_formula))
    return {
        "auto_map": auto_m33d.AUTO_MAP["AutoModelForImageToImage"],
        "converted": MODELS[NORMALS.task] is ForNormals,
        "exported": NORMALS.class_name in CLASSES,
        "dense": NORMALS.task in architecture.DENSE,
        "adopted": list(architecture._HEADS[NORMALS.task]),
        "flops": (counted.forward, counted.training) == (formula.forward, formula.training),
    }


def folders(root: Path) -> dict[str, Any]:
    """What other models make of a folder that the head was saved to."""
    import torch
    from safetensors.torch import load_file, save_file

    from helpers.normals_head import ForNormals
    from helpers.tiny import tiny_config
    from m33d_hf.modeling.backbone_m33d import M33DBackbone
    from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
    from m33d_hf.weights.own import initialise

    def unexpected(folder: Path) -> list[str]:
        _, info = M33DBackbone.from_pretrained(folder, output_loading_info=True)
        return sorted(info["unexpected_keys"])

    def reason(model: torch.nn.Module, folder: Path) -> str:
        report = initialise(model, folder)
        return next(why for name, why in {**report.new, **report.ignored}.items() if "toy_head" in name)

    config = tiny_config(num_hidden_layers=4, depth_head_width=16)
    for name in ("normals", "typo"):
        ForNormals(config).save_pretrained(root / name)
    M33DForDepthEstimation(config).save_pretrained(root / "depth")
    file = root / "typo" / "model.safetensors"
    save_file({**load_file(file), "toy_hed.weight": torch.zeros(1)}, file, {"format": "pt"})
    return {
        "backbone_unexpected": unexpected(root / "normals"),
        "typo_unexpected": unexpected(root / "typo"),
        "depth_starts_from_it": reason(M33DForDepthEstimation(config), root / "normals"),
        "it_starts_from_depth": reason(ForNormals(config), root / "depth"),
    }


if __name__ == "__main__":
    enter()
    print(json.dumps({**names(), **folders(Path(sys.argv[1]))}))
