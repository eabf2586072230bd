"""Lines of a report on values that cannot be read from a checkpoint's weights: their source, or an assumption."""

from __future__ import annotations

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.facts import Fact, Facts, plain_value

_UNREADABLE = "it cannot be read from the weights"


def lines_on(facts: Facts, config: M33DConfig, decoder_taken: bool) -> list[str]:
    """One line for every value of the model that cannot be read from the weights, with its source."""
    names = ["num_attention_heads", "hidden_act", "layer_norm_eps"]
    names += ["num_frames", "image_size"] if facts.is_clip() else ["image_size"]
    names += ["decoder_num_attention_heads"] if decoder_taken else []
    lines = []
    for name in names:
        fact, own = facts.get(name), plain_value(getattr(config, name))
        if fact is None:
            lines.append(f"assumed: {name} {own!r}, as in the model; {_UNREADABLE}; set it with --{name}")
        elif plain_value(fact.value) != own:
            lines.append(f"{name}: {fact.value!r} in the checkpoint ({fact.source}), {own!r} in this model")
        elif fact.assumed:
            lines.append(f"assumed: {name} {own!r}, that of {fact.source}; {_UNREADABLE}; set it with --{name}")
        elif fact.source != "the position table":
            lines.append(f"{name} {own!r}: {fact.source}; {_UNREADABLE}")
    if decoder_taken and config.decoder_kind == "shared":  # MultiMAE names its normalised target
        lines.append(_line_on_patches(facts.normalised(), config))
    if decoder_taken and config.decoder_kind == "per_target":
        told = facts.checkpoint.arguments.get("decoder_use_task_queries") is True  # False: the decoders are not taken
        lines.append(
            f"decoder_use_task_queries True: the saved arguments; {_UNREADABLE}"
            if told
            else f"assumed: decoder_use_task_queries True, that of all released models; {_UNREADABLE};"
            " --no_decoder leaves the decoders out"
        )
    return lines


def _line_on_patches(theirs: Fact, config: M33DConfig) -> str:
    own = any(spec.target_norm != "none" for spec in config.specs if spec.name == "rgb")
    words = {True: "normalised", False: "plain"}
    if theirs.value != own:
        found = f"{words[theirs.value]} patches in the checkpoint ({theirs.source})"
        return f"target_norm: {found}, {words[own]} ones in this model"
    if theirs.assumed:
        known = f"those of {theirs.source}; {_UNREADABLE}; set it with --norm_pix_loss"
        return f"assumed: {words[own]} patches, {known}"
    return f"{words[own]} patches: {theirs.source}"
