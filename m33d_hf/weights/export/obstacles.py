"""Which of our models other architectures can hold: every obstacle named by its field, with what would be needed."""

from __future__ import annotations

from m33d_hf.errors import ExportError
from m33d_hf.weights.export.source import DETECTOR, Source


def refuse_obstacles(source: Source, target: str) -> None:
    """Raise where `target` ("VideoMAE", "ViT" or "timm") has no place for something that the model has.

    Raises:
        ExportError: with all obstacles.
    """
    check = {"VideoMAE": _videomae, "ViT": _vit, "timm": _timm}[target]
    found = [*_any(source), *check(source)]
    if found:
        raise ExportError(f"{source.name} cannot go out to {target}: " + "; ".join(found) + ".")


def _any(source: Source) -> list[str]:
    if source.kind == DETECTOR:
        return [
            "M33DForVideoActionDetection reads whole videos by a recurrent net; load the folder with "
            "M33DForVideoClassification and save that to export its encoder and clip classifier"
        ]
    return []


def _videomae(source: Source) -> list[str]:
    config, found = source.config, []
    if config.use_cls_token:
        found.append("use_cls_token is True, and VideoMAE has no class token; it takes models trained without one")
    if config.global_token:
        found.append("global_token is True, and VideoMAE has only tokens of patches; it takes models without one")
    if config.num_register_tokens:
        found.append(f"num_register_tokens is {config.num_register_tokens}, and VideoMAE has no register tokens")
    if config.position_embedding_type != "sincos_1d":
        found.append(
            f"position_embedding_type is {config.position_embedding_type!r}, and VideoMAE computes 'sincos_1d' itself "
            "and keeps no positions among its weights"
        )
    elif config.position_embedding_resize != "rebuild" and tuple(config.position_grid or config.grid) != config.grid:
        found.append(
            f"position_grid is {list(config.position_grid or [])} at a grid of {list(config.grid)}, so positions are "
            "interpolated, and VideoMAE computes those of its own grid; it takes models trained at the grid of their "
            "positions, or with position_embedding_resize 'rebuild'"
        )
    return found


def _vit(source: Source) -> list[str]:
    config, found = source.config, []
    if config.is_clip_model:
        found.append(f"num_frames is {config.num_frames} and tubelet_size {config.tubelet_size}, and ViT reads images")
    if not (config.use_cls_token or config.global_token):
        found.append("use_cls_token is False, and ViTModel always has a class token; --to timm takes models without")
    if config.num_register_tokens:
        found.append(
            f"num_register_tokens is {config.num_register_tokens}, and ViTModel has none; --to timm takes them"
        )
    if source.encoder.layernorm is None:
        field = "encoder_norm" if source.kind in ("M33DModel", "M33DForPreTraining") else "head_norm"
        found.append(
            f"{field} is {getattr(config, field)}: the head reads raw output, and ViTModel always ends in "
            "a norm; --to timm takes encoders without one"
        )
    return found


def _timm(source: Source) -> list[str]:
    config, found = source.config, []
    if config.is_clip_model:
        found.append(f"num_frames is {config.num_frames} and tubelet_size {config.tubelet_size}, and timm reads images")
    if config.hidden_act != "gelu":
        found.append(f"hidden_act is {config.hidden_act!r}, and timm's vision transformers have 'gelu'")
    return found
