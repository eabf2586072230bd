"""`data.label_fraction` of dense tasks: whole scenes of every source, shares within larger ones, and what is said."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import label_array, rgb_array, save, write_frames
from helpers.rooms_runs import words
from helpers.scannet_folders import write_exported, write_table
from helpers.sunrgbd_folders import SIZE, millimetres_of, rotated, write_sunrgbd
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.run_data import build_dataset
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.building import starting_config

SHARES = (0.2, 0.4, 0.8, 1.0)
SUN3D = [f"SUNRGBD/xtion/sun3ddata/{scene}/{scene}/{frame}" for scene in ("mit", "bro") for frame in ("01", "02")]


def arguments(folder: Path, source: str, root: Path | None, **changes: Any) -> RunArguments:
    given: dict[str, Any] = {
        "data__source": source,
        "data__root": None if root is None else str(root),
        "data__max_train_samples": "null",
        "data__eval_split": "null",
        "data__options": "{labels: auto}",
    } | changes
    return parse_arguments(words("rooms/semseg", folder, **given), "semantic_segmentation")


def scannet(root: Path) -> Path:
    """Ten scenes, the second of them scanned twice, of one to five frames."""
    for number in range(10):
        write_exported(root, f"scene{number:04d}_00", range(1 + number // 2))
    write_exported(root, "scene0001_01", range(2))
    write_table(root / "scannetv2-labels.combined.tsv")
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    (root / "scannetv2_train.txt").write_text("\n".join(names[:-1]))
    (root / "scannetv2_train_20.txt").write_text("\n".join(names[1:3]))
    (root / "scannetv2_val.txt").write_text(names[-1])
    return root


def folder(root: Path) -> Path:
    for number in range(10):
        name = f"seq{number}"
        write_frames(root, 4, f"{name}/color/{{i}}.png", f"{name}/depth/{{i}}.png", f"{name}/label/{{i}}.png")
    return root


def nyuv2(root: Path) -> Path:
    for number in range(10):
        save(root / f"train/label/{number}.png", label_array(number, classes=40) + 1)
    return write_frames(root, 10, "train/color/{i}.png", "train/depth/{i}.png")


def sunrgbd(root: Path) -> Path:
    write_sunrgbd(root)
    for number, frame in enumerate(SUN3D):
        save(root / f"{frame}/image/{number}.jpg", rgb_array(number, SIZE))
        for kind in ("depth", "depth_bfx"):
            save(root / f"{frame}/{kind}/{number}.png", rotated(millimetres_of(number)))
    return root


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path | None, dict[str, Any]]]:
    top = tmp_path_factory.mktemp("sources")
    rooms: dict[str, Any] = {"data__options": "{num_frames: 20}", "data__cache_dir": str(top / "cache")}
    labelled = "{labels: auto, num_classes: 4, depth_unit: millimetre}"
    return {
        "folder": (folder(top / "folder"), {"data__options": labelled, "data__train_split": "all"}),
        "scannet": (scannet(top / "scannet"), {}),
        "nyuv2": (nyuv2(top / "nyuv2"), {"data__options": "{labels: auto, label_ids: nyu40, depth_unit: millimetre}"}),
        "sunrgbd": (sunrgbd(top / "sunrgbd"), {"data__options": "{labels: none}", "data__train_split": "all"}),
        "rooms": (None, rooms),
    }


@pytest.mark.parametrize("source", ["folder", "scannet", "nyuv2", "sunrgbd", "rooms"])
def test_whole_scenes_are_drawn_and_nested(tmp_path: Path, cases: dict[str, Any], source: str) -> None:
    root, changes = cases[source]
    drawn: list[set[int]] = []
    for share in SHARES:
        args = arguments(tmp_path, source, root, data__label_fraction=str(share), **changes)
        dataset = build_dataset(args, starting_config(args, num_labels=4), True)
        groups = dataset.source.groups() or [str(row) for row in range(len(dataset.source))]
        taken = {groups[row] for row in dataset.indices}
        assert set(dataset.indices) == {row for row, group in enumerate(groups) if group in taken}
        drawn.append(set(dataset.indices))
    assert all(small <= large for small, large in itertools.pairwise(drawn))
    assert 0 < len(drawn[0]) < len(drawn[-1]) == len(dataset.source)


def test_the_scenes_of_every_source(tmp_path: Path, cases: dict[str, Any]) -> None:
    found = {}
    for source in ("folder", "scannet", "nyuv2", "sunrgbd", "rooms"):
        root, changes = cases[source]
        args = arguments(tmp_path, source, root, **changes)
        made = build_dataset(args, starting_config(args, num_labels=4), True).source
        found[source] = (len(set(made.groups() or range(len(made)))), len(made), made.group_word)
    assert found == {
        "folder": (10, 40, "sequences"),
        "scannet": (9, 27, "scenes"),  # ten scans in the training list, two of one scene
        "nyuv2": (10, 10, "images"),
        "sunrgbd": (5, 8, "scenes or single images"),
        "rooms": (20, 20, "rooms"),
    }


def test_a_run_says_what_was_drawn(tmp_path: Path, cases: dict[str, Any], capfd: Any) -> None:
    root, changes = cases["folder"]
    args = arguments(tmp_path / "out", "folder", root, data__label_fraction="0.2", data__subset_seed="3",
                     logging__progress="true", **changes)  # fmt: skip
    train(args, build_task("semantic_segmentation"))
    line = (
        "training data: 2 of 10 sequences, a seeded draw and no published list (data.label_fraction 0.2, "
        "data.subset_seed 3): 8 of 40 samples"
    )
    assert line in capfd.readouterr().err
    config = json.loads((tmp_path / "out" / "train_config.json").read_text())
    told = {"samples": 8, "samples_in_source": 40, "sequences": [2, 10], "split": "all frames, not split"}
    assert told.items() <= config["data"].items()
    assert config["args"]["data"]["label_fraction"] == 0.2


def test_a_published_list_of_scenes_is_named(tmp_path: Path, cases: dict[str, Any]) -> None:
    root, _ = cases["scannet"]
    lists = "{labels: auto, split_list: {train: scannetv2_train_20.txt, validation: scannetv2_val.txt}}"
    args = arguments(tmp_path / "out", "scannet", root, data__options=lists)
    train(args, build_task("semantic_segmentation"))
    told = json.loads((tmp_path / "out" / "train_config.json").read_text())["data"]
    assert told["split"] == "split train as listed in scannetv2_train_20.txt"
    assert (told["samples"], told["scenes"]) == (3, [1, 1])  # both scans of scene0001
