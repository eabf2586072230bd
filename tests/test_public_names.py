"""What `import m33d_hf` gives, how little it costs, and that transformers' auto classes find us in any order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import m33d_hf


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_importable_and_documented() -> None:
    for name in m33d_hf.__all__:
        value = getattr(m33d_hf, name)
        assert value is not None and name in dir(m33d_hf)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="M33DModell"):
        _ = m33d_hf.M33DModell


def test_version_is_that_of_the_metadata(repository: Path) -> None:
    assert f"version = {m33d_hf.__version__}\n" in (repository / "setup.cfg").read_text(encoding="utf-8")


def test_import_takes_milliseconds() -> None:
    code = "import time; t = time.process_time(); import m33d_hf; print(time.process_time() - t)"
    assert min(float(_run(code)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "first",
    [
        "import m33d_hf",
        pytest.param("from transformers import AutoModel; import m33d_hf", marks=pytest.mark.slow),
        pytest.param("from transformers import pipeline; import m33d_hf", marks=pytest.mark.slow),
        "from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation",
    ],
)
def test_auto_classes_know_us_whatever_is_imported_first(first: str) -> None:
    code = f"""
{first}
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForDepthEstimation
from transformers import AutoModelForPreTraining, AutoModelForSemanticSegmentation, AutoModelForVideoClassification
from transformers import AutoBackbone, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from m33d_hf import registration
assert not registration._PENDING, registration._PENDING
tasks = PIPELINE_REGISTRY.get_supported_tasks()
assert "rgbd-image-segmentation" in tasks and "rgbd-video-classification" in tasks
config = AutoConfig.for_model("m33d", image_size=16, patch_size=8, hidden_size=8, num_hidden_layers=1,
    num_attention_heads=1, intermediate_size=8, decoder_hidden_size=8, decoder_num_hidden_layers=1,
    decoder_num_attention_heads=1, decoder_intermediate_size=8, segmentation_head_width=4, depth_head_width=8)
for auto in (AutoModel, AutoModelForPreTraining, AutoModelForDepthEstimation, AutoModelForSemanticSegmentation,
        AutoModelForVideoClassification):
    print(type(auto.from_config(config)).__name__)
print(type(AutoBackbone.from_config(config)).__name__)
"""
    expected = ["M33DModel", "M33DForPreTraining", "M33DForDepthEstimation", "M33DForSemanticSegmentation"]
    expected += ["M33DForVideoClassification", "M33DBackbone"]
    assert _run(code).split() == expected


def test_stock_pipelines_run_on_saved_folders(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, pipeline

    config = m33d_hf.M33DConfig(
        image_size=[16, 24], patch_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32, segmentation_head_width=8, depth_head_width=16,
        id2label={0: "wall", 1: "floor", 2: "box"}, label2id={"wall": 0, "floor": 1, "box": 2},
    )  # fmt: skip
    image = Image.new("RGB", (36, 20), (200, 30, 90))
    for word, cls in (("segment", m33d_hf.M33DForSemanticSegmentation), ("depth", m33d_hf.M33DForDepthEstimation)):
        cls(config).save_pretrained(tmp_path / word)
        m33d_hf.M33DImageProcessor.from_model_config(config).save_pretrained(tmp_path / word)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path / "depth"), m33d_hf.M33DImageProcessor)
    parts = pipeline("image-segmentation", model=str(tmp_path / "segment"))(image)
    assert {part["label"] for part in parts} <= {"wall", "floor", "box"}
    assert all(part["mask"].size == (36, 20) for part in parts)
    result = pipeline("depth-estimation", model=str(tmp_path / "depth"))(image)
    assert tuple(result["predicted_depth"].shape) == (20, 36) and result["depth"].size == (36, 20)


def test_features_come_from_the_stock_pipeline_without_masks(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import pipeline

    config = m33d_hf.M33DConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    m33d_hf.M33DModel(config).save_pretrained(tmp_path)
    m33d_hf.M33DImageProcessor.from_model_config(config).save_pretrained(tmp_path)
    features = pipeline("image-feature-extraction", model=str(tmp_path))(Image.new("RGB", (30, 30)))
    assert len(features[0]) == 4 + 1 and len(features[0][0]) == 16
