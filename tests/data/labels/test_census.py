"""Labels that hold nothing to tell apart are refused before compute; classes that do not occur are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import save, write_frames
from helpers.preparations import prepared
from m33d_hf.data.labels.census import FEW, MANY, LabelFiles, take_census
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

MODEL = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
MODEL |= {"intermediate_size": 8, "segmentation_head_width": 8, "segmentation_head_depth": 1}


def _arguments(folder: Path, values: list[int], shares: list[float] | None = None, **options: Any) -> RunArguments:
    """A run on ten frames whose labels hold `values`."""
    root = folder / "data"
    write_frames(root, 10, depth=None)
    for number in range(10):
        drawn = np.random.default_rng(number).choice(np.array(values, np.uint8), (24, 32), p=shares)
        save(root / "label" / f"{number}.png", drawn)
    args = RunArguments(task="semantic_segmentation", output_dir=str(folder / "out"), cpu=True, model=dict(MODEL))
    args.data.source, args.data.root, args.data.num_workers = "folder", str(root), 0
    args.data.options = {"num_classes": 2, "depth": "none", **options}
    args.transforms.train_crop = args.transforms.eval_crop = "resize"
    args.train.max_steps, args.train.batch_size = 1, 2
    args.logging.trackers, args.logging.progress, args.logging.pictures = [], False, False
    return args


def test_masks_of_0_and_255_do_not_train_to_a_perfect_score(tmp_path: Path) -> None:
    args = _arguments(tmp_path, [0, 255], [0.75, 0.25])
    told = r"0 \(7\d\.\d% of the pixels\) and 255 \(2\d\.\d%\).*Class 1 \('class 1'\) never occurs.*'\{0: 0, 255: 1\}'"
    for start in (dry_run, train):
        with pytest.raises(LabelError, match=told):
            start(args, SemanticSegmentationTask())
    assert not (tmp_path / "out" / "checkpoints").exists()
    task = SemanticSegmentationTask()
    with pytest.raises(LabelError, match=r"evaluation data"):
        task.build_eval_dataset(args, task.build_model(args))
    args.data.options["label_map"] = {0: 0, 255: 1}
    text = dry_run(args, SemanticSegmentationTask())
    assert "WARNING" not in text.partition("labels of all")[2].partition("==")[0]
    args.data.options.pop("label_map")
    args.data.allow_missing_classes = True
    text = dry_run(args, SemanticSegmentationTask())
    assert "WARNING: 1 of 2 classes never occur: 1 ('class 1'); 2" in text
    assert "because they are 255 without an option that says so. If 255 is a class, pass" in text


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    told = r"1 \('b'\) is the only class in all \d label maps.*0 \('a'\), 2 \('c'\) never"
    with pytest.raises(LabelError, match=told):
        dry_run(_arguments(tmp_path, [1], num_classes=3, class_names=["a", "b", "c"]), SemanticSegmentationTask())


def test_a_rare_class_and_much_void_are_said_and_go_on(tmp_path: Path) -> None:
    args = _arguments(tmp_path, [0, 2, 255], [0.3, 0.1, 0.6], num_classes=3)
    text = dry_run(args, SemanticSegmentationTask())
    assert "WARNING: 1 of 3 classes never occur: 1 ('class 1'); 6" in text
    args.data.options |= {"num_classes": 3, "label_map": {0: 0, 2: 1, 255: 2}}
    text = dry_run(args, SemanticSegmentationTask())
    assert "classes never" not in text and "label_map with 255" not in text
    stated = _arguments(tmp_path, [0, 1, 255], [0.2, 0.2, 0.6], label_ignore=255)
    text = dry_run(stated, SemanticSegmentationTask())
    assert "WARNING: 6" in text and "If 255 is a class" not in text


def test_more_classes_than_the_model_has_are_refused(tmp_path: Path) -> None:
    args = _arguments(tmp_path, [0, 1, 2], num_classes=3)
    args.model["num_labels"] = 2
    with pytest.raises(ConfigError, match="training data has 3 classes, but the model has 2"):
        dry_run(args, SemanticSegmentationTask())


def test_a_class_of_few_files_is_looked_for_in_many(tmp_path: Path) -> None:
    common, rare = (save(tmp_path / f"{word}.npy", np.full((2, 2), n, np.uint8)) for n, word in enumerate("ab"))
    files = [common] * 3000
    rules = LabelRules(2)
    census = take_census(LabelFiles(files, rules), ["a", "b"])
    assert (census.read, census.missing, census.single()) == (MANY, [1], None)
    assert "were not seen in 1024 of 3000 label maps: 1 ('b')" in census.warnings()[0]
    census = take_census(LabelFiles([*files[:2999], rare][::-1], rules), ["a", "b"])
    assert census.read == FEW and not census.missing and not census.warnings()


def test_files_that_write_one_class_in_two_ways_are_said(tmp_path: Path) -> None:
    """Some masks are 0 and 1, others 0 and 255: class 1 occurs, and yet a quarter of the masks lose theirs."""
    files = []
    for number in range(8):
        high = 255 if number % 4 == 0 else 1
        files.append(tmp_path / f"{number}.png")
        save(files[-1], np.where(np.eye(12, dtype=bool), high, 0).astype(np.uint8))
    (warning,) = take_census(LabelFiles(files, LabelRules(2)), ["a", "b"]).warnings()
    assert "is 255 a class in some files? If 255 is a class, pass --data.options.label_map" in warning
    save(files[0], np.array([[0, 1, 255]], np.uint8))  # a border without a class, beside both
    assert take_census(LabelFiles(files, LabelRules(2)), ["a", "b"]).warnings() == []


@pytest.mark.parametrize("source, form", [("hub", "parquet"), ("shards", "shards")])
def test_labels_of_prepared_data_are_counted(tmp_path: Path, source: str, form: str) -> None:
    args = _arguments(tmp_path, [0, 255], [0.75, 0.25])
    known = build_source("folder", root=args.data.root, **args.data.options)
    prepared(known, tmp_path / "prepared", format=form)
    args.data.train_split = args.data.eval_split = "all"
    args.data.source, args.data.root, args.data.options = source, str(tmp_path / "prepared"), {}
    told = r"prepared \(training data\): 0 \('class 0'\) is the only class in all 10 label maps, 2\d\.\d% of"
    with pytest.raises(LabelError, match=told):
        dry_run(args, SemanticSegmentationTask())
    args.data.allow_missing_classes = True
    assert "labels of all 10 maps: class 0 7" in dry_run(args, SemanticSegmentationTask())


def test_only_the_labels_of_a_table_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = _arguments(tmp_path, [0, 1])
    prepared(build_source("folder", root=args.data.root, **args.data.options), tmp_path / "out")
    source = build_source("hub", root=tmp_path / "out")
    asked: set[str] = set()
    read = source.rows.read  # type: ignore[attr-defined]
    monkeypatch.setattr(source.rows, "read", lambda rows, names: (asked.update(names), read(rows, names))[1])  # type: ignore[attr-defined]
    census = take_census(source.label_maps(range(len(source))), ["a", "b"])  # type: ignore[arg-type]
    assert asked == {"segmentation"} and census.read == 10 and census.pixels == 10 * 24 * 32


def test_a_mixture_counts_the_labels_of_its_members(tmp_path: Path) -> None:
    """Each map once, however often a member is repeated; what one member ignores silently is said."""
    sources = {}
    for name, values in {"a": [0, 1], "b": [1, 255]}.items():
        args = _arguments(tmp_path / name, values)
        sources[name] = build_source("folder", root=args.data.root, **args.data.options)
    prepared(sources["a"], tmp_path / "shards", format="shards")
    mixed = MixtureSource({"a": build_source("shards", root=tmp_path / "shards"), "b": sources["b"]}, [1, 5])
    assert len(mixed) == 60
    maps = mixed.label_maps(range(60))
    assert maps is not None and len(maps) == 20
    census = take_census(maps, ["x", "y"])
    assert census.read == 20 and census.pixels == 20 * 24 * 32 and census.silent == census.classes[255] > 0
    assert census.classes[0] == take_census(sources["a"].label_maps(range(10)), ["x", "y"]).classes[0]  # type: ignore[arg-type]
    only = mixed.label_maps(range(10))
    assert only is not None and len(only) == 10  # those of the first member
