"""The calibration of a scan: from its recording's header, or from the folder `intrinsic/` of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.files.files import size_and_orientation
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.sources.scannet.scenes import Scene
from m33d_hf.errors import ConfigError

REGISTER = "register"
_FOLDER = "intrinsic"
_FILES = ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth")
_HEADER = ("color_intrinsic", "color_extrinsic", "depth_intrinsic", "depth_extrinsic")


def scene_calibrations(root: Path, scenes: Sequence[Scene], notes: list[str]) -> dict[str, Calibration]:
    """Calibration of every scene with frames.

    The extrinsic of each camera takes its points to a place that both share, which in ScanNet's own calibration is the
    colour camera: the depth's takes depth to colour, the colour's is the identity.

    Raises:
        ConfigError: a scene without a calibration, or one that cannot be.
    """
    found = {}
    for scene in scenes:
        if not scene.frames:
            continue
        matrices, color, depth = _recorded(scene) if scene.header is not None else _exported(root, scene)
        try:
            found[scene.name] = _calibration(matrices, color, depth)
        except ConfigError as error:
            raise ConfigError(f"the calibration of {scene.name} (align=register): {error}") from error
    together = sum(np.array_equal(each.matrix, np.eye(4)) for each in found.values())
    notes.append(
        f"depth is registered into the colour picture by the calibrations of {len(found)} scenes; in {together} of "
        "them both cameras are said to stand in one place"
    )
    return found


def _calibration(matrices: Mapping[str, np.ndarray], color: tuple[int, int], depth: tuple[int, int]) -> Calibration:
    sees = {}
    for name, (height, width) in (("color", color), ("depth", depth)):
        values = matrices[f"{name}_intrinsic"]
        sees[name] = Camera(width, height, *(float(values[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2))))
    try:
        motion = np.linalg.solve(matrices["color_extrinsic"], matrices["depth_extrinsic"])
    except np.linalg.LinAlgError as error:
        raise ConfigError("the extrinsic matrix of the colour camera cannot be inverted") from error
    motion[3] = np.where(np.abs(motion[3] - (0, 0, 0, 1)) < 1e-6, (0, 0, 0, 1), motion[3])
    return Calibration(sees["color"], sees["depth"], tuple(tuple(row) for row in motion.tolist()))


def _recorded(scene: Scene) -> tuple[dict[str, np.ndarray], tuple[int, int], tuple[int, int]]:
    header = scene.header
    if header is None:
        raise ConfigError(f"{scene.name} is no recording")
    matrices = {name: np.array(header.matrices[name], np.float64).reshape(4, 4) for name in _HEADER}
    return matrices, header.color_size, header.depth_size


def _exported(root: Path, scene: Scene) -> tuple[dict[str, np.ndarray], tuple[int, int], tuple[int, int]]:
    frame = scene.frames[0]
    if frame.rgb is None or frame.depth is None:
        raise ConfigError(f"{scene.name} has no colour and depth to register")
    folder = (root / frame.rgb).parent.parent / _FOLDER
    matrices = {}
    for file, name in zip(_FILES, _HEADER):
        path = folder / f"{file}.txt"
        if not path.is_file():
            raise ConfigError(
                f"align=register needs the calibration of {scene.name}: {path} is missing. ScanNet's exporter writes "
                "the folder intrinsic/ where it is asked for intrinsics; recordings (.sens) hold them."
            )
        try:
            matrices[name] = np.array([float(word) for word in read_text(path).split()]).reshape(4, 4)
        except ValueError as error:
            raise ConfigError(f"{path} does not hold 4 x 4 numbers ({error})") from error
    color, depth = (size_and_orientation(root / file)[:2] for file in (frame.rgb, frame.depth))
    return matrices, color, depth
