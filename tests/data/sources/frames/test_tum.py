from pathlib import Path

import pytest

from helpers.frames_on_disk import depth_array, write_frames
from m33d_hf.data.sources.frames.tum import TumSource
from m33d_hf.errors import DataError, DepthUnitError


def write_sequence(folder: Path, count: int = 6, offset: float = 0.01, scale: float = 5000.0) -> Path:
    """RGB at 0, 0.1, ... s and depth `offset` later."""
    write_frames(folder, count, "rgb/{i}.png", "depth/{i}.png", scale=scale)
    for name, shift in (("rgb", 0.0), ("depth", offset)):
        lines = [f"{i / 10 + shift:.4f} {name}/{i}.png" for i in range(count)]
        (folder / f"{name}.txt").write_text("# a list\n# timestamp filename\n" + "\n".join(lines) + "\n")
    return folder


def test_time_stamps_pair_frames(tmp_path: Path):
    source = TumSource(write_sequence(tmp_path))
    assert len(source) == 1 and source[0].key == "frames" and source[0].length == 6
    assert source.depth_spec.scale == 5000
    sample = source[0].read([4, 1])
    assert sample.depth[0, 0, 3, 3].item() == pytest.approx(depth_array(4, scale=5000)[3, 3] / 5000)
    assert sample.depth[1, 0, 3, 3].item() == pytest.approx(depth_array(1, scale=5000)[3, 3] / 5000)


def test_stamps_too_far_apart_give_no_pair(tmp_path: Path):
    write_sequence(tmp_path, offset=0.03)
    with pytest.raises(DataError, match=r"no pairs.*0\.02 s"):
        TumSource(tmp_path)
    assert TumSource(tmp_path, max_difference=0.04)[0].length == 6


def test_missing_files_are_left_out_and_listed(tmp_path: Path):
    write_sequence(tmp_path)
    (tmp_path / "rgb/2.png").unlink()
    (tmp_path / "depth/4.png").unlink()
    source = TumSource(tmp_path)
    assert source[0].length == 4
    reasons = {entry.path: entry.reason for entry in source.unpaired}
    assert reasons["rgb/2.png"] == "named in rgb.txt but missing"
    assert reasons["depth/2.png"] == "no partner within 0.02 s"
    assert set(reasons) == {"rgb/2.png", "depth/2.png", "rgb/4.png", "depth/4.png"}


@pytest.mark.parametrize("order", ["0.0 rgb/{i}.png 0.1 depth/{j}.png", "0.1 depth/{j}.png 0.0 rgb/{i}.png"])
def test_association_file_wins_over_stamps(tmp_path: Path, order: str):
    write_sequence(tmp_path)
    lines = [order.format(i=i, j=5 - i) for i in range(6)]
    (tmp_path / "associations.txt").write_text("\n".join(lines) + "\n")
    sample = TumSource(tmp_path)[0].read([0])
    assert sample.depth[0, 0, 3, 3].item() == pytest.approx(depth_array(5, scale=5000)[3, 3] / 5000)
    sample = TumSource(tmp_path, association="none")[0].read([0])
    assert sample.depth[0, 0, 3, 3].item() == pytest.approx(depth_array(0, scale=5000)[3, 3] / 5000)


@pytest.mark.parametrize("paired", ["stamps", "association"])
def test_the_frame_rate_is_that_of_the_time_stamps(tmp_path: Path, paired: str):
    """Names that count frames are no seconds."""
    write_sequence(tmp_path, count=12)  # 0.png, 1.png ... at 10 a second
    write_sequence(tmp_path / "deeper" / "frames", count=12)
    if paired == "association":
        lines = [f"{i / 10:.4f} rgb/{i}.png {i / 10:.4f} depth/{i}.png" for i in range(12)]
        for folder in (tmp_path, tmp_path / "deeper" / "frames"):
            (folder / "associations.txt").write_text("\n".join(lines) + "\n")
    assert [handle.fps for handle in TumSource(tmp_path).sequences] == pytest.approx([10.0, 10.0])
    assert TumSource(tmp_path, every=3)[0].fps == pytest.approx(10 / 3)
    assert TumSource(tmp_path, fps=25.0)[0].fps == 25.0
    if paired == "association":
        for folder in (tmp_path, tmp_path / "deeper" / "frames"):
            (folder / "rgb.txt").write_text("no list\n")  # which nobody needs then
        assert TumSource(tmp_path)[0].fps is None


def test_several_sequences_splits_and_single_frames(tmp_path: Path):
    for name in ("freiburg1", "freiburg2"):
        write_sequence(tmp_path / name, count=10)
    assert [handle.key for handle in TumSource(tmp_path).sequences] == ["freiburg1", "freiburg2"]
    assert [handle.length for handle in TumSource(tmp_path, split="train").sequences] == [8, 8]
    frames = TumSource(tmp_path, unit="frames", every=5)
    assert [handle.key for handle in frames.sequences] == ["freiburg1/0", "freiburg1/5", "freiburg2/0", "freiburg2/5"]


def test_bad_lists_and_units_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"rgb\.txt and depth\.txt"):
        TumSource(tmp_path)
    write_sequence(tmp_path, scale=1000)
    assert TumSource(tmp_path, depth_unit="mm")[0].length == 6
    with pytest.raises(DepthUnitError, match="depth_unit=tum"):
        write_sequence(tmp_path / "x")
        TumSource(tmp_path / "x", depth_unit="metre")
    (tmp_path / "rgb.txt").write_text("0.0 rgb/0.png extra\n")
    with pytest.raises(DataError, match="extra"):
        TumSource(tmp_path)
