"""Modalities beside RGB and depth: what the data provides must be what the model describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.data.depth.normals import DEPTH_NORMALS
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import source_options
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import mixture_members

_OPTION = "modalities"
_OWN_OPTIONS = ("rgb", "depth")


def check_further_modalities(args: RunArguments, config: M33DConfig, *, train: bool) -> None:
    """Compare the option `modalities` of every source of a run with the `modalities` of its model.

    Sources without that option are not judged: what they provide is seen when they are read.

    Args:
        args: the run.
        config: of its model.
        train: whether training data is read as well; a mixture is for training.

    Raises:
        ConfigError: a name on one side alone; it would be read for nothing, or missing in the first batch.
    """
    data = args.data
    if train and data.mixture is not None:
        for member in mixture_members(args):
            _check(member.source, member.options, config, f"data.mixture, member {member.name}: options.{_OPTION}")
    elif train:
        _check(data.source, data.options, config, f"data.options.{_OPTION}")
    if data.eval_split is not None or data.eval_root is not None:
        where = f"data.{'eval_options' if _OPTION in data.eval_options else 'options'}.{_OPTION}"
        if data.mixture is None or _OPTION in {**data.options, **data.eval_options}:
            _check(data.source, {**data.options, **data.eval_options}, config, where)


def check_normals(config: M33DConfig, source: str | None, dataset: SampleDataset | None) -> None:
    """Refuse normals of a depth that is no distance.

    Args:
        config: of the model.
        source: name of the data source.
        dataset: of it; without depth nothing is said, which reading does.

    Raises:
        ConfigError: relative or inverse depth: a plane is not flat in it.
    """
    spec = None if dataset is None else dataset.source.depth_spec
    if DEPTH_NORMALS in [each.name for each in config.specs] and spec is not None and spec.kind != "metric":
        raise ConfigError(
            f"modalities.{DEPTH_NORMALS} is made from distances, but the depth of source {source!r} is {spec.kind}: "
            f"planes are not flat in it. Convert it to metres, or remove modalities.{DEPTH_NORMALS}."
        )


def _check(source: str | None, options: Mapping[str, Any], config: M33DConfig, where: str) -> None:
    if source is None or _OPTION not in source_options(source):
        return
    provided = options.get(_OPTION) or {}
    if not isinstance(provided, Mapping):
        return  # which the source refuses
    described = [spec.name for spec in config.specs if spec.target_of is None and spec.name != DEPTH_NORMALS]
    for name in provided:
        if name == DEPTH_NORMALS:
            raise ConfigError(f"{where} has {name!r}, which is computed from depth: give files another name.")
        if name not in described and name not in _OWN_OPTIONS:
            raise ConfigError(
                f"{where} has {name!r}, but the model has no such modality, so it would be read for nothing."
                f"{nearest_name_hint(name, described)} Describe it: --modalities.{name}.channels N "
                f"--modalities.{name}.input_name {name}_values; or remove it from the option."
            )
    for name in described:
        if name not in provided and name not in _OWN_OPTIONS:
            raise ConfigError(
                f"The model has the modality {name!r}, but {where} does not have it.{nearest_name_hint(name, provided)}"
                f" Give its folder or pattern, {{{name}: {name}/*.png}}, or remove modalities.{name}."
            )
