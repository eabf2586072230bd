"""The data's further modalities and the model's are compared by name before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.rooms_runs import words
from helpers.tiny import MULTIMAE, both, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import rgb_modality
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import DataArguments, RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.further_modalities import check_further_modalities, check_normals
from m33d_hf.training.tasks.pretraining import PretrainingTask

NORMALS = {"name": "normals", "channels": 3, "input_name": "normal_values", "mask_ratio": 0.8}
OF_DEPTH = {**NORMALS, "name": "depth_normals", "role": "target", "mask_ratio": 1.0}
OWN_NORMALS = [
    *("--modalities.depth_normals.channels", "3", "--modalities.depth_normals.input_name", "normal_values"),
    *("--modalities.depth_normals.mask_name", "normal_mask", "--modalities.depth_normals.role", "target"),
    *("--modalities.depth_normals.mask_ratio", "1", "--modalities.depth_normals.loss", "l1"),
]
READ = {"modalities": {"normals": "normals/*.png"}}
MODELS: dict[str, list[dict[str, Any]]] = {"rgbd": both(), "with_normals": [*both(), NORMALS]}


def _check(model: str, train: bool = True, **data: Any) -> None:
    args = RunArguments(data=DataArguments(**{"source": "folder", "root": "frames", **data}))
    check_further_modalities(args, tiny_config(modalities=MODELS[model]), train=train)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("rgbd", {"options": {}}),
        ("with_normals", {"options": READ}),
        ("with_normals", {"source": "rooms", "root": None}),  # it has no such option; what it gives is seen later
        ("with_normals", {"options": READ, "eval_options": {"modalities": {"normals": "others/*.png"}}}),
        ("with_normals", {"mixture": [{"source": "folder", "root": "a", "options": READ}], "source": "rooms"}),
    ],
)
def test_what_agrees_passes(model: str, data: dict[str, Any]) -> None:
    _check(model, **data)


def test_normals_of_depth_need_no_files() -> None:
    """They are computed from depth, which is read for them whether the model has depth itself or not."""
    args = RunArguments(data=DataArguments(source="folder", root="frames"))
    config = tiny_config(modalities=[rgb_modality(), OF_DEPTH])
    check_further_modalities(args, config, train=True)
    assert sorted(PretrainingTask().maps(config)) == ["depth", "rgb"]
    assert list(PretrainingTask().required(config)) == ["depth"]


@pytest.mark.parametrize("kind", ["relative", "inverse"])
def test_normals_of_what_is_no_distance_are_refused(kind: str) -> None:
    with_normals, without = (tiny_config(modalities=[*both(), *more]) for more in ([OF_DEPTH], []))

    def read(spec: DepthSpec) -> Any:
        return SimpleNamespace(source=SimpleNamespace(depth_spec=spec))

    with pytest.raises(ConfigError, match=f"the depth of source 'folder' is {kind}: planes are not flat in it"):
        check_normals(with_normals, "folder", read(DepthSpec(kind=kind)))
    check_normals(with_normals, "folder", read(DepthSpec(unit="millimetre")))
    check_normals(with_normals, "folder", None)
    check_normals(without, "folder", read(DepthSpec(kind=kind)))


@pytest.mark.parametrize("only_evaluated", [False, True])
def test_a_run_on_inverse_depth_cannot_have_normals(only_evaluated: bool, tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", 4)
    command = words("rooms/pretrain", tmp_path / "run", data__options="{depth_kind: inverse}", method="m33d_hidden")
    command += [*OWN_NORMALS, "--data.source", "folder", "--data.root", str(tmp_path / "frames")]
    args, task = parse_arguments(command, "pretraining"), PretrainingTask()
    model = task.build_model(args)
    with pytest.raises(ConfigError, match="is inverse: planes are not flat in it"):
        (task.build_eval_dataset if only_evaluated else task.build_datasets)(args, model)


def test_a_run_learns_normals_of_depth_without_files(tmp_path: Path) -> None:
    command = words("rooms/pretrain", tmp_path / "run", data__cache_dir=str(tmp_path / "cache"), method="m33d_hidden")
    assert main("pretraining", [*command, *OWN_NORMALS]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows and all(0 < row["loss/depth_normals"] < 2 for row in rows if row["kind"] == "train")


def test_a_second_target_of_a_modality_is_read_with_it() -> None:
    args = RunArguments(data=DataArguments(source="folder", root="frames"))
    check_further_modalities(args, tiny_config(**MULTIMAE), train=True)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("rgbd", {"options": READ}, "data.options.modalities has 'normals', but the model has no such modality"),
        ("rgbd", {"options": READ}, "--modalities.normals.channels N --modalities.normals.input_name normals_values"),
        ("rgbd", {"options": {"modalities": {"depth_normals": "n/*.png"}}}, "which is computed from depth: give files"),
        ("with_normals", {}, r"has the modality 'normals', but data.options.modalities does not have it\. Give"),
        (
            "with_normals",
            {"options": {"modalities": {"normal": "normals/*.png"}}},
            "has 'normal', .* Did you mean 'normals'",
        ),
        (
            "with_normals",
            {"options": READ, "eval_options": {"modalities": {}}},
            "'normals', but data.eval_options.modalities does not have it",
        ),
        (
            "with_normals",
            {"mixture": [{"source": "folder", "root": "a", "options": READ}, {"source": "folder", "root": "b"}]},
            "member b: options.modalities does not have it",
        ),
    ],
)
def test_a_name_on_one_side_alone_is_an_error(model: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _check(model, **data)


def test_an_evaluation_alone_reads_evaluation_data() -> None:
    data = {"options": {}, "eval_options": READ}
    with pytest.raises(ConfigError, match=r"data\.options\.modalities"):
        _check("with_normals", **data)
    _check("with_normals", train=False, **data)
    with pytest.raises(ConfigError, match=r"data\.eval_options\.modalities has 'normals'"):
        _check("rgbd", train=False, **data)


def test_a_run_says_it_before_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "frames", 4)
    command = words("rooms/pretrain", tmp_path / "run", data__options="{modalities: {normals: normals}}")
    command += ["--data.source", "folder", "--data.root", str(tmp_path / "frames"), "--method", "rgbd_mae"]
    assert main("pretraining", command) == 2
    assert "data.options.modalities has 'normals', but the model has no such modality" in capsys.readouterr().err
