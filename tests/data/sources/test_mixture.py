"""sources/mixture.py: proportions, keys, exact resume, digests, and members that do not go together."""

from __future__ import annotations

import json
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.rooms_runs import words
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.mixture import MixtureSource, counts_of, read_members
from m33d_hf.data.sources.roots import RootsSource
from m33d_hf.errors import ConfigError, DataError, MissingSplitError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.run_data import build_run_source


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("members")
    return {
        name: write_frames(place / name, count, labels="label/{i}.png") for name, count in {"a": 12, "b": 5}.items()
    }


def folder(root: Path, **options: Any) -> FolderSource:
    return FolderSource(root, **{"depth_unit": "mm", "num_classes": 4} | options)


def mixed(roots: dict[str, Path], *weights: float) -> MixtureSource:
    return MixtureSource({name: folder(root) for name, root in roots.items()}, weights)


def test_counts_are_in_proportion_and_hold_every_item() -> None:
    assert counts_of([12, 5], [1, 1]) == [12, 12]
    assert counts_of([10, 10], [3, 1]) == [30, 10]
    assert counts_of([7], [0.3]) == [7]
    draws = random.Random(0)
    for _ in range(300):
        lengths = [draws.randint(1, 2000) for _ in range(draws.randint(1, 5))]
        weights = [draws.choice([1, 2, 0.5, 0.1, draws.random() + 0.01]) for _ in lengths]
        counts = counts_of(lengths, weights)
        total = sum(Fraction(weight) for weight in weights)
        assert all(count >= length for count, length in zip(counts, lengths))
        for count, weight in zip(counts, weights):
            assert abs(count - sum(counts) * Fraction(weight) / total) <= 1
        assert any(count - length <= Fraction(weight) / total + 1
                   for count, length, weight in zip(counts, lengths, weights))  # and no longer than needed  # fmt: skip
    with pytest.raises(ConfigError, match="small weight"):
        counts_of([10**7, 10], [1e-6, 1.0])


def test_an_epoch_holds_every_item_in_its_share(roots: dict[str, Path]) -> None:
    source = mixed(roots, 1, 2)
    keys = [source[index].key for index in range(len(source))]
    assert len(set(keys)) == len(keys) == 36  # every repetition has a key of its own
    plain = Counter(key.partition("#")[0] for key in keys)
    assert {key: count for key, count in plain.items() if key.startswith("a/")} == {f"a/{i}": 1 for i in range(12)}
    of_b = [count for key, count in plain.items() if key.startswith("b/")]
    assert len(of_b) == 5 and sum(of_b) == 24 and max(of_b) - min(of_b) == 1
    assert "a 33.33%" in source.notes[0] and "b 66.67%" in source.notes[0]
    with pytest.raises(IndexError):
        source[36]


def test_samples_are_those_of_the_members_with_other_draws_for_repetitions(roots: dict[str, Path]) -> None:
    source = mixed(roots, 1, 2)
    handles = [source[index] for index in range(len(source)) if source[index].key.partition("#")[0] == "b/3"]
    samples = [handle.read([0]) for handle in handles]
    alone = next(item for item in (folder(roots["b"])[i] for i in range(5)) if item.key == "3").read([0])
    assert len(samples) >= 4 and all(sample.meta["member"] == "b" for sample in samples)
    assert all(
        (sample.rgb == alone.rgb).all() and (sample.segmentation == alone.segmentation).all() for sample in samples
    )
    assert [sample.key for sample in samples] == [handle.key for handle in handles]
    drawn = {float(Draw(0, 0).generator(sample.key, "crop").initial_seed()) for sample in samples}
    assert len(drawn) == len(samples)


def collate(samples: list[Any]) -> dict[str, Any]:
    return {"keys": [sample.key for sample in samples]}


def batches(source: MixtureSource, start: int, stop: int, rank: int = 0, world: int = 1, workers: int = 0) -> Any:
    dataset = SampleDataset(source, train=True, seed=3)
    sampler = StepSampler(len(dataset), 6 // world, rank, world, 3, start, stop)
    return [batch["keys"] for batch in build_loader(dataset, collate, sampler, num_workers=workers)]


def test_resume_and_processes_are_exact(roots: dict[str, Path]) -> None:
    source = mixed(roots, 1, 2)
    whole = batches(source, 0, 12)
    assert batches(mixed(roots, 1, 2), 4, 12) == whole[4:]
    assert batches(mixed(roots, 1, 2), 4, 12, workers=2) == whole[4:]
    halves = [batches(source, 0, 12, rank, 2) for rank in range(2)]
    assert [sorted(one + other) for one, other in zip(*halves)] == [sorted(batch) for batch in whole]
    for epoch in (whole[:6], whole[6:]):
        assert Counter(key[0] for batch in epoch for key in batch) == {"a": 12, "b": 24}


def test_digests(roots: dict[str, Path]) -> None:
    digest = mixed(roots, 1, 2).digest()
    assert digest == mixed(roots, 1, 2).digest()
    assert digest != mixed(roots, 1, 3).digest()
    assert digest != mixed(dict(reversed(roots.items())), 2, 1).digest()
    other = {"a": folder(roots["a"]), "b": folder(roots["b"], min_depth=0.5)}
    assert digest != MixtureSource(other, [1, 2]).digest()


@pytest.mark.parametrize("joined", [lambda members: MixtureSource(members, [1, 2]), RootsSource])
def test_the_unlabelled_digest_is_of_the_members_without_labels(joined: Any, roots: dict[str, Path]) -> None:
    members = ({k: folder(v, num_classes=count) for k, v in roots.items()} for count in (None, 4))
    bare, labelled = map(joined, members)
    assert labelled.unlabelled_digest() == bare.unlabelled_digest() == bare.digest() != labelled.digest()


@pytest.mark.parametrize(
    "options, match",
    [
        ({"depth_unit": None, "depth_kind": "inverse"}, "kind of depth: metric and inverse"),
        ({"depth": "none"}, "kind of depth: metric and none"),
        ({"num_classes": 5}, "segmentation classes"),
        ({"class_names": ["a", "b", "c", "d"]}, "segmentation classes"),
        ({"num_classes": None}, "segmentation classes"),
    ],
)
def test_members_that_do_not_go_together(roots: dict[str, Path], options: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        MixtureSource({"a": folder(roots["a"]), "b": folder(roots["b"], **options)}, [1, 1])


def test_clips_of_other_classes_and_maps_that_are_missing(roots: dict[str, Path], tmp_path: Path) -> None:
    clips = build_source("rooms", unit="clips", num_clips=3, clip_length=2, image_size=16, cache_dir=tmp_path)
    alike = MixtureSource({"one": clips, "two": clips}, [1, 2])
    assert alike.labels() == [label for label in (clips.labels() or []) for _ in [0]] + [
        (clips.labels() or [])[i % 3] for i in range(6)
    ]
    assert alike.groups()[3] == "two/rooms/train/0/clips/0"  # type: ignore[index]
    with pytest.raises(DataError, match="classes"):
        MixtureSource({"clips": clips, "frames": folder(roots["a"])}, [1, 1])
    depth_only = folder(roots["b"], rgb="none")
    with pytest.raises(DataError, match="differ in maps"):
        MixtureSource({"a": folder(roots["a"]), "b": depth_only}, [1, 1])


def test_units_of_stored_depth_may_differ(tmp_path: Path, roots: dict[str, Path]) -> None:
    other = FolderSource(
        write_frames(tmp_path, 4, labels="label/{i}.png", scale=5000.0), depth_unit="tum", num_classes=4
    )
    source = MixtureSource({"a": folder(roots["a"]), "tum": other}, [1, 1])
    depth = source[14].read([0]).depth
    assert depth is not None and depth[depth.isfinite()].min() >= 1 and depth[depth.isfinite()].max() <= 3
    assert any("several units" in note for note in source.notes)


@pytest.mark.parametrize(
    "entries, match",
    [
        ([], "list of mappings"),
        ("folder", "list of mappings"),
        (["folder"], r"data.mixture\[0\]"),
        ([{"source": "folder", "wieght": 2}], "Did you mean 'weight'"),
        ([{"source": "folder", "weight": 0}], "above 0"),
        ([{"source": "folder", "weight": "much"}], "above 0"),
        ([{"weight": 1}], "names no source"),
        ([{"source": "folder", "options": [1]}], "options is"),
    ],
)
def test_entries_that_cannot_be_read(entries: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        read_members(entries)


def test_members_of_one_name_are_told_apart() -> None:
    members = read_members(
        [{"source": "folder", "root": "/x/a"}, {"source": "folder", "root": "/y/a"}, {"source": "tum"}]
    )
    assert [member.name for member in members] == ["a", "a-1", "tum"] and [member.weight for member in members] == [
        1
    ] * 3


def test_runs_build_it_from_a_list_and_from_a_file(roots: dict[str, Path], tmp_path: Path) -> None:
    options = {"depth_unit": "mm", "num_classes": 4}
    entries = [{"source": "folder", "root": str(root), "options": options, "weight": w, "split": "all"}
               for root, w in zip(roots.values(), (1, 2))]  # fmt: skip
    file = tmp_path / "mixture.yaml"
    file.write_text(json.dumps(entries))
    config = M33DConfig(image_size=32)
    digests = set()
    for value in (json.dumps(entries), str(file)):
        args = parse_arguments(words("rooms/pretrain", tmp_path, method="mae", data__mixture=value), "pretraining")
        source = build_run_source(args, config, train=True)
        assert isinstance(source, MixtureSource) and len(source) == 36
        assert build_run_source(args, config, train=False).name == "rooms"
        digests.add(source.digest())
    assert digests == {mixed(roots, 1, 2).digest()}
    args.data.mixture = str(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="no file"):
        build_run_source(args, config, train=True)


def test_evaluation_data_that_a_mixture_does_not_name_is_said_and_not_a_missing_option(roots: dict[str, Path]) -> None:
    members = json.dumps([{"source": "folder", "root": str(next(iter(roots.values())))}])
    given = ["--recipe", "scannet_stage2", "--data.source", "folder", "--data.mixture", members]
    args = parse_arguments(given, "pretraining")
    with pytest.raises(MissingSplitError, match=r"data\.mixture is for training.*--data\.eval_split null"):
        build_run_source(args, M33DConfig(image_size=32), train=False)
