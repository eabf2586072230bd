"""The source `procedures`: a fixed order of phases, twins that only their neighbours tell apart, lazily read videos."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sample import VideoHandle
from m33d_hf.data.source import Source
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.phases.base import cut_clips
from m33d_hf.data.sources.rooms import cache as rooms_cache
from m33d_hf.data.sources.rooms.constants import HERO_MATERIAL, HERO_SLOT, MOTION_NAMES, SPHERE
from m33d_hf.data.sources.rooms.motion import hero_coverage
from m33d_hf.data.sources.rooms.procedure_rendering import ProceduresSpec, draw_room, pose_strokes
from m33d_hf.data.sources.rooms.procedures import ProceduresSource, clipwise_ceiling, clipwise_oracle
from m33d_hf.data.sources.rooms.workflow import (
    AMBIGUOUS_PAIRS,
    INSTRUMENTS,
    PHASE_NAMES,
    STROKE,
    WORKFLOW,
    activities_of,
    clip_posterior,
    draw_timeline,
    phases_of,
)
from m33d_hf.errors import ConfigError, CorruptFileError, DataError

TIMELINES = 1500
PAIRS = [tuple(PHASE_NAMES.index(name) for name in pair) for pair in AMBIGUOUS_PAIRS]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("procedures")


@pytest.fixture(scope="module")
def source(cache) -> ProceduresSource:
    return ProceduresSource("train", num_videos=16, image_size=16, seed=4, cache_dir=cache)


@pytest.fixture(scope="module")
def timelines() -> list[list[tuple[int, int]]]:
    return [draw_timeline(generator_of("test", number)) for number in range(TIMELINES)]


def frames_of(source: ProceduresSource, video: int) -> torch.Tensor:
    handle = source.videos[video].handle
    return handle.read(range(handle.length)).rgb


def test_phases_come_in_order_and_have_their_lengths(timelines):
    kept = np.zeros(len(WORKFLOW))
    for timeline in timelines:
        numbers = [number for number, _ in timeline]
        assert numbers == sorted(set(numbers))
        kept[numbers] += 1
        assert all(WORKFLOW[n].shortest <= frames <= WORKFLOW[n].longest for n, frames in timeline)
        assert 160 <= sum(frames for _, frames in timeline) <= 311
    for phase, share in zip(WORKFLOW, kept / TIMELINES, strict=True):
        assert abs(share - phase.kept) < 0.05 and (phase.kept < 1 or share == 1)


def test_activities_occur_twice_and_never_in_a_row():
    for first, second in AMBIGUOUS_PAIRS:
        a, b = (WORKFLOW[PHASE_NAMES.index(name)] for name in (first, second))
        assert a.activity == b.activity and (a.shortest, a.longest, a.kept) == (b.shortest, b.longest, b.kept)
    assert len({phase.activity for phase in WORKFLOW}) == len(WORKFLOW) - len(AMBIGUOUS_PAIRS)
    musts = [phase.activity for phase in WORKFLOW if phase.kept == 1]
    assert all(a != b for a, b in pairwise(musts)), "twins with nothing between them have no boundary to be found"


def test_phases_lie_to_the_grid_of_clips_by_chance(timelines):
    """Chi square of the start modulo a stroke, 7 degrees of freedom: above 24 has a chance of 1 in 1,000."""
    starts = {number: [] for number in range(1, len(WORKFLOW))}
    for timeline in timelines:
        begins = np.cumsum([0] + [frames for _, frames in timeline])
        for (number, _), begin in zip(timeline[1:], begins[1:], strict=False):
            starts[number].append(begin % STROKE)
    for number, found in starts.items():
        counts, expected = np.bincount(found, minlength=STROKE), len(found) / STROKE
        assert ((counts - expected) ** 2 / expected).sum() < 24, PHASE_NAMES[number]


def test_a_video_is_read_lazily_without_a_label(source):
    assert isinstance(source, Source) and source.name == "procedures" and len(source.videos) == 16
    assert source.action_names == list(PHASE_NAMES) and source.depth_spec.kind == "metric"
    video = source.videos[3]
    assert isinstance(video.handle, VideoHandle) and video.key == "procedures/train/4/3"
    assert video.handle.fps == 8.0 and video.handle.length == len(video.phases)
    sample = video.handle.read([7, 0, 7])
    assert sample.rgb.shape == (3, 3, 16, 16) and sample.rgb.dtype == torch.uint8
    assert sample.depth.shape == (3, 1, 16, 16) and sample.depth.dtype == torch.float32
    assert sample.label is None and torch.equal(sample.rgb[0], sample.rgb[2])
    sample.rgb.zero_()
    assert int(video.handle.read([7]).rgb.max()) > 0, "what is read may be written to"
    for wrong in ([], [-1], [video.handle.length]):
        with pytest.raises(IndexError, match="procedures/train/4/3"):
            video.handle.read(wrong)


def test_videos_lie_one_after_the_other(source):
    """Frames read through the handles, joined, are the arrays of the cache."""
    arrays = rooms_cache.open_arrays(source.folder)
    joined = torch.cat([frames_of(source, number) for number in range(len(source.videos))])
    assert np.array_equal(joined.numpy(), arrays["rgb"])
    assert np.array_equal(np.concatenate([video.phases for video in source.videos]), arrays["phase"])
    assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == source.spec.arrays()


def test_depth_is_measured_or_exact(source, cache):
    clean = ProceduresSource("train", num_videos=16, image_size=16, seed=4, depth="clean", cache_dir=cache)
    assert clean.folder == source.folder and clean.digest() != source.digest()
    measured, exact = (s.videos[0].handle.read(range(40)).depth for s in (source, clean))
    valid = torch.isfinite(measured)
    assert torch.isfinite(exact).all() and 0.01 < float((~valid).float().mean()) < 0.3
    assert 0 < float((measured[valid] - exact[valid]).abs().mean()) < 0.05


def test_clips_are_items_with_a_phase(source):
    labels, clip = source.labels(), source[5]
    assert len(source) == len(labels) == len(source.groups()) and set(labels) == set(range(len(WORKFLOW)))
    sample = clip.read(range(clip.length))
    assert sample.key == "procedures/train/4/0@40-48" and sample.label == labels[5]
    assert torch.equal(sample.rgb, frames_of(source, 0)[40:48])
    mixed = [len(set(video.phases[span.start : span.stop].tolist())) > 1
             for number, video in enumerate(source.videos) for span in source.clips(number)]  # fmt: skip
    assert 0.1 < np.mean(mixed) < 0.4, "clips at boundaries hold two phases"


def test_the_first_videos_do_not_depend_on_how_many_are_asked_for(source, cache):
    few = ProceduresSource("train", num_videos=2, image_size=16, seed=4, cache_dir=cache)
    for number in range(2):
        assert torch.equal(frames_of(few, number), frames_of(source, number))
        assert np.array_equal(few.videos[number].phases, source.videos[number].phases)
    other = ProceduresSource("validation", num_videos=1, image_size=16, seed=4, cache_dir=cache)
    assert not torch.equal(frames_of(other, 0)[:100], frames_of(source, 0)[:100])


def test_the_digest_follows_content_and_clip_rules(source, cache):
    same = {"num_videos": 16, "image_size": 16, "seed": 4, "cache_dir": cache}
    assert build_source("procedures", split="train", **same).digest() == source.digest()
    assert ProceduresSource("train", clip_stride=4, **same).digest() != source.digest()
    assert ProceduresSource("train", unit="videos", **same).digest() != source.digest()
    assert ProceduresSource("train", **{**same, "num_videos": 1}).digest() != source.digest()


def test_handles_travel_to_workers_without_their_frames(source):
    frames_of(source, 0)
    parcel = pickle.dumps(source[0])
    assert len(parcel) < 4000
    assert torch.equal(pickle.loads(parcel).read([0]).rgb, source[0].read([0]).rgb)


def test_a_damaged_cache_is_found(cache):
    damaged = ProceduresSource("test", num_videos=1, image_size=16, cache_dir=cache)
    digest = damaged.digest()
    (damaged.folder / "phase.npy").write_bytes(b"")
    with pytest.raises(CorruptFileError, match=r"phase\.npy"):
        rooms_cache.verify(damaged.folder, damaged.spec)
    assert ProceduresSource("test", num_videos=1, image_size=16, cache_dir=cache).digest() == digest


def test_an_edited_workflow_does_not_find_the_old_cache(monkeypatch):
    spec = ProceduresSpec("train", 0, 2, 16, 16)
    before = rooms_cache.folder_name(spec)
    monkeypatch.setattr("m33d_hf.data.sources.rooms.procedure_rendering.WORKFLOW", WORKFLOW[:-1])
    assert rooms_cache.folder_name(spec) != before


def test_every_motion_has_space_and_shows_the_hero():
    spec = ProceduresSpec("test", 1, 3, 48, 48)
    for index in range(3):
        room = draw_room(spec.name(index), 48, 48)
        frames = pose_strokes(room, spec.timeline(index), generator_of("strokes"))
        assert frames.batch == len(spec.phases(index))
        covered = hero_coverage(frames, 24, 24).numpy()
        pans = np.isin(
            activities_of(spec.phases(index)), [MOTION_NAMES.index("pan_right"), MOTION_NAMES.index("orbit")]
        )
        assert covered[~pans].min() > 0.004 and np.median(covered) > 0.02
        assert torch.equal(frames.materials.light_B3, room.materials.light_B3.expand(frames.batch, 3)), "no drift"


def test_strokes_begin_anew_and_show_their_motion():
    room = draw_room(("test", 0), 24, 24)
    spin, dolly = PHASE_NAMES.index("first_treatment"), PHASE_NAMES.index("enter")
    frames = pose_strokes(room, [(dolly, 11), (spin, 16)], generator_of("strokes"))
    assert frames.batch == 27, "the second stroke of the first phase is cut after three frames"
    away = (frames.eye_B3 - frames.base_BO3[:, HERO_SLOT])[:, [0, 2]].norm(dim=1)
    assert (away[:8].diff() < 0).all() and (away[8:11].diff() < 0).all() and away[8] > away[7]
    assert torch.equal(frames.eye_B3[11:], room.eye_B3.expand(16, 3)), "only the hero moves"
    assert frames.yaw_BO[11:, HERO_SLOT].diff()[:7].abs().min() > 0.2


def test_instruments_are_those_of_the_activity_and_above_the_hero():
    spec = ProceduresSpec("test", 2, 1, 48, 48)
    frames = pose_strokes(draw_room(spec.name(0), 48, 48), spec.timeline(0), generator_of("strokes"))
    motions = [MOTION_NAMES[number] for number in activities_of(spec.phases(0))]
    tool, material = HERO_SLOT + 1, HERO_MATERIAL + 1
    for row, motion in enumerate(motions):
        assert (int(frames.kind_BO[row, tool]) == SPHERE) == (motion in INSTRUMENTS), motion
        if motion in INSTRUMENTS:
            assert torch.equal(frames.materials.first_BM3[row, material], torch.tensor(INSTRUMENTS[motion]))
    top = frames.base_BO3[:, HERO_SLOT, 1] + 2 * frames.half_BO3[:, HERO_SLOT, 1]
    assert (frames.base_BO3[:, tool, 1] > top).all()
    assert (frames.base_BO3[:, tool, 1] + 2 * frames.half_BO3[:, tool, 1] < frames.room_B3[:, 1]).all()
    assert INSTRUMENTS["slide_left"] == INSTRUMENTS["slide_right"], "which way is for the motion to say"


@pytest.mark.parametrize("pair", PAIRS, ids=[a for a, _ in AMBIGUOUS_PAIRS])
def test_twins_have_the_same_frame_statistics(source, pair):
    """Paired t over the 16 videos of ten statistics of frames and of their changes; 4 has a chance of 1 in 800."""
    differences = []
    for number, video in enumerate(source.videos):
        rgb = frames_of(source, number).float() / 255
        depth = video.handle.read(range(video.handle.length)).depth
        rows = []
        for phase in pair:
            inside = torch.from_numpy(np.flatnonzero(video.phases == phase))
            whole = inside[: len(inside) // STROKE * STROKE]  # whole strokes: cut ones hold the first frames only
            part, metres = rgb[whole], depth[whole]
            change = part.unflatten(0, (-1, STROKE)).diff(dim=1).abs().mean()
            maps = [part.mean((0, 2, 3)), part.std((2, 3)).mean(0), change[None], metres.nanmean()[None]]
            extra = torch.stack([metres.isnan().float().mean(), part.mean((1, 2, 3)).std()])
            rows.append(torch.cat([*maps, extra]))
        differences.append(rows[0] - rows[1])
    difference = torch.stack(differences)
    t = difference.mean(0) / (difference.std(0) / len(differences) ** 0.5)
    assert t.shape == (10,) and t.abs().max() < 4, t


def test_one_clip_tells_the_activity_and_a_boundary_tells_the_place():
    for first, second in PAIRS:
        chances = clip_posterior(activities_of(np.full(STROKE, first)))
        assert chances[first] == chances[second] == 0.5
    enter, before, fetch, after = (PHASE_NAMES.index(n) for n in ("enter", "inspect_before", "fetch", "inspect_after"))
    assert clip_posterior(activities_of(np.array([enter] * 3 + [before] * 5)))[before] == 1
    assert clip_posterior(activities_of(np.array([before] * 5 + [fetch] * 3)))[before] == 1
    assert clip_posterior(activities_of(np.array([after] * 4 + [after + 1] * 4)))[after] == 1, "the earlier where equal"
    with pytest.raises(ValueError, match="no procedure"):
        clip_posterior(activities_of(np.array([fetch] * 4 + [enter] * 4)))


@pytest.mark.parametrize("span", [4, 8, 20])
def test_the_ceiling_is_what_the_best_rule_reaches(timelines, span):
    """Count which phases go with which motions in many procedures: nobody does better than the commonest phase."""
    expected, right, seen = [], 0, {}
    for timeline in timelines[:600]:
        phases = phases_of(timeline)
        for clip in cut_clips(phases, span, span):
            motions = tuple(activities_of(phases[clip.start : clip.stop]).tolist())
            seen.setdefault(motions, np.zeros(len(WORKFLOW)))[clip.label] += 1
    for motions, counts in seen.items():
        chances = clip_posterior(np.array(motions))
        expected.append((chances.max(), counts.sum()))
        assert not counts[chances == 0].any(), "nothing happens that was given no chance"
        right += counts.max()
    ceiling = sum(chance * count for chance, count in expected) / sum(count for _, count in expected)
    assert abs(ceiling - right / sum(count for _, count in expected)) < 0.015


def test_the_ceiling_of_a_source_is_far_from_one(source):
    scores = clipwise_oracle(source)
    assert scores.shape == (len(source), len(WORKFLOW)) and np.allclose(scores.sum(1), 1)
    labels = np.array(source.labels())
    assert (scores[np.arange(len(labels)), labels] > 0).all()
    assert 0.68 < clipwise_ceiling(source) < 0.77


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"depth": "exact"}, "procedures: depth"),
        ({"num_videos": 0}, "num_videos is 0"),
        ({"image_size": 8}, "image_size is 8"),
        ({"seed": "1"}, "seed is '1'"),
        ({"unit": "frames"}, "unit is 'frames'"),
        ({"clip_span": 0}, "clip_span is 0"),
    ],
)
def test_options_that_cannot_be(cache, options, said):
    with pytest.raises(ConfigError, match=said):
        ProceduresSource(**{"num_videos": 1, "image_size": 16, "cache_dir": cache, **options})


def test_a_picture_too_narrow_to_show_anything_is_explained(cache, monkeypatch):
    monkeypatch.setattr("m33d_hf.data.sources.rooms.procedure_rendering._ATTEMPTS", 1)
    with pytest.raises(DataError, match="image_size"):
        ProceduresSource("train", num_videos=1, image_size=[400, 16], cache_dir=cache)
