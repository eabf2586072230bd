import pytest
import torch

from helpers.tiny import CLIP, both, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec, rgb_modality
from m33d_hf.modeling.masking_m33d import complement, draw_keep, motion_scores, visible_count


def spec(**overrides):
    return ModalitySpec.from_dict(rgb_modality(**overrides))


@pytest.mark.parametrize(
    ("grid", "masking", "ratio", "visible"),
    [
        ((1, 14, 14), "random", 0.75, 49),
        ((1, 14, 14), "random", 0.8, 39),
        ((1, 15, 20), "random", 0.8, 59),  # MAE's float truncation, not 60
        ((8, 14, 14), "random", 0.9, 156),
        ((8, 14, 14), "tube", 0.9, 160),  # VideoMAE: 20 of 196 in each of 8 slots
        ((8, 14, 14), "tube", 0.75, 392),
        ((8, 14, 14), "frame", 0.9, 196),
    ],
)
def test_counts_of_the_peers(grid, masking, ratio, visible):
    assert visible_count(spec(masking=masking, mask_ratio=ratio), grid) == visible


@pytest.mark.parametrize("masking", ["random", "tube", "frame", "motion"])
def test_kept_and_masked_tokens_partition_the_grid_in_ascending_order(masking):
    config = tiny_config(**CLIP, modalities=both({"masking": masking, "mask_ratio": 0.5}))
    motion = torch.rand(3, config.num_tokens)
    keep = draw_keep(config, 3, motion=motion)["rgb"]
    masked = complement(keep, config.num_tokens)
    together = torch.cat([keep, masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(config.num_tokens).expand(3, -1))
    for index in (keep, masked):
        assert (index.diff(dim=1) > 0).all()


def test_tubes_show_the_same_positions_in_every_slot_and_frames_whole_slots():
    config = tiny_config(
        **CLIP, modalities=both({"masking": "tube", "mask_ratio": 0.7}, {"masking": "frame", "mask_ratio": 0.5})
    )
    keep = draw_keep(config, 5)
    tubes = keep["rgb"].view(5, 2, -1)
    assert torch.equal(tubes[:, 0] + 16, tubes[:, 1])
    slots = keep["depth"] // 16
    assert (slots == slots[:, :1]).all()


def test_a_generator_decides_alone_and_modalities_differ_unless_shared():
    config = tiny_config()
    first = draw_keep(config, 4, generator=torch.Generator().manual_seed(3))
    again = draw_keep(config, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first["rgb"], again["rgb"])
    assert not torch.equal(first["rgb"], first["depth"])
    shared = draw_keep(tiny_config(share_mask=True), 4)
    assert torch.equal(shared["rgb"], shared["depth"])


def test_every_token_is_equally_likely():
    config = tiny_config(modalities=[rgb_modality(mask_ratio=0.5)])
    keep = draw_keep(config, 4000, generator=torch.Generator().manual_seed(0))["rgb"]
    share = torch.bincount(keep.flatten(), minlength=16) / 4000
    assert (share - 0.5).abs().max() < 0.04


def test_motion_masking_prefers_what_moves():
    config = tiny_config(**CLIP, modalities=both({"masking": "motion", "mask_ratio": 0.7}))
    clip = torch.zeros(64, 4, 3, 32, 32)
    clip[:, 2:, :, :16, :16] = torch.rand(64, 2, 3, 16, 16)
    scores = motion_scores(clip, config)
    moving = torch.zeros(2, 4, 4, dtype=torch.bool)
    moving[1, :2, :2] = True
    assert (scores[0].view(2, 4, 4)[moving] > 0).all()
    assert (scores[0].view(2, 4, 4)[~moving] == 0).all()
    keep = draw_keep(config, 64, motion=scores)["rgb"]
    hits = moving.flatten()[keep].float().sum(dim=1)
    assert hits.min() == 4  # all four moving tokens are among the nine visible ones
    hidden = M33DConfig(**{**config.to_dict(), "motion_target": "masked", "motion_select": "topk"})
    assert not moving.flatten()[draw_keep(hidden, 64, motion=scores)["rgb"]].any()


def test_motion_masking_without_scores_says_so():
    config = tiny_config(**CLIP, modalities=both({"masking": "motion", "mask_ratio": 0.7}))
    with pytest.raises(ConfigError, match="motion scores"):
        draw_keep(config, 2)


def test_ratios_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match="leaves none of 16 tokens visible"):
        visible_count(spec(mask_ratio=0.99), (1, 4, 4))
    with pytest.raises(ConfigError, match="masks none"):
        visible_count(spec(masking="tube", mask_ratio=0.01), (1, 4, 4))


def test_with_a_generator_per_sample_the_batch_does_not_matter():
    config = tiny_config()
    together = draw_keep(config, 3, generator=[torch.Generator().manual_seed(seed) for seed in (7, 8, 9)])
    alone = draw_keep(config, 1, generator=torch.Generator().manual_seed(8))
    for name in ("rgb", "depth"):
        assert torch.equal(together[name][1:2], alone[name])
