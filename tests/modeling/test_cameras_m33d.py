"""Cameras side by side: what stands where, what one changes for the others, and what a model makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.phases_in_memory import MODEL
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.cameras_m33d import camera_parts, drop_cameras, joined_cameras, mean_of_cameras
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

CAMERAS = ["left", "ceiling", "head"]
KINDS: dict[str, dict[str, Any]] = {
    "gru": {},
    "tcn": {"temporal_model": "tcn", "temporal_tcn_stages": 2, "temporal_tcn_layers": 2},
    "transformer": {"temporal_model": "transformer", "temporal_num_attention_heads": 2},
}


def _model(**changes: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    named = {"num_labels": 4, "temporal_hidden_size": 8, "temporal_cameras": CAMERAS, **changes}
    return M33DForVideoActionDetection(M33DConfig(**{**MODEL, **named})).eval()


def test_what_stands_where() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [float("nan"), 6.0]])
    joined = joined_cameras(features, torch.tensor([True, True, False]))
    assert joined.tolist() == [1, 2, 1, 3, 4, 1, 0, 0, 0]
    parts, seen = camera_parts(joined, 3)
    assert parts.tolist() == [[1, 2], [3, 4], [0, 0]] and seen.tolist() == [True, True, False]
    assert mean_of_cameras(joined, 3).tolist() == [2, 3]
    assert mean_of_cameras(torch.zeros(9), 3).tolist() == [0, 0]
    with pytest.raises(DataError, match=r"expected \(..., C, D\) and \(..., C\)"):
        joined_cameras(features, torch.tensor([True, False]))


def test_a_camera_that_is_left_out_changes_nothing_of_the_others() -> None:
    features, seen = torch.randn(2, 7, 3, 5), torch.ones(2, 7, 3, dtype=torch.bool)
    whole = joined_cameras(features, seen)
    seen[:, 3:, 1] = False
    partly = joined_cameras(features, seen)
    wide = whole.unflatten(-1, (3, 6)), partly.unflatten(-1, (3, 6))
    assert torch.equal(wide[0][..., [0, 2], :], wide[1][..., [0, 2], :])
    assert torch.equal(whole[:, :3], partly[:, :3]) and not wide[1][:, 3:, 1].any()


def test_a_clip_that_no_camera_saw_is_one_that_could_not_be_read() -> None:
    model = _model(temporal_causal=True)
    seen = torch.ones(1, 6, 3, dtype=torch.bool)
    seen[:, 2] = False
    joined = joined_cameras(torch.randn(1, 6, 3, MODEL["hidden_size"]), seen)
    with torch.no_grad():
        zeros, masked = model.temporal(joined)[0], model.temporal(joined, seen.any(-1))[0]
    torch.testing.assert_close(zeros, masked)


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_equals_the_whole(kind: str) -> None:
    model = _model(temporal_causal=True, **KINDS[kind])
    seen = torch.rand(2, 9, 3) > 0.4
    joined = joined_cameras(torch.randn(2, 9, 3, MODEL["hidden_size"]), seen)
    state, rows = None, []
    with torch.no_grad():
        for clip in joined.unbind(1):
            logits, state = model.step(clip, state)
            rows.append(logits)
        torch.testing.assert_close(torch.stack(rows, 1), model.temporal(joined)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_camera_counts_and_a_saved_model_knows_them(kind: str, tmp_path: Path) -> None:
    model = _model(**KINDS[kind])
    features, seen = torch.randn(1, 5, 3, MODEL["hidden_size"]), torch.ones(1, 5, 3, dtype=torch.bool)
    with torch.no_grad():
        whole = model(features=joined_cameras(features, seen))
        for camera in range(3):
            less = seen.clone()
            less[..., camera] = False
            assert not torch.allclose(model(features=joined_cameras(features, less)).logits, whole.logits)
        turned = model(features=joined_cameras(features.roll(1, dims=2), seen))
    assert not torch.allclose(turned.logits, whole.logits)
    torch.testing.assert_close(turned.clip_logits, whole.clip_logits)
    torch.testing.assert_close(whole.clip_logits, model.classifier(features.mean(2)))
    model.save_pretrained(tmp_path)
    again = M33DForVideoActionDetection.from_pretrained(tmp_path).eval()
    assert again.config.temporal_cameras == CAMERAS
    with torch.no_grad():
        assert torch.equal(again(features=joined_cameras(features, seen)).logits, whole.logits)


def test_training_leaves_out_whole_cameras_but_never_all() -> None:
    torch.manual_seed(1)
    seen = torch.ones(400, 4, 3, dtype=torch.bool)
    seen[:, 2, 0] = False
    seen[200:, :, 1:] = False  # by one camera alone
    joined = joined_cameras(torch.randn(400, 4, 3, 5), seen)
    less, there = camera_parts(drop_cameras(joined, 3, 0.5), 3)
    features, _ = camera_parts(joined, 3)
    assert torch.equal(less, features * there[..., None])
    kept = there.any(1)
    assert torch.equal(there, seen & kept[:, None]) and kept.any(1).all()
    assert 0.5 < kept[:200].float().mean() < 0.65  # (1/2 and what stays in any case: 1/2 + 1/24)
    assert torch.equal(drop_cameras(joined, 3, 0.0), joined)


def test_only_training_leaves_cameras_out() -> None:
    model = _model(temporal_camera_dropout=0.9, temporal_dropout=0.0)
    seen = torch.ones(8, 4, 3, dtype=torch.bool)
    joined = joined_cameras(torch.randn(8, 4, 3, MODEL["hidden_size"]), seen)
    with torch.no_grad():
        first = model.temporal(joined)[0]
        assert torch.equal(first, model.temporal(joined)[0])
        assert not torch.allclose(first, model.train().temporal(joined)[0])


def test_a_model_of_cameras_takes_their_features_alone() -> None:
    model = _model()
    size = MODEL["image_size"]
    with pytest.raises(ConfigError, match="reads the cameras left, ceiling, head together: encode the clips of each"):
        model(pixel_values=torch.zeros(1, 1, MODEL["num_frames"], 3, size, size))
    with pytest.raises(DataError, match="joined_cameras makes them of the features of the cameras left, ceiling, head"):
        model(features=torch.zeros(1, 2, MODEL["hidden_size"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temporal_cameras": []}, "at least two cameras"),
        ({"temporal_cameras": ["one"]}, "at least two cameras"),
        ({"temporal_cameras": ["one", " "]}, "at least two cameras"),
        ({"temporal_cameras": ["one", "One"]}, "two of the names are equal"),
        ({"temporal_camera_dropout": 0.5}, "temporal_cameras names no cameras to leave out: leave it at 0.2"),
        ({"temporal_cameras": ["a", "b"], "temporal_camera_dropout": 1.0}, "below 1"),
    ],
)
def test_cameras_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        M33DConfig(**fields)
