"""Operations that `m33d_hf.evaluation.flops` does not count: the peer's, and what our decoder shares among samples."""

from __future__ import annotations

from step_cases import build_peer, our_batch, peer_batch, peer_config
from torch import device
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import visible_count


def peer_operations(name: str, size: str) -> float:
    """Matrix products of the peer's forward and backward pass of one sample, by torch's counter on a real pass.

    It projects masked patches too, and its decoder computes more tokens than are predicted.
    """
    peer, config = build_peer(name, size), peer_config(name, size)
    for module in peer.modules():
        if isinstance(getattr(module, "config", None), PreTrainedConfig):  # a decoder has one of its own
            module.config._attn_implementation = "eager"  # the counter does not see the fused kernels of the CPU
    with FlopCounterMode(display=False) as counter:
        peer(**peer_batch(name, config, our_batch(config, 1, device("cpu")))).loss.backward()
    return float(counter.get_total_flops())


def shared_projections(config: M33DConfig, samples: int) -> float:
    """Operations per sample that a training step in float32 on CPU saves in the decoder's first layer.

    There mask tokens are projected to queries, keys and values once per position instead of once per sample.
    """
    per_target = config.decoder_kind == "per_target" or config.decoder_fusion == "fused"
    if per_target or config.decoder_attention == "cross" or config.decoder_num_hidden_layers < 2:
        return 0.0
    visible = {spec.name: visible_count(spec, config.grid) for spec in config.input_specs}
    masked = [config.num_tokens - visible.get(spec.name, 0) for spec in config.target_specs]
    if config.decoder_fusion == "separate":
        masked = [config.num_tokens - visible[spec.name] for spec in config.target_specs if spec.name in visible]
        saved = sum(max(tokens - config.num_tokens / samples, 0.0) for tokens in masked)
    else:
        saved = max(sum(masked) - len(masked) * config.num_tokens / samples, 0.0)
    return 3 * 2.0 * saved * config.decoder_hidden_size * 3 * config.decoder_hidden_size
