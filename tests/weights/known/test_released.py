"""A message on missing weights says where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.errors import CheckpointError
from m33d_hf.weights import load_foreign
from m33d_hf.weights.folder import MODELS
from m33d_hf.weights.formats.detect import FORMATS
from m33d_hf.weights.known.names import CONVERTED_TASKS, FORMAT_NAMES
from m33d_hf.weights.known.released import where_from

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mae_pretrain_vit_base.pth", "facebook/vit-mae-base takes"),
        ("weights/mae_visualize_vit_large_ganloss.pth", "facebook/vit-mae-large takes"),
        ("mae_finetuned_vit_base.pth", "facebookresearch/mae has"),
        ("videomae_vitb_k400_pretrain.pth", "MCG-NJU/videomae-base takes"),
        ("VideoMAE_ViT-B_checkpoint.pth", "MCG-NJU/videomae-base takes"),
        ("multimae-b_98_rgb+-depth-semseg_1600e_multivit-afff3f8c.pth", "EPFL-VILAB/MultiMAE"),
        ("mae_st_k400.pth", "facebookresearch/mae_st"),
        ("dinov2_vits14_pretrain.pth", "facebook/dinov2-small takes"),
        ("dinov2_vitb14_reg4_pretrain.pth", "facebook/dinov2-with-registers-base takes"),
        ("dino_vitbase16_pretrain.pth", "facebookresearch/dino has"),
        ("dino_deitsmall16_pretrain.pth", "facebookresearch/dino has"),
    ],
)
def test_known_files_have_an_origin_and_a_licence(name: str, said: str) -> None:
    told = where_from(name)
    assert said in told and "licence is" in told
    licences = (ROOT / "WEIGHTS.md").read_text(encoding="utf-8")
    assert told.rpartition("licence is ")[2].partition(",")[0].rstrip(".") in licences


def test_a_name_on_the_hub_is_not_told_itself() -> None:
    told = where_from("facebook/vit-mae-base@main")
    assert "from the Hub" not in told and "https://github.com/facebookresearch/mae " in told


def test_an_unknown_file_is_told_what_there_is() -> None:
    assert "facebook/vit-mae-base" in where_from("mine.pth") and "at random" in where_from("mine.pth")


def test_the_error_for_a_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not an existing file.*facebook/vit-mae-base.*CC BY-NC"):
        load_foreign(tmp_path / "mae_pretrain_vit_base.pth")


def test_names_are_those_of_the_formats_and_models() -> None:
    assert {key: table.name for key, table in FORMATS.items()} == FORMAT_NAMES
    assert tuple(MODELS) == CONVERTED_TASKS
