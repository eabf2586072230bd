"""NYUv2's published file at its full size: every pixel where it belongs, damage named."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from helpers.nyuv2_files import depth_of, labels_of, picture_of, raw_of, write_mat
from m33d_hf.data.files.files import load_rgb, read_map, size_and_orientation
from m33d_hf.data.packed_formats.nyu_mat import num_frames
from m33d_hf.errors import CorruptFileError


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mat(tmp_path_factory.mktemp("nyu") / "nyu_depth_v2_labeled.mat")


def test_frames_at_full_size(mat: Path):
    assert num_frames(mat, ("rgb", "measured", "labels")) == 1449
    for frame in (4, 1448):
        assert (load_rgb(f"{mat}#rgb-{frame}").values == picture_of(frame)).all()
        assert (read_map(f"{mat}#filled-{frame}") == depth_of(frame)).all()
        assert (read_map(f"{mat}#raw-{frame}") == raw_of(frame)).all()
        labels = read_map(f"{mat}#labels-{frame}")
        assert labels.dtype == np.uint16 and (labels == labels_of(frame)).all()
    measured = read_map(f"{mat}#measured-4")
    assert (measured[:, :64] == 0).all() and (measured[:, 64:] == depth_of(4)[:, 64:]).all()
    assert size_and_orientation(f"{mat}#rgb-7") == size_and_orientation(f"{mat}#raw-7") == (480, 640, 1)


def test_frames_that_are_not_there(mat: Path):
    with pytest.raises(CorruptFileError, match=r"#rgb-1449: does not exist: the file has 1449 frames"):
        load_rgb(f"{mat}#rgb-1449")
    with pytest.raises(CorruptFileError, match="no array 'poses'"):
        read_map(f"{mat}#poses-0")


def test_files_that_are_another(tmp_path: Path):
    old = tmp_path / "old.mat"
    scipy.io.savemat(old, {"images": np.zeros((2, 2))})
    with pytest.raises(CorruptFileError, match=r"MATLAB file of version 5; .* 7\.3"):
        num_frames(old)
    text = tmp_path / "text.mat"
    text.write_text("<html>Not found</html>")
    with pytest.raises(CorruptFileError, match="download complete"):
        num_frames(text)
    with pytest.raises(CorruptFileError, match="does not exist"):
        num_frames(tmp_path / "none.mat")


def test_half_a_download(mat: Path, tmp_path: Path):
    half = tmp_path / "half.mat"
    half.write_bytes(mat.read_bytes()[: mat.stat().st_size // 2])
    with pytest.raises(CorruptFileError, match=r"download complete \(2\.8 GB\)"):
        num_frames(half)


def test_arrays_of_another_shape(tmp_path: Path):
    file = tmp_path / "a.mat"
    with h5py.File(file, "w") as out:
        out["images"] = np.zeros((4, 640, 480, 3), np.uint8)
        out["depths"] = np.zeros((4, 64, 48), np.float32)
        out["rawDepths"] = np.zeros((3, 64, 48), np.float32)
        out["labels"] = np.zeros((4, 64, 48), np.float32)
    for stream in ("rgb", "labels"):
        with pytest.raises(CorruptFileError, match="unlike NYUv2's"):
            num_frames(file, (stream,))
    with pytest.raises(CorruptFileError, match="differ in length"):
        num_frames(file, ("filled", "raw"))
