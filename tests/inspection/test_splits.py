"""Which samples the doctor looks at closely: some of every scene, however many frames the scenes have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m33d_hf.data.source import Source
from m33d_hf.inspection import splits
from m33d_hf.inspection.splits import Split, open_split
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments

FRAMES = {"corridor": 3, "kitchen": 40, "office": 25}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("scenes")
    for scene, count in FRAMES.items():
        for kind, image in (("rgb", np.zeros((8, 8, 3), np.uint8)), ("depth", np.full((8, 8), 1500, np.uint16))):
            (folder / scene / kind).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(image).save(folder / scene / kind / f"{number:03d}.png")
    return folder


def _arguments(*words: str) -> RunArguments:
    return parse_arguments(
        ["--recipe", "scannet_stage1", "--data.source", "folder", "--data.options.depth_unit", "millimetre", *words],
        "pretraining",
    )


def _looked_at(split: Split) -> dict[str, list[int]]:
    """Scene -> numbers of the frames whose edges are compared, by what the chunks say."""
    found: dict[str, list[int]] = {}
    for number in range(split.num_chunks):
        for row, looks in split.chunk(number):
            if looks.edges:
                scene, _, frame = split.source[row].key.partition("/")
                found.setdefault(scene, []).append(int(frame))
    return found


def test_edges_are_compared_in_some_frames_of_every_scene_spread_over_it(root: Path):
    split = open_split(_arguments("--data.root", str(root), "--data.train_split", "all"), True, None, 8)
    assert split is not None and len(split.rows) == sum(FRAMES.values())
    found = _looked_at(split)
    assert {scene: len(frames) for scene, frames in found.items()} == {"corridor": 3, "kitchen": 16, "office": 16}
    assert max(np.diff(found["kitchen"])) <= 3 and found["kitchen"][0] < 3 and found["kitchen"][-1] > 36


def test_a_single_recording_is_one_scene_and_a_split_has_a_limit(root: Path, monkeypatch: pytest.MonkeyPatch):
    one = open_split(_arguments("--data.root", str(root / "kitchen"), "--data.train_split", "all"), True, None, 8)
    assert one is not None and one.source.groups() is None and len(one.compared) == 16
    monkeypatch.setattr(splits, "MOST_EDGES", 6)
    limited = open_split(_arguments("--data.root", str(root), "--data.train_split", "all"), True, None, 8)
    assert limited is not None and len(limited.compared) == 6
    assert one.fingerprint() != open_again(one.source, one, frozenset()).fingerprint()


def open_again(source: Source, like: Split, compared: frozenset[int]) -> Split:
    return Split(like.name, source, like.total, like.clip_frames, like.least_side, like.rows, like.frames, compared)
