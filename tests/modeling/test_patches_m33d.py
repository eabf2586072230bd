import math

import pytest
import torch

from m33d_hf.modeling.patches_m33d import gather_patches, interpolate_table, patchify, position_table, unpatchify


@pytest.mark.parametrize("tubelet", [1, 2])
def test_patchify_is_inverted_and_ordered_time_row_column_then_pixels_then_channels(tubelet):
    clip = torch.arange(2 * 4 * 3 * 8 * 12, dtype=torch.float32).view(2, 4, 3, 8, 12)
    patches = patchify(clip, tubelet, (4, 4))
    grid = (4 // tubelet, 2, 3)
    assert patches.shape == (2, math.prod(grid), tubelet * 16 * 3)
    assert torch.equal(unpatchify(patches, grid, tubelet, (4, 4)), clip)
    token = (1 * 2 + 1) * 3 + 2  # slot 1, row 1, column 2
    first_pixel = clip[0, tubelet, :, 4, 8]
    assert torch.equal(patches[0, token, :3], first_pixel)


def test_gathered_projection_equals_a_convolution():
    torch.manual_seed(0)
    clip = torch.randn(2, 4, 3, 16, 24, dtype=torch.float64)
    kernel = torch.randn(5, 3, 2, 8, 8, dtype=torch.float64)
    everywhere = torch.nn.functional.conv3d(clip.transpose(1, 2), kernel, stride=(2, 8, 8)).flatten(2).transpose(1, 2)
    index = torch.tensor([[0, 5, 11], [1, 2, 7]])
    projected = gather_patches(clip, 2, (8, 8), index).flatten(2) @ kernel.flatten(1).T
    expected = torch.stack([everywhere[b, index[b]] for b in range(2)])
    torch.testing.assert_close(projected, expected)


@pytest.mark.parametrize("count", [2, 6, 7, 12])
def test_few_and_many_patches_are_gathered_alike(count):
    clip = torch.randn(3, 4, 3, 16, 24)
    index = torch.stack([torch.randperm(12)[:count] for _ in range(3)])
    gathered = gather_patches(clip, 2, (8, 8), index)
    everything = gather_patches(clip, 2, (8, 8), None)
    assert torch.equal(gathered, torch.stack([everything[b, index[b]] for b in range(3)]))


def test_tables_have_the_published_values():
    image = position_table("sincos_2d", (1, 14, 14), 768)
    assert image[1, 0] == pytest.approx(math.sin(1), abs=1e-6)
    assert image[14, 0] == 0
    assert image[14, 384] == pytest.approx(math.sin(1), abs=1e-6)
    video = position_table("sincos_1d", (8, 14, 14), 768)
    assert video.shape == (1568, 768)
    torch.testing.assert_close(video[1, :4], torch.tensor([0.8415, 0.5403, 0.8284, 0.5601]), atol=5e-5, rtol=0)


def test_a_non_square_table_is_an_outer_product_of_rows_and_columns():
    table = position_table("sincos_2d", (1, 3, 5), 16).view(3, 5, 16)
    assert torch.equal(table[0, :, :8], table[2, :, :8])
    assert torch.equal(table[:, 0, 8:], table[:, 4, 8:])


def test_interpolation_keeps_the_own_grid_and_matches_torch_elsewhere():
    table = position_table("sincos_2d", (1, 4, 4), 8)
    assert interpolate_table(table, (1, 4, 4), (1, 4, 4)) is table
    maps = table.view(1, 4, 4, 8).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(maps, size=(3, 6), mode="bicubic", align_corners=False)
    resized = interpolate_table(table, (1, 4, 4), (1, 3, 6))
    torch.testing.assert_close(resized, expected.permute(0, 2, 3, 1).reshape(-1, 8))
