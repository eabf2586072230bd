"""Run as a script by an interpreter that cannot import m33d_hf: loads from a hub (or its cache) and prints what it saw.

Usage: python -I without_the_package.py FOLDER {hub|cache} [ADDRESS]

FOLDER holds what the test wrote: inputs.pt, picture.png, clip.mp4. Prints one JSON object: check -> what it returned,
or {"error": ...}.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER, SOURCE = Path(sys.argv[1]), sys.argv[2]
ADDRESS = sys.argv[3] if len(sys.argv) > 3 else ""
sys.modules["m33d_hf"] = None  # type: ignore[assignment]  # importing it raises, whatever is installed
if SOURCE == "cache":
    sys.modules["torchvision"] = None  # type: ignore[assignment]

import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import pipeline  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402
from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # noqa: E402

TRUST = {"trust_remote_code": True}
INPUTS = torch.load(FOLDER / "inputs.pt", weights_only=True)
HEADS = {
    "AutoModel": "model",
    "AutoModelForPreTraining": "pretraining",
    "AutoModelForSemanticSegmentation": "segmentation",
    "AutoModelForDepthEstimation": "depth",
    "AutoModelForVideoClassification": "actions",
}
checks: dict[str, Callable[[], Any]] = {}
said: list[str] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Enter a check under its name."""
    checks[function.__name__] = function
    return function


def auto(name: str) -> Any:
    """An Auto class."""
    return getattr(transformers, name)


def main_output(output: Any) -> torch.Tensor:
    """The tensor that a model is asked for."""
    for name in ("loss", "predicted_depth", "logits", "last_hidden_state"):
        if output.get(name) is not None:
            return output[name]
    raise LookupError(list(output))


def far_off(model: Any, repo: str, wanted: str = "") -> float:
    """How far the output is from what the package's class gave for the same input."""
    torch.manual_seed(0)  # of the masks
    with torch.no_grad():
        output = main_output(model.eval()(**INPUTS[repo]))
    return float((output - INPUTS[wanted or f"{repo}_output"]).abs().max())


def home(value: Any) -> str:
    """Name of a class, with the top package that it comes from."""
    return f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"


def refusal(load: Callable[[], Any]) -> str:
    """What a call that must fail says."""
    try:
        return f"no error, but {load()!r:.200}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@check
def heads() -> dict[str, Any]:
    found = {}
    for name, repo in HEADS.items():
        model = auto(name).from_pretrained(f"org/{repo}", **TRUST)
        found[name] = [home(model), far_off(model, repo)]
    return found


@check
def processors() -> dict[str, Any]:
    load = transformers.AutoImageProcessor.from_pretrained
    found = {}
    for backend in [None, "pil"]:
        processor = load("org/depth", **TRUST, **({"backend": backend} if backend else {}))
        values = processor(Image.open(FOLDER / "picture.png"), return_tensors="pt")["pixel_values"]
        found[str(backend)] = [home(processor), torch.equal(values, INPUTS["picture_values"])]
    videos = AutoVideoProcessor.from_pretrained("org/actions", **TRUST)
    values = videos(str(FOLDER / "clip.mp4"), do_sample_frames=True, return_tensors="pt")["pixel_values"]
    found["video"] = [home(videos), torch.equal(values, INPUTS["clip_values"])]
    return found


@check
def pipelines() -> dict[str, Any]:
    where = str(FOLDER / "picture.png")
    pictures = [Image.open(where), where, *([f"{ADDRESS}/files/picture.png"] if ADDRESS else [])]
    found: dict[str, Any] = {}
    depth = pipeline("depth-estimation", model="org/depth", **TRUST)
    found["depth"] = [list(depth(each)["predicted_depth"].shape) for each in pictures]
    segment = pipeline("image-segmentation", model="org/segmentation", **TRUST)
    parts = [segment(each) for each in pictures]
    found["segmentation"] = [sorted({(part["label"], *part["mask"].size) for part in each}) for each in parts]
    features = pipeline("image-feature-extraction", model="org/model", **TRUST)
    found["features"] = [[len(features(each)[0]), len(features(each)[0][0])] for each in pictures]
    classify = pipeline("video-classification", model="org/actions", **TRUST)
    clips = [str(FOLDER / "clip.mp4"), *([f"{ADDRESS}/files/clip.mp4"] if ADDRESS else [])]
    found["actions"] = [sorted(each["label"] for each in classify(clip)) for clip in clips]
    return found


if SOURCE == "hub":

    @check
    def any_head_from_any_repo() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for repo in ("depth", "pretraining"):
            for name in HEADS:
                if name != "AutoModelForVideoClassification":
                    found.setdefault(repo, []).append(home(auto(name).from_pretrained(f"org/{repo}", **TRUST)))
        return found

    @check
    def backbone() -> list[Any]:
        model = transformers.AutoBackbone.from_pretrained("org/depth", out_indices=[1, 4], **TRUST).eval()
        with torch.no_grad():
            maps = model(**INPUTS["depth"]).feature_maps
        differences = [float((one - two).abs().max()) for one, two in zip(maps, INPUTS["depth_maps"])]
        return [home(model), len(maps), max(differences)]

    @check
    def detection() -> list[Any]:
        place = "video_tasks_m33d.M33DForVideoActionDetection"
        model = get_class_from_dynamic_module(place, "org/detection").from_pretrained("org/detection")
        return [home(model), far_off(model, "detection")]

    @check
    def rgbd_pipeline() -> list[Any]:
        place = "rgbd_pipelines_m33d.RGBDImageSegmentationPipeline"
        own = get_class_from_dynamic_module(place, "org/rgbd")
        segment = pipeline("image-segmentation", model="org/rgbd", pipeline_class=own, **TRUST)
        picture, depth = str(FOLDER / "picture.png"), torch.full((40, 52), 2.0)
        inputs = [{"image": picture}, {"image": picture, "depth": depth}, {"depth": depth}]
        return [home(segment), *[[(part["label"], *part["mask"].size) for part in segment(each)] for each in inputs]]

    @check
    def temporal_models() -> list[float]:
        place, names = "video_tasks_m33d.M33DForVideoActionDetection", ("detection_tcn", "detection_transformer")
        load = {name: get_class_from_dynamic_module(place, f"org/{name}").from_pretrained for name in names}
        return [far_off(load[name](f"org/{name}"), name) for name in names]

    @check
    def revision() -> float:
        model = auto("AutoModelForDepthEstimation").from_pretrained("org/depth", revision="v1", **TRUST)
        return far_off(model, "depth", "depth_output_v1")

    @check
    def precision_and_place() -> list[str]:
        load = auto("AutoModelForDepthEstimation").from_pretrained
        found = []
        for options in ({"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"device_map": "auto"}):
            model = load("org/depth", **options, **TRUST).eval()
            pixels = INPUTS["depth"]["pixel_values"].to(model.dtype)
            depth = model(pixel_values=pixels).predicted_depth
            found.append(f"{model.dtype} {model.device} {depth.dtype} {bool(depth.isfinite().all())}")
        return found

    @check
    def saved_again() -> list[Any]:
        for cls in (auto("AutoModelForDepthEstimation"), transformers.AutoImageProcessor):
            cls.from_pretrained("org/depth", **TRUST).save_pretrained(FOLDER / "again")
        model = auto("AutoModelForDepthEstimation").from_pretrained(FOLDER / "again", **TRUST)
        other = auto("AutoModelForPreTraining").from_pretrained(FOLDER / "again", **TRUST)
        processor = transformers.AutoImageProcessor.from_pretrained(FOLDER / "again", backend="pil", **TRUST)
        return [far_off(model, "depth"), home(other), home(processor)]

    @check
    def refusals() -> dict[str, str]:
        load = auto("AutoModelForDepthEstimation").from_pretrained
        return {
            "no trust": refusal(lambda: load("org/depth", trust_remote_code=False)),
            "no such revision": refusal(lambda: load("org/depth", revision="v9", **TRUST)),
            "no such repo": refusal(lambda: load("org/none", **TRUST)),
            "illegal characters": refusal(lambda: load("org/a depth model!", **TRUST)),
            "no weights": refusal(lambda: load("org/empty", **TRUST)),
        }


class _Record(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said.append(record.getMessage())


def main() -> None:
    """Run all checks."""
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").addHandler(_Record(level=logging.WARNING))
    warnings.showwarning = lambda message, *_, **__: said.append(str(message))  # type: ignore[assignment]
    results: dict[str, Any] = {}
    for name, function in checks.items():
        before = len(said)
        try:
            results[name] = function()
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {error}"}
        results[f"{name}, said"] = said[before:]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
