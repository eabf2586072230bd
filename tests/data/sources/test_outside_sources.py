"""A source from outside the package: one file and a dotted path, in runs, flags, --help and messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.rooms_runs import words
from helpers.scripts import run_script
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import build_source, source_class
from m33d_hf.errors import ConfigError
from m33d_hf.scripts._main import main
from m33d_hf.training.run.seen_videos import seen_again, write_seen

READER = '''
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources import Source
from m33d_hf.modeling.depth_m33d import DepthSpec


@dataclass
class Ramp:
    key: str
    slope: int
    length: int = 1
    fps: float | None = None

    def read(self, indices: Sequence[int]) -> RGBDSample:
        ramp = torch.arange(48).expand(len(indices), 1, 48, 48)
        rgb = (ramp * self.slope % 256).to(torch.uint8).expand(-1, 3, -1, -1)
        return RGBDSample(self.key, rgb=rgb, depth=1.0 + ramp.float() / self.slope)


class MySource(Source):
    """Ramps of several slopes."""

    name = "ramps"

    def __init__(self, split: str = "train", count: int = 8, steepest: float = 5.0) -> None:
        self.depth_spec = DepthSpec(unit="metre", kind="metric")
        self.split, self.count = split, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Ramp:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return Ramp(f"{self.split}{index}", index + 1)

    def digest(self) -> str:
        return f"ramps {self.split} {self.count}"


class Bare(MySource):
    def __init__(self, split="train"):
        super().__init__(split)


class Loose(MySource):
    def __init__(self, split: str = "train", **more: int) -> None:
        super().__init__(split)


class Misspelt(MySource):
    def __init__(self, split: "strr" = "train") -> None:
        super().__init__(split)


class Splitless(MySource):
    """Has no option split, so that every split is the same data."""

    def __init__(self, count: int = 8) -> None:
        super().__init__("all", count)


class Forgetful(MySource):
    """Takes split and forgets it for all but its last item."""

    def __getitem__(self, index: int) -> Ramp:
        ramp = super().__getitem__(index)
        return ramp if index == self.count - 1 else Ramp(f"ramp{index}", index + 1)


class Unfinished(Source):
    def __init__(self, split: str = "train") -> None:
        pass


class Other:
    pass
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the package `ramp_readers`."""
    folder = tmp_path / "elsewhere/ramp_readers"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "readers.py").write_text(READER, encoding="utf-8")
    (folder / "needy.py").write_text("import no_such_thing\n", encoding="utf-8")
    (folder / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder.parent


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ramp_readrs.readers:MySource", "no module 'ramp_readrs'.*PYTHONPATH"),
        ("ramp_readers.reader:MySource", "no module 'ramp_readers.reader'"),
        ("ramp_readers.readers:MySourc", "has no 'MySourc'.*Did you mean 'MySource'"),
        ("ramp_readers.readers:Other", "is not a source"),
        ("ramp_readers.readers:Bare", "does not annotate split"),
        ("ramp_readers.readers:Loose", r"takes \*\*more"),
        ("ramp_readers.readers:Misspelt", "cannot be resolved: name 'strr'"),
        ("ramp_readers.readers:Unfinished", "lacks __getitem__, __len__, digest"),
        ("ramp_readers.needy:MySource", "imports 'no_such_thing', which is not installed"),
        ("ramp_readers.broken:MySource", "cannot be imported: ZeroDivisionError"),
        ("ramp_readers/readers.py:MySource", "is not a dotted path"),
    ],
)
def test_paths_that_lead_to_no_source(path: str, message: str, package: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        source_class(path)


def test_options_are_checked_by_their_annotations(package: Path) -> None:
    name = "ramp_readers.readers:MySource"
    assert len(build_source(name, count=3)) == 3
    with pytest.raises(ConfigError, match=r"has no option 'cuont'.*Did you mean 'count'"):
        build_source(name, cuont=3)
    with pytest.raises(ConfigError, match="count must be an integer"):
        build_source(name, count="many")
    with pytest.raises(ConfigError, match=r"split \(data\.train_split, data\.eval_split\) must be text"):
        build_source(name, split=3)


def test_pretraining_by_script(package: Path, repository: Path, tmp_path: Path) -> None:
    script = repository / "scripts/run_pretrain.py"
    command = words(
        "rooms/pretrain", tmp_path / "run", data__options="{count: 6}", data__source="ramp_readers.readers:MySource"
    )
    # An interpreter that has seen nothing finds the package by PYTHONPATH; the others are forked.
    env = {**os.environ, "PYTHONPATH": str(package)}
    argv = [sys.executable, str(script), *command, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--data.options.count (default 8; an integer)" in done.stdout
    assert "Ramps of several slopes" in done.stdout

    def run(name: str, *more: str) -> str:
        code, output = run_script(script, *command, "--method", "rgbd_mae", *more, log=tmp_path / f"{name}.txt")
        assert code == 0, output
        return output

    assert "ramps" in run("dry", "--dry_run")
    run("whole", "--checkpoint.every_steps", "1")
    assert (tmp_path / "run/model.safetensors").exists()
    # A finished run is found complete, and its evaluation reads the same source.
    run("again", "--checkpoint.every_steps", "1")


def _told(name: str, folder: Path, capsys: pytest.CaptureFixture[str], **more: str) -> str:
    """What a dry run says of the data; `more` are further settings."""
    more = {"data__options": "{count: 6}", "data__source": f"ramp_readers.readers:{name}", **more}
    command = [*words("rooms/pretrain", folder, **more), "--method", "rgbd_mae", "--dry_run"]
    assert main("pretraining", command) == 0
    return capsys.readouterr().out


def test_an_evaluation_on_training_data_is_told(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told("Splitless", tmp_path, capsys)
    assert "6 of 6 evaluation videos are also training videos of this run" in told
    assert "ramp_readers.readers:Splitless has no option split" in told and "set data.eval_split to null" in told
    told = _told("Forgetful", tmp_path, capsys)
    assert "5 of 6 evaluation videos are also training videos of this run, judging by their names" in told
    assert "has no option split" not in told
    for name, more in (("MySource", {}), ("Splitless", {"data__eval_split": "null"})):
        assert "training videos of this run" not in _told(name, tmp_path, capsys, **more)


def test_other_options_for_the_evaluation_are_judged_by_keys(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told("Splitless", tmp_path, capsys, data__eval_options="{count: 7}")
    assert "6 of 7 evaluation videos are also training videos of this run, judging by their names" in told


def test_a_later_evaluation_knows_the_training_data_by_their_keys(package: Path, tmp_path: Path) -> None:
    def data_of(name: str) -> SampleDataset:
        source = build_source(f"ramp_readers.readers:{name}", count=6)
        return SampleDataset(source, build_transform(TransformOptions(), False, (16, 16), (8, 8)))

    write_seen(tmp_path, "pretraining", data_of("Splitless"), None)
    (line,) = seen_again(str(tmp_path), data_of("Splitless"))
    assert line.startswith("WARNING: 6 of 6 evaluation videos were used for training")
    assert seen_again(str(tmp_path), data_of("Forgetful")) == []
