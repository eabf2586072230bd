"""Stored features are used again only where nothing that they depend on has changed, ingredient by ingredient."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.frames_on_disk import depth_array, rgb_array, save
from helpers.phases_in_memory import MODEL, NAMES, arguments, deep_stage, register
from helpers.videos import write_video
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.detection.feature_extraction import STAGE_ONE, encode, weights_digest
from m33d_hf.training.tasks.detection.features import FeatureStore
from m33d_hf.training.tasks.detection.freshness import FileStamp, stamp_of
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

FRAMES, SIZE = 12, (24, 32)
VIDEOS = ("v_left", "v_right", "w_left", "w_right")
CAMERAS = "case,camera,video,offset\nv,left,v_left,0\nv,right,v_right,{}\nw,left,w_left,0\nw,right,w_right,0\n"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> str:
    fields = {"task_inputs": ["rgb", "depth"], "task_fusion": "concatenation"}
    return deep_stage(tmp_path_factory.mktemp("stage") / "one", **fields)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cases by two depth cameras, folders of frames; maps of one size, whatever they hold."""
    data = tmp_path / "data"
    for video, name in enumerate(VIDEOS):
        for frame in range(FRAMES):
            seed = 100 * video + frame
            save(data / name / f"color/{frame}.png", rgb_array(seed, SIZE))
            save(data / name / f"depth/{frame}.npy", depth_array(seed, SIZE))
    camera = {"width": SIZE[1], "height": SIZE[0], "fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5}
    rig = {"color": camera, "depth": camera, "depth_to_color": np.eye(4).tolist()}
    (data / "calibration.json").write_text(json.dumps(rig))
    (data / "cameras.csv").write_text(CAMERAS.format(0))
    for split, name in (("train", "v"), ("validation", "w")):
        lines = [f"{number}\t{NAMES[number * 3 // FRAMES]}\n" for number in range(FRAMES)]
        (data / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))
        (data / f"{split}.txt").write_text(f"{name}\n")
    return data


def given(root: Path, stage: str, **options: Any) -> RunArguments:
    chosen = {"phase_names": NAMES, "cameras": "cameras.csv", "fps": 10, "depth_scale": 1000, **options}
    args = arguments(root.parent / "run", stage, **{name: value for name, value in chosen.items() if value != ""})
    args.data.source, args.data.root, args.features.dir = "phases", str(root), str(root.parent / "kept")
    return args


def extract(args: RunArguments) -> dict[str, int]:
    """Extract the features of both splits; file -> when it was written."""
    task = ActionDetectionTask()
    task.extract(args, build_model(args, task))
    return times(args)


def times(args: RunArguments) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(str(args.features.dir)).glob("*/*")}


def section(name: str, **changes: Any) -> Callable[[RunArguments], None]:
    def change(args: RunArguments) -> None:
        for key, value in changes.items():
            setattr(getattr(args, name), key, value)

    return change


def options(**changes: Any) -> Callable[[RunArguments], None]:
    return lambda args: args.data.options.update(changes)


def written(file: str, change: Callable[[str], str]) -> Callable[[RunArguments], None]:
    def write(args: RunArguments) -> None:
        path = Path(str(args.data.root)) / file
        path.write_text(change(path.read_text()))

    return write


def renamed(args: RunArguments) -> None:
    written("cameras.csv", lambda text: text.replace("v,right", "v,other"))(args)


def exchanged(args: RunArguments) -> None:
    swap = {"v_right": "w_right", "w_right": "v_right"}
    written("cameras.csv", lambda text: re.sub(r"[vw]_right", lambda found: swap[found[0]], text))(args)


def other_weights(args: RunArguments) -> None:
    """One weight of the encoder, changed by the least that can be."""
    folder = Path(str(args.data.root)).parent / "retrained"
    shutil.copytree(str(args.init_from), folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.0.mlp.fc1.weight" in name)
    tensors[name].view(torch.int32).flatten()[0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    args.init_from = str(folder)


STALE: dict[str, tuple[Callable[[RunArguments], None], str]] = {
    "the way to crop": (section("transforms", eval_crop="center"), "image"),
    "the way to resize": (section("transforms", resize_mode="bicubic"), "image"),
    "precision": (section("train", precision="bf16"), "precision"),
    "how often a clip begins": (section("features", clip_stride=2), "clip"),
    "frames of a clip": (section("data", frame_stride=1), "clip"),
    "the encoder": (other_weights, "weights"),
    "when a camera began": (written("cameras.csv", lambda text: text.replace("v_right,0", "v_right,0.1")), "source"),
    "the name of a camera": (renamed, "source"),
    "which videos show one case": (exchanged, "source"),
    "the rate of frames": (options(fps=20), "reading"),
    "the unit of depth": (options(depth_scale=500), "source"),
    "the range of depth": (options(max_depth=2.0), "source"),
    "what no measurement is": (options(invalid_values=[0, 1500]), "source"),
    "a calibration": (options(calibration="calibration.json"), "reading"),
    "how sizes are brought together": (options(align="depth_to_rgb"), "reading"),
    "how maps lie": (options(orientation="upright"), "reading"),
    "an annotation": (written("v.txt", lambda text: text.replace("3\trest", "3\tcut")), "source"),
}


@pytest.mark.parametrize("what", STALE)
def test_features_of_another_origin_are_refused(what: str, root: Path, stage: str) -> None:
    before = extract(given(root, stage))
    assert extract(given(root, stage)) == before, "and of the same origin used again"
    change, name = STALE[what]
    args = given(root, stage)
    change(args)
    with pytest.raises(ConfigError, match=rf"features of another origin; these differ: .*{name}"):
        extract(args)
    assert times(args) == before, "nothing was written"


def test_another_calibration_is_another_origin(root: Path, stage: str) -> None:
    extract(given(root, stage, calibration="calibration.json"))
    written("calibration.json", lambda text: text.replace("30.0", "33.0", 1))(given(root, stage))
    with pytest.raises(ConfigError, match="these differ: reading"):
        extract(given(root, stage, calibration="calibration.json"))


def test_other_inputs_have_features_of_their_own(root: Path, stage: str) -> None:
    before = extract(given(root, stage))
    args = given(root, stage)
    args.evaluation.inputs = [["rgb"]]
    extract(args)
    assert {path.name for path in (root.parent / "kept").iterdir()} == {"train", "validation", "validation-rgb"}
    whole = json.loads((root.parent / "kept/validation/features.json").read_text())
    alone = json.loads((root.parent / "kept/validation-rgb/features.json").read_text())
    assert "inputs" not in whole and alone["inputs"] == ["rgb"]
    shutil.copy(root.parent / "kept/validation/features.json", root.parent / "kept/validation-rgb/features.json")
    with pytest.raises(ConfigError, match="these differ: inputs"):
        extract(args)
    assert before.keys()


def changed_in(root: Path, stage: str, before: dict[str, int]) -> set[str]:
    """The videos whose features were written anew."""
    after = extract(given(root, stage))
    return {Path(name).stem.rpartition("-")[0] for name, time in after.items() if before[name] != time}


@pytest.mark.parametrize("file", ["v_left/color/5.png", "v_right/depth/5.npy"])
def test_a_video_whose_file_changed_is_read_again_and_no_other(
    file: str, root: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where neither the size nor the name tells."""
    path = root / file
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    if path.suffix == ".png":  # stored, not deflated: every picture has one size
        for name in (path, path.with_name("other.png")):
            Image.fromarray(pixels).save(name, compress_level=0)
            pixels = 255 - pixels
        other = path.with_name("other.png").read_bytes()
        path.with_name("other.png").unlink()
    else:
        other = np.load(path)[:, ::-1].copy()
    before = extract(given(root, stage))
    size = path.stat().st_size
    path.write_bytes(other) if isinstance(other, bytes) else np.save(path, other)
    assert path.stat().st_size == size
    args = given(root, stage)
    args.dry_run, args.logging.progress = True, True
    assert "the run will extract them first" in dry_run(args, ActionDetectionTask())
    args.dry_run = False
    capsys.readouterr()
    task = ActionDetectionTask()
    task.extract(args, build_model(args, task))
    video = file.split("/")[0]
    assert f"1 video has other files than when features were extracted, and is read again: {video}" in (
        capsys.readouterr().err
    )
    assert changed_in(root, stage, before) == {video}


def test_files_that_were_only_touched_are_the_same(root: Path, stage: str) -> None:
    before = extract(given(root, stage))
    kept = {name: FeatureStore(root.parent / "kept/train").read(name).features for name in ("v_left", "v_right")}
    for path in (root / "v_left/depth").iterdir():
        os.utime(path, ns=(1, 1))
    known = FeatureStore(root.parent / "kept/train").summary("v_left").files
    assert known is not None
    assert changed_in(root, stage, before) == {"v_left"}, "the new times are noted"
    store = FeatureStore(root.parent / "kept/train")
    noted = store.summary("v_left").files
    assert noted is not None and noted[0] != known[0] and noted[1] == known[1]
    assert all(torch.equal(store.read(name).features, features) for name, features in kept.items())
    assert not changed_in(root, stage, extract(given(root, stage)))
    moved = root.parent / "elsewhere" / "data"
    shutil.copytree(root, moved)
    args = given(root, stage)
    args.data.root = str(moved)
    assert extract(args).keys() == before.keys(), "wherever the data lies"


def test_an_evaluation_beside_a_training_leaves_its_features_as_they_are(root: Path, stage: str) -> None:
    """Also where videos were copied or touched, whose new times a run notes in features of its own."""
    args = given(root, stage)
    args.features.dir = None
    train(args, ActionDetectionTask())
    run = Path(args.output_dir)
    for path in root.glob("w_*/*/*"):
        os.utime(path, ns=(1, 1))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.glob("features/*/*")}
    again = given(root, stage)
    again.features.dir, again.model, again.eval_only = None, {}, True
    again.init_from, again.output_dir = str(run), str(run / "evaluation")
    evaluate_run(again, ActionDetectionTask())
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.glob("features/*/*")}
    assert after == before and len(before) > 4
    assert not (run / "evaluation" / "features").exists(), "they were taken"


def test_depth_beside_videos_and_its_numbering_count(tmp_path: Path, stage: str) -> None:
    root = tmp_path / "data"
    for name, split in (("v", "train"), ("w", "validation")):
        write_video(root / "videos" / f"{name}.mp4", FRAMES, size=SIZE)
        for frame in range(FRAMES):
            save(root / "depth" / name / f"{frame + 1}.png", depth_array(frame, SIZE))
        lines = [f"{number}\t{NAMES[number * 3 // FRAMES]}\n" for number in range(FRAMES)]
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(lines))
        (root / f"{split}.txt").write_text(f"{name}\n")
    spec = {"kind": "metric", "unit": "millimetre"}
    (root / "depth/depth_spec.json").write_text(json.dumps(spec))
    chosen = {"cameras": "", "fps": "", "depth_scale": ""}
    before = extract(given(root, stage, **chosen))
    assert extract(given(root, stage, **chosen)) == before
    kept = json.loads((tmp_path / "kept/train/features.json").read_text())["reading"]
    assert kept["times"] == 25.0 and kept["first_frame"] is None and kept["depth"]["unit"] == "millimetre"
    (root / "depth/depth_spec.json").write_text(json.dumps({**spec, "first_frame": 1}))
    with pytest.raises(ConfigError, match="these differ: reading"):
        extract(given(root, stage, **chosen))


def test_features_that_do_not_say_what_they_were_made_of_are_refused(root: Path, stage: str) -> None:
    extract(given(root, stage))
    file = root.parent / "kept/train/features.json"
    store = FeatureStore(root.parent / "kept/train")
    video = store.read("v_left")
    store.write(dataclasses.replace(video, files=None))
    assert changed_in(root, stage, extract(given(root, stage))) == set()
    assert store.summary("v_left").files is not None, "extracted again"
    from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json

    write_sealed_json(file, {**read_sealed_json(file), "version": 1})
    with pytest.raises(ConfigError, match="these differ: version"):
        extract(given(root, stage))


def test_a_stamp_sees_every_name_and_size_and_the_parts_of_large_files(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(bytes(4 << 20))
    small.write_bytes(b"abc")
    listed = [("large", large), ("small", small)]
    first = stamp_of(listed)
    assert first is not None and stamp_of(listed) == first and stamp_of([]) is None
    seen = {first.content}
    for place in (0, (4 << 20) - 1):
        with large.open("r+b") as file:
            file.seek(place)
            file.write(b"1")
        stamp = stamp_of(listed)
        assert isinstance(stamp, FileStamp)
        seen.add(stamp.content)
    small.write_bytes(b"abd")
    seen |= {stamp_of(listed).content, stamp_of([("large", large)]).content}  # type: ignore[union-attr]
    small.unlink()
    seen.add(stamp_of(listed).content)  # type: ignore[union-attr]
    assert len(seen) == 6


# Fields of a configuration that change what a clip's features are, or the weights that there are.
OTHERWISE: dict[str, Any] = {
    "hidden_act": "relu", "layer_norm_eps": 0.1, "num_attention_heads": 1, "qkv_bias": False, "use_cls_token": True,
    "position_embedding_type": "learned", "position_embedding_resize": "antialias", "encoder_norm": False,
    "depth_standardization": "full", "depth_standardization_scope": "frame",
    "num_register_tokens": 1, "head_norm": True, 
}  # fmt: skip
NOT_COUNTED: dict[str, Any] = {
    "depth_dropout": 0.1, "classifier_dropout": 0.5, "classifier_init_scale": 1.0, "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5, "drop_path_rate": 0.5, "initializer_range": 1.0, "temporal_hidden_size": 4,
    "temporal_causal": True, "temporal_clip_stride": 7, "temporal_frame_stride": 3, "temporal_dropout": 0.5,
    "contrastive_weight": 1.0, "matching_weight": 1.0, "depth_mean": 1.0, "min_depth": 0.5,
    "semantic_loss_ignore_index": 3, "depth_prior_weight": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("name", [*OTHERWISE, *NOT_COUNTED])
def test_what_the_digest_leaves_out_changes_no_features(name: str) -> None:
    """A field either counts, or leaves the features of the same weights what they were, to the last bit."""
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {each: i for i, each in enumerate(NAMES)}}
    fields = {**MODEL, **labels, "task_inputs": ["rgb", "depth"], "task_fusion": "sum"}
    value = {**OTHERWISE, **NOT_COUNTED}[name]
    torch.manual_seed(0)
    one = M33DForVideoActionDetection(M33DConfig(**fields)).eval()
    other = M33DForVideoActionDetection(M33DConfig(**{**fields, name: value})).eval()
    own = {key: tensor for key, tensor in one.state_dict().items() if key.startswith(STAGE_ONE)}
    theirs = {key: tensor.shape for key, tensor in other.state_dict().items() if key.startswith(STAGE_ONE)}
    fits = {key: tensor.shape for key, tensor in own.items()} == theirs
    if fits:
        other.load_state_dict(own, strict=False)
    differs = weights_digest(one) != weights_digest(other)
    assert differs == (name in OTHERWISE)
    if not differs:
        generator = torch.Generator().manual_seed(0)
        clips = torch.randint(256, (2, 2, 3, 16, 16), generator=generator, dtype=torch.uint8)
        depth = torch.rand(2, 2, 1, 16, 16, generator=generator) + 1
        pairs = zip(encode(one, clips, "cpu", "no", depth), encode(other, clips, "cpu", "no", depth), strict=True)
        assert all(torch.equal(mine, its) for mine, its in pairs)


def test_videos_without_files_are_known_by_their_source(tmp_path: Path) -> None:
    register()
    from helpers.phases_in_memory import MemorySource

    source = MemorySource("train", clip_span=4)
    assert list(source.files(0)) == [] and stamp_of(source.files(0)) is None
