"""Which of our models fit other architectures: every obstacle is named with its field and a way out."""

from __future__ import annotations

from m33d_hf.errors import ExportError
from m33d_hf.weights.export.source import CLASSIFIER, DETECTOR, Source


def refuse_obstacles(source: Source, target: str) -> None:
    """Raise if `target` ("VideoMAE", "ViT" or "timm") does not support a part of the model.

    Raises:
        ExportError: with all obstacles.
    """
    check = {"VideoMAE": _videomae, "ViT": _vit, "timm": _timm}[target]
    found = [*_any(source), *check(source)]
    if found:
        raise ExportError(f"{source.name} cannot be exported to {target}: " + "; ".join(found) + ".")


def _any(source: Source) -> list[str]:
    if source.kind == DETECTOR:
        return [
            "M33DForVideoActionDetection reads whole videos with a temporal model; load the folder with "
            "M33DForVideoClassification and save that to export its encoder and clip classifier"
        ]
    return []


def _videomae(source: Source) -> list[str]:
    config, found = source.config, []
    if source.kind == CLASSIFIER and source.model.task_fusion is not None and config.task_fusion == "concatenation":
        found.append(
            "task_fusion is 'concatenation', whose linear layer RGB passes also where there is no depth, but VideoMAE "
            "has none; --to onnx and --to torch_export support it"
        )
    if config.use_cls_token:
        found.append("use_cls_token is True, but VideoMAE has no class token; export a model trained without one")
    if config.global_token:
        found.append("global_token is True, but VideoMAE has only patch tokens; export a model without one")
    if config.num_register_tokens:
        found.append(f"num_register_tokens is {config.num_register_tokens}, but VideoMAE has no register tokens")
    if config.position_embedding_type != "sincos_1d":
        found.append(
            f"position_embedding_type is {config.position_embedding_type!r}, but VideoMAE computes 'sincos_1d' itself "
            "and has no positions among its weights"
        )
    elif config.position_embedding_resize != "rebuild" and tuple(config.position_grid or config.grid) != config.grid:
        found.append(
            f"position_grid is {list(config.position_grid or [])} at a grid of {list(config.grid)}, so positions are "
            "interpolated, but VideoMAE computes those of its own grid; export a model at the grid of its positions, "
            "or with position_embedding_resize 'rebuild'"
        )
    return found


def _vit(source: Source) -> list[str]:
    config, found = source.config, []
    if config.is_clip_model:
        found.append(f"num_frames is {config.num_frames} and tubelet_size {config.tubelet_size}, but ViT reads images")
    if not (config.use_cls_token or config.global_token):
        found.append("use_cls_token is False, but ViTModel always has a class token; --to timm does not require one")
    if config.num_register_tokens:
        found.append(
            f"num_register_tokens is {config.num_register_tokens}, but ViTModel has none; --to timm supports them"
        )
    if source.encoder.layernorm is None:
        field = "encoder_norm" if source.kind in ("M33DModel", "M33DForPreTraining") else "head_norm"
        found.append(
            f"{field} is {getattr(config, field)}: the head reads raw output, but ViTModel always ends in "
            "a norm; --to timm supports encoders without one"
        )
    return found


def _timm(source: Source) -> list[str]:
    config, found = source.config, []
    if config.is_clip_model:
        found.append(f"num_frames is {config.num_frames} and tubelet_size {config.tubelet_size}, but timm reads images")
    if config.hidden_act != "gelu":
        found.append(f"hidden_act is {config.hidden_act!r}, but timm's vision transformers have 'gelu'")
    return found
