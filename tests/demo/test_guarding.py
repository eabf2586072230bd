"""demo/guarding.py: what visitors read of errors names neither folders of the server nor flags of predict.py."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from m33d_hf.demo.guarding import for_visitors, guarded
from m33d_hf.errors import DataError


class Told(Exception):
    """Stands for gradio.Error."""

    def __init__(self, message: str, duration: float, **_: object) -> None:
        super().__init__(message)
        self.duration = duration


@pytest.fixture(autouse=True)
def gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gradio")
    module.Error = Told  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", module)


def test_folders_and_flags_are_left_out() -> None:
    text = "/tmp/m33d-page-x/0a1b/my.mp4: ends early; --model 'org/name' sees clips at 1/2 of the rate"
    assert for_visitors(text) == "my.mp4: ends early; the model 'org/name' sees clips at 1/2 of the rate"


def test_our_errors_are_told_and_others_only_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: Exception) -> None:
        raise error

    with pytest.raises(Told, match=r"^a\.png is empty$"):
        guarded(fails)(DataError("/srv/x/a.png is empty"))
    assert capsys.readouterr().err == ""
    with pytest.raises(Told, match="RuntimeError") as told:
        guarded(fails)(RuntimeError("secret of /srv/keys"))
    assert "secret" not in str(told.value) and "secret" in capsys.readouterr().err
    assert guarded(len)([1, 2]) == 2


def test_messages_go_when_they_have_been_read() -> None:
    """They lie over the legend: a short one for ten seconds, 600 characters for a minute."""

    def fails(words: str) -> None:
        raise DataError(words)

    for count, seconds in ((20, 10), (600, 60)):
        with pytest.raises(Told) as told:
            guarded(fails)("a" * count)
        assert told.value.duration == seconds
