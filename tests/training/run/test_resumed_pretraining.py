"""Pre-trainings on long videos that earlier versions began, which took annotated videos alone, can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.rooms_runs import words
from helpers.videos import write_video
from m33d_hf.errors import ResumeError
from m33d_hf.training.recipe import run_data
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.run.resume import fact_differences
from m33d_hf.training.tasks.pretraining import PretrainingTask

ASK = {"data__options__require_annotations": "true"}


class Earlier(PretrainingTask):
    """As earlier versions stored the data: with the labels."""

    def data_digest(self, dataset: Any) -> str:
        return str(dataset.source.digest())


def _arguments(root: Path, **changes: str) -> Any:
    given: dict[str, str | None] = {"method": "videomae", "data__source": "phases", "data__root": str(root / "cases")}
    given |= {"data__options": None, "data__options__clip_span": "4", "data__train_split": "all"}
    given |= {"data__eval_split": "null", "train__max_steps": "1", **changes}
    return parse_arguments(words("rooms/pretrain_clips", root / "run", **given), "pretraining")


def _run(root: Path, task: PretrainingTask | None = None, **changes: str) -> TrainResult:
    return train(_arguments(root, **changes), task or PretrainingTask())


@pytest.mark.parametrize("annotated", [2, 3], ids=["some", "all"])
def test_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, annotated: int) -> None:
    folder = tmp_path / "cases"
    for number in range(3):
        write_video(folder / f"videos/v{number}.mp4", 8, size=(32, 48))
    (folder / "annotations").mkdir()
    for number in range(annotated):
        rows = "".join(f"{frame}\t{'cut' if frame < 4 else 'sew'}\n" for frame in range(8))
        (folder / f"annotations/v{number}.txt").write_text("Frame\tPhase\n" + rows)
    with monkeypatch.context() as earlier:
        earlier.setattr(run_data, "_without_annotations", lambda options: {})
        _run(tmp_path, Earlier() if annotated == 3 else None)
    with pytest.raises(ResumeError) as caught:
        _run(tmp_path)
    told = str(caught.value)
    assert "Pass --data.options.require_annotations true to go on as they did" in told
    assert ("training samples: 4 -> 6" in told) is (annotated == 2)
    for _ in range(2):
        assert _run(tmp_path, **ASK).step == 1
    dry_run(_arguments(tmp_path, **ASK), PretrainingTask())
    (folder / "annotations/v0.txt").unlink()
    with pytest.raises(ResumeError, match=r"data\.options\.require_annotations: \(absent\) -> True") as caught:
        _run(tmp_path, **ASK)
    assert "Pass --data" not in str(caught.value), "it was passed"


def test_options_that_choose_the_data_are_told_by_the_data() -> None:
    """Also where the one run had no option at all; no other option is let pass."""

    def facts(digest: str | None, **options: Any) -> dict[str, Any]:
        known = {} if digest is None else {"data_digest": digest}
        return {"args": {"data": {"source": "phases", "options": options}}, "effective_batch": 4, **known}

    asked = {"require_annotations": True, "annotations": "labels"}
    for one, other in (({}, asked), (asked, {}), ({"fps": 5}, {"fps": 5, **asked})):
        for digest in ("a", None):
            assert fact_differences(facts("a", **one), facts(digest, **other)) == []
        found = fact_differences(facts("a", **one), facts("b", **other))
        assert {line.partition(":")[0] for line in found} >= {"data_digest", *(f"data.options.{key}" for key in asked)}
    assert fact_differences(facts("a", fps=4), facts("a", fps=5)) == ["data.options.fps: 4 -> 5"]
