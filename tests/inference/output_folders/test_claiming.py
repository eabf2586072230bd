"""inference/output_folders/claiming.py: ranks begin one folder together, and no folder of somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.claiming import claim_output


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds notes\.txt, but no prediction\.json"):
        claim_output(tmp_path, "model", {"flip": False})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_rank_may_begin_the_folder_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for the plan and that for other files."""
    real = Path.iterdir

    def overtaken(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        claim_output(tmp_path, "model", {"flip": False})
        (tmp_path / "classes.csv").touch()
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", overtaken)
    claim_output(tmp_path, "model", {"flip": False})
    with pytest.raises(ConfigError, match="flip: False there, True now"):
        claim_output(tmp_path, "model", {"flip": True})
