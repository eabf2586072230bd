"""The video recipes against the paper's Tables 1, 2, 9, 10 and 11, cell by cell, as literal numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.shared_data import shared
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import visible_count
from m33d_hf.scripts._main import main
from m33d_hf.training.processes.optimization import build_optimizer
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments


def parse(recipe: str, *words: str, task: str = "pretraining") -> RunArguments:
    return parse_arguments(["--recipe", recipe, *words], task)


def finetune(recipe: str) -> RunArguments:
    return parse(recipe, task="video_classification")


def config(args: RunArguments) -> M33DConfig:
    made = M33DConfig(**args.model)
    made.check()
    return made


PRETRAINED = ("orar_pretrain", "ucf101_pretrain", "ucf101_pretrain_scratch")


@pytest.mark.parametrize("name", PRETRAINED)
def test_table_9_what_both_columns_share(name: str) -> None:
    args = parse(name)
    made = config(args)
    optim = args.optim
    assert (optim.betas, optim.weight_decay, optim.schedule, optim.warmup_epochs) == ([0.9, 0.95], 5e-2, "cosine", 40)
    assert (args.transforms.flip, args.transforms.train_crop) == (0.5, "multiscale")
    assert (made.num_frames, args.data.frame_stride) == (16, 4)
    assert made.spec("rgb").weight == 1.0  # alpha
    assert optim.scale_lr  # "base" learning rate
    assert args.init_from is None and args.method == "m33d"


@pytest.mark.parametrize(
    ("name", "rate", "clip", "epochs", "beta", "gamma", "eta"),
    [
        ("orar_pretrain", 1e-4, 0.02, 1600, 0.5, 0.2, 0.1),
        ("ucf101_pretrain", 1e-3, None, 100, 0.1, 0.01, 0.01),
        ("ucf101_pretrain_scratch", 1e-3, None, 800, 0.1, 0.01, 0.01),
    ],
)
def test_table_9_columns(
    name: str, rate: float, clip: float | None, epochs: int, beta: float, gamma: float, eta: float
) -> None:
    args = parse(name)
    made = config(args)
    assert (args.optim.learning_rate, args.optim.clip_grad_norm, args.train.epochs) == (rate, clip, epochs)
    assert made.spec("depth").weight == beta
    assert (made.contrastive_weight, made.matching_weight) == (gamma, eta)


@pytest.mark.parametrize(
    ("name", "rgb", "depth"),
    [
        ("orar_pretrain", ("tube", 0.9), ("tube", 0.9)),
        ("ucf101_pretrain", ("motion", 0.9), ("random", 0.9)),
        ("ucf101_pretrain_scratch", ("motion", 0.9), ("random", 0.9)),
        ("scannet_stage2", ("random", 0.8), ("random", 0.8)),
    ],
)
def test_table_11(name: str, rgb: tuple[str, float], depth: tuple[str, float]) -> None:
    made = config(parse(name))
    found = {spec.name: (spec.masking, spec.mask_ratio) for spec in made.specs}
    assert found == {"rgb": rgb, "depth": depth}


@pytest.mark.parametrize("name", ("orar_finetune", "ucf101_finetune"))
def test_table_10_what_both_columns_share(name: str) -> None:
    args = finetune(name)
    optim = args.optim
    assert (optim.betas, optim.weight_decay, optim.schedule, optim.warmup_epochs) == ([0.9, 0.95], 5e-2, "cosine", 5)
    assert args.transforms.flip == 0.5
    assert optim.scale_lr


@pytest.mark.parametrize(
    ("name", "rate", "epochs", "mixup", "cutmix", "path", "out", "decay"),
    [
        ("orar_finetune", 6e-4, 75, 0.0, 0.0, 0.1, 0.0, 0.65),
        ("ucf101_finetune", 1e-3, 100, 0.8, 1.0, 0.2, 0.5, 0.70),
    ],
)
def test_table_10_columns(
    name: str, rate: float, epochs: int, mixup: float, cutmix: float, path: float, out: float, decay: float
) -> None:
    args = finetune(name)
    made = config(args)
    assert (args.optim.learning_rate, args.train.epochs, args.optim.layer_decay) == (rate, epochs, decay)
    assert (args.mixing.mixup, args.mixing.cutmix) == (mixup, cutmix)
    assert (made.drop_path_rate, made.classifier_dropout) == (path, out)


def test_table_10_temporal_model() -> None:
    args = parse("orar_temporal", task="action_detection")
    made = config(args)
    assert (args.optim.learning_rate, args.train.epochs) == (1e-3, 15)
    # What the paper does not print: the rate as it is, one video per step, GRU of 256 per direction, dropout .2.
    assert (args.optim.scale_lr, args.train.batch_size * args.train.accumulation) == (False, 1)
    assert (made.temporal_hidden_size, made.temporal_dropout, made.temporal_causal) == (256, 0.2, False)
    assert (args.data.frame_stride, args.data.options["clip_span"], args.features.clip_stride) == (4, 64, None)


def test_fine_tuning_on_ucf101_is_videomae_where_the_paper_is_silent() -> None:
    """What VideoMAE's UCF-101 script has where Table 10 is silent."""
    args = finetune("ucf101_finetune")
    data, look, mixing = args.data, args.transforms, args.mixing
    assert (data.clip_sampling, data.frame_stride, data.num_views) == ("span", 4, 2)
    assert (look.train_crop, look.scale, look.ratio) == ("random_resized", [0.08, 1.0], [0.75, 1.3333])
    assert (look.randaugment_ops, look.randaugment_magnitude) == (4, 7)
    assert (look.erasing, look.erasing_area, look.erasing_aspect) == (0.25, [0.02, 0.3333], [0.3, 3.33])
    assert (mixing.probability, mixing.switch_probability, mixing.label_smoothing) == (1.0, 0.5, 0.1)
    assert (args.evaluation.num_segments, args.evaluation.num_crops) == (5, 3)
    assert (args.evaluation.every_epochs, args.evaluation.every_steps, args.evaluation.at_end) == (None, None, True)
    assert args.optim.min_lr == 1e-5
    assert args.train.batch_size * args.train.accumulation == 128
    assert config(args).classifier_init_scale == 1e-3


def test_nothing_is_chosen_on_the_test_list() -> None:
    for name in ("ucf101_finetune", "ucf101_scratch"):
        args = finetune(name)
        assert (args.data.eval_split, args.checkpoint.save_best) == ("test", False)
    for name in PRETRAINED:
        assert not parse(name).checkpoint.save_best


def table_1_row(method: str, ratio: float | None, dataset: str, epochs: int | None) -> dict[str, Any]:
    results = recipes.parse_yaml((recipes.RECIPES / "paper_results.yaml").read_text(), "paper_results")
    (row,) = [
        row
        for row in results["tables"]["table_1"]["rows"]
        if (row["method"], row["masking_ratio"], row["dataset"], row["epochs"]) == (method, ratio, dataset, epochs)
    ]
    return row


@pytest.mark.parametrize(
    ("name", "words", "method", "dataset", "top1"),
    [
        ("ucf101_pretrain", (), "M33D", "Kinetics-400 + UCF-101", 96.3),
        ("ucf101_pretrain_scratch", (), "M33D", "UCF-101", 91.1),
        ("videomae_ucf101_075", (), "VideoMAE", "UCF-101", 91.2),
        ("videomae_ucf101_075", ("--train.epochs", "800"), "VideoMAE", "UCF-101", 90.1),
        ("videomae_ucf101_090", (), "VideoMAE", "UCF-101", 90.7),
    ],
)
def test_table_1_rows_have_their_recipe(
    name: str, words: tuple[str, ...], method: str, dataset: str, top1: float
) -> None:
    """Mask ratio, backbone, epochs and frames of the resolved recipe pick out exactly one row of Table 1."""
    args = parse(name, *words)
    made = config(args)
    epochs = None if args.train.epochs is None else int(args.train.epochs)
    row = table_1_row(method, made.spec("rgb").mask_ratio, dataset, epochs)
    assert (row["top1"], row["frames"], row["backbone"]) == (top1, made.num_frames, "ViT-B")
    assert (made.hidden_size, made.num_hidden_layers, made.num_attention_heads) == (768, 12, 12)  # ViT-B
    assert args.data.source == "ucf101" and args.data.options["split_index"] == 1


def test_table_1_scratch() -> None:
    args, like = finetune("ucf101_scratch"), finetune("ucf101_finetune")
    assert args.init_from is None and args.optim.layer_decay is None
    args.optim.layer_decay, args.recipe = like.optim.layer_decay, like.recipe
    assert args.to_dict() == like.to_dict()


@pytest.mark.parametrize("name", ("videomae_ucf101_075", "videomae_ucf101_090"))
def test_videomae_is_its_own_script(name: str) -> None:
    """As VideoMAE's code: per-channel targets on unit-range pixels, tubes, no flip, lr 3e-4 and batch 192."""
    args = parse(name)
    (rgb,) = config(args).specs
    assert (rgb.name, rgb.masking, rgb.target_norm, rgb.target_space, rgb.loss) == (
        "rgb",
        "tube",
        "per_channel",
        "unit",
        "mse",
    )
    assert (args.optim.learning_rate, args.optim.min_lr, args.optim.warmup_epochs) == (3e-4, 1e-5, 40)
    assert (args.transforms.flip, args.transforms.train_crop) == (0.0, "multiscale")
    assert (args.optim.betas, args.optim.weight_decay) == ([0.9, 0.95], 0.05)
    assert args.train.batch_size * args.train.accumulation == 192


@pytest.mark.parametrize(
    ("name", "masking", "norm", "space", "visible"),
    [
        # 16 frames of 224 x 224 are 8 x 14 x 14 = 1,568 tokens.
        ("orar_videomae", "tube", "per_channel", "unit", 8 * 20),
        ("orar_mae_st_random", "random", "pooled", "input", 156),
        ("orar_mae_st_frame", "frame", "pooled", "input", 196),
    ],
)
def test_table_2_baselines(name: str, masking: str, norm: str, space: str, visible: int) -> None:
    args = parse(name)
    made = config(args)
    (rgb,) = made.specs
    assert (rgb.masking, rgb.mask_ratio, rgb.weight) == (masking, 0.9, 1.0)
    assert (rgb.target_norm, rgb.target_space, rgb.loss) == (norm, space, "mse")
    assert visible_count(rgb, made.grid) == visible
    assert (made.contrastive_weight, made.matching_weight) == (0.0, 0.0)
    same, m33d = args.optim, parse("orar_pretrain").optim
    assert same == m33d  # the paper prints one schedule for the data set
    assert (args.data.source, args.train.epochs, made.num_frames) == ("phases", 1600, 16)


def test_table_2_is_fine_tuned_alike() -> None:
    stage_1, stage_2 = finetune("orar_finetune"), parse("orar_temporal", task="action_detection")
    for fraction in ("0.05", "0.1", "0.2", "1.0"):
        words = ("--data.label_fraction", fraction)
        assert parse("orar_finetune", *words, task="video_classification").data.label_fraction == float(fraction)
        assert parse("orar_temporal", *words, task="action_detection").data.label_fraction == float(fraction)
    # The encoder is the first stage's, whatever that was: the recipe says nothing that could contradict it.
    assert all(name.startswith("temporal_") for name in stage_2.model)
    assert config(stage_1).num_frames * stage_1.data.frame_stride == stage_2.data.options["clip_span"]
    assert stage_1.data.options["clip_span"] == stage_2.data.options["clip_span"]
    assert stage_1.data.frame_stride == stage_2.data.frame_stride


@pytest.mark.parametrize("recipe", ("ucf101_pretrain", "orar_pretrain"))
@pytest.mark.parametrize(
    "method", ("m33d", "m33d_plus", "rgbd_mae", "mask3d", "videomae", "mae_st_random", "mae_st_frame")
)
def test_every_clip_method_runs_on_every_clip_recipe(recipe: str, method: str) -> None:
    """Each method builds its model from each recipe (on the meta device) and the optimizer takes its weights."""
    import torch

    from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

    args = parse(recipe, "--method", method)
    made = config(args)
    with torch.device("meta"):
        model = M33DForPreTraining(made)
    groups = build_optimizer(model, args.optim).param_groups
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) > 86_000_000
    assert "depth" in dict(model.m33d.encoders) or method in ("videomae", "mae_st_random", "mae_st_frame")


SIZES = {
    "model.image_size": 32, "model.hidden_size": 32, "model.num_hidden_layers": 2, "model.num_attention_heads": 2,
    "model.intermediate_size": 64, "model.decoder_hidden_size": 16, "model.decoder_num_hidden_layers": 1,
    "model.decoder_num_attention_heads": 2, "model.decoder_intermediate_size": 32, "modalities.rgb.mask_ratio": 0.5,
    "modalities.depth.mask_ratio": 0.5, "data.num_workers": 0,
}  # fmt: skip
TINY = [*[word for key, value in SIZES.items() for word in (f"--{key}", str(value))], "--cpu"]


def test_without_data_a_recipe_says_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for recipe in ("ucf101_pretrain", "orar_pretrain"):
        assert main("pretraining", ["--recipe", recipe, "--dry_run", *TINY]) == 2
        assert "requires the option 'root' (--data.root)" in capsys.readouterr().err
    assert main("pretraining", ["--recipe", "ucf101_pretrain", "--data.root", str(tmp_path), "--dry_run", *TINY]) == 2
    assert "no classInd.txt in" in capsys.readouterr().err


def test_ucf101_pretrain_on_real_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe at toy size: without depth it says how to make it, with depth beside the videos it trains."""
    clip = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    root, key = tmp_path / "ucf", "SoccerJuggling/v_SoccerJuggling_g23_c0"
    (root / "UCF-101" / "SoccerJuggling").mkdir(parents=True)
    for number in (1, 2):
        (root / "UCF-101" / f"{key}{number}.avi").symlink_to(clip)
    (root / "classInd.txt").write_text("1 SoccerJuggling\r\n")
    (root / "trainlist01.txt").write_text(f"{key}1.avi 1\r\n")
    (root / "testlist01.txt").write_text(f"{key}2.avi\n")
    words = ["--recipe", "ucf101_pretrain", "--data.root", str(root), *TINY, "--train.batch_size", "2"]
    words += ["--train.accumulation", "1", "--train.max_steps", "1", "--logging.trackers", "[]"]
    assert main("pretraining", [*words, "--dry_run"]) == 2
    assert "scripts/extract_depth.py, then pass --data.options.depth" in capsys.readouterr().err
    (root / "depth" / "SoccerJuggling").mkdir(parents=True)
    depth = np.random.default_rng(0).random((240, 12, 16), dtype=np.float32)
    for number in (1, 2):
        np.save(root / "depth" / f"{key}{number}.npy", depth)
    (root / "depth" / "depth_spec.json").write_text('{"kind": "inverse"}')
    assert main("pretraining", [*words, "--dry_run"]) == 0
    assert "pixel_values (1, 16, 3, 32, 32), depth_values (1, 16, 1, 32, 32)" in capsys.readouterr().out
    assert main("pretraining", [*words, "--output_dir", str(tmp_path / "out")]) == 0
    trained = json.loads((tmp_path / "out" / "train_config.json").read_text())
    assert trained["plan"]["effective_batch"] == 2
