"""Numbers in annotations mean the same classes in training and in every evaluation, right values worked out by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.fuzzing import bit_flips
from helpers.phase_runs import TINY, phase_arguments
from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.scripts import run_probe
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.class_numbers import trained_classes, write_classes
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

# (lines of the table, numbers of the four clips of every video, their classes by hand)
CASES = {
    "permuted": ("2\tfirst\n0\tsecond\n1\tthird\n", (2, 0, 0, 1), (0, 1, 1, 2)),
    "one-based": ("1\tfirst\n2\tsecond\n3\tthird\n", (1, 2, 2, 3), (0, 1, 1, 2)),
    "with a header, far apart": ("number\tname\n70\tfirst\n5\tsecond\n-1\tthird\n", (70, 5, 5, -1), (0, 1, 1, 2)),
    "in the order of their numbers": ("first\nsecond\nthird\n", (0, 1, 1, 2), (0, 1, 1, 2)),
}


def write_videos(root: Path, numbers: Sequence[object], names: Sequence[str] = ("v1", "v2", "v3")) -> Path:
    """Folders of eight frames, two to a clip of one number; v1 and v2 train, v3 validates."""
    (root / "phase_annotations").mkdir(parents=True)
    for video in names:
        (root / "videos" / video).mkdir(parents=True)
        lines = ["Frame\tPhase"]
        for frame in range(2 * len(numbers)):
            color = (60 * (frame // 2), 20 * int(video[1:]), 99)
            Image.new("RGB", (16, 16), color).save(root / "videos" / video / f"{frame:03}.png")
            lines.append(f"{frame}\t{numbers[frame // 2]}")
        (root / "phase_annotations" / f"{video}-phase.txt").write_text("\n".join([*lines, ""]))
    (root / "train.txt").write_text("v1\nv2\n")
    (root / "validation.txt").write_text("v3\n")
    return root


def arguments(folder: Path, root: Path, **options: Any) -> RunArguments:
    return phase_arguments(folder, root, 2, **options)


def judged(folder: Path) -> list[int]:
    """Class of every clip of the last evaluation, in order."""
    with (folder / "predictions.csv").open(newline="") as file:
        return [("first", "second", "third").index(row["label"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("case", CASES)
def test_training_and_every_evaluation_decode_alike(tmp_path: Path, case: str) -> None:
    lines, numbers, expected = CASES[case]
    root = write_videos(tmp_path / "data", numbers)
    (tmp_path / "names.txt").write_text(lines)
    args = arguments(tmp_path / "run", root, phase_names=str(tmp_path / "names.txt"))
    task = VideoClassificationTask()
    model = task.build_model(args)
    train_set, eval_set = task.build_datasets(args, model)
    assert eval_set is not None
    assert train_set.source.labels() == [*expected, *expected] and eval_set.source.labels() == list(expected)
    assert model.config.id2label == {0: "first", 1: "second", 2: "third"}
    train(args, VideoClassificationTask())
    assert judged(tmp_path / "run") == list(expected)

    # The model's folder is enough: the table of names is not given again.
    for name, init_from in (("last", tmp_path / "run"), ("best", tmp_path / "run" / "checkpoints" / "best")):
        again = arguments(tmp_path / name, root)
        again.eval_only, again.init_from, again.model = True, str(init_from), {}
        evaluate_run(again, VideoClassificationTask())
        assert judged(tmp_path / name) == list(expected)

    # So is a checkpoint that was copied out of it.
    for checkpoint in ("best", "step_00000002"):
        shutil.copytree(tmp_path / "run" / "checkpoints" / checkpoint, tmp_path / "taken" / checkpoint)
        taken = arguments(tmp_path / f"judged_{checkpoint}", root)
        taken.eval_only, taken.init_from, taken.model = True, str(tmp_path / "taken" / checkpoint), {}
        taken.data.eval_split = "train"
        evaluate_run(taken, VideoClassificationTask())
        assert judged(tmp_path / f"judged_{checkpoint}") == [*expected, *expected]
        results = json.loads((tmp_path / f"judged_{checkpoint}" / "eval_results.json").read_text())
        assert "2 of 2 evaluation videos were used for training" in results["warnings"][0]

    # Data elsewhere, found by the same table.
    elsewhere = write_videos(tmp_path / "elsewhere", numbers, ["v7"])
    far = arguments(tmp_path / "far", root, phase_names=str(tmp_path / "names.txt"))
    far.eval_only, far.init_from, far.model = True, str(tmp_path / "run"), {}
    far.data.eval_root = str(elsewhere)
    evaluate_run(far, VideoClassificationTask())
    assert judged(tmp_path / "far") == list(expected)


@pytest.mark.parametrize("case", ["permuted", "one-based"])
def test_probe_and_detection_decode_alike(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines, numbers, expected = CASES[case]
    root = write_videos(tmp_path / "data", numbers)
    (root / "names.txt").write_text(lines)  # found under the root
    args = arguments(tmp_path / "run", root, phase_names="names.txt")
    train(args, VideoClassificationTask())
    words = [f"--output_dir={tmp_path / 'probe'}", "--data.source=phases", f"--data.root={root}", "--cpu=true"]
    words += ["--data.options.phase_names=names.txt", "--data.frame_stride=1", "--train.epochs=1", "--knn_k=1"]
    words += [f"--model.{name}={value}" for name, value in TINY.items()]
    words += [f"--init_from={tmp_path / 'run'}", "--data.num_workers=0", "--transforms.eval_crop=resize"]
    seen: list[list[int]] = []
    original = run_probe_extract(seen)
    try:
        assert run_probe.main(words) == 0, capsys.readouterr().err
        silent = [word for word in words if "phase_names" not in word]  # numbers mean what the model was trained on
        assert run_probe.main(silent) == 0, capsys.readouterr().err
        named = write_videos(tmp_path / "named", ("hold", "cut", "cut", "hold"))  # names of its own count
        assert run_probe.main([word.replace(str(root), str(named)) for word in silent]) == 0, capsys.readouterr().err
    finally:
        original()
    assert seen[:4] == 2 * [[*expected, *expected], list(expected)]
    assert seen[4:] == [[1, 0, 0, 1, 1, 0, 0, 1], [1, 0, 0, 1]]

    second = arguments(tmp_path / "second", root)  # numbers as the first stage has them
    second.task, second.init_from, second.model = "action_detection", str(tmp_path / "run"), {"temporal_hidden_size": 8}
    detector = ActionDetectionTask()
    model = detector.build_model(second)
    for dataset in detector.build_datasets(second, model):
        assert dataset is not None
        for row in range(len(dataset)):
            sample = dataset[0, row]
            assert sample.video.labels.tolist() == list(expected)
            assert sample.phases.tolist() == [number for number in expected for _ in range(2)]
    train(second, ActionDetectionTask())
    table = json.loads((tmp_path / "second" / "classes.json").read_text())
    assert ClassTable.from_dict(table).spelled() == read_class_table(root / "names.txt").spelled()


def run_probe_extract(seen: list[list[int]]) -> Any:
    """Note the labels of every split that is probed; returns what puts the original back."""
    from m33d_hf.training.probes import clips as probing

    original = probing._extract

    def noted(*values: Any) -> Any:
        found = original(*values)
        seen.append(found.labels.tolist())
        return found

    probing._extract = noted
    return lambda: setattr(probing, "_extract", original)


def test_a_table_in_another_order_of_lines_means_the_same(tmp_path: Path) -> None:
    """The order of the lines gives ids to a new model; a trained one keeps its own."""
    lines, numbers, expected = CASES["permuted"]
    root = write_videos(tmp_path / "data", numbers)
    (tmp_path / "names.txt").write_text(lines)
    train(arguments(tmp_path / "run", root, phase_names=str(tmp_path / "names.txt")), VideoClassificationTask())
    for number, stated in enumerate(("0\tsecond\n1\tthird\n2\tfirst\n", {"1": "third", "2": "first", "0": "second"})):
        given: Any = stated
        if isinstance(stated, str):
            (tmp_path / "sorted.txt").write_text(stated)
            given = str(tmp_path / "sorted.txt")
        again = arguments(tmp_path / f"again{number}", root, phase_names=given)
        again.eval_only, again.init_from, again.model = True, str(tmp_path / "run"), {}
        evaluate_run(again, VideoClassificationTask())
        assert judged(tmp_path / f"again{number}") == list(expected)


def test_numbers_that_mean_something_else_than_in_training_are_told(tmp_path: Path, capfd: Any) -> None:
    root = write_videos(tmp_path / "data", (2, 0, 0, 1))
    (tmp_path / "names.txt").write_text(CASES["permuted"][0])
    train(arguments(tmp_path / "run", root, phase_names=str(tmp_path / "names.txt")), VideoClassificationTask())
    capfd.readouterr()
    again = arguments(tmp_path / "again", root, phase_names=["first", "second", "third"])
    again.eval_only, again.init_from, again.model = True, str(tmp_path / "run"), {}
    told = "phases are numbered 0 = first, 1 = second, 2 = third here, but 0 = second, 1 = third, 2 = first in"
    assert told in dry_run(again, VideoClassificationTask())
    evaluate_run(again, VideoClassificationTask())
    assert told in capfd.readouterr().err
    assert judged(tmp_path / "again") == [2, 0, 0, 1]  # as it was stated


def test_nobody_guesses_what_a_number_means(tmp_path: Path) -> None:
    """A model trained on names says nothing about numbers, and neither does a folder without its table."""
    root = write_videos(tmp_path / "named", ("first", "second", "second", "third"))
    train(arguments(tmp_path / "run", root), VideoClassificationTask())
    numbered = write_videos(tmp_path / "numbered", (0, 1, 1, 2))
    again = arguments(tmp_path / "again", numbered)
    again.eval_only, again.init_from, again.model = True, str(tmp_path / "run"), {}
    with pytest.raises(DataError, match=r"phase '0' is a number, but which of the 3 phases first, second, third"):
        evaluate_run(again, VideoClassificationTask())
    (tmp_path / "run" / "classes.json").write_text('{"names": ["first"], "numbers": [[0, 7]]}')
    with pytest.raises(CheckpointError, match=r"classes\.json cannot be read \(a number refers to no class\)"):
        evaluate_run(again, VideoClassificationTask())
    write_classes(tmp_path / "run", ClassTable(("first", "second"), {2: 0, 1: 1}))
    whole = (tmp_path / "run" / "classes.json").read_bytes()
    rng = np.random.default_rng(12)
    for place in rng.integers(0, 8 * len(whole), 100):  # no flipped bit gives another table
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << (place % 8)
        (tmp_path / "run" / "classes.json").write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"classes\.json cannot be read"):
            trained_classes(str(tmp_path / "run"))


def test_flipped_bits_of_the_stored_numbers_are_noticed(tmp_path: Path) -> None:
    """A number that became another one is a table as good as any, and labels differently."""
    table = ClassTable(("first", "second", "third"), {2: 0, 0: 1, 1: 2})
    write_classes(tmp_path, table)
    assert trained_classes(str(tmp_path)) == table
    for what, flipped in bit_flips((tmp_path / "classes.json").read_bytes(), 0, 100):
        (tmp_path / "classes.json").write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"classes\.json cannot be read"):
            pytest.fail(f"{what}: {trained_classes(str(tmp_path))}")


def test_two_files_of_one_name_under_two_roots(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "data", (2, 0, 0, 1))
    other = write_videos(tmp_path / "other", (0, 1, 1, 2), ["v9"])
    (root / "names.txt").write_text(CASES["permuted"][0])
    (other / "names.txt").write_text("first\nsecond\nthird\n")
    args = arguments(tmp_path / "run", root, phase_names="names.txt")
    args.data.eval_root = str(other)
    task = VideoClassificationTask()
    model = task.build_model(args)
    with pytest.raises(ConfigError, match="which differ"):
        task.build_datasets(args, model)
    args.data.eval_options = {"phase_names": "names.txt"}  # stated: each folder counts by its own file
    for dataset in task.build_datasets(args, model):
        assert dataset is not None and isinstance(dataset.source, PhaseSource)
        assert set(torch.tensor(dataset.source.labels()).reshape(-1, 4).unbind()[0].tolist()) == {0, 1, 2}
        assert dataset.source.labels()[:4] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\tfirst\n0\tsecond\n", "line 2: the number 0 already has a name"),
        ("0\tfirst\n1\tfirst\n", "line 2: 'first' already has a number"),
        ("0\tfirst\nsecond\n", "line 2: 'second' has no number"),
        ("first\n1\tsecond\n", "line 1: 'first' has no number"),
        ("\n \n", "is empty"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_table(str(tmp_path / "names.txt"))


def test_how_tables_may_be_written(tmp_path: Path) -> None:
    for text in ("2\ta b\n0\tc, d\n", "2 a b\n0 c, d\n", "number,name\n2,a b\n0,c, d\n", "2: a b\n0: c, d\n"):
        (tmp_path / "names.txt").write_text(text)
        assert read_class_table("names.txt", tmp_path) == ClassTable(("a b", "c, d"), {2: 0, 0: 1})
    assert read_class_table({2: "a", "0": "b"}) == ClassTable(("a", "b"), {2: 0, 0: 1})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="'two' is not an integer"):
        read_class_table({"two": "a"})  # type: ignore[dict-item]


def test_a_table_may_name_first_and_number_then(tmp_path: Path) -> None:
    """`name<TAB>number` is a table as well; read as bare names it would count from 0, whatever it says."""
    for number, text in enumerate(("first\t1\nsecond\t2\n", "name;id\nfirst;1\nsecond;2\n", "first, 1\nsecond, 2")):
        (tmp_path / f"{number}.txt").write_text(text)
        assert read_class_table(tmp_path / f"{number}.txt") == ClassTable(("first", "second"), {1: 0, 2: 1})
    (tmp_path / "names.txt").write_text("7\t1\n8\t2\n")  # names that are numbers: the number stands first
    assert read_class_table(tmp_path / "names.txt") == ClassTable(("1", "2"), {7: 0, 8: 1})
    (tmp_path / "names.txt").write_text("Phase 1\nPhase 2\n")  # names that end in a number
    assert read_class_table(tmp_path / "names.txt") == ClassTable(("Phase 1", "Phase 2"), {0: 0, 1: 1})
    for text in ('["first", "second"]', '{"1": "first"}'):
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(DataError, match="looks like JSON"):
            read_class_table(tmp_path / "names.txt")
