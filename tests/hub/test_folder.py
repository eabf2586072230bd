"""The folder that is published: everything that belongs in it, and nothing else."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image

import m33d_hf
from helpers.exports import CLASSIFIER, saved
from helpers.hub_runs import change_arguments, depth_run, read_json, strings
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import CheckpointError, ConfigError, HubError
from m33d_hf.hub import publishing
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.publishing import content_tag, publish
from m33d_hf.hub.results import headline
from m33d_hf.hub.source import open_source
from m33d_hf.modeling.hub_upload_m33d import Sent

REPO = "org/rooms-depth"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; tests that change it work on a copy."""
    return depth_run(tmp_path_factory.mktemp("run") / "secret-project")


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is published of it."""
    folder = tmp_path_factory.mktemp("published") / "folder"
    publish(run, PublishOptions(REPO), keep=folder, dry_run=True)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run to change."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def _published(run: Path, tmp_path: Path, **options: Any) -> Path:
    folder = tmp_path / "folder"
    publish(run, PublishOptions(REPO, **options), keep=folder, dry_run=True)
    return folder


def test_the_folder_holds_what_belongs_in_it(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    code = {path.name for path in Path(m33d_hf.modeling.__file__).parent.glob("*_m33d.py")}
    others = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "LICENSE", "handler.py"}
    assert names == code | others | {"requirements.txt", "train_config.json", "examples/room.png"}


def test_weights_are_those_of_the_run(folder: Path, run: Path) -> None:
    here = m33d_hf.M33DForDepthEstimation.from_pretrained(folder).state_dict()
    there = m33d_hf.M33DForDepthEstimation.from_pretrained(run).state_dict()
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_the_card_has_the_measured_numbers(folder: Path, run: Path) -> None:
    measured = read_sealed_json(run / "evaluation" / "eval_results.json")
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "depth-estimation" and data["library_name"] == "transformers"
    assert data["license"] == "apache-2.0" and data["widget"][0]["src"].endswith("/examples/room.png")
    (result,) = data["model-index"][0]["results"]
    found = {entry["type"]: entry["value"] for entry in result["metrics"]}
    wanted = {name: value for name, value in measured["metrics"].items() if "/" not in name and name != "loss"}
    assert found == wanted and len(found) == 9
    assert result["dataset"] == {"name": "rendered rooms of m33d-hf", "type": "rooms", "split": "validation"}
    for text in (f"| delta1 | {measured['metrics']['delta1']:.4f} |", "12 samples", measured["commit"], "on cpu"):
        assert text in card.text, text
    for text in ("random initialisation", "2 steps of 4 samples", "seed 0", "does not run the model", "a Space"):
        assert text in card.text, text


def test_eval_results_are_written_for_a_named_benchmark_only(folder: Path, run: Path, tmp_path: Path) -> None:
    assert not (folder / ".eval_results").exists()
    named = _published(run, tmp_path, benchmark="org/rooms:depth")
    (entry,) = parse_eval_result_entries(yaml.safe_load((named / ".eval_results" / "m33d.yaml").read_text()))
    measured = read_sealed_json(run / "evaluation" / "eval_results.json")["metrics"]
    assert (entry.dataset_id, entry.task_id, entry.value) == ("org/rooms", "depth", measured["delta1"])


def test_nothing_names_the_machine(run: Path, copy: Path, tmp_path: Path) -> None:
    options = {"split_file": "/secret/lists/train.txt", "every": 3, "/secret/room.png": 1}
    private = {"data__root": "/secret/recordings", "data__options": options, "data__cache_dir": "~/secret/cache"}
    change_arguments(copy, **private, data__mixture=[{"root": "/secret/other", "weight": 2.0}], recipe="secret.yaml")
    folder = _published(copy, tmp_path, licence="apache-2.0")
    kept = read_json(folder / "train_config.json")
    for text in [*strings(kept), (folder / "README.md").read_text(encoding="utf-8")]:
        assert "secret" not in text and str(tmp_path) not in text and str(run) not in text
    assert kept["args"]["data"]["options"] == {"split_file": None, "every": 3}
    assert {"data.root", "data.options.split_file", "data.mixture", "recipe"} <= set(kept["left_out"])
    assert kept["args"]["optim"] == read_sealed_json(run / "train_config.json")["args"]["optim"]


@pytest.mark.parametrize("word", ["{home}/a", "hf_" + "a1B2" * 8])
def test_a_leak_is_refused(run: Path, tmp_path: Path, word: str) -> None:
    name = word.format(home=str(Path.cwd()))
    with pytest.raises(HubError, match=r"README.md .*nothing was sent"):
        _published(run, tmp_path, dataset_name=name)


def test_pictures_come_only_if_asked_for(run: Path, folder: Path, tmp_path: Path) -> None:
    assert list((run / "pictures").glob("*.png")) and not (folder / "pictures").exists()
    with_them = _published(run, tmp_path, include_pictures=True)
    assert {p.name for p in (with_them / "pictures").iterdir()} == {p.name for p in (run / "pictures").glob("*.png")}


def test_a_run_without_evaluation_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "evaluation")
    with pytest.raises(HubError, match=r"no evaluation.*run_depth_estimation.py --recipe rooms/depth .*--eval_only"):
        publish(copy, PublishOptions(REPO), dry_run=True)
    card = (_published(copy, tmp_path, allow_unevaluated=True) / "README.md").read_text(encoding="utf-8")
    assert "**Not evaluated.**" in card and "model-index" not in card and "- Trained at 48 pixels" in card


def test_a_saved_model_below_checkpoints_is_no_checkpoint_of_a_run(folder: Path, tmp_path: Path) -> None:
    """Such as those of this repository: nothing beside that folder belongs to it."""
    model = Path(shutil.copytree(folder, tmp_path / "checkpoints" / "mine"))
    (model / "train_config.json").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "other.png").write_bytes(b"no picture of this model")
    assert open_source(model).run == model
    with pytest.raises(HubError, match="holds no pictures"):
        options = PublishOptions(REPO, licence="apache-2.0", allow_unevaluated=True, include_pictures=True)
        publish(model, options, dry_run=True)


def test_the_number_of_samples_is_no_metric(run: Path) -> None:
    found = headline(open_source(run), {"samples": 128.0, "rmse": 1.0, "delta1": 0.5, "iou/wall": 0.1})
    assert list(found) == ["delta1", "rmse"]


def test_the_card_says_how_much_of_a_prediction_is_the_mean_of_positions(folder: Path, tmp_path: Path) -> None:
    said = "of every prediction is the mean depth per position of the training frames"
    assert said not in (folder / "README.md").read_text(encoding="utf-8")
    saved(m33d_hf.M33DForDepthEstimation, tmp_path / "own", depth_head_width=16, num_hidden_layers=4,
          depth_prior_weight=0.3)  # fmt: skip
    config = m33d_hf.M33DConfig.from_pretrained(tmp_path / "own")
    m33d_hf.M33DImageProcessor.from_model_config(config).save_pretrained(tmp_path / "own")
    card = _published(tmp_path / "own", tmp_path, allow_unevaluated=True, licence="apache-2.0") / "README.md"
    text = card.read_text(encoding="utf-8")
    assert f"30 % {said} (`depth_prior_weight`)" in text and text.index(said) < text.index("## Use")


def test_an_evaluation_of_other_weights_is_refused(copy: Path) -> None:
    path = copy / "evaluation" / "eval_results.json"
    content = read_sealed_json(path)
    content["weights"] = dict.fromkeys(content["weights"], "0" * 40)
    write_sealed_json(path, content)
    with pytest.raises(HubError, match=r"has no evaluation.*measured with other weights"):
        publish(copy, PublishOptions(REPO), dry_run=True)
    with pytest.raises(HubError, match="measured with other weights"):
        publish(copy, PublishOptions(REPO, evaluations=[path]), dry_run=True)


@pytest.mark.parametrize(
    ("origin", "asked", "found"),
    [
        ("somewhere/mae_pretrain_vit_base.pth", None, "cc-by-nc-4.0"),
        ("MCG-NJU/videomae-base", None, "cc-by-nc-4.0"),
        ("facebook/dinov2-base", None, "apache-2.0"),
        ("somewhere/unknown.pth", "other", "other"),
        ("somewhere/mae_pretrain_vit_base.pth", "apache-2.0", "are cc-by-nc-4.0; what is trained from them is, too"),
        ("somewhere/unknown.pth", None, "go back to weights of unknown origin"),
    ],
)
def test_weights_keep_the_licence_of_their_origin(
    copy: Path, tmp_path: Path, origin: str, asked: str | None, found: str
) -> None:
    # A chain: this run started from one that started from `origin`.
    first = tmp_path / "first"
    first.mkdir()
    shutil.copy(copy / "train_config.json", first)
    change_arguments(first, init_from=origin)
    change_arguments(copy, init_from=str(first))
    if " " in found:
        with pytest.raises(HubError, match=found):
            publish(copy, PublishOptions(REPO, licence=asked), dry_run=True)
        return
    card = ModelCard.load(_published(copy, tmp_path, licence=asked) / "README.md")
    assert card.data.license == found
    assert str(tmp_path) not in card.text and card.text.count("depth estimation, recipe rooms/depth") == 2


def test_own_data_need_a_licence(copy: Path) -> None:
    change_arguments(copy, data__source="folder")
    with pytest.raises(HubError, match="the licence of your data may bind them"):
        publish(copy, PublishOptions(REPO), dry_run=True)


def test_the_same_files_get_the_same_tag(run: Path, folder: Path, tmp_path: Path) -> None:
    again = _published(run, tmp_path)
    assert content_tag(again) == content_tag(folder)
    (again / "config.json").write_text("{}")
    assert content_tag(again) != content_tag(folder)


def test_a_folder_that_holds_the_published_files_is_used_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub does not answer at first, and the same command goes on, as the message says."""
    kept, answers = tmp_path / "kept", [HubError("no answer"), Sent(REPO, "commit", "url", "tag")]

    def send(*_: object) -> Sent:
        answer = answers.pop(0)
        if isinstance(answer, HubError):
            raise answer
        return answer

    monkeypatch.setattr(publishing, "send", send)
    with pytest.raises(HubError, match="no answer"):
        publish(run, PublishOptions(REPO), keep=kept)
    done = publish(run, PublishOptions(REPO), keep=kept)
    assert done.sent is not None and not answers and (kept / "README.md").read_text(encoding="utf-8") == done.card
    (kept / "notes.txt").touch()
    with pytest.raises(HubError, match="exists already, and holds other files; pass a new folder with --folder"):
        publish(run, PublishOptions(REPO), keep=kept, dry_run=True)
    with pytest.raises(HubError, match=r"README\.md exists already"):
        publish(run, PublishOptions(REPO), keep=kept / "README.md", dry_run=True)


def test_the_handler_answers_as_the_model_does(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(str(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    wire = base64.b64encode(file.getvalue()).decode()
    answers = [handler({"inputs": each}) for each in (file.getvalue(), wire, Image.fromarray(pixels))]
    model = m33d_hf.M33DForDepthEstimation.from_pretrained(folder).eval()
    processor = m33d_hf.M33DImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(Image.fromarray(pixels), return_tensors="pt"))
    wanted = processor.post_process_depth_estimation(output, [(40, 52)])[0]["predicted_depth"]
    for answer in answers:
        json.dumps(answer)  # as the endpoint sends it
        assert torch.allclose(torch.tensor(answer["predicted_depth"]), wanted, atol=1e-5)
        assert Image.open(io.BytesIO(base64.b64decode(answer["depth"]))).size == (52, 40)
    for bad, said in (({}, "needs"), ({"inputs": "%%%"}, "base64"), ({"inputs": b"no picture"}, "no picture")):
        with pytest.raises(ValueError, match=said) as refused:
            handler(bad)
        assert " at 0x" not in str(refused.value)


def test_as_stock_holds_a_class_of_transformers_and_no_code(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    config = saved(m33d_hf.M33DForVideoClassification, clips, **CLASSIFIER).config
    m33d_hf.M33DVideoProcessor.from_model_config(config).save_pretrained(clips)
    options = PublishOptions("org/clips", licence="other", allow_unevaluated=True, as_stock=True)
    publish(clips, options, keep=tmp_path / "stock", dry_run=True)
    assert not list((tmp_path / "stock").glob("*.py"))
    assert read_json(tmp_path / "stock" / "config.json")["architectures"] == ["VideoMAEForVideoClassification"]
    card = ModelCard.load(tmp_path / "stock" / "README.md")
    assert "trust_remote_code" not in card.content and "custom_code" not in card.data.tags
    options = PublishOptions("org/clips", licence="other", allow_unevaluated=True)
    publish(clips, options, keep=tmp_path / "own", dry_run=True)
    assert (tmp_path / "own" / "examples" / "room.mp4").is_file() and (tmp_path / "own" / "handler.py").is_file()


def test_what_cannot_be_published_is_said(tmp_path: Path, run: Path) -> None:
    with pytest.raises(HubError, match="is no folder"):
        publish(tmp_path / "nothing", PublishOptions(REPO))
    with pytest.raises(CheckpointError, match="holds no model of this package"):
        publish(tmp_path, PublishOptions(REPO))
    with pytest.raises(ConfigError, match="write ORG/NAME"):
        PublishOptions("name")
    with pytest.raises(ConfigError, match="ORG/DATASET:TASK"):
        PublishOptions(REPO, benchmark="rooms")
    with pytest.raises(HubError, match="exists already"):
        publish(run, PublishOptions(REPO), keep=tmp_path, dry_run=True)
