"""Models of a run from its arguments, with their initial weights and their processors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.placement_fields_m33d import placement_fields
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.weights import ConversionOptions, ConversionReport, load_foreign, trained_positions
from m33d_hf.weights.own import find_own, initialise


def config_of(model: nn.Module) -> M33DConfig:
    """The configuration of one of our models."""
    return cast(M33DConfig, model.config)


# A model or a checkpoint is one of clips where one of these is above 1.
_CLIP_FIELDS = ("num_frames", "tubelet_size")


def starting_config(args: RunArguments, **overrides: Any) -> M33DConfig:
    """The configuration of a run's model; positions and tokens without one stay those of the checkpoint it starts from.

    An image model that starts from a checkpoint of clips takes over the kind of its positions (those of its first time
    slot) and has a class token only where that has one. A model that starts from a checkpoint of another input size
    (our own, MAE's or DINOv2's) keeps the checkpoint's position grid and interpolates it, unless the arguments give
    `position_grid` or ask to rebuild positions. From a checkpoint with learned positions it also has its
    `position_embedding_type`, `position_embedding_resize`, `use_cls_token` and `num_register_tokens` where the
    arguments do not say otherwise.

    Raises:
        ConfigError: values that cannot work.
        CheckpointError: `init_from` cannot be read.
    """
    origin = None if args.init_from is None else _origin_config(args.init_from)
    given = {*args.model, *overrides}
    clips = any({**args.model, **overrides}.get(name) not in (None, 1) for name in _CLIP_FIELDS)
    overrides = {**_adopted(origin or {}, given, clips), **overrides}
    config = M33DConfig(**{**args.model, **overrides})
    if origin is None or "position_grid" in given or config.position_embedding_resize == "rebuild":
        return config
    grid = _trained_grid(origin, config)
    return config if grid is None else M33DConfig(**{**args.model, **overrides, "position_grid": grid})


def _origin_config(init_from: str) -> dict[str, Any]:
    """The configuration of a checkpoint: its own, or what can be inferred from the weights of a foreign one."""
    own = find_own(init_from)
    if own is not None:
        return own.config
    return trained_positions(load_foreign(init_from))


def _adopted(origin: dict[str, Any], given: set[str], clips: bool) -> dict[str, Any]:
    """Fields of the checkpoint that a model, of clips or of images, takes over where nothing is given for them."""
    if origin.get("global_token") and not {"use_cls_token", "global_token"} & given:
        return {"global_token": True, "use_cls_token": False}
    if origin.get("position_embedding_type") != "learned":
        still = not clips and any(origin.get(name) not in (None, 1) for name in _CLIP_FIELDS)
        if not still:
            return {}
        found = {
            "position_embedding_type": origin.get("position_embedding_type", "sincos_1d"),
            "use_cls_token": bool(origin.get("use_cls_token")),
        }
        return {name: value for name, value in found.items() if name not in given}
    names = {"position_embedding_type", "position_embedding_resize", "num_register_tokens"}
    names |= set() if "global_token" in given else {"use_cls_token"}
    return {name: origin[name] for name in sorted(names - given) if origin.get(name) is not None}


def _trained_grid(origin: dict[str, Any], config: M33DConfig) -> list[int] | None:
    """The (t, h, w) grid on which a checkpoint's positions of the model's kind were trained, None where there is none.

    Learned positions of images have no time, so that clips bring their own; images have one slot of those of clips.
    """
    grid, kind = origin.get("position_grid"), config.position_embedding_type
    if grid is None or origin.get("position_embedding_type") != kind:
        return None
    slots = config.grid[0] if (kind == "learned" and grid[0] == 1) or not config.is_clip_model else grid[0]
    return [slots, *grid[1:]]


def load_weights(args: RunArguments, model: nn.Module) -> ConversionReport:
    """Fill a model from `init_from`, which is given, as `init` says."""
    return initialise(model, str(args.init_from), ConversionOptions(**vars(args.init)))


def build_initialised(
    args: RunArguments, model_class: type[PreTrainedModel], config: M33DConfig
) -> tuple[PreTrainedModel, ConversionReport | None]:
    """A new model with the weights of `init_from`, if given; the main process prints what was loaded."""
    model = model_class._from_config(config, attn_implementation=args.train.attn_implementation)
    if args.init_from is None:
        return model, None
    report = load_weights(args, model)
    if int(os.environ.get("RANK", "0")) == 0:
        print(report.summary_by_part(), flush=True)
    return model, report


def save_processor(
    config: M33DConfig,
    args: RunArguments,
    folder: Path,
    clip_sampling: str | None = None,
    several_crops: bool = False,
    depth_spec: DepthSpec | None = None,
) -> None:
    """Write the preprocessing of this run's evaluation to `folder`; with `several_crops`, that of the centre crop.

    Clips are sampled as the run does (`data.frame_stride`, and `data.clip_sampling` unless `clip_sampling` is given).
    `depth_spec` is what the run took stored depth for, None where it read none.

    An image model gets preprocessor_config.json, a clip model video_preprocessor_config.json.
    """
    chosen = args.transforms
    mode = "center" if several_crops else chosen.eval_crop  # several crops always cover the canvas
    fields = placement_fields(config.image_height_width, mode)
    fields["resample"] = {"bilinear": 2, "bicubic": 3}[chosen.resize_mode]  # PIL's numbers, which configurations carry
    if depth_spec is not None:
        fields["depth_spec"] = depth_spec.to_dict()
    if config.num_frames == 1:
        from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil

        # The same file serves both backends, and the PIL one can be written without torchvision.
        M33DImageProcessorPil.from_model_config(config, **fields).save_pretrained(folder)
        return
    from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

    fields |= {"frame_stride": args.data.frame_stride, "clip_sampling": clip_sampling or args.data.clip_sampling}
    M33DVideoProcessor.from_model_config(config, **fields).save_pretrained(folder)
