from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.frames_on_disk import depth_array, label_array, rgb_array, save, write_frames
from m33d_hf.data.sample import VideoHandle
from m33d_hf.data.sources import Source, build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.reading import refuse_sizes
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, DepthUnitError, LabelError


def keys(source: FolderSource) -> list[str]:
    return [source[i].key for i in range(len(source))]


def assert_frame(source: FolderSource, index: int, seed: int) -> None:
    """Item `index` holds exactly what was written for frame `seed`."""
    sample = source[index].read([0])
    assert sample.rgb.dtype == torch.uint8 and sample.depth.dtype == torch.float32
    np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(seed))
    stored = depth_array(seed).astype(np.float32)
    expected = np.where(stored == 0, np.nan, stored / np.float32(1000))
    np.testing.assert_array_equal(sample.depth[0, 0].numpy(), expected)


@pytest.mark.parametrize(
    ("rgb", "depth"),
    [
        ("color/{i}.png", "depth/{i}.png"),
        ("rgb/{i}.png", "depth/{i:05d}.png"),
        ("image/{i}.ppm", "depth/{i}.pgm"),
        ("frame-{i:06d}.color.png", "frame-{i:06d}.depth.png"),
        ("{i}.png", "{i}_depth.png"),
        ("{i:04d}_rgb.png", "{i:04d}_depth.npy"),
        ("rgb_{i:04d}.npy", "sync_depth_{i:04d}.png"),
        ("images/{i}_rgb.png", "images/{i}_depth.png"),
        ("rgb/frame_{i}_rgb.png", "depth/frame_{i}_depth.png"),
    ],
)
def test_layouts_are_found_by_themselves(tmp_path: Path, rgb: str, depth: str):
    source = FolderSource(write_frames(tmp_path, 12, rgb, depth))
    assert len(source) == 12
    assert isinstance(source, Source) and isinstance(source[0], VideoHandle)
    # Natural order: frame 2 before frame 10.
    for index in (0, 2, 10):
        assert_frame(source, index, index)
    assert source.depth_spec.unit == "millimetre"
    assert not source.unpaired


def test_folders_and_patterns_can_be_named(tmp_path: Path):
    write_frames(tmp_path / "a", 2, "left/{i}.png", "{i}_z.png")
    with pytest.raises(DataError, match="no frame"):
        FolderSource(tmp_path / "a")
    assert_frame(FolderSource(tmp_path / "a", rgb="left", depth="*_z.png"), 1, 1)
    write_frames(tmp_path / "b", 2, "left/{i}.png", "tof/{i}.png")
    assert_frame(FolderSource(tmp_path / "b", rgb="left", depth="tof"), 1, 1)
    write_frames(tmp_path / "c", 2, "{i}_l.png", "{i}_z.png")
    assert_frame(FolderSource(tmp_path / "c", rgb="*_l.png", depth="*_z.png"), 1, 1)
    with pytest.raises(DataError, match="tofu"):
        FolderSource(tmp_path / "b", rgb="left", depth="tofu")


def test_sequences_are_sub_folders_and_become_clips(tmp_path: Path):
    for number in (1, 2, 10):
        write_frames(tmp_path, 4 + number, f"scene{number}/color/{{i}}.png", f"scene{number}/depth/{{i}}.png")
    clips = FolderSource(tmp_path, unit="clips", fps=30)
    assert keys(clips) == ["scene1", "scene2", "scene10"]
    assert [clips[i].length for i in range(3)] == [5, 6, 14]
    assert clips[0].fps == 30
    sample = clips[2].read([10, 0, 0])
    assert sample.key == "scene10[10,0,0]"
    assert sample.rgb.shape == (3, 3, 24, 32) and sample.depth.shape == (3, 1, 24, 32)
    np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(10))
    frames = FolderSource(tmp_path)
    assert len(frames) == 25 and keys(frames)[5] == "scene2/0"
    assert [clip.length for clip in FolderSource(tmp_path, unit="clips", every=4, min_frames=2).sequences] == [2, 2, 4]
    long = FolderSource(tmp_path, unit="clips", min_frames=6)
    assert keys(long) == ["scene2", "scene10"]
    assert [entry.path for entry in long.unpaired] == ["scene1"]
    with pytest.raises(IndexError):
        clips[0].read([5])


def test_modality_folders_may_stand_above_the_sequences(tmp_path: Path):
    write_frames(tmp_path, 3, "rgb/kitchen/{i}.png", "depth/kitchen/{i}.png")
    write_frames(tmp_path, 2, "rgb/office/{i}.png", "depth/office/{i}.png")
    source = FolderSource(tmp_path, unit="clips")
    assert keys(source) == ["kitchen", "office"]


@pytest.mark.parametrize(
    "line", ["rgb/{i}.png depth/{j}.png", "depth/{j}.png rgb/{i}.png", "1.5 rgb/{i}.png 1.6 depth/{j}.png"]
)
def test_association_file_in_either_order(tmp_path: Path, line: str):
    write_frames(tmp_path, 3, "rgb/{i}.png", "depth/{i}.png")
    lines = ["# comment", *(line.format(i=i, j=2 - i) for i in range(3)), line.format(i=9, j=1)]
    (tmp_path / "associations.txt").write_text("\n".join(lines) + "\n")
    source = FolderSource(tmp_path)
    assert len(source) == 3
    sample = source[0].read([0])
    np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(0))
    assert sample.depth[0, 0, 5, 5].item() == pytest.approx(depth_array(2)[5, 5] / 1000)
    assert [entry.path for entry in source.unpaired] == ["rgb/9.png"]
    by_name = FolderSource(tmp_path, association="none")[0].read([0])
    assert by_name.depth[0, 0, 5, 5].item() == pytest.approx(depth_array(0)[5, 5] / 1000)


def test_association_that_does_not_tell_the_columns_apart(tmp_path: Path):
    write_frames(tmp_path, 1, "a/{i}.png", "b/{i}.png")
    (tmp_path / "pairs.txt").write_text("a/0.png b/0.png\n")
    with pytest.raises(DataError, match="which column"):
        FolderSource(tmp_path, association="pairs.txt")
    with pytest.raises(DataError, match="was not found"):
        FolderSource(tmp_path, association="pears.txt")


def test_an_empty_root_is_said_in_a_clean_sentence(tmp_path: Path):
    with pytest.raises(DataError, match=r"has depth and rgb\. Found:\n  \(no files\)"):
        FolderSource(tmp_path)


def test_no_pairs_lists_what_was_found_and_how_to_fix_it(tmp_path: Path):
    write_frames(tmp_path, 2, "color/a{i}.png", "depth/b{i}.npy")
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path)
    for part in ("color: 2 .png", "depth: 2 .npy", "association", "require_depth=false"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="not a folder"):
        FolderSource(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files"):
        FolderSource(tmp_path / "empty")


def test_frames_without_partner_are_listed_or_kept_by_option(tmp_path: Path):
    write_frames(tmp_path, 3)
    (tmp_path / "depth/1.png").unlink()
    source = FolderSource(tmp_path)
    assert keys(source) == ["0", "2"]
    assert [(entry.path, entry.reason) for entry in source.unpaired] == [("color/1.png", "its frame has no depth")]
    everything = FolderSource(tmp_path, require_depth=False)
    assert keys(everything) == ["0", "1", "2"] and not everything.unpaired
    assert everything[1].read([0]).depth is None


def test_rgb_only_and_depth_only(tmp_path: Path):
    write_frames(tmp_path, 2)
    sample = FolderSource(tmp_path, depth="none")[0].read([0])
    assert sample.depth is None and sample.rgb is not None
    sample = FolderSource(tmp_path, rgb=None)[0].read([0])
    assert sample.rgb is None and sample.depth is not None
    with pytest.raises(ConfigError, match="nothing to read"):
        FolderSource(tmp_path, rgb="none", depth="none")
    plain = write_frames(tmp_path / "plain", 2, "{i}.png", None)
    assert FolderSource(plain, depth="none").depth_spec is None


def test_a_link_to_a_folder_above_is_not_walked_for_ever(tmp_path: Path):
    write_frames(tmp_path / "data", 2)
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    write_frames(tmp_path / "elsewhere", 2, start=5)
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert keys(FolderSource(tmp_path / "data")) == ["0", "1", "more/5", "more/6"]


def test_names_that_claim_the_same_frame_are_refused(tmp_path: Path):
    write_frames(tmp_path, 2)
    save(tmp_path / "color/1.ppm", rgb_array(1))
    with pytest.raises(DataError, match=r"color/1\.png, color/1\.ppm|color/1\.ppm, color/1\.png"):
        FolderSource(tmp_path)


def test_padded_and_plain_numbers_are_not_merged_when_both_exist(tmp_path: Path):
    write_frames(tmp_path, 1, "color/{i}.png", "depth/{i}.png", start=7)
    write_frames(tmp_path, 1, "color/{i:03d}.png", "depth/{i:03d}.png", start=7)
    assert sorted(keys(FolderSource(tmp_path))) == ["007", "7"]


def test_different_sizes_are_refused_unless_an_alignment_is_chosen(tmp_path: Path):
    rgb, depth = rgb_array(0, (24, 32)), depth_array(0, (12, 16))
    save(tmp_path / "color/0.png", rgb)
    save(tmp_path / "depth/0.png", depth)
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path)
    for part in ("color/0.png is 24x32", "depth/0.png is 12x16", "align=depth_to_rgb"):
        assert part in str(caught.value)
    sample = FolderSource(tmp_path, align="depth_to_rgb")[0].read([0])
    assert sample.rgb.shape[-2:] == sample.depth.shape[-2:] == (24, 32)
    metres = depth.astype(np.float32) / np.float32(1000)
    expected = np.where(depth == 0, np.nan, metres).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(sample.depth[0, 0].numpy(), expected)
    sample = FolderSource(tmp_path, align="rgb_to_depth")[0].read([0])
    assert sample.rgb.shape == (1, 3, 12, 16) and sample.rgb.dtype == torch.uint8
    with pytest.raises(ConfigError, match="depth_to_rgb"):
        FolderSource(tmp_path, align="depth_to_rbg")


@pytest.mark.parametrize("align", ["depth_to_rgb", "rgb_to_depth"])
@pytest.mark.parametrize(
    ("rgb", "depth", "fits"),
    [
        ((108, 192), (57, 64), False),  # 1920 x 1080 over 640 x 576
        ((72, 128), (96, 128), False),
        ((128, 72), (72, 128), False),
        ((53, 73), (42, 56), False),
        ((48, 64), (24, 32), True),
        ((96, 129), (48, 64), True),  # 1296 x 968 over 640 x 480 differ by .4 %
        ((37, 124), (18, 62), True),
    ],
)
def test_two_fields_of_view_are_not_stretched(
    tmp_path: Path, rgb: tuple[int, int], depth: tuple[int, int], fits: bool, align: str
):
    save(tmp_path / "color/0.png", rgb_array(0, rgb))
    save(tmp_path / "depth/0.png", depth_array(0, depth))
    if fits:
        sample = FolderSource(tmp_path, align=align)[0].read([0])
        assert sample.rgb.shape[-2:] == sample.depth.shape[-2:] == (rgb if align == "depth_to_rgb" else depth)
        return
    size = f"{rgb[0]}x{rgb[1]}.*{depth[0]}x{depth[1]}"
    with pytest.raises(DataError, match=f"aspect ratio.*{size}.*align={align} would stretch.*crop both.*register"):
        FolderSource(tmp_path, align=align)


def test_the_real_sizes_of_scannet_may_be_aligned():
    refuse_sizes(Path("x"), {"rgb": (968, 1296), "depth": (480, 640)}, "depth_to_rgb")
    refuse_sizes(Path("x"), {"rgb": (375, 1242), "depth": (187, 621)}, "depth_to_rgb")
    with pytest.raises(DataError, match=r"1080x1920.*576x640"):
        refuse_sizes(Path("x"), {"rgb": (1080, 1920), "depth": (576, 640)}, "depth_to_rgb")


def test_another_aspect_ratio_later_is_refused_when_read(tmp_path: Path):
    write_frames(tmp_path, 40)
    save(tmp_path / "depth/1.png", depth_array(1, (24, 24)))
    save(tmp_path / "label/1.png", label_array(1, (24, 24)))
    source = FolderSource(tmp_path, align="depth_to_rgb")
    with pytest.raises(DataError, match="24x24"):
        source[1].read([0])


def test_sizes_that_differ_later_are_refused_when_read(tmp_path: Path):
    write_frames(tmp_path, 40)
    save(tmp_path / "depth/1.png", depth_array(1, (12, 16)))
    source = FolderSource(tmp_path)
    with pytest.raises(DataError, match="12x16"):
        source[1].read([0])


def test_units_are_stated_or_refused(tmp_path: Path):
    write_frames(tmp_path, 2, scale=5000)
    with pytest.raises(DepthUnitError, match=r"1\.97 m as tum: .*2\.46 m as quarter_millimetre: "):
        FolderSource(tmp_path)
    assert FolderSource(tmp_path, depth_unit="tum").depth_spec.unit == "tum"
    assert FolderSource(tmp_path, depth_scale=4000).depth_spec.scale == 4000
    with pytest.raises(DepthUnitError, match="depth_unit=tum"):
        FolderSource(tmp_path, depth_unit="metre")
    bounded = FolderSource(tmp_path, depth_unit="tum", max_depth=2.0)[0].read([0]).depth
    assert bounded.nan_to_num().max() <= 2.0 and bounded.isnan().float().mean() > 0.3


def test_all_invalid_depth_is_refused(tmp_path: Path):
    write_frames(tmp_path, 2)
    for i in range(2):
        save(tmp_path / f"depth/{i}.png", np.zeros((24, 32), np.uint16))
    with pytest.raises(DataError, match="all depth is invalid"):
        FolderSource(tmp_path)


def test_labels_are_read_mapped_and_checked(tmp_path: Path):
    write_frames(tmp_path, 3, labels="label/{i}.png")
    source = FolderSource(tmp_path, class_names=["a", "b", "c", "d"])
    sample = source[1].read([0])
    assert sample.segmentation.dtype == torch.uint8
    np.testing.assert_array_equal(sample.segmentation[0].numpy(), label_array(1))
    assert source.class_names == ["a", "b", "c", "d"]
    with pytest.raises(LabelError) as caught:
        FolderSource(tmp_path, num_classes=3)
    counts = np.bincount(label_array(0).ravel())
    assert "label/0.png" in str(caught.value) and f"3: {counts[3]}" in str(caught.value)
    one_based = FolderSource(tmp_path, num_classes=3, label_offset=1, label_ignore=[0])[0].read([0]).segmentation[0]
    stored = label_array(0)
    np.testing.assert_array_equal(one_based.numpy(), np.where(stored == 0, 255, stored - 1))
    # Labels that nobody asked for are not read: how many classes there are is not known.
    assert FolderSource(tmp_path)[0].read([0]).segmentation is None
    with pytest.raises(ConfigError, match="num_classes"):
        FolderSource(tmp_path, labels="label")


def test_a_label_out_of_range_is_met_at_every_read(tmp_path: Path):
    write_frames(tmp_path, 200, labels="label/{i}.png")  # more than are looked at when the source is built
    bad = label_array(1)
    bad[3, 3] = 77
    save(tmp_path / "label/1.png", bad)
    source = FolderSource(tmp_path, num_classes=4)
    with pytest.raises(LabelError, match=r"label/1\.png.*77: 1"):
        source[1].read([0])


def test_corrupt_file_is_raised_when_read_not_before(tmp_path: Path):
    write_frames(tmp_path, 3)
    for name in ("color/0.png", "depth/2.png"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:100])
    source = FolderSource(tmp_path)
    for index, name in ((0, "color/0.png"), (2, "depth/2.png")):
        with pytest.raises(CorruptFileError, match="truncated") as caught:
            source[index].read([0])
        assert caught.value.path.endswith(name)
    assert_frame(source, 1, 1)


def test_digest_follows_content_and_rules_not_place_or_time(tmp_path: Path):
    first = FolderSource(write_frames(tmp_path / "a", 3)).digest()
    assert FolderSource(write_frames(tmp_path / "b", 3)).digest() == first
    assert FolderSource(tmp_path / "a", max_depth=2.5).digest() != first
    assert FolderSource(tmp_path / "a", every=2).digest() != first
    save(tmp_path / "b/color/1.png", rgb_array(99, (25, 32)))
    assert FolderSource(tmp_path / "b", align="depth_to_rgb").digest() != first


def test_the_unlabelled_digest_follows_all_but_labels(tmp_path: Path):
    root = write_frames(tmp_path, 3, labels="label/{i}.png")
    source = FolderSource(root, num_classes=4)
    first = source.unlabelled_digest()
    assert first == FolderSource(root).digest() != source.digest(), "as if no labels were read"
    save(root / "label/1.png", label_array(7, (24, 32)) % 2)
    other = FolderSource(root, num_classes=5)
    assert other.unlabelled_digest() == first and other.digest() != source.digest()
    (root / "label/1.png").unlink()
    assert FolderSource(root, num_classes=5).unlabelled_digest() != first, "a frame less"


def test_registry_hints_at_the_nearest_name(tmp_path: Path):
    write_frames(tmp_path, 1)
    assert len(build_source("folder", root=tmp_path)) == 1
    with pytest.raises(ConfigError, match="Did you mean 'folder'"):
        build_source("foldr", root=tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'depth_scale'"):
        build_source("folder", root=tmp_path, depth_scal=1000)
    with pytest.raises(ConfigError, match="requires the option 'root'"):
        build_source("folder", root=None)


def test_thinning_options_are_checked(tmp_path: Path):
    write_frames(tmp_path, 3)
    with pytest.raises(ConfigError, match="at least 1"):
        FolderSource(tmp_path, every=0)
    with pytest.raises(ConfigError, match="Did you mean 'clips'"):
        FolderSource(tmp_path, unit="clip")
    with pytest.raises(DataError, match="min_frames=5"):
        FolderSource(tmp_path, unit="clips", min_frames=5)


def test_files_of_maps_that_are_not_named_are_not_opened(tmp_path: Path):
    write_frames(tmp_path, 3, labels="label/{i}.png")
    source = FolderSource(tmp_path, num_classes=4)
    aligned = FolderSource(tmp_path, num_classes=4, align="rgb_to_depth")
    whole = source[1].read([0])
    for name in ("depth/1.png", "label/1.png"):
        (tmp_path / name).unlink()
    alone = source[1].read_maps([0], {"rgb"})
    assert torch.equal(alone.rgb, whole.rgb) and alone.depth is None and alone.segmentation is None
    with pytest.raises(CorruptFileError, match=r"depth.1\.png"):
        source[1].read_maps([0], {"rgb", "depth"})
    with pytest.raises(CorruptFileError):  # the size that counts is that of the depth
        aligned[1].read_maps([0], {"rgb"})
    (tmp_path / "color/2.png").unlink()
    sample = source[2].read_maps([0], {"depth", "segmentation"})
    assert sample.rgb is None and sample.depth is not None and sample.segmentation is not None
    with pytest.raises(CorruptFileError, match="color"):  # labels have no size of their own to go by
        source[2].read_maps([0], {"segmentation"})
