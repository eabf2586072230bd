"""Own checkpoints into fresh models: stage 1 -> stage 2 -> task, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.foreign import original_mae, tiny_vitmae
from helpers.normals_head import ForNormals
from m33d_hf.errors import CheckpointError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.building import starting_config
from m33d_hf.weights import ConversionOptions
from m33d_hf.weights.own import find_own, initialise

SMALL = ["--model.hidden_size", "16", "--model.intermediate_size", "32", "--model.num_hidden_layers", "4",
         "--model.decoder_hidden_size", "8", "--model.decoder_intermediate_size", "16"]  # fmt: skip


ENCODER = SMALL[:6]


def config_of(recipe: str, method: str = "m33d", *words: str) -> M33DConfig:
    given = {word for word in words if word.startswith("--")}
    small = [w for key, value in zip(SMALL[::2], SMALL[1::2], strict=True) if key not in given for w in (key, value)]
    return M33DConfig(**parse_arguments(["--recipe", recipe, "--method", method, *small, *words], "pretraining").model)


def saved(folder: Path, config: M33DConfig, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    M33DForPreTraining(config).save_pretrained(folder)
    return folder


def fresh(config: M33DConfig, kind: type = M33DForPreTraining) -> torch.nn.Module:
    torch.manual_seed(2)
    return kind(config)


def test_stage_1_to_stage_2(tmp_path: Path) -> None:
    folder = saved(tmp_path / "stage1", config_of("rooms/pretrain_stage1"))
    model = fresh(config_of("rooms/pretrain_stage2"))
    report = initialise(model, folder)
    own, state = load_file(folder / "model.safetensors"), model.state_dict()
    encoder = [name for name in own if name.startswith("m33d.")]
    assert all(torch.equal(state[name], own[name]) for name in encoder)
    assert sorted(report.filled) == sorted(encoder)
    assert set(report.new) == {name for name in state if name.startswith("decoder.")}
    assert set(report.new.values()) == {"the checkpoint has no decoder"}
    assert report.ignored == {}
    assert "decoder.*" in report.summary_by_part()


def test_the_same_model_is_loaded_whole(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain_clips"))
    model = fresh(config_of("rooms/pretrain_clips"))
    report = initialise(model, folder)
    assert (report.new, report.ignored) == ({}, {})
    assert all(torch.equal(model.state_dict()[k], v) for k, v in load_file(folder / "model.safetensors").items())
    assert set(report.filled) == set(model.state_dict())


def test_the_decoder_can_be_left_out(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain_stage2"))
    report = initialise(fresh(config_of("rooms/pretrain_stage2")), folder, ConversionOptions(init_decoder=False))
    assert set(report.new) == set(report.ignored)
    assert set(report.new.values()) == {"init.init_decoder is false"}


def test_another_decoder_is_new_as_a_whole(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain_stage2"))
    words = ["--model.decoder_hidden_size", "16"]
    report = initialise(fresh(config_of("rooms/pretrain_stage2", "m33d", *words)), folder)
    assert all(name.startswith("decoder.") for name in [*report.new, *report.ignored])
    assert len(report.new) == len(report.ignored) > 0
    assert all("(16,)" in r or "different decoder" in r for r in report.new.values())


@pytest.mark.parametrize("kind", [M33DForSemanticSegmentation, M33DForDepthEstimation])
def test_task_models_take_the_rgb_encoder(tmp_path: Path, kind: type) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain_stage2", "m33d_plus"))
    task = "semantic_segmentation" if kind is M33DForSemanticSegmentation else "depth_estimation"
    recipe = "rooms/semseg" if task == "semantic_segmentation" else "rooms/depth"
    config = M33DConfig(**parse_arguments(["--recipe", recipe, *ENCODER], task).model)
    model = fresh(config, kind)
    report = initialise(model, folder)
    own, state = load_file(folder / "model.safetensors"), model.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in report.filled)
    assert all(name.startswith(("segmentation_head.", "depth_head.")) for name in report.new)
    assert set(report.filled) | set(report.new) == set(state)
    assert set(report.filled.values()) | set(report.ignored) == set(own)
    assert not any(name.startswith("m33d.encoders.rgb.layers") for name in report.ignored)


def test_a_head_that_this_package_does_not_know_is_new(tmp_path: Path) -> None:
    config = config_of("rooms/pretrain", "rgbd_mae")
    model, folder = fresh(config, ForNormals), saved(tmp_path / "pre", config)
    report = initialise(model, folder)
    heads = ("toy_head.weight", "toy_head.bias")
    assert report.new == dict.fromkeys(heads, "toy_head is not in the checkpoint")
    own, state = load_file(folder / "model.safetensors"), model.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in set(state) - set(heads))
    model.save_pretrained(tmp_path / "normals")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"a weight of 'toy_head', a part that no model of this package has"):
        initialise(fresh(config, M33DForDepthEstimation), tmp_path / "normals")


def test_depth_parts_come_from_rgb(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    own = load_file(folder / "model.safetensors")
    model = fresh(config_of("rooms/pretrain", "rgbd_mae"))
    report = initialise(model, folder)
    state = model.state_dict()
    kernel = "m33d.embeddings.rgb.projection.weight"
    assert torch.equal(state[kernel.replace("rgb", "depth")], own[kernel].sum(dim=1, keepdim=True))
    layer = "m33d.encoders.rgb.layers.1.mlp.fc1.weight"
    assert torch.equal(state[layer.replace("rgb", "depth")], own[layer])
    assert {n for n in report.new if not n.startswith("decoder.")} == set()
    assert "decoder.heads.depth.weight" in report.new
    assert torch.equal(state["decoder.layers.0.mlp.fc1.weight"], own["decoder.layers.0.mlp.fc1.weight"])


def test_depth_parts_can_stay_random(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    model = fresh(config_of("rooms/pretrain", "rgbd_mae"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = initialise(model, folder, ConversionOptions(depth_encoder_init="random", depth_patch_init="random"))
    depth = [n for n in before if n.startswith(("m33d.encoders.depth.", "m33d.embeddings.depth."))]
    assert set(depth) <= set(report.new)
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in depth)


def test_separate_encoders_from_a_shared_one_and_back(tmp_path: Path) -> None:
    shared = config_of("rooms/pretrain", "rgbd_mae", "--model.encoder_sharing", "shared")
    separate = config_of("rooms/pretrain", "rgbd_mae")
    model = fresh(separate)
    initialise(model, saved(tmp_path / "shared", shared))
    layer = "m33d.encoders.{}.layers.0.attention.qkv.weight"
    assert torch.equal(model.state_dict()[layer.format("rgb")], model.state_dict()[layer.format("depth")])
    back = fresh(shared)
    report = initialise(back, saved(tmp_path / "separate", separate))
    own = load_file(tmp_path / "separate" / "model.safetensors")
    assert torch.equal(back.state_dict()[layer.format("shared")], own[layer.format("rgb")])
    assert any(name.startswith("m33d.encoders.depth.") for name in report.ignored)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["--model.hidden_size", "32"],
            ["hidden_size is 16 in the checkpoint and 32 in this model", "--model.hidden_size 16"],
        ),
        (["--model.num_hidden_layers", "2"], ["num_hidden_layers is 4 in the checkpoint and 2 in this model"]),
        (["--model.num_hidden_layers", "6"], ["num_hidden_layers is 4 in the checkpoint and 6 in this model"]),
        (["--model.patch_size", "16"], ["patch_size is 8 in the checkpoint and 16 in this model"]),
        (["--model.num_attention_heads", "2"], ["num_attention_heads", "4", "2"]),
    ],
)
def test_another_architecture_names_both_sides_and_changes_nothing(
    tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    model = fresh(config_of("rooms/pretrain", "mae", *words))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        initialise(model, folder)
    for part in parts:
        assert part in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_unknown_weights_are_errors(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "surprise.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"surprise\.weight"):
        initialise(fresh(config_of("rooms/pretrain", "mae")), folder)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    config = config_of("rooms/pretrain", "mae")
    folder = saved(tmp_path / "a", config)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v * float("nan") if "fc1" in k else v for k, v in weights.items()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN"):
        initialise(fresh(config), folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="this is text, not weights"):
        initialise(fresh(config), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="checkpoints/step_"):
        initialise(fresh(config), folder)
    with pytest.raises(CheckpointError, match="nowhere"):
        initialise(fresh(config), tmp_path / "nowhere" / "deep")


def test_a_name_that_the_hub_does_not_allow_is_an_error_of_ours() -> None:
    assert find_own("nobody/nothing.") is None, "as of anything else that is not ours: the converters say what it is"
    with pytest.raises(CheckpointError, match=r"nobody/nothing\.: neither an existing file or folder"):
        find_own("nobody/nothing.", ours_alone=True)


def test_bare_encoder_checkpoints_work_both_ways(tmp_path: Path) -> None:
    config = config_of("rooms/pretrain", "mae")
    torch.manual_seed(1)
    M33DModel(config).save_pretrained(tmp_path)
    report = initialise(fresh(config), tmp_path)
    assert all(name.startswith("decoder.") for name in report.new)
    assert initialise(fresh(config, M33DModel), tmp_path).new == {}


def test_positions_of_the_checkpoint_are_kept_for_interpolation(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    words = ["--recipe", "rooms/depth", *ENCODER, "--model.image_size", "[64, 96]", "--init_from", str(folder)]
    assert starting_config(parse_arguments(words, "depth_estimation")).position_grid == [1, 6, 6]
    given = parse_arguments([*words, "--model.position_grid", "[1, 8, 12]"], "depth_estimation")
    assert starting_config(given).position_grid == [1, 8, 12]
    assert find_own(str(tmp_path / "model.safetensors")) is not None


def test_foreign_checkpoints_are_converted(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32}
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
    config = transformers.ViTMAEConfig(
        **sizes, **decoder, decoder_intermediate_size=16, image_size=48, patch_size=8, layer_norm_eps=1e-6
    )
    foreign = transformers.ViTMAEForPreTraining(config)
    from m33d_hf.modeling.patches_m33d import position_table

    with torch.no_grad():
        foreign.vit.embeddings.position_embeddings[:, 1:] = position_table("sincos_2d", (1, 6, 6), 16)
        foreign.decoder.decoder_pos_embed[:, 1:] = position_table("sincos_2d", (1, 6, 6), 8)
    foreign.save_pretrained(tmp_path)
    model = fresh(config_of("rooms/pretrain", "mae"))
    report = initialise(model, tmp_path)
    assert report.format == "ViTMAE (transformers)"
    assert len(report.filled) + len(report.new) == len(model.state_dict())


def test_positions_of_maes_file_are_interpolated_to_other_sizes(tmp_path: Path) -> None:
    foreign = tiny_vitmae()
    torch.save({"model": original_mae(foreign)}, tmp_path / "mae.pth")
    side = foreign.config.image_size // foreign.config.patch_size
    patch, width = foreign.config.patch_size, foreign.config.hidden_size
    sizes = {"hidden_size": width, "num_attention_heads": foreign.config.num_attention_heads, "patch_size": patch}
    words = [word for name, value in sizes.items() for word in (f"--model.{name}", str(value))]
    words += ["--model.image_size", f"[{2 * patch}, {5 * patch}]", "--init_from", str(tmp_path / "mae.pth")]
    args = parse_arguments(["--recipe", "rooms/depth", *words], "depth_estimation")
    assert starting_config(args).position_grid == [1, side, side]


def test_a_patch_given_by_two_sides_is_the_same_patch(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain", "mae"))
    model = fresh(config_of("rooms/pretrain", "mae", "--model.patch_size", "[8, 8]"))
    assert initialise(model, folder).new == {}


def clip_config(names: list[str], **changes: object) -> M33DConfig:
    """A clip classifier of four layers."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    base = config_of("rooms/pretrain_clips").to_dict()
    chosen = {key: base[key] for key in ("image_size", "patch_size", "num_frames", "tubelet_size", "modalities")}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    return M33DConfig(**{**chosen, **sizes, "temporal_hidden_size": 4, **labels, **changes})


CLIP_HEAD = {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}


def test_a_pretraining_gives_a_clip_classifier_its_encoder_only(tmp_path: Path) -> None:
    folder = saved(tmp_path, config_of("rooms/pretrain_clips"))
    config = starting_config(parse_arguments(["--recipe", "rooms/pretrain_clips", *SMALL], "pretraining"))
    model = fresh(config, M33DForVideoClassification)
    report = initialise(model, folder)
    assert set(report.new) == CLIP_HEAD
    norm = "m33d.encoders.rgb.layernorm.weight"
    assert report.ignored[norm] == "this model's head reads the output of the blocks, before any final norm"
    assert bool((model.fc_norm.weight == 1).all()) and bool((model.fc_norm.bias == 0).all())
    assert float(model.classifier.weight.detach().abs().max()) < 1e-3


def test_a_classifier_is_taken_for_the_same_classes_only(tmp_path: Path) -> None:
    torch.manual_seed(1)
    M33DForVideoClassification(clip_config(["cut", "knot", "rest"])).save_pretrained(tmp_path)
    same = initialise(fresh(clip_config(["cut", "knot", "rest"]), M33DForVideoClassification), tmp_path)
    assert (same.new, same.ignored) == ({}, {})
    cases = {
        "has 3 classes, but the model has 2": ["cut", "knot"],
        "the same classes in another order": ["knot", "cut", "rest"],
        "class 2 is 'rest' in the checkpoint and 'tie' in the model": ["cut", "knot", "tie"],
    }
    for reason, names in cases.items():
        report = initialise(fresh(clip_config(names), M33DForVideoClassification), tmp_path)
        assert set(report.new) == {"classifier.weight", "classifier.bias"} == set(report.ignored)
        assert all(reason in text for text in report.new.values())


def test_a_segmentation_classifier_is_taken_for_the_same_classes_only(tmp_path: Path) -> None:
    base = config_of("rooms/pretrain_stage2").to_dict()
    sizes = {key: base[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "modalities")}

    def config(names: list[str]) -> M33DConfig:
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        return M33DConfig(**sizes, num_attention_heads=4, image_size=32, segmentation_head_width=8, **labels)

    M33DForSemanticSegmentation(config(["wall", "floor"])).save_pretrained(tmp_path)
    same = initialise(fresh(config(["wall", "floor"]), M33DForSemanticSegmentation), tmp_path)
    assert not same.new
    other = initialise(fresh(config(["floor", "wall"]), M33DForSemanticSegmentation), tmp_path)
    rows = {"segmentation_head.classifier.weight", "segmentation_head.classifier.bias"}
    assert set(other.new) == rows == set(other.ignored)
    assert set(other.new.values()) == {"the checkpoint has the same classes in another order"}


def test_another_normalisation_of_pictures_is_told(tmp_path: Path) -> None:
    config = config_of("rooms/pretrain_stage2")
    entries = [
        {**entry, "channel_mean": [0.5] * 3, "channel_std": [0.5] * 3} if entry["name"] == "rgb" else entry
        for entry in config.modalities or []
    ]
    saved(tmp_path, M33DConfig(**{**config.to_dict(), "modalities": entries}))
    report = initialise(fresh(config), tmp_path)
    told = "pictures: mean [0.5, 0.5, 0.5] and deviation [0.5, 0.5, 0.5] there (config.json), mean [0.485,"
    assert [line for line in report.facts if line.startswith(told)] and told in report.summary_by_part()
    saved(tmp_path, config)
    assert not initialise(fresh(config), tmp_path).facts


def test_detection_starts_from_the_first_stage_and_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    M33DForVideoClassification(clip_config(["cut", "knot"])).save_pretrained(tmp_path / "one")
    model = fresh(clip_config(["cut", "knot"]), M33DForVideoActionDetection)
    report = initialise(model, tmp_path / "one")
    assert report.new and {key.split(".")[0] for key in report.new} == {"gru", "temporal_classifier"}
    assert set(report.filled) >= CLIP_HEAD
    model.save_pretrained(tmp_path / "two")
    back = initialise(fresh(clip_config(["cut", "knot"]), M33DForVideoClassification), tmp_path / "two")
    assert not back.new and set(back.ignored.values()) == {
        "this model lacks the recurrent network", "this model lacks the temporal classifier"
    }  # fmt: skip
    causal = fresh(clip_config(["cut", "knot"], temporal_causal=True), M33DForVideoActionDetection)
    narrower = initialise(causal, tmp_path / "two")
    assert set(narrower.new) == {"temporal_classifier.weight", "temporal_classifier.bias"}
    assert narrower.ignored["gru.weight_ih_l0_reverse"] == "the recurrent network of this model has no such weight"


def test_refinement_stages_are_worthless_for_other_classes(tmp_path: Path) -> None:
    fields = {"temporal_model": "tcn", "temporal_tcn_layers": 2, "temporal_tcn_stages": 2}
    M33DForVideoActionDetection(clip_config(["cut", "knot"], **fields)).save_pretrained(tmp_path)
    same = initialise(fresh(clip_config(["cut", "knot"], **fields), M33DForVideoActionDetection), tmp_path)
    assert not same.new
    other = initialise(fresh(clip_config(["cut", "tie"], **fields), M33DForVideoActionDetection), tmp_path)
    parts = {key.split(".")[0] for key in other.new}
    assert parts == {"classifier", "refinement_stages", "temporal_classifier"}, "the first stage knows no classes"
    plain = initialise(fresh(clip_config(["cut", "knot"]), M33DForVideoClassification), tmp_path)
    assert "this model lacks the refinement stages" in plain.ignored.values()


def test_a_map_of_positions_is_new_kept_or_resized(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32,
             "patch_size": 8, "depth_head_width": 16}  # fmt: skip
    target = M33DForDepthEstimation(M33DConfig(**small, image_size=32, depth_prior_weight=0.5))
    M33DForPreTraining(M33DConfig(**small, image_size=32)).save_pretrained(tmp_path / "pre")
    report = initialise(target, tmp_path / "pre")
    assert report.new["depth_prior.metres"] == "the mean depth per position is not in the checkpoint"
    assert target.depth_prior is not None
    slope = torch.linspace(1, 3, 32)[:, None].expand(32, 32).contiguous()
    target.depth_prior.fill(slope)
    target.save_pretrained(tmp_path / "depth")
    again = M33DForDepthEstimation(M33DConfig(**small, image_size=32, depth_prior_weight=0.1))
    assert not initialise(again, tmp_path / "depth").new and again.depth_prior is not None
    assert torch.equal(again.depth_prior.metres, slope)
    wide = M33DForDepthEstimation(M33DConfig(**small, image_size=[32, 64], depth_prior_weight=0.5))
    assert not initialise(wide, tmp_path / "depth").new and wide.depth_prior is not None
    torch.testing.assert_close(wide.depth_prior.metres, slope[:, :1].expand(32, 64))
    without = M33DForDepthEstimation(M33DConfig(**small, image_size=32))
    left = initialise(without, tmp_path / "depth").ignored
    assert left["depth_prior.metres"] == "this model lacks the mean depth per position"
