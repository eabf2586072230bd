"""Every field of M33DConfig and of a modality: wrong types and numbers out of range are refused, at once, by us."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.fuzzing import time_limit
from helpers.tiny import SMALL
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_checks_m33d import CONFIG_RANGES
from m33d_hf.modeling.configuration_m33d import M33DConfig, field_types, rgb_modality
from m33d_hf.modeling.fields_m33d import Range, fit, options_of
from m33d_hf.modeling.modalities_m33d import MODALITY_RANGES, modality_types

WRONG_TYPES: list[Any] = ["7x", b"7", 1.5, True, [], ["a"], {"a": 1}, None, object()]


def is_numeric(hint: Any) -> bool:
    """Whether a field holds a number or a list of them."""
    numbers = (int, float, list[int], tuple[int, ...], tuple[float, ...])
    return any(option in numbers for option in options_of(hint))


def beyond(allowed: Range) -> Iterator[float]:
    """Numbers that a range refuses."""
    yield from (math.nan, math.inf, -math.inf, 10**400, 2**40 if allowed.high and allowed.high < 2**40 else 1e300)
    if allowed.low is not None:
        yield allowed.low - 1
    if allowed.above is not None:
        yield allowed.above


@pytest.mark.parametrize("name", sorted(field_types()))
def test_a_field_of_another_type_is_refused(name: str) -> None:
    hint = field_types()[name]
    for value in WRONG_TYPES:
        if fit(value, hint)[0]:
            continue
        with time_limit(f"{name}={value!r}"), pytest.raises(ConfigError, match=name):
            M33DConfig(**{**SMALL, name: value})


def test_every_number_of_a_configuration_has_a_range() -> None:
    assert {name for name, hint in field_types().items() if is_numeric(hint)} == set(CONFIG_RANGES)
    assert {name for name, hint in modality_types().items() if is_numeric(hint)} == set(MODALITY_RANGES)


@pytest.mark.parametrize("name", sorted(CONFIG_RANGES))
def test_a_number_out_of_range_is_refused(name: str) -> None:
    for value in beyond(CONFIG_RANGES[name]):
        for given in (value, [value] * (CONFIG_RANGES[name].length or 1)):
            with time_limit(f"{name}={given!r:.40}"), pytest.raises(ConfigError, match=name):
                M33DConfig(**{**SMALL, name: given})


@pytest.mark.parametrize("name", sorted(modality_types()))
def test_a_modality_of_another_type_or_out_of_range_is_refused(name: str) -> None:
    hint = modality_types()[name]
    wrong = [value for value in WRONG_TYPES if not fit(value, hint)[0]]
    if name in MODALITY_RANGES:
        wrong += [number for number in beyond(MODALITY_RANGES[name])]
        wrong += [[number] * 3 for number in beyond(MODALITY_RANGES[name])]
    for value in wrong:
        with time_limit(f"{name}={value!r:.40}"), pytest.raises(ConfigError, match=name):
            M33DConfig(**{**SMALL, "modalities": [rgb_modality(**{name: value})]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "nosuch"}, "hidden_act is 'nosuch', which is unknown to transformers"),
        ({"hidden_act": "gelo"}, "Did you mean 'gelu'"),
        ({"image_size": [1, 2, 3]}, r"image_size is \[1, 2, 3\]; it must be two numbers"),
        ({"num_hidden_layers": 2**40}, "num_hidden_layers is 1099511627776; it must be at least 1 and at most 1024"),
        ({"hidden_size": 65_536, "num_hidden_layers": 1024}, "weights; at most"),
        ({"image_size": 16_384, "patch_size": 8}, "tokens; at most"),
        ({"min_depth": 20.0}, "min_depth 20.0 must be below max_depth 10.0"),
        ({"modalities": "rgb"}, "modalities must be a list"),
        ({"modalities": [3]}, "modalities must be a list"),
        ({"num_labels": 2**40}, "num_labels is 1099511627776; it must be an integer"),
        ({"num_labels": "many"}, "num_labels is 'many'"),
        ({"id2label": {"x": "a"}}, "id2label .* must map integers to names"),
        ({"id2label": 3}, "id2label is 3"),
        ({"label2id": {"a": "b"}}, "label2id .* must map names to integers"),
        ({"dtype": "nosuch"}, "dtype is 'nosuch'; it must be a torch dtype"),
        ({"dtype": "nn"}, "dtype is 'nn'"),
        ({"per_layer_config": 3}, "transformers refuses the value of one of its fields"),
        ({"to_dict": 3}, "has no field 'to_dict'"),
    ],
)
def test_values_that_used_to_end_in_foreign_errors(fields: dict[str, Any], message: str) -> None:
    with time_limit(str(fields)), pytest.raises(ConfigError, match=message):
        M33DConfig(**{**SMALL, **fields})


def test_an_edited_configuration_is_checked_when_a_model_is_built() -> None:
    from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

    config = M33DConfig(**SMALL)
    config.layer_norm_eps = math.nan
    with pytest.raises(ConfigError, match="layer_norm_eps must be a number, not nan"):
        M33DForPreTraining(config)


def test_what_json_makes_of_a_configuration_is_still_one(tmp_path: Any) -> None:
    config = M33DConfig(
        **SMALL, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}, dtype="float32", layer_norm_eps=1
    )
    config.save_pretrained(tmp_path)
    assert M33DConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_fields_of_later_versions_are_kept_in_modalities_as_beside_them(tmp_path: Path, caplog: Any) -> None:
    plain = M33DConfig(**SMALL).to_dict()
    later = json.loads(json.dumps({**plain, "transformers_version": "9.9.0", "later_field": [1]}))
    later["modalities"][0]["later_weight"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps(later))
    with captured_warnings(caplog):
        config = M33DConfig.from_pretrained(tmp_path)
    told = caplog.text
    assert "M33DConfig has no field 'later_field'" in told
    assert "modality 'rgb' has an unknown key 'later_weight'" in told and "9.9.0" in told
    assert config.specs == M33DConfig(**SMALL).specs
    for copied in (config, copy.deepcopy(config), pickle.loads(pickle.dumps(config)), M33DConfig(**config.to_dict())):
        assert copied.modalities[0]["later_weight"] == 0.5 and copied.specs == config.specs
        copied.save_pretrained(tmp_path / "again")
        saved = json.loads((tmp_path / "again" / "config.json").read_text())
        assert saved["modalities"][0]["later_weight"] == 0.5 and "_later_fields" not in saved
    config.modalities[0]["maks_ratio"] = 0.5  # what a program misspells is refused as ever
    with pytest.raises(ConfigError, match=r"unknown key 'maks_ratio'.*Did you mean 'mask_ratio'"):
        config.check()
    with pytest.raises(ConfigError, match="unknown key 'later_weight'"):
        M33DConfig(**{**SMALL, "modalities": [rgb_modality(later_weight=0.5)]})


@contextlib.contextmanager
def captured_warnings(caplog: Any) -> Iterator[None]:
    """Let pytest see what transformers' logger keeps to itself."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)
