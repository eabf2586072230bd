"""What --dry_run prints, and that its memory estimate is of the right size."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from helpers.frames_on_disk import write_frames
from helpers.rooms_runs import words
from helpers.tiny import tiny_config
from m33d_hf.data.loader.collation import PretrainingCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import ConfigError, DataError, ResumeError
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.processes.guards import output_lock
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.run_data import build_run_datasets
from m33d_hf.training.run.dry_run import describe_parameters, dry_run, estimate_memory
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.training.tasks.pretraining import PretrainingTask


def arguments(recipe: str, output_dir: Path, **changes: str | None) -> tuple[RunArguments, dict[str, str]]:
    resolved = resolve(words(recipe, output_dir, **changes), "pretraining")
    return resolved.args, resolved.origins


@contextmanager
def saved_for_backward(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Bytes by address of what the block's forward pass keeps for the backward pass, weights not among them."""
    saved: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def test_it_tells_everything_and_writes_nothing(tmp_path: Path) -> None:
    args, origins = arguments("rooms/pretrain_stage2", tmp_path / "out", num_processes="2", optim__scale_lr="true")
    text = dry_run(args, PretrainingTask(), origins)
    for part in (
        "optim.learning_rate: 0.001   (recipe bases/rooms_pretrain)",
        "train.max_steps: 2   (command line)",
        'model.decoder_fusion: "joint"   (method m33d (stage_2))',
        "rgb: 9 visible, 27 masked and predicted",
        "effective batch 8 = 4 per process x 2 processes x 1 micro-batch",
        "2 steps = ",
        "= 0.001 x 8 / 256",
        "GFLOP per sample",
        "per process at the peak of a step of 4 samples",
        "largest batch that fits: about",
        "== cost",
        ", median ",
        "  1 wall: ",
        "first keys: rooms/train/0/frames/0",
        "== evaluation data",
    ):
        assert part in text
    assert not (tmp_path / "out").exists()


def test_parameters_add_up(tmp_path: Path) -> None:
    model = PretrainingTask().build_model(arguments("rooms/pretrain", tmp_path, method="rgbd_mae")[0])
    lines = describe_parameters(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert lines[0] == f"parameters: {total:,}"
    assert sum(int(line.split(": ")[1].replace(",", "")) for line in lines[1:]) == total


def test_it_stops_where_the_run_would(tmp_path: Path) -> None:
    args, _ = arguments("rooms/pretrain", tmp_path, data__max_train_samples="13")
    with pytest.raises(ConfigError, match="13 samples"):
        dry_run(args, PretrainingTask())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(arguments("rooms/pretrain", folder)[0], PretrainingTask())
    return folder


def test_it_says_from_where_the_run_goes_on(trained: Path) -> None:
    args, _ = arguments("rooms/pretrain", trained, dry_run="true", logging__every_steps="1")
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert f"continues from {trained / 'checkpoints' / 'step_00000002'}" in dry_run(args, PretrainingTask())
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"resume": "none"}, ConfigError, "holds checkpoints of an earlier run"),
        ({"optim__learning_rate": "0.5"}, ResumeError, "its recipe was different.*learning_rate: .* -> 0.5"),
        ({"data__max_train_samples": "12"}, ResumeError, "its recipe was different.*max_train_samples"),
        ({"train__accumulation": "2"}, ResumeError, "effective_batch: 4 -> 8"),
    ],
)
def test_it_stops_where_the_folder_would_stop_the_run(
    trained: Path, changes: dict[str, str], error: type[Exception], said: str
) -> None:
    args, _ = arguments("rooms/pretrain", trained, **changes)
    args.dry_run = True
    with pytest.raises(error, match=f"(?s){said}"):
        dry_run(args, PretrainingTask())
    with pytest.raises(error, match=f"(?s){said}"):  # as the run itself
        train(args, PretrainingTask())


def test_a_digest_that_only_the_run_will_know_is_not_compared(trained: Path) -> None:
    """Detection learns from its features which videos it uses; a dry run extracts none."""

    class Late(PretrainingTask):
        def data_digest(self, dataset: SampleDataset) -> str:
            return "of features that are not there"

        def knows_digest(self, dataset: SampleDataset) -> bool:
            return ActionDetectionTask().knows_digest(cast(SampleDataset, SimpleNamespace(store=None)))

        def former_digest(self, dataset: SampleDataset) -> str | None:
            return ActionDetectionTask().former_digest(dataset)

    args, _ = arguments("rooms/pretrain", trained)
    assert "continues from" in dry_run(args, Late())
    Late.knows_digest = PretrainingTask.knows_digest  # type: ignore[method-assign]
    with pytest.raises(ResumeError, match="of features that are not there"):
        dry_run(args, Late())


def test_a_run_of_an_earlier_version_is_gone_on_from(trained: Path) -> None:
    """Whose data had another digest then, as those of a labelled pre-training."""

    class Former(PretrainingTask):
        former = ""

        def data_digest(self, dataset: SampleDataset) -> str:
            return "without labels"

        def former_digest(self, dataset: SampleDataset) -> str:
            return f"{self.former}{PretrainingTask.former_digest(self, dataset)}"

    args, _ = arguments("rooms/pretrain", trained)
    assert "continues from" in dry_run(args, Former())
    Former.former = "other "
    with pytest.raises(ResumeError, match=r"data_digest: .* -> without labels"):
        dry_run(args, Former())


def test_it_stops_where_every_checkpoint_is_damaged(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "step_00000002" / "optimizer.pt").unlink()
    with pytest.raises(ResumeError, match=r"can be resumed from\.\n  step_00000002: optimizer.pt"):
        dry_run(arguments("rooms/pretrain", tmp_path)[0], PretrainingTask())


def test_it_stops_where_another_process_writes(tmp_path: Path) -> None:
    args, _ = arguments("rooms/pretrain", tmp_path)
    with output_lock(tmp_path), pytest.raises(ConfigError, match="is being written by process"):
        dry_run(args, PretrainingTask())


def test_it_says_what_is_wrong_with_samples_of_which_none_can_be_read(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_frames(tmp_path / "data" / split / "a", 12, size=(48, 48))
    for file in (tmp_path / "data/validation/a/depth").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    options = {"data__source": "folder", "data__root": str(tmp_path / "data"), "data__options": "{depth_unit: mm}"}
    args, _ = arguments("rooms/pretrain", tmp_path / "out", method="rgbd_mae", **options)
    with pytest.raises(DataError, match=r"None of the first \d samples can be read.* The first: .*depth.0\.png: "):
        dry_run(args, PretrainingTask())


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("rooms/pretrain", "mae"),
        ("rooms/pretrain", "multimae"),
        ("rooms/pretrain_stage1", "m33d"),
        ("rooms/pretrain_stage2", "m33d"),
        ("rooms/pretrain_stage2", "m33d_plus"),
    ],
)
def test_memory_estimate_against_saved_tensors(recipe: str, method: str, tmp_path: Path) -> None:
    wide = {"model__hidden_size": "96", "model__intermediate_size": "384", "model__decoder_hidden_size": "64"}
    args, _ = arguments(recipe, tmp_path, method=method, model__decoder_intermediate_size="256", **wide)
    model = PretrainingTask().build_model(args).train()
    dataset, _ = build_run_datasets(args, model.config)
    batch = PretrainingCollator(model.config)([dataset[0, row] for row in range(args.train.batch_size)])
    batch.pop("meta")
    with saved_for_backward(model) as saved:
        loss = model(**batch).loss
    assert torch.isfinite(loss)
    estimated = estimate_memory(PretrainingTask(), model, args)
    assert estimated[1] == pytest.approx(sum(saved.values()), rel=0.1)
    assert estimated[0] == pytest.approx(16 * sum(p.numel() for p in model.parameters()), rel=0.35)


VIT_B = {"image_size": 64, "patch_size": 16, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
VIT_B |= {"intermediate_size": 3072, "segmentation_head_width": 384, "segmentation_head_depth": 4}
VIT_B |= {"depth_head_width": 256}


@pytest.mark.parametrize("size", ["tiny", "ViT-B"])
@pytest.mark.parametrize("recipe", ["rooms/semseg", "rooms/depth", "rooms/actions"])
def test_memory_of_a_fine_tuning_counts_its_head(recipe: str, size: str, tmp_path: Path) -> None:
    """Against what a real forward pass keeps ; the encoder's blocks alone were up to 47 times less."""
    task_name = {"rooms/semseg": "semantic_segmentation", "rooms/depth": "depth_estimation"}.get(
        recipe, "video_classification"
    )
    short = {"data__options": "{num_clips: 12}"} if recipe == "rooms/actions" else {}
    args = resolve(words(recipe, tmp_path / "out", **short), task_name).args
    args.model |= {"num_labels": 10, **(VIT_B if size == "ViT-B" else {})}
    args.train.batch_size = 2
    task = build_task(task_name)
    model = task.build_model(args).train()
    rows, (height, width) = args.train.batch_size * args.data.num_views, model.config.image_height_width
    lead = (model.config.num_frames,) if model.config.num_frames > 1 else ()
    labels = torch.rand(rows, height, width) + 1
    if task_name == "semantic_segmentation":
        labels = labels.long()
    elif task_name == "video_classification":
        labels = torch.full((rows, model.config.num_labels), 1 / model.config.num_labels)
    with saved_for_backward(model) as saved:
        loss = model(pixel_values=torch.randn(rows, *lead, 3, height, width), labels=labels).loss
    found, activations = estimate_memory(task, model, args)
    assert torch.isfinite(loss)
    assert activations == pytest.approx(sum(saved.values()), rel=0.1)
    assert found == 16 * sum(parameter.numel() for parameter in model.parameters())
    args.train.grad_checkpointing = True
    assert 0 < estimate_memory(task, model, args)[1] < activations


@pytest.mark.parametrize("clips", [5, 300])
def test_memory_of_action_detection_grows_with_the_longest_video(clips: int) -> None:
    """Of features of clips, against a real forward pass of the head; the frozen encoder keeps nothing."""
    args = RunArguments(task="action_detection")
    args.train.batch_size = 2
    config = tiny_config(num_frames=2, tubelet_size=2, num_labels=5, num_hidden_layers=1)
    model = M33DForVideoActionDetection(config).train()
    labels = torch.zeros(2, clips, dtype=torch.int64)
    with saved_for_backward(model) as saved:
        loss = model(features=torch.randn(2, clips, config.hidden_size), labels=labels).loss
    assert torch.isfinite(loss)
    estimated = estimate_memory(ActionDetectionTask(), model, args, clips)
    assert estimated[1] == pytest.approx(sum(saved.values()), rel=0.15)


@pytest.mark.parametrize("kernel", ["nosuch", "[a]", "a b"])
def test_an_attention_kernel_that_nobody_knows_is_named(tmp_path: Path, kernel: str) -> None:
    args, _ = arguments("rooms/pretrain", tmp_path, train__attn_implementation=kernel)
    with pytest.raises(ConfigError, match=r"train\.attn_implementation .* cannot be used"):
        dry_run(args, PretrainingTask())
