"""Saved folders carry their code and the table of Auto classes; nobody is asked to trust code that is installed."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.dynamic_module_utils import check_imports, get_relative_import_files

import m33d_hf
from helpers.tiny import CLIP, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling import auto_m33d
from m33d_hf.modeling.auto_m33d import AUTO_MAP, completed_auto_map
from m33d_hf.modeling.task_base_m33d import M33DTaskModel

FILES = sorted(Path(auto_m33d.__file__).parent.glob("*_m33d.py"))
NAMES = {path.name for path in FILES}
HEADS = {"num_hidden_layers": 4, "segmentation_head_width": 16, "segmentation_head_depth": 1, "depth_head_width": 16}
MODELS = {name: entry.split(".")[1] for name, entry in AUTO_MAP.items() if name.startswith("AutoModel")}


def places() -> list[tuple[str, str]]:
    """(Auto class, "module.Class") of the table."""
    flat = [(name, entry.values() if isinstance(entry, dict) else [entry]) for name, entry in AUTO_MAP.items()]
    return [(name, place) for name, entries in flat for place in entries]


@pytest.mark.parametrize(("name", "place"), places())
def test_the_table_names_classes_that_are_there(name: str, place: str) -> None:
    module, cls = place.split(".")
    assert f"{module}.py" in NAMES and hasattr(transformers, name)
    assert getattr(m33d_hf, cls).__module__ == f"m33d_hf.modeling.{module}"


@pytest.mark.parametrize("name", sorted({place.split(".")[0] for _, place in places()}))
def test_every_file_of_the_table_leads_to_all_files(name: str) -> None:
    """As transformers looks for them: whichever class is loaded or saved, all files go with it."""
    path = FILES[0].with_name(f"{name}.py")
    assert {Path(found).name for found in get_relative_import_files(path)} >= NAMES - {path.name}


def test_no_file_needs_a_package_that_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers looks for them, in the bodies of functions too."""
    for name in ("torchvision", "decord", "av", "h5py", "m33d_hf"):
        monkeypatch.setitem(sys.modules, name, None)
    for path in FILES:
        check_imports(path)


def _save(name: str, folder: Path) -> Any:
    clip = CLIP if "Video" in name else {}
    model = getattr(m33d_hf, name)(tiny_config(**HEADS, **clip))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", [*MODELS.values(), "M33DForVideoActionDetection", "M33DBackbone"])
def test_every_model_is_saved_with_its_code(name: str, tmp_path: Path) -> None:
    _save(name, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == NAMES | {"config.json", "model.safetensors"}
    for path in FILES:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == AUTO_MAP


@pytest.mark.parametrize("name", ["M33DImageProcessor", "M33DImageProcessorPil", "M33DVideoProcessor"])
def test_every_processor_is_saved_with_its_code(name: str, tmp_path: Path) -> None:
    getattr(m33d_hf, name).from_model_config(tiny_config()).save_pretrained(tmp_path)
    (saved,) = tmp_path.glob("*.json")
    assert json.loads(saved.read_text())["auto_map"] == AUTO_MAP
    assert {path.name for path in tmp_path.glob("*.py")} == NAMES


def test_a_head_of_ones_own_keeps_its_entry() -> None:
    mine = {"AutoModelForImageClassification": "my_head.MyHead", "AutoModel": "org/other--modeling_m33d.M33DModel"}
    assert completed_auto_map(mine) == {**AUTO_MAP, "AutoModelForImageClassification": "my_head.MyHead"}
    half = {"AutoImageProcessor": "image_processing_m33d.M33DImageProcessor"}  # as transformers writes it
    assert completed_auto_map(half) == AUTO_MAP
    own_depth = {"AutoModelForDepthEstimation": "mine.Depth"}
    assert completed_auto_map(own_depth) == {**AUTO_MAP, **own_depth}


class HeadOfTheReader(M33DTaskModel):
    """A task model of somebody else's package: its file is not ours to copy."""

    def __init__(self, config: m33d_hf.M33DConfig) -> None:
        super().__init__(config, final_norm=True)
        self.post_init()


def test_models_of_other_packages_are_saved_as_before(tmp_path: Path) -> None:
    HeadOfTheReader(tiny_config()).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == NAMES
    assert HeadOfTheReader.from_pretrained(tmp_path).config.auto_map == AUTO_MAP


def test_a_file_in_the_place_of_a_folder_is_refused_as_ever(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(AssertionError, match="should be a directory"):
        tiny_config().save_pretrained(tmp_path / "taken")


def _asked(*_: object) -> str:
    raise AssertionError("somebody was asked whether to trust the code")


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", _asked)


@pytest.mark.parametrize("auto", MODELS)
@pytest.mark.usefixtures("nobody_is_asked")
def test_installed_code_is_used_whatever_the_folder_brings(auto: str, tmp_path: Path) -> None:
    kept = _save(MODELS[auto], tmp_path).state_dict()
    for trust in ({}, {"trust_remote_code": True}, {"trust_remote_code": False}):
        model = getattr(transformers, auto).from_pretrained(tmp_path, **trust)
        assert type(model) is getattr(m33d_hf, MODELS[auto]) and type(model.config) is m33d_hf.M33DConfig
        assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())


@pytest.mark.usefixtures("nobody_is_asked")
def test_installed_processors_are_used_whatever_the_folder_brings(tmp_path: Path) -> None:
    m33d_hf.M33DImageProcessor.from_model_config(tiny_config()).save_pretrained(tmp_path / "images")
    m33d_hf.M33DVideoProcessor.from_model_config(tiny_config()).save_pretrained(tmp_path / "videos")
    load = transformers.AutoImageProcessor.from_pretrained
    for trust in ({}, {"trust_remote_code": True}):
        assert type(load(tmp_path / "images", **trust)) is m33d_hf.M33DImageProcessor
        assert type(load(tmp_path / "images", backend="pil", **trust)) is m33d_hf.M33DImageProcessorPil
        found = transformers.AutoVideoProcessor.from_pretrained(tmp_path / "videos", **trust)
        assert type(found) is m33d_hf.M33DVideoProcessor


def _config(folder: Path, **changes: Any) -> Path:
    _save("M33DModel", folder)
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**plain, **changes}))
    return folder


def test_a_field_of_a_later_version_is_told_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = _config(tmp_path, rotary_base=100.0)
    transformers.logging.enable_propagation()
    model = m33d_hf.M33DModel.from_pretrained(folder)
    transformers.logging.disable_propagation()
    assert model.config.rotary_base == 100.0
    (line,) = {record.getMessage() for record in caplog.records if "rotary_base" in record.getMessage()}
    assert "no field 'rotary_base'" in line and "has no effect: a later version may have written the file" in line


def test_a_value_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = _config(tmp_path, position_embedding_type="rotary")
    with pytest.raises(ConfigError, match=r"position_embedding_type must be one of sincos_2d.* not 'rotary'"):
        m33d_hf.M33DModel.from_pretrained(folder)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    _save("M33DModel", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no file named model.safetensors.* found in directory"):
        m33d_hf.M33DModel.from_pretrained(tmp_path)


class Wicked:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.path, "executed")


def test_a_pickle_with_code_in_it_is_refused_and_not_executed(tmp_path: Path) -> None:
    model = _save("M33DModel", tmp_path / "repo")
    (tmp_path / "repo" / "model.safetensors").unlink()
    torch.save({**model.state_dict(), "extra": Wicked(tmp_path / "proof")}, tmp_path / "repo" / "pytorch_model.bin")
    for load in (m33d_hf.M33DModel.from_pretrained, transformers.AutoModel.from_pretrained):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            load(tmp_path / "repo")
        assert not (tmp_path / "proof").exists()
    pickle.loads(pickle.dumps(Wicked(tmp_path / "proof")))
    assert (tmp_path / "proof").read_text() == "executed"  # it would have been noticed


def test_names_that_lead_nowhere() -> None:
    """Without a network, as all tests run."""
    models, processors = m33d_hf.M33DModel.from_pretrained, transformers.AutoImageProcessor.from_pretrained
    for load in (models, processors):
        with pytest.raises(OSError, match="Repo id must use alphanumeric chars"):
            load("org/a depth model!")
    with pytest.raises(OSError, match=r"couldn't connect to .* and couldn't find"):
        models("org/m33d-vitb-nowhere")
    with pytest.raises(OSError, match="Can't load image processor for 'org/m33d-vitb-nowhere'"):
        processors("org/m33d-vitb-nowhere")


def test_a_revision_that_is_not_in_the_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--depth" / "snapshots" / ("a" * 40)
    _save("M33DForDepthEstimation", snapshot)
    for name in ("main", "v1"):
        (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
        (snapshot.parents[1] / "refs" / name).write_text("a" * 40)
    load = m33d_hf.M33DForDepthEstimation.from_pretrained
    assert load("org/depth", revision="v1", cache_dir=tmp_path).num_parameters() > 0
    with pytest.raises(OSError, match="couldn't connect"):
        load("org/depth", revision="v2", cache_dir=tmp_path)
