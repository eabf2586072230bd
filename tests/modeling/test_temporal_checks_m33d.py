"""Fields of temporal models that contradict each other are refused, with the field and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temporal_tcn_stages": 2}, "temporal_tcn_stages is 2, but .* 'gru' does not read it: leave it at 4"),
        ({"temporal_tcn_layers": 8}, "set temporal_model to 'tcn'"),
        ({"temporal_tcn_smoothing": 0}, "temporal_tcn_smoothing is 0, but"),
        ({"temporal_attention_window": 8}, "set temporal_model to 'transformer'"),
        ({"temporal_model": "tcn", "temporal_num_layers": 2}, "layers of its stages are temporal_tcn_layers"),
        ({"temporal_model": "tcn", "temporal_attention_window": 8}, "does not read it"),
        ({"temporal_model": "transformer", "temporal_tcn_layers": 3}, "does not read it"),
        ({"temporal_model": "transformer", "temporal_hidden_size": 90}, "90 is not a multiple of .*heads 4"),
        (
            {"temporal_model": "tcn", "temporal_tcn_smoothing": 0, "temporal_tcn_smoothing_limit": 2.0},
            "has no effect with temporal_tcn_smoothing 0",
        ),
        ({"temporal_model": "tcm"}, "one of gru, tcn, transformer"),
        ({"temporal_model": "tcn", "temporal_tcn_layers": 21}, "at most 20"),
        ({"temporal_model": "transformer", "temporal_attention_window": 0}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        M33DConfig(**fields)


def test_a_configuration_of_before_is_a_gru() -> None:
    plain = M33DConfig(temporal_num_layers=2).to_dict()
    before = {name: value for name, value in plain.items() if name != "temporal_model"}
    assert M33DConfig.from_dict(before).temporal_model == "gru"
