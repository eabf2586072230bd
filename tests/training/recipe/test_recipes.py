"""The committed recipes and methods: the paper's values, precedence, and honest comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve


def parse(recipe: str, *words: str, task: str = "pretraining") -> RunArguments:
    return resolve(["--recipe", recipe, *words], task).args


def config(args: RunArguments) -> M33DConfig:
    return M33DConfig(**args.model)


def task_of(name: str) -> str:
    tree: dict = {}
    for _, layer in recipes.recipe_chain(name):
        tree = recipes.merge(tree, layer)
    return tree["task"]


@pytest.mark.parametrize("name", recipes.recipe_names())
def test_every_recipe_resolves_to_a_valid_configuration(name: str) -> None:
    config(parse(name, task=task_of(name))).check()
    if task_of(name) == "pretraining" and "stage1" not in name:
        config(parse(name, "--method", "rgbd_mae", task="pretraining")).check()


COMMENTED = [p for p in recipes.RECIPES.rglob("*.yaml") if p.stem != "paper_results" and p.parent.name != "methods"]


@pytest.mark.parametrize("path", sorted(COMMENTED), ids=lambda p: p.stem)
def test_every_value_says_where_it_comes_from(path: Path) -> None:
    plumbing = ("extends", "task", "method", "stage", "init_from", "source")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        key, _, value = line.partition(":")
        if line.lstrip().startswith("#") or not value.split("#")[0].strip() or key.strip() in plumbing:
            continue
        assert "#" in value, f"{path.name}, line {number} has no source: {line}"


def test_scannet_holds_tables_11_and_12() -> None:
    stage1, stage2 = parse("scannet_stage1"), parse("scannet_stage2")
    assert (stage1.train.epochs, stage2.train.epochs) == (20, 100)
    for args in (stage1, stage2):
        assert (args.optim.learning_rate, args.optim.betas, args.optim.weight_decay) == (
            1e-4,
            [0.9, 0.95],
            0.05,
        )
        assert args.transforms.blur > 0 and args.transforms.color_jitter > 0
        assert args.train.batch_size * args.train.accumulation == 256
    first, second = config(stage1), config(stage2)
    assert (first.contrastive_weight, first.target_specs) == (1.0, ())
    assert [s.mask_ratio for s in first.specs] == [0.0, 0.0]
    assert second.contrastive_weight == 0.0
    assert {s.name: (s.masking, s.mask_ratio, s.weight) for s in second.specs} == {
        "rgb": ("random", 0.8, 0.1),
        "depth": ("random", 0.8, 1.0),
    }
    assert (
        second.decoder_hidden_size,
        second.decoder_num_hidden_layers,
        second.decoder_num_attention_heads,
    ) == (512, 8, 16)


def test_fine_tuning_holds_tables_13_and_14() -> None:
    scannet = parse("scannet_semseg", task="semantic_segmentation")
    nyu = parse("nyuv2_semseg", task="semantic_segmentation")
    depth = parse("nyuv2_depth", task="depth_estimation")
    for args in (scannet, nyu, depth):
        optim = args.optim
        assert (optim.learning_rate, optim.betas, optim.layer_decay, optim.warmup_lr) == (
            1e-4,
            [0.9, 0.999],
            0.75,
            1e-6,
        )
        assert optim.scale_lr is False
    assert (scannet.train.epochs, nyu.train.epochs, depth.train.epochs) == (50, 200, 2000)
    assert (scannet.optim.warmup_epochs, depth.optim.warmup_epochs) == (1, 100)
    assert (scannet.optim.weight_decay, depth.optim.weight_decay) == (0.05, 1e-4)
    assert (scannet.model["image_size"], nyu.model["image_size"], depth.model["image_size"]) == (
        [240, 320],
        640,
        256,
    )
    assert (scannet.transforms.blur > 0, scannet.transforms.flip > 0, scannet.transforms.color_jitter) == (
        True,
        True,
        0,
    )
    assert (nyu.transforms.blur, nyu.transforms.flip, nyu.transforms.color_jitter > 0) == (0, 0, True)
    assert depth.train.batch_size == 128


def test_methods_change_only_what_defines_them() -> None:
    plus, plain = config(parse("scannet_stage2", "--method", "m33d_plus")), config(parse("scannet_stage2"))
    changed = {k for k in plain.to_dict() if plain.to_dict()[k] != plus.to_dict()[k]}
    assert changed == {"modalities", "decoder_fusion", "contrastive_position_free", "matching_fusion"}
    assert plus.spec("depth").drop_probability == 0.5
    assert [s.name for s in config(parse("scannet_stage2", "--method", "mae")).specs] == ["rgb"]
    mask3d = config(parse("scannet_stage2", "--method", "mask3d"))
    assert ([s.name for s in mask3d.input_specs], [s.name for s in mask3d.target_specs]) == (
        ["rgb", "depth"],
        ["depth"],
    )
    without = config(parse("orar_pretrain", "--method", "rgbd_mae"))
    assert (without.contrastive_weight, without.matching_weight, without.spec("depth").weight) == (
        0.0,
        0.0,
        0.5,
    )
    tube = config(parse("ucf101_pretrain", "--method", "videomae"))
    assert [(s.name, s.masking) for s in tube.specs] == [("rgb", "tube")]


def test_hidden_depth_of_clips_is_what_was_confirmed() -> None:
    """Plan clips_confirm: random tokens of RGB, and depth as a target alone; a command line may say otherwise."""
    made = config(parse("orar_pretrain", "--method", "m33d_hidden"))
    assert (made.specs[0].name, made.specs[0].role, made.specs[0].masking) == ("rgb", "both", "random")
    assert (made.specs[1].role, made.specs[1].mask_ratio) == ("target", 1.0)
    asked = config(parse("orar_pretrain", "--method", "m33d_hidden", "--modalities.rgb.masking", "tube"))
    assert asked.specs[0].masking == "tube"


def test_hidden_depth_in_one_stage_is_its_stage_2() -> None:
    one, two, first = (recipes.method_layer("m33d_hidden", stage, 1)[1] for stage in (None, 2, 1))
    assert one == two != first


def test_budgets_of_the_stages_add_up() -> None:
    steps = [parse(f"rooms/{name}").train.max_steps or 0 for name in ("pretrain_stage1", "pretrain_stage2", "pretrain")]
    assert steps[0] + steps[1] == steps[2]


@pytest.mark.parametrize(
    ("recipe", "method", "message"),
    [
        ("rooms/pretrain", "m33d", "two stages"),
        ("scannet_stage1", "mae", "no stage 1"),
        ("scannet_stage2", "videomae", "does not support images"),
        ("orar_pretrain", "mae", "does not support clips"),
        ("rooms/pretrain_clips", "m33d_normed", r"does not support clips .* Methods that do: m33d, m33d_hidden,"),
        ("rooms/pretrain_stage1", "m33d_normed", "no stage 1"),
    ],
)
def test_a_method_that_cannot_do_it_says_so(recipe: str, method: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(recipe, "--method", method)


def test_precedence(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("train: {max_steps: 1}\noptim: {eps: 1.0e-1, weight_decay: 0.1, min_lr: 0.1}\n")
    (tmp_path / "mine.yaml").write_text(
        "extends: base.yaml\nmethod: mine_method.yaml\noptim: {weight_decay: 0.2, min_lr: 0.2, warmup_lr: 0.2}\n"
        "modalities: {rgb: {mask_ratio: 0.2, weight: 0.2, drop_probability: 0.2}, depth: {mask_ratio: 0.2}}\n"
    )
    method = tmp_path / "method.yaml"
    method.write_text(
        "image: {optim: {min_lr: 0.3, warmup_lr: 0.3}, modalities: {rgb: {weight: 0.3, mask_ratio: 0.3}}}\n"
    )
    args = parse(
        str(tmp_path / "mine.yaml"),
        "--method",
        str(method),
        "--optim.warmup_lr",
        "0.4",
        "--modalities.rgb.weight",
        "0.4",
    )
    assert args.optim.eps == 0.1  # base recipe over defaults
    assert args.optim.weight_decay == 0.2  # recipe over base
    assert args.optim.min_lr == 0.3  # method over recipe
    assert args.optim.warmup_lr == 0.4  # command line over method
    (rgb,) = args.model["modalities"]
    assert (rgb["drop_probability"], rgb["mask_ratio"], rgb["weight"]) == (0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {betas: [0.9, 0.95]}\noptim: {eps: 1}\n", "given twice"),
        ("- a\n", "must hold a mapping"),
        ("a: [\n", "not valid YAML"),
        ("optim: {beta: 1}\n", "Did you mean 'optim.betas'"),
        ("extends: self.yaml\n", "extends itself"),
        ("extends: nowhere\n", "no recipe 'nowhere'"),
    ],
)
def test_broken_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "self.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse(str(path))


def test_a_bare_source_option_finds_its_section() -> None:
    for word in ("--depth_unit", "--data.depth_unit"):
        with pytest.raises(ConfigError, match=r"Did you mean 'data\.options\.depth_unit'"):
            parse("scannet_stage2", word, "tum")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("train.learning_rate", "optim.learning_rate"),
        ("learning_rate", "optim.learning_rate"),
        ("hidden_size", "model.hidden_size"),
        ("model.max_steps", "train.max_steps"),
        ("every_steps", "evaluation.every_steps' or 'checkpoint.every_steps"),
        ("modalities.depth.num_labels", "model.num_labels"),
        ("modalities.depth.mask_rato", "modalities.depth.mask_ratio"),
        ("optim.learnin_rate", "optim.learning_rate"),
        ("train.seed", "seed"),
        ("model.init_from", "init_from"),
        ("mask_ratio", "modalities.NAME.mask_ratio"),
        ("model.drop_probability", "modalities.NAME.drop_probability"),
        ("optim.lr", "optim.learning_rate"),
        *(
            (name, f"{section}.{field}")
            for name, section, field in (
                ("num_train_epochs", "train", "epochs"),
                ("gradient_accumulation_steps", "train", "accumulation"),
                ("gradient_checkpointing", "train", "grad_checkpointing"),
                ("mixed_precision", "train", "precision"),
                ("dataloader_num_workers", "data", "num_workers"),
                ("report_to", "logging", "trackers"),
            )
        ),
    ],
)
def test_a_key_in_the_wrong_section_finds_its_own(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"Unknown key {re.escape(given)} .*Did you mean '{re.escape(meant)}'"):
        parse("scannet_stage2", f"--{given}", "1")


def test_configuration_mistakes_reach_the_user() -> None:
    with pytest.raises(ConfigError, match="multiple of"):
        config(parse("rooms/pretrain_clips", "--model.num_frames", "7"))
    with pytest.raises(ConfigError, match="without tokens"):
        config(parse("scannet_stage2", "--modalities.rgb.mask_ratio", "1"))


# The cells of Tables 1 and 2 as printed, in their order: (method, masking ratio, backbone, epochs or pre-training,
# data set, frames, numbers). null in the file: not printed, "-" or "N/A".
TABLE_1 = [
    ("Scratch", None, "ViT-B", None, "UCF-101", 16, 51.4),
    ("OPN", None, "VGG", None, "UCF-101", None, 59.6),
    ("VCOP", None, "R(2+1)D", None, "UCF-101", None, 72.4),
    ("CoCLR", None, "S3D-G", None, "UCF-101", 32, 81.4),
    ("Vi2CLR", None, "S3D", None, "UCF-101", 32, 82.8),
    ("CoCLR", None, "S3D-G", None, "Kinetics-400", 32, 87.9),
    ("Vi2CLR", None, "S3D", None, "Kinetics-400", 32, 89.1),
    ("MoCov3", None, "ViT-B", None, "UCF-101", 16, 81.7),
    ("VideoMAE", None, "ViT-B", None, "Kinetics-400", 16, 96.0),
    ("M33D", 0.90, "ViT-B", 100, "Kinetics-400 + UCF-101", 16, 96.3),
    ("VideoMAE", 0.75, "ViT-B", 800, "UCF-101", 16, 90.1),
    ("VideoMAE", 0.90, "ViT-B", 3200, "UCF-101", 16, 90.7),
    ("VideoMAE", 0.75, "ViT-B", 3200, "UCF-101", 16, 91.2),
    ("M33D", 0.90, "ViT-B", 800, "UCF-101", 16, 91.1),
]
TABLE_2 = [
    ("MaskFeat", 0.90, "MViT-S", "Kinetics-400", 62.35, 78.88, None, None),
    ("MAE-Random", 0.90, "ViT-B", "Kinetics-400", 64.66, 81.48, 84.93, 94.8),
    ("MAE-Random", 0.90, "ViT-B", "OR-AR", 66.58, 81.87, 84.97, 96.3),
    ("MAE-Frame", 0.90, "ViT-B", "OR-AR", 63.44, 78.89, 81.45, None),
    ("VideoMAE", 0.90, "ViT-B", "OR-AR", 65.57, 81.74, 83.89, 94.9),
    ("VideoMAE", 0.90, "ViT-B", "Kinetics-400 + OR-AR", 70.93, 83.73, 86.33, 95.9),
    ("M33D", 0.90, "ViT-B", "Kinetics-400 + OR-AR", 80.90, 85.31, 89.88, 96.1),
]


def paper_tables() -> dict:
    results = recipes.parse_yaml((recipes.RECIPES / "paper_results.yaml").read_text(), "paper_results")
    assert results["measured_by"] == "paper"
    return results["tables"]


def test_tables_1_and_2_cell_by_cell() -> None:
    tables = paper_tables()
    columns = ("method", "masking_ratio", "backbone", "epochs", "dataset", "frames", "top1")
    assert [tuple(row[name] for name in columns) for row in tables["table_1"]["rows"]] == TABLE_1
    assert [row["method"] for row in tables["table_1"]["rows"] if row.get("mark") == "dagger"] == ["VideoMAE"]
    columns = ("method", "masking_ratio", "backbone", "pretrain", "map_5", "map_10", "map_20", "map_100")
    assert [tuple(row[name] for name in columns) for row in tables["table_2"]["rows"]] == TABLE_2
    assert (tables["table_1"]["metric"], tables["table_2"]["metric"]) == ("top1", "map")


def test_paper_results_are_marked_and_complete() -> None:
    tables = paper_tables()
    assert [len(tables[f"table_{n}"]["rows"]) for n in range(1, 9)] == [14, 7, 11, 6, 7, 7, 3, 3]
    ours = {row["pretrain"]: row for row in tables["table_3"]["rows"] if row["method"] == "M33D"}
    assert ours["ImageNet+ScanNet"]["miou"] == 67.3


def test_the_task_is_that_of_the_script() -> None:
    with pytest.raises(ConfigError, match="--task 1: this script is for"):
        parse("scannet_stage2", "--task", "1")
