import pytest

from helpers.tiny import SMALL, both, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec, depth_modality, rgb_modality


def test_default_is_the_papers_image_model():
    config = M33DConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers) == (512, 8)
    assert config.decoder_num_attention_heads == 16
    rgb, depth = config.specs
    assert (rgb.weight, depth.weight, rgb.mask_ratio, depth.mask_ratio) == (0.1, 1.0, 0.8, 0.8)
    assert (rgb.loss, depth.loss, rgb.target_norm, depth.target_norm) == ("mse", "l1", "pooled", "none")
    assert config.encoder_sharing == "separate"
    assert config.decoder_fusion == "joint"
    assert config.matching_fusion == "concat"
    assert not config.contrastive_position_free


def test_round_trip_keeps_every_field_and_the_order_of_modalities(tmp_path):
    config = tiny_config(modalities=[depth_modality(), rgb_modality()], contrastive_weight=0.5)
    config.save_pretrained(tmp_path)
    loaded = M33DConfig.from_pretrained(tmp_path)
    assert [spec.name for spec in loaded.specs] == ["depth", "rgb"]
    assert loaded.to_dict() == config.to_dict()


def test_a_saved_model_of_silog_from_0_metres_still_loads(tmp_path):
    """Training so is refused, but models that were finished before that predict as ever."""
    config = tiny_config(depth_loss="silog")
    config.min_depth = 0.0
    config.save_pretrained(tmp_path)
    loaded = M33DConfig.from_pretrained(tmp_path)
    loaded.check()
    assert (loaded.depth_loss, loaded.min_depth) == ("silog", 0.0)
    assert tiny_config(depth_loss="l1", min_depth=0.0).min_depth == 0


def test_position_grid_survives_a_change_of_size(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    loaded = M33DConfig.from_pretrained(tmp_path, image_size=[24, 48])
    assert loaded.grid == (1, 3, 6)
    assert tuple(loaded.position_grid) == (1, 4, 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hiden_size": 4}, "hidden_size"),
        ({"image_size": 30}, "24 x 24"),
        ({"image_size": 4}, "smaller than one patch"),
        ({"num_frames": 5, "tubelet_size": 2}, "multiple of tubelet_size"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"modalities": both({"mask_ratio": 1.0})}, "without tokens"),
        ({"modalities": both({"mask_ratio": 0.0})}, "nothing to reconstruct"),
        ({"modalities": both({"maskratio": 0.5})}, "mask_ratio"),
        ({"modalities": both({"masking": "tubes"})}, "tube"),
        ({"modalities": both({"masking": "motion"})}, "requires clips"),
        (
            {"num_frames": 4, "tubelet_size": 2, "modalities": [depth_modality(masking="motion")]},
            "'depth': masking 'motion' follows the motion of RGB",
        ),
        ({"depth_loss": "silog", "min_depth": 0.0}, "set min_depth above 0"),
        ({"id2label": {1: "a", 2: "b"}}, "numbered without gaps from 0"),
        ({"id2label": {0: "a", 2: "b"}}, "name each from 0 to 1"),
        ({"modalities": [rgb_modality(), rgb_modality()]}, "the same name"),
        ({"modalities": [rgb_modality()], "contrastive_weight": 1.0}, "second input modality"),
        ({"decoder_fusion": "separate"}, "disconnects"),
        ({"joint_encoding": True, "contrastive_weight": 1.0}, "of each modality alone"),
        ({"joint_encoding": True, "matching_weight": 1.0}, "matching term requires features of each modality alone"),
        (
            {"contrastive_weight": 1.0, "contrastive_negatives": "batch", "contrastive_symmetric": True},
            "cannot be symmetric",
        ),
        ({"modalities": [rgb_modality(), depth_modality(normalize_prediction=True)]}, "normalize_prediction"),
        ({"share_mask": True, "modalities": both({"mask_ratio": 0.5})}, "share_mask"),
        ({"share_mask": True, "contrastive_weight": 1.0, "contrastive_negatives": "batch"}, "leaks"),
        ({"position_embedding_type": "sincos_2d", "num_frames": 4, "tubelet_size": 2}, "no time axis"),
        ({"modalities": [{"name": "rgb", "channels": 3}]}, "input_name"),
    ],
)
def test_values_that_cannot_work_are_named_with_a_fix(overrides, message):
    with pytest.raises(ConfigError, match=message):
        M33DConfig(**{**SMALL, **overrides})


def test_masks_are_shared_by_default_only_for_clips_with_equal_masking():
    equal = both({"masking": "tube"}, {"masking": "tube"})
    clip = {"num_frames": 4, "tubelet_size": 2, "contrastive_weight": 0.1}
    assert tiny_config(modalities=equal, **clip).masks_are_shared
    assert not tiny_config(modalities=both({"masking": "tube"}), **clip).masks_are_shared
    assert not tiny_config(contrastive_weight=0.1).masks_are_shared
    assert not tiny_config(modalities=equal, **clip, share_mask=False).masks_are_shared
    assert tiny_config(modalities=equal, **{**clip, "contrastive_weight": 0.0}).masks_are_shared


def test_spec_rejects_half_a_normalisation():
    with pytest.raises(ConfigError, match="both channel_mean and channel_std, or neither"):
        ModalitySpec.from_dict(rgb_modality(channel_std=None))
