"""How a checkpoint's positions are handled: fixed tables are verified and rebuilt, learned ones are loaded."""

from __future__ import annotations

import torch

from m33d_hf.errors import ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.facts import Facts, no_square
from m33d_hf.weights.formats.layout import Neutral, Weight
from m33d_hf.weights.formats.positions import grid_note, split_class_row, verify_table
from m33d_hf.weights.matching import still_positions
from m33d_hf.weights.report import ConversionReport

SPATIAL, TEMPORAL = "positions.spatial", "positions.temporal"


def settle_positions(facts: Facts, config: M33DConfig, decoder_reason: str | None, report: ConversionReport) -> Neutral:
    """The checkpoint with the position of its class token added to that token, and its learned positions by our names.

    Args:
        facts: what is known about the checkpoint.
        config: of the model.
        decoder_reason: why its decoder is not taken, None when it is.
        report: gets the tables that are not taken over, and notes.

    Raises:
        ConversionError: a table that is not what its format says, or of another grid than the model's.
    """
    learned = facts.table.position_kind == "learned"
    return _keep_learned(facts, config, report) if learned else _verify_fixed(facts, config, decoder_reason, report)


def _keep_learned(facts: Facts, config: M33DConfig, report: ConversionReport) -> Neutral:
    neutral = facts.neutral
    weights, tables = dict(neutral.weights), neutral.tables
    found = facts.spatial()
    if found is None:
        raise ConversionError(no_square(facts))
    entry, rows, class_row = found
    temporal = tables.get("encoder.temporal")
    alone = tables.get("encoder.class")
    if "cls_token" in weights:
        extra = class_row if alone is None else alone.tensor.reshape(-1)
        sources = () if alone is None else alone.sources
        weights["cls_token"] = _moved(weights["cls_token"], extra, sources, entry.sources[0])
    elif alone is not None:
        report.ignored[alone.sources[0]] = "the position of a class token that the checkpoint does not have"
    if config.position_embedding_type != "learned":  # only a kernel that is spread over time gets here
        kept = f"the inflated model has {config.position_embedding_type} positions instead"
        report.ignored |= {key: kept for table in (entry, temporal) if table is not None for key in table.sources}
        return Neutral(weights, tables, neutral.ignored)
    _check_grid(facts, config)
    if config.position_embedding_resize != facts.table.position_resize:
        report.notes.append(
            f"for inputs of other sizes the checkpoint's code resizes positions as {facts.table.position_resize!r},"
            f" this model as {config.position_embedding_resize!r} (position_embedding_resize)"
        )
    weights[SPATIAL] = Weight(rows, entry.sources, "learned positions")
    slots = (config.position_grid or config.grid)[0]
    moments = None if temporal is None else temporal.tensor.reshape(-1, temporal.tensor.shape[-1])
    if temporal is not None and moments is not None and not config.is_clip_model:
        how = "learned positions of places and of moments, interpolated to one"
        weights[SPATIAL] = Weight(still_positions(rows, moments), (*entry.sources, *temporal.sources), how)
    elif temporal is not None and moments is not None:
        weights[TEMPORAL] = Weight(moments, temporal.sources, "learned positions")
    elif slots > 1:
        zeros = torch.zeros(slots, rows.shape[-1])
        weights[TEMPORAL] = Weight(zeros, (), "zeros: the positions of images have no time axis")
    return Neutral(weights, tables, neutral.ignored)


def _check_grid(facts: Facts, config: M33DConfig) -> None:
    """Learned positions belong to one grid: of other sizes the model interpolates them, so it must know theirs."""
    own, found, slots = config.position_grid or config.grid, facts.grid(), facts.slots()
    if found is None:
        raise ConversionError(no_square(facts))
    slots = slots if facts.is_clip() and config.is_clip_model and slots is not None else own[0]
    if (slots, *found.sides) != tuple(own):
        theirs = [slots, *found.sides]
        raise ConversionError(
            f"{facts.table.name}: positions were learned on a grid of {theirs}, but the model's are on {list(own)}. Set"
            f" position_grid={theirs}; inputs of other sizes then interpolate them."
        )


def _moved(token: Weight, row: torch.Tensor | None, sources: tuple[str, ...], key: str) -> Weight:
    """The class token with its position added: nothing else is ever added to it."""
    if row is None:
        return token
    if token.tensor.shape[-1:] != row.shape:
        raise ConversionError(
            f"{key!r} is {row.shape[0]} wide, but the class token has shape {tuple(token.tensor.shape)}."
        )
    how = "cls_token + its position" if sources else "cls_token + position row 0"
    wide = torch.promote_types(token.tensor.dtype, torch.float32)  # the sum of two halves has more digits than one
    return Weight(token.tensor.to(wide) + row.to(wide), (*token.sources, *sources), how)


def _verify_fixed(facts: Facts, config: M33DConfig, decoder_reason: str | None, report: ConversionReport) -> Neutral:
    """Verify the position tables, list them as ignored, and add the class row to the class token."""
    neutral, table = facts.neutral, facts.table
    weights = dict(neutral.weights)
    notes_given = False  # one table per modality would say the same
    if table.cls_position_row and not any(part.startswith("encoder") for part in neutral.tables):
        raise ConversionError(
            f"{table.name}: the checkpoint has no position table, which every file of this format holds. It is"
            " incomplete, or has rotary or relative positions, which our models do not have."
        )
    for part, entry in neutral.tables.items():
        key = entry.sources[0]
        part = part.partition(".")[0]
        if part == "decoder" and decoder_reason is not None:
            report.ignored[key] = decoder_reason
            continue
        reason, grid = verify_table(key, entry.tensor, table.position_kind, table.cls_position_row, config)
        _, cls_row = split_class_row(entry.tensor, table.cls_position_row)
        if config.position_embedding_type != table.position_kind:
            reason = f"the inflated model has {config.position_embedding_type} positions instead"
        report.ignored[key] = reason
        if part == "decoder" and cls_row is not None and bool(cls_row.any()):
            raise ConversionError(f"{key!r}: row 0 (class token) is not zero, but our decoder adds nothing there.")
        if part == "encoder" and not notes_given:
            notes_given = True
            note = grid_note(grid, config)
            report.notes += [note] if note else []
            if "cls_token" in weights:
                weights["cls_token"] = _moved(weights["cls_token"], cls_row, (), key)
    return Neutral(weights, neutral.tables, neutral.ignored)
