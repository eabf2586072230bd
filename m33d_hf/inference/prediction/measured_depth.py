"""Measured depth beside the inputs of a prediction: `--depth FOLDER`, with maps named as the pictures or videos."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.depth.maps import (
    DepthMaps,
    decode_depth,
    find_depth_maps,
    read_sidecar_spec,
    read_spec_file,
    spec_folder,
    states,
)
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.depth.shapes import same_shape
from m33d_hf.data.depth.stores import read_picture_scale
from m33d_hf.data.files.files import MAP_SUFFIXES, load_map
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, hole_entries
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import RGBDSample, holes_of
from m33d_hf.data.sources.frames.orientation import as_the_picture_lies
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.prediction.depth_beside import UNREGISTERED, FramePairs, MapCalibrations, registering
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.depth_input_m33d import decoded
from m33d_hf.modeling.depth_m33d import resize_depth
from m33d_hf.modeling.depth_spec_m33d import DepthSpec
from m33d_hf.modeling.processor_options_m33d import spec_of


class DepthFolder:
    """The folder, and what its values mean: the nearest depth_spec.json, or else --depth_unit, or else the processor.

    Counts the inputs that had depth and those that had none, and lists what of a video's depth is missing or damaged;
    from several threads.

    Args:
        folder: of maps.
        unit: of --depth_unit, or None.
        processor: of the model.
        needed: an input without depth there is an error.
        align: of --depth_align, for maps of pictures of another size; those of videos are resized as in training.
        orientation: of --depth_orientation, for maps of pictures that EXIF says to turn.
        output: folder of the predictions, for the list.
        inputs: of the prediction; a recording's pictures and maps lie beside each other in it.
        calibration: of --calibration, by which maps of pictures are registered; see `MapCalibrations`.
        registers: whether maps can be registered, which those of clips cannot.

    Raises:
        ConfigError: no such folder, depth of a kind or unit that contradicts what is known of it, or a calibration
            beside the maps that nothing is said of.
    """

    def __init__(
        self,
        folder: Path,
        unit: str | None,
        processor: Any,
        needed: bool,
        output: Path,
        align: str = "refuse",
        orientation: str = "refuse",
        inputs: Sequence[str] = (),
        calibration: Path | None = None,
        registers: bool = True,
    ) -> None:
        self.folder = folder.expanduser()
        if not self.folder.is_dir():
            raise ConfigError(f"--depth {self.folder} is no folder; give the one that holds the maps.")
        self._unit, self._needed, self._align, self._orientation = unit, needed, align, orientation
        known = getattr(processor, "depth_spec", None)
        self._known = None if known is None else spec_of(known)
        self._specs: dict[Path, DepthSpec | None] = {}
        self._upright: set[Path] = set()  # of `_specs`, folders whose maps are stated to lie as upright pictures do
        self._stated(self.folder)
        self._calibrations = MapCalibrations(self.folder, calibration, registers)
        if calibration is None:
            self._calibrations.of(self.folder)
        self._counting = threading.Lock()
        self.used = self.lacking = 0
        self.holes = HoleCount()
        self._ledger = SkipLedger(output / FILE_NAME, 1.0, 0)
        self._pairs = FramePairs(self.folder, inputs)

    def _stated(self, folder: Path) -> DepthSpec | None:
        """What the nearest depth_spec.json says of maps in a folder: recordings below the given one have their own."""
        if folder not in self._specs:
            place = spec_folder(folder)
            written = None if place is None else read_spec_file(place)
            found = None if written is None else self._read_spec(folder, written)
            if found is not None and self._known is not None and found.kind != self._known.kind:
                raise ConfigError(
                    f"--depth {folder} holds {found.kind} depth (depth_spec.json), but the model was trained on "
                    f"{self._known.kind} depth; give it that."
                )
            if states(written, "upright"):
                self._upright.add(folder)
            self._specs[folder] = found
        return self._specs[folder]

    def _read_spec(self, folder: Path, written: Mapping[str, Any]) -> DepthSpec:
        """Of the content of a depth_spec.json, with what it leaves open from --depth_unit, or else from the processor.

        The processor is not asked where the file has a unit, or a scale, or another kind: the rest of it would not fit.
        """
        open_unit = written.get("unit") is written.get("scale") is None
        if self._unit is not None or self._known is None or not open_unit:
            return read_sidecar_spec(folder, unit=self._unit)
        if written.get("kind", self._known.kind) != self._known.kind:
            return read_sidecar_spec(folder)
        return read_sidecar_spec(
            folder, **{name: value for name, value in vars(self._known).items() if written.get(name) is None}
        )

    def _stated_below(self, folder: Path) -> DepthSpec | None:
        """As `_stated`, of a folder that is met while predicting: what is wrong there is an input's fault."""
        try:
            return self._stated(folder)
        except ConfigError as error:
            raise DataError(str(error)) from error

    def of_picture(self, item: Item, size: tuple[int, int], lies: int = 1) -> dict[str, Any] | None:
        """Arguments of an image processor, "depth" (H, W) and more; None where there is no map.

        Args:
            item: the picture.
            size: its (height, width), upright.
            lies: its orientation by EXIF, as it is stored.

        Raises:
            DataError: several maps, one that cannot be read, has another size or may lie otherwise than its picture,
                or none where depth is needed.
        """
        named = [path for suffix in MAP_SUFFIXES if (path := self.folder / f"{item.name}{suffix}").is_file()]
        found = [path for path in named if not path.samefile(item.path)]  # --depth may be the folder of the pictures
        if not found and (beside := self._pairs.map_of(item.path)) is not None:
            found = [beside]
        if len(found) > 1:
            raise DataError(f"--depth {self.folder} holds several maps named {item.name} ({', '.join(MAP_SUFFIXES)})")
        if not found:
            self._lacks(item)
            return None
        given = self._read_map(found[0], size, lies)
        with self._counting:
            self.used += 1
        return given

    def of_video(self, item: Item) -> DepthMaps | None:
        """The depth of a video, frame by frame, which `count_clips` counts once it is read; None where there is none.

        Raises:
            ConfigError: nobody says what the values mean.
            DataError: the depth exists twice, or there is none where it is needed; or a calibration beside it says
                that it is of another camera, and nothing is said of that.
        """
        place = (self.folder / item.name).parent
        self._calibration_below(self.folder / item.name)  # which is not passed over
        found = find_depth_maps(self.folder, item.name, self._stated_below(place) or self._spec())
        if found is None:
            self._lacks(item)
        return found

    def _spec(self) -> DepthSpec:
        if self._unit is not None:
            return DepthSpec(unit=self._unit)
        if self._known is None:
            raise ConfigError(
                f"--depth {self.folder}: neither the model's processor nor a depth_spec.json there says what the "
                "values mean; pass --depth_unit, such as millimetre."
            )
        return self._known

    def _read_map(self, path: Path, size: tuple[int, int], lies: int) -> dict[str, Any]:
        values, own = load_map(path)
        stated = self._stated_below(path.parent)
        if (calibration := self._calibration_below(path.parent)) is not None:
            return {"depth": self._registered(path, values, size, lies, stated, calibration)}
        if own == 1 and path.parent not in self._upright:
            values = as_the_picture_lies(values, path, lies, size, self._orientation, "--depth_orientation")
        values = self._sized(path, values, size)
        if stated is not None:
            return {"depth": decode_depth(np.asarray(values), stated, read_picture_scale(path))}
        return {"depth": values} if self._unit is None else {"depth": values, "depth_unit": self._unit}

    def _calibration_below(self, folder: Path) -> Calibration | None:
        """As `_stated_below`, of the calibration."""
        try:
            return self._calibrations.of(folder)
        except ConfigError as error:
            raise DataError(str(error)) from error

    def _registered(
        self,
        path: Path,
        values: np.ndarray,
        size: tuple[int, int],
        lies: int,
        stated: DepthSpec | None,
        calibration: Calibration,
    ) -> np.ndarray:
        """A map in metres, as the picture's camera would see it: as `FrameReader` registers it in training."""
        if lies != 1:
            raise DataError(
                f"the picture of {path} is to be turned by its EXIF orientation ({lies}), but a calibration refers to "
                "pictures as they are stored. Save the pictures upright, with the calibration of the upright pictures"
            )
        spec = stated or (self._known if self._unit is None else DepthSpec(unit=self._unit))
        if stated is not None:
            metres = decode_depth(np.asarray(values), stated, read_picture_scale(path))
        else:
            metres = decoded(np.asarray(values), None if spec is None else spec.to_dict())  # as the processor does
        if spec is not None and spec.kind != "metric":
            raise DataError(f"{path} has no unit, but a calibration needs depth in metres")
        try:
            calibration.require_sizes(size, (metres.shape[0], metres.shape[1]), str(path))
        except ConfigError as error:
            raise DataError(str(error)) from error
        return register_depth(metres, calibration)

    def _sized(self, path: Path, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A map as it is stored, at the picture's size: by the nearest pixel, as data.options.align has it."""
        if values.shape == size:
            return values
        sizes = f"the depth map {path} is {values.shape[0]}x{values.shape[1]}, but its picture is {size[0]}x{size[1]}"
        if self._align == "refuse":
            raise DataError(f"{sizes}; if both show the same view, pass --depth_align depth_to_rgb")
        if not same_shape(values.shape, size):
            raise DataError(
                f"{sizes}, of another aspect ratio: --depth_align would stretch one view over another. Crop both to "
                "the same part of the scene first"
            )
        stored = torch.from_numpy(values.astype(np.float64))  # holds every stored number exactly
        return np.asarray(resize_depth(stored, size).numpy().astype(values.dtype))

    def _lacks(self, item: Item) -> None:
        if self._needed:
            raise DataError(f"--depth {self.folder} holds nothing named {item.name} ({', '.join(MAP_SUFFIXES)})")
        with self._counting:
            self.lacking += 1

    def count_clips(self, clips: Sequence[RGBDSample]) -> None:
        """Count a video that was read, by its clips, and those of their frames without depth, which are listed."""
        with self._counting:
            self.used += 1
            for clip in clips:
                self.holes.add_sample(clip)
                self._ledger.record({"holes": hole_entries(holes_of(clip), clip.key)})

    def closing(self, word: str) -> str:
        """How many inputs had depth, and all of it; `word` names one of them, in small letters."""
        lacking = f"; {self.lacking} without depth there, from RGB alone" if self.lacking else ""
        problems = self._pairs.problems if self.lacking else []
        holes = f" Of their clips, {words} ({FILE_NAME} lists them)" if (words := self.holes.words()) else ""
        why = f" Maps were looked for beside the pictures as well: {'; '.join(problems)}" if problems else ""
        passed = f" {'; '.join(foreign)}." if (foreign := self._calibrations.problems) else ""
        return f"With measured depth: {plural(self.used, word)}{lacking}.{holes}{why}{passed}"


def depth_folder(
    options: PredictionOptions, processor: Any, needed: bool, registers: bool = True
) -> DepthFolder | None:
    """The folder of `--depth`, None without it; arguments and errors as those of the class."""
    if options.depth is None:
        if (stated := registering(options.calibration)) is not None:
            raise ConfigError(f"--calibration {stated} registers the maps of --depth; pass both, or none of them.")
        return None
    if registering(options.calibration) is not None and options.depth_orientation != "refuse":
        raise ConfigError(
            f"--depth_orientation {options.depth_orientation} turns maps, but a calibration refers to pictures as they "
            "are stored. Leave it out to register the maps; if the model was trained on depth as it is stored, pass "
            f"--calibration {UNREGISTERED}."
        )
    folder, output = Path(options.depth), Path(options.output)
    how: dict[str, Any] = {"align": options.depth_align, "orientation": options.depth_orientation}
    how |= {"inputs": options.input, "calibration": options.calibration, "registers": registers}
    return DepthFolder(folder, options.depth_unit, processor, needed, output, **how)


def depth_rules(options: PredictionOptions) -> Mapping[str, Any]:
    """What two calls that write into one folder must have in common."""
    depth = None if options.depth is None else str(Path(options.depth).expanduser().resolve())
    calibration = registering(options.calibration)
    # None where it is as it always was: folders of earlier versions, which lack the rule, can be continued, and those
    # that were made with it are not continued without.
    return {
        "depth": depth,
        "depth_unit": options.depth_unit,
        "depth_align": None if options.depth_align == "refuse" else options.depth_align,
        "depth_orientation": None if options.depth_orientation == "refuse" else options.depth_orientation,
        "depth_calibration": None if calibration is None else str(calibration),
    }


def task_inputs_of(model: Any) -> tuple[str, ...]:
    """What a task model sees; RGB for models of others."""
    return tuple(getattr(model.config, "task_input_names", ("rgb",)))


def refuse_unusable_depth(options: PredictionOptions, model: Any, reads_maps: bool) -> None:
    """Refuse `--depth` where it cannot be used, and a model of depth alone without it.

    Args:
        options: of the prediction.
        model: loaded.
        reads_maps: whether this kind of prediction reads depth beside its inputs.

    Raises:
        ConfigError: as said.
    """
    inputs = task_inputs_of(model)
    if options.depth is not None and not reads_maps:
        raise ConfigError(
            f"--depth {options.depth}: depth is read for reconstructions, segmentation and classes of clips; of the "
            "phases of long videos, predict.py sees RGB alone. Leave it out."
        )
    if options.depth is not None and "depth" not in inputs:
        raise ConfigError(f"--depth {options.depth}: {options.model} sees RGB alone; leave it out.")
    if "rgb" not in inputs and options.depth is None:
        also = "pass --depth FOLDER, with depth named as every input" if reads_maps else "predict.py cannot use it"
        raise ConfigError(f"{options.model} sees depth alone: {also}.")


def refuse_depth_of_frames(options: PredictionOptions, item: Item) -> None:
    """Refuse a video whose frames are predicted one by one where depth is given: it is not read frame by frame.

    Args:
        options: of the prediction.
        item: the video.

    Raises:
        DataError: `--depth` is given; without it nothing is wrong.
    """
    if options.depth is not None:
        raise DataError(
            f"{item.path}: with --depth, frames of videos are not predicted, as depth is read beside pictures alone. "
            "Give a folder of its frames as pictures, with maps of the same names, or leave --depth out and choose "
            "another --output"
        )


def notes_of_unused_depth(options: PredictionOptions, model: Any, reads_maps: bool) -> list[str]:
    """A sentence where a model of RGB and depth is given RGB alone: its predictions are not those of both.

    Arguments as those of `refuse_unusable_depth`.
    """
    if options.depth is not None or not {"rgb", "depth"} <= set(task_inputs_of(model)):
        return []
    how = "--depth FOLDER here" if reads_maps else "--depth of scripts/detect_actions.py"
    return [f"{options.model} sees RGB and depth, and looked at RGB alone; depth beside the inputs is read by {how}."]
