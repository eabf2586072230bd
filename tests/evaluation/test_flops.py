"""What torch counts against a formula written by hand, and against the figures of MAE and VideoMAE."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.flop_formulas import pretraining_formula, task_formula
from helpers.tiny import tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.flops import count_pretraining, count_task, flops_per_sample
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.training.recipe.parsing import parse_arguments

GIGA = 1e9
VIDEO = {
    "num_frames": 16,
    "tubelet_size": 2,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_num_attention_heads": 6,
    "decoder_intermediate_size": 1536,
}


def config_of(recipe: str, method: str, *words: str) -> M33DConfig:
    return M33DConfig(**parse_arguments(["--recipe", recipe, "--method", method, *words], "pretraining").model)


def test_reference_models() -> None:
    mae = M33DConfig(modalities=[rgb_modality(mask_ratio=0.75)])
    assert pretraining_formula(mae, customary=True).training / GIGA == pytest.approx(58.5, abs=0.05)
    tube = M33DConfig(modalities=[rgb_modality(mask_ratio=0.9, masking="tube")], **VIDEO)
    assert pretraining_formula(tube, customary=True).training / GIGA == pytest.approx(208.9, abs=0.05)
    assert count_pretraining(tube).training / GIGA == pytest.approx(199.7, abs=0.05)


@pytest.mark.parametrize(
    ("attention", "fusion", "giga"),
    [("full", "joint", 106.2), ("cross", "joint", 83.6)],
)
def test_m33d_images_stage_2(attention: str, fusion: str, giga: float) -> None:
    config = M33DConfig(use_cls_token=False, decoder_attention=attention, decoder_fusion=fusion)
    assert count_pretraining(config).training / GIGA == pytest.approx(giga, rel=0.01)


def test_multimae_98_tokens() -> None:
    """Counted by hand before: encoder 51.5, decoders 6.2, in all 58.7 GF, without the second RGB target."""
    config = config_of("scannet_stage2", "multimae", "--modalities.norm_rgb.weight", "0")
    count = pretraining_formula(config, customary=True)
    assert config.budget_for(config.grid) == 98
    assert 3 * count.parts["encoder"] / GIGA == pytest.approx(51.5, abs=0.05)
    assert 3 * count.parts["decoder"] / GIGA == pytest.approx(6.2, abs=0.05)
    assert count.training / GIGA == pytest.approx(58.7, abs=0.05)


def test_m33d_video() -> None:
    modalities = [rgb_modality(mask_ratio=0.9, masking="tube"), depth_modality(mask_ratio=0.9, masking="tube")]
    config = M33DConfig(modalities=modalities, contrastive_weight=0.2, matching_weight=0.1, **VIDEO)
    assert count_pretraining(config).training / GIGA == pytest.approx(484.1, rel=0.01)


@pytest.mark.parametrize("method", ["m33d_plus", "multimae"])
def test_methods_beside_the_one_of_the_recipe(method: str) -> None:
    config = config_of("scannet_stage2", method, "--model.num_hidden_layers", "2")
    count, formula = count_pretraining(config, 2), pretraining_formula(config, 2)
    assert (count.forward, count.training) == pytest.approx((formula.forward, formula.training), rel=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.encoder_sharing", "shared"],
        ["--model.num_register_tokens", "7", "--model.position_embedding_type", "learned"],
        ["--model.joint_encoding", "true"],
        ["--model.decoder_attention", "cross"],
        ["--model.encoder_sharing", "shared", "--model.decoder_fusion", "separate"],
        ["--modalities.rgb.mask_ratio", "0.5", "--model.use_cls_token", "false"],
    ],
)
def test_switches_against_the_formula(words: list[str]) -> None:
    config = config_of("rooms/pretrain", "rgbd_mae", *words)
    assert flops_per_sample(config) == pytest.approx(pretraining_formula(config).training, rel=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model.decoder_fusion", "joint"],
        ["--model.decoder_fusion", "joint", "--model.decoder_attention", "cross"],
        ["--model.distillation_tokens", "visible"],
        ["--modalities.rgb.role", "both", "--modalities.rgb.weight", "1", "--modalities.rgb.denoising_weight", "1"],
    ],
)
def test_denoising_and_a_teacher_against_the_formula(words: list[str]) -> None:
    config = config_of("rooms/pretrain_stage2", "m33d_followup", *words)
    assert flops_per_sample(config) == pytest.approx(pretraining_formula(config).training, rel=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.contrastive_projection_dim", "32"],
        ["--model.contrastive_tokens", "full_forward"],
        ["--model.contrastive_symmetric", "true"],
        ["--model.matching_fusion", "sum"],
    ],
)
def test_pair_losses_against_the_formula(words: list[str]) -> None:
    config = config_of("rooms/pretrain_clips", "m33d", *words)
    assert flops_per_sample(config, batch_size=2) == pytest.approx(pretraining_formula(config, 2).training, rel=1e-6)


@pytest.mark.parametrize("size", [48, [40, 56]])
@pytest.mark.parametrize("task", ["semantic_segmentation", "depth_estimation"])
def test_task_models_against_the_formula(task: str, size: int | list[int]) -> None:
    recipe = {"semantic_segmentation": "rooms/semseg", "depth_estimation": "rooms/depth"}[task]
    args = parse_arguments(["--recipe", recipe], task)
    config = M33DConfig(**{**args.model, "image_size": size, "num_labels": 10})
    count, formula = count_task(config, task), task_formula(config, task)
    assert (count.forward, count.training) == pytest.approx((formula.forward, formula.training), rel=1e-6)


SETS = (["rgb"], ["depth"], ["rgb", "depth"])


@pytest.mark.parametrize(
    "fields",
    [{}, {"task_fusion": "concatenation"}, {"task_fusion": "cross_attention"}, {"encoder_sharing": "shared"},
     {"joint_encoding": True, "num_register_tokens": 2}],
    ids=["sum", "concatenation", "cross_attention", "shared", "joint"],
)  # fmt: skip
@pytest.mark.parametrize("task", ["semantic_segmentation", "video_classification"])
def test_every_input_set_against_the_formula(task: str, fields: dict[str, Any]) -> None:
    clip = {"num_frames": 4, "tubelet_size": 2} if task == "video_classification" else {}
    config = tiny_config(num_labels=3, segmentation_head_width=16, task_inputs=["rgb", "depth"], **clip, **fields)
    for inputs in SETS[:: 2 if fields.get("task_fusion") == "cross_attention" else 1]:
        count, formula = count_task(config, task, inputs), task_formula(config, task, inputs)
        # Of one input, the fusion of the other has no part in the loss, but nothing is multiplied for it either.
        assert (count.forward, count.training) == pytest.approx((formula.forward, formula.training), rel=1e-6), inputs
    whole = task_formula(config, task, SETS[2])
    assert flops_per_sample(config, task) == pytest.approx(whole.training, rel=1e-6)


def test_models_of_one_input_and_inputs_that_a_model_does_not_have() -> None:
    alone = tiny_config(num_labels=3, segmentation_head_width=16)
    depth = tiny_config(num_labels=3, segmentation_head_width=16, task_inputs=["depth"])
    task = "semantic_segmentation"
    assert count_task(depth, task).forward == pytest.approx(task_formula(depth, task, ["depth"]).forward, rel=1e-6)
    assert count_task(alone, task).forward > count_task(depth, task).forward  # three colours, one depth
    with pytest.raises(ConfigError, match=r"inputs \['depth'\]: the model has \['rgb'\]"):
        count_task(alone, task, ["depth"])


def test_counting_leaves_configuration_and_randomness_alone() -> None:
    config = tiny_config(num_labels=3, attn_implementation="sdpa", hidden_size=48)  # not counted before in this file
    before, state = config.to_dict(), torch.get_rng_state()
    assert count_task(config, "depth_estimation").training > 0
    assert count_pretraining(config).training > 0
    assert config.to_dict() == before
    assert config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)


def test_stage_1_reads_everything_and_decodes_nothing() -> None:
    config = M33DConfig(**parse_arguments(["--recipe", "scannet_stage1"], "pretraining").model)
    assert count_pretraining(config).training / GIGA == pytest.approx(209.1, rel=0.01)
    count = pretraining_formula(config)
    assert set(count.parts) == {"patch projection", "encoder", "pair losses"}
    assert count.training / GIGA == pytest.approx(209.1, rel=0.01)


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="semantic_segmentation"):
        flops_per_sample(M33DConfig(), "semantic_segmentatio")
    with pytest.raises(ConfigError):
        count_task(M33DConfig(), "pretrain")


@pytest.mark.parametrize("changes", [{}, {"temporal_causal": True, "temporal_num_layers": 2}])
def test_video_tasks_add_their_heads(changes: dict[str, Any]) -> None:
    config = tiny_config(num_frames=4, tubelet_size=2, num_labels=7, temporal_hidden_size=8, **changes)
    clip, whole = count_task(config, "video_classification"), count_task(config, "action_detection")
    directions = 1 if changes else 2
    gates = directions * 2 * (32 + 8) * 3 * 8 + (2 * (8 + 8) * 3 * 8 if changes else 0)
    temporal = gates + 2 * directions * 8 * 7
    assert whole.forward == clip.forward + temporal
    first = directions * 2 * 32 * 3 * 8  # features have no gradient
    assert whole.training == clip.forward + 3 * temporal - first
    formula = task_formula(config, "action_detection")
    assert (whole.forward, whole.training) == (formula.forward, formula.training)


@pytest.mark.parametrize("causal", [False, True])
def test_temporal_convolutions_are_counted(causal: bool) -> None:
    fields = {"temporal_model": "tcn", "temporal_tcn_stages": 3, "temporal_tcn_layers": 2, "temporal_hidden_size": 8}
    config = tiny_config(num_frames=4, tubelet_size=2, num_labels=7, temporal_causal=causal, **fields)
    clip, whole = count_task(config, "video_classification"), count_task(config, "action_detection")
    layers = 2 * 2 * (3 + 1) * 8 * 8  # kernels of 3 and of 1
    first = 2 * 32 * 8
    temporal = first + layers + 2 * 8 * 7 + 2 * (2 * 7 * 8 + layers + 2 * 8 * 7)
    assert whole.forward == clip.forward + temporal
    assert whole.training == clip.forward + 3 * temporal - first


def test_the_transformer_over_clips_is_counted_by_whole_windows() -> None:
    fields = {"temporal_model": "transformer", "temporal_num_layers": 2, "temporal_hidden_size": 8}
    for causal, span in ((True, 9), (False, 13)):  # keys per block of 5 queries: 4 before and, unless causal, 4 after
        config = tiny_config(
            num_frames=4, tubelet_size=2, num_labels=7, temporal_causal=causal, temporal_attention_window=5, **fields
        )
        clip, whole = count_task(config, "video_classification"), count_task(config, "action_detection")
        first = 2 * 32 * 8
        layer = 2 * 8 * 3 * 8 + 2 * (2 * span * 8) + 2 * 8 * 8 + 2 * (2 * 8 * 32)
        temporal = first + 2 * layer + 2 * 8 * 7
        assert whole.forward == clip.forward + temporal
        assert whole.training == clip.forward + 3 * temporal - first
