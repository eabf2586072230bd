"""Finishing a batch later gives, bit for bit, what a collator gives that finishes it itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data._utils.pin_memory import pin_memory

from helpers.devices import NEEDS_CUDA
from helpers.host_traffic import Waiting, no_waiting
from m33d_hf.data.augmentation.clips import Erasing, draw_erasing
from m33d_hf.data.augmentation.color import Jitter
from m33d_hf.data.augmentation.mixing import draw_mix, mix_batch, soft_targets
from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import Operation
from m33d_hf.data.augmentation.rgb_changes import ColorDraw, RgbChanges
from m33d_hf.data.augmentation.transforms import TrainTransform, build_transform
from m33d_hf.data.loader.collation import (
    ClipClassificationCollator,
    Collator,
    DepthCollator,
    PretrainingCollator,
    SegmentationCollator,
    deferring,
)
from m33d_hf.data.loader.finishing import FINISHING, Finishing, finish, mirror_rows
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.masking_m33d import draw_keep, motion_scores
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb
from m33d_hf.training.tasks.base import to_device

THERMAL = {"name": "thermal", "channels": 1, "input_name": "thermal_values", "mask_name": "thermal_mask"}
THERMAL |= {"channel_mean": [0.3], "channel_std": [0.2], "mask_ratio": 0.5}
ERASING = TransformOptions(erasing=0.8, erasing_area=(0.1, 0.3))


def config(frames: int = 1, **changes: Any) -> M33DConfig:
    sizes = {"image_size": [16, 24], "patch_size": 8, "num_frames": frames, "tubelet_size": min(frames, 2)}
    narrow = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    decoder = {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    both = {"modalities": [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5)]}
    return M33DConfig(**{**sizes, **narrow, **decoder, **both, **changes})


def motion(**changes: Any) -> M33DConfig:
    modalities = [rgb_modality(mask_ratio=0.5, masking="motion"), depth_modality(mask_ratio=0.5)]
    return config(4, **{"modalities": modalities, **changes})


DENOISED = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, denoising_weight=0.5)]
HIDDEN = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, drop_probability=0.5)]
BUDGET = {"token_budget": 6, "decoder_kind": "per_target", "joint_encoding": True, "use_cls_token": False}
MOVING = [rgb_modality(mask_ratio=0.5, masking="motion"), depth_modality(mask_ratio=0.5, masking="motion")]
SHARED = {"motion_select": "topk", "share_mask": True, "modalities": MOVING}
VALID = rgb_modality(mask_ratio=0.5, mask_name="rgb_mask")
COLLATORS = {
    "images": lambda: PretrainingCollator(config()),
    "clips": lambda: PretrainingCollator(config(4)),
    "frame statistics": lambda: PretrainingCollator(config(4, depth_standardization_scope="frame")),
    "full statistics": lambda: PretrainingCollator(config(depth_standardization="full")),
    "raw depth": lambda: PretrainingCollator(config(depth_standardization="none")),
    "motion": lambda: PretrainingCollator(motion()),
    "motion, largest, shared": lambda: PretrainingCollator(motion(**SHARED)),
    "motion hidden": lambda: PretrainingCollator(motion(motion_target="masked", motion_gamma=2)),
    "denoised": lambda: PretrainingCollator(config(modalities=DENOISED)),
    "hidden": lambda: PretrainingCollator(config(modalities=HIDDEN)),
    "a third modality": lambda: PretrainingCollator(config(modalities=[rgb_modality(mask_ratio=0.5), THERMAL])),
    "validity of rgb": lambda: PretrainingCollator(config(modalities=[VALID])),
    "budget": lambda: PretrainingCollator(config(**BUDGET)),
    "segmentation": lambda: SegmentationCollator(config(num_labels=3)),
    "segmentation, -100": lambda: SegmentationCollator(config(num_labels=3, semantic_loss_ignore_index=-100)),
    "depth": lambda: DepthCollator(config()),
    "views": lambda: ClipClassificationCollator(config(4, num_labels=3), train=False),
    "actions": lambda: ClipClassificationCollator(config(4, num_labels=3), train=True),
    "mixup": lambda: mixing(MixingOptions(mixup=0.8, label_smoothing=0.1)),
    "cutmix": lambda: mixing(MixingOptions(cutmix=1.0)),
    "erased and mixed": lambda: mixing(MixingOptions(mixup=0.8, cutmix=1.0), ERASING),
    "erased images": lambda: ClipClassificationCollator(config(num_labels=3), erasing=ERASING, train=True),
}


def mixing(options: MixingOptions, erasing: TransformOptions | None = None) -> Collator:
    return ClipClassificationCollator(config(4, num_labels=3), options, erasing, train=True)


def sample(key: str, frames: int, by_pixel: bool = False) -> RGBDSample:
    generator = torch.Generator().manual_seed(sum(map(ord, key)))
    rgb = torch.randint(0, 256, (frames, 16, 24, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
    depth = 1 + torch.rand(frames, 1, 16, 24, generator=generator)
    depth[..., :4] = math.nan
    labels = torch.randint(0, 3, (frames, 16, 24), generator=generator, dtype=torch.uint8)
    labels[:, 2:5] = 255
    meta = {"draw": Draw(3, 1), "index": ord(key[0]), "modalities": {"thermal": depth[..., ::1] / 3}}
    return RGBDSample(key, rgb if by_pixel else rgb.contiguous(), depth, labels, 1, meta)


def samples(collator: Collator, by_pixel: bool = False) -> list[RGBDSample]:
    return [sample(key, collator.num_frames, by_pixel) for key in "abcde"]


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert_same(value, right[name])
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.shape == right.shape and left.is_contiguous()
        assert torch.equal(left.nan_to_num(nan=7.25), right.nan_to_num(nan=7.25))
    else:
        assert left == right


@pytest.mark.parametrize("by_pixel", [False, True], ids=["planes", "by pixel"])
@pytest.mark.parametrize("name", COLLATORS)
def test_later_is_the_same(name: str, by_pixel: bool) -> None:
    immediate = COLLATORS[name]()
    wanted = immediate(samples(immediate))
    assert FINISHING not in wanted["meta"]
    unfinished = deferring(COLLATORS[name]())(samples(immediate, by_pixel))
    if "pixel_values" in unfinished:
        assert unfinished["pixel_values"].dtype == torch.uint8
    assert_same(finish(unfinished), wanted)
    assert_same(finish(unfinished), wanted)  # nothing that came in is written to
    del wanted["meta"]
    assert_same(to_device(unfinished, torch.device("cpu")), wanted)


def test_what_is_finished_or_empty_stays_as_it_is() -> None:
    collator = deferring(DepthCollator(config()))
    dropped = RGBDSample("x", meta={"dropped": True, "index": 0, "skipped": []})
    empty = collator([dropped])
    assert set(empty) == {"meta"} and finish(empty) is empty and to_device(empty, torch.device("cpu")) == {}
    done = finish(collator([sample("a", 1)]))
    assert finish(done) is done


@pytest.mark.parametrize("name", ["motion", "erased and mixed", "denoised"])
def test_every_tensor_of_what_is_left_moves_and_is_pinned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    collator = deferring(COLLATORS[name]())
    finishing = collator(samples(collator))["meta"][FINISHING]
    count = sum(1 for _ in tensors(finishing))
    assert (count > 0) == (name == "motion")
    assert all(each.is_meta for each in tensors(finishing.to(torch.device("meta"))))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    pinned = pin_memory({"meta": {FINISHING: finishing}})["meta"][FINISHING]  # as a loader's pinning thread does it
    assert all(torch.equal(a + 1, b) for a, b in zip(tensors(finishing), tensors(pinned), strict=True))


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor inside of dataclasses, dicts and sequences."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [each for part in value for each in tensors(part)] if isinstance(value, list | tuple) else []


def test_pretraining_is_what_the_formulas_say() -> None:
    made = motion()
    given = samples(PretrainingCollator(made))
    batch = PretrainingCollator(made)(given)
    spec = made.spec("rgb")
    pixels = normalize_rgb(torch.stack([each.rgb for each in given]), spec.channel_mean, spec.channel_std)
    depth, valid = standardize_depth(torch.stack([each.depth for each in given]))
    generators = [each.meta["draw"].generator(each.key, "mask") for each in given]
    keep = draw_keep(made, len(given), generator=generators, motion=motion_scores(pixels, made))
    assert torch.equal(batch["pixel_values"], pixels)
    assert torch.equal(batch["depth_values"], depth) and torch.equal(batch["depth_mask"], valid)
    assert batch["keep"].keys() == keep.keys() and all(torch.equal(batch["keep"][name], keep[name]) for name in keep)


def test_actions_are_what_the_formulas_say() -> None:
    options = MixingOptions(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    collator = mixing(options, ERASING)
    given = samples(collator)
    spec = collator.config.spec("rgb")
    pixels = normalize_rgb(torch.stack([each.rgb for each in given]), spec.channel_mean, spec.channel_std)
    for each, clip in zip(given, pixels, strict=True):
        erased = draw_erasing(16, 24, ERASING, each.meta["draw"], each.key)
        if erased is not None:
            top, left, height, width = erased.box
            noise = torch.randn((4, 3, height, width), generator=erased.generator.clone_state())
            clip[..., top : top + height, left : left + width] = noise
    draw = given[0].meta["draw"]
    drawn = draw_mix(options, 16, 24, draw.seed, draw.epoch, given[0].key, "mix")
    wanted = mix_batch(pixels, soft_targets(torch.ones(5, dtype=torch.int64), 3, 0.1), drawn)
    batch = collator(given)
    assert torch.equal(batch["pixel_values"], wanted[0]) and torch.equal(batch["labels"], wanted[1])


class Videos:
    """A source of clips as decoders give them: pixel by pixel."""

    name, depth_spec = "videos", None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return Video(f"video {index}", index)


@dataclasses.dataclass
class Video:
    key: str
    seed: int
    length: int = 9
    fps: float | None = None

    def read(self, indices: list[int]) -> RGBDSample:
        generator = torch.Generator().manual_seed(self.seed)
        frames = torch.randint(0, 256, (self.length, 20, 30, 3), generator=generator, dtype=torch.uint8)
        return RGBDSample(self.key, frames[list(indices)].permute(0, 3, 1, 2), label=1)


@pytest.mark.parametrize(("jitter", "ops"), [(0.0, 0), (0.3, 2)])
@pytest.mark.parametrize("crop", ["multiscale", "scale_jitter", "random_resized"])
@pytest.mark.parametrize("workers", [0, 2])
def test_unfinished_batches_pass_the_loader(workers: int, crop: str, jitter: float, ops: int) -> None:
    options = TransformOptions(crop, scale=(0.5, 1.0), color_jitter=jitter, randaugment_ops=ops)

    def batches(collator: Collator, workers: int) -> list[dict[str, Any]]:
        transform = build_transform(options, True, [16, 24], 8)
        return list(loader(collator, transform, workers))

    wanted = batches(mixing(MixingOptions(mixup=0.8), ERASING), 0)
    found = batches(deferring(mixing(MixingOptions(mixup=0.8), ERASING)), workers)
    for left, right in zip(found, wanted, strict=True):
        assert FINISHING in left["meta"]
        assert_same(finish(left), right)


def test_rand_augment_and_colour_do_not_depend_on_processes_or_on_where_a_run_resumes() -> None:
    options = TransformOptions("random_resized", color_jitter=0.5, blur=0.3, randaugment_ops=3)
    transform = build_transform(options, True, [16, 24], 8)

    def batches(batch: int = 4, **sampling: Any) -> list[torch.Tensor]:
        dataset = SampleDataset(Videos(), transform, num_frames=4, train=True, seed=3, num_views=2)
        collator = deferring(ClipClassificationCollator(config(4, num_labels=3), train=True))
        made = build_loader(dataset, collator, StepSampler(6, batch, seed=3, total_steps=4, **sampling))
        return [to_device(each, torch.device("cpu"))["pixel_values"] for each in made]

    whole = batches()
    for left, right in zip(batches(start_step=2), whole[2:], strict=True):
        assert torch.equal(left, right)
    for step, halves in enumerate(zip(*(batches(2, rank=rank, world_size=2) for rank in range(2)), strict=True)):
        by_sample = [half.unflatten(0, (2, 2)) for half in halves]  # rows and their two views
        assert torch.equal(torch.stack(by_sample, 1).flatten(0, 2), whole[step])


def loader(collator: Collator, transform: Any, workers: int = 0) -> Any:
    dataset = SampleDataset(
        Videos(), transform, num_frames=4, frame_stride=2, train=True, seed=3, num_views=2,
        maps=[spec.name for spec in collator.specs.values()],
    )  # fmt: skip
    sampler = StepSampler(6, 3, seed=3, total_steps=3)
    return build_loader(dataset, collator, sampler, num_workers=workers, pin_memory=False)


def test_clips_are_resized_into_their_batch_and_mirrored_with_it() -> None:
    transform = build_transform(TransformOptions("random_resized", flip=0.5), True, [16, 24], 8)
    collator = deferring(ClipClassificationCollator(config(4, num_labels=3), train=True))
    made = loader(collator, transform)
    samples = [view for item in made.dataset.__getitems__([(0, 0), (0, 1), (0, 2)]) for view in item]
    flags = [each.mirrored for each in samples]
    batch = collator(samples)
    assert any(flags) and not all(flags) and batch["pixel_values"].data_ptr() == samples[0].rgb.data_ptr()
    pixels = torch.stack([each.complete().rgb for each in samples])
    spec = collator.config.spec("rgb")
    wanted = normalize_rgb(pixels, spec.channel_mean, spec.channel_std)
    assert torch.equal(finish(batch)["pixel_values"], wanted)
    plain = SampleDataset(Videos(), transform, num_frames=4, frame_stride=2, train=True, seed=3, num_views=2)
    whole = [view for item in plain.__getitems__([(0, 0), (0, 1), (0, 2)]) for view in item]
    assert not any(each.mirrored for each in whole) and torch.equal(torch.stack([each.rgb for each in whole]), pixels)


def test_mirroring_is_left_only_to_those_who_know_of_it() -> None:
    class Own(ClipClassificationCollator):
        def collate(self, samples: Any) -> Any:
            return {"pixel_values": torch.stack([each.rgb for each in samples])}, []

    class Looking(TrainTransform):
        def finish(self, begun: Any) -> Any:
            return super().finish(begun)

    options = TransformOptions("random_resized", flip=0.5)
    ours = build_transform(options, True, [16, 24], 8)
    both = ours, Looking(options, (16, 24), (8, 8))
    collators = (deferring(Own(config(4, num_labels=3), train=True)), lambda samples: {"pixel_values": samples})
    wanted = list(loader(Own(config(4, num_labels=3), train=True), ours))
    for transform in both:
        for left, right in zip(loader(collators[0], transform), wanted, strict=True):
            assert torch.equal(left["pixel_values"], right["pixel_values"])
    dataset = SampleDataset(Videos(), ours, num_frames=4, train=True)
    sampler = StepSampler(6, 3, total_steps=3)
    for batch in build_loader(dataset, collators[1], sampler, pin_memory=False):
        assert not any(each.mirrored for each in batch["pixel_values"])


def test_a_subclass_that_says_so_is_treated_as_the_class_it_derives_from() -> None:
    """Of its own methods, what the class says of them must be said anew; methods that are left alone keep it."""
    asked: list[tuple[str, bool]] = []

    class Own(ClipClassificationCollator):
        takes_incomplete = True

        def collate(self, samples: Any) -> Any:
            asked.append(("collate", any(each.mirrored for each in samples)))
            return super().collate(samples)

    class Looking(TrainTransform):
        in_parts = aligns = True

        def begin(self, sample: Any, rows: Any = None) -> Any:
            asked.append(("begin", rows is not None))
            return super().begin(sample, rows)

    class Quiet(Looking):
        """Nothing of its own."""

    class Called(Quiet):
        def __call__(self, sample: RGBDSample) -> RGBDSample:
            asked.append(("call", False))
            return super().__call__(sample)

    assert Quiet.in_parts and Quiet.aligns and not (Called.in_parts or Called.aligns)
    options, size = TransformOptions("random_resized", flip=0.5), ((16, 24), (8, 8))
    collator = deferring(ClipClassificationCollator(config(4, num_labels=3), train=True))
    wanted = list(loader(collator, TrainTransform(options, *size)))
    for transform in (Quiet(options, *size), Called(options, *size)):
        asked.clear()
        found = list(loader(deferring(Own(config(4, num_labels=3), train=True)), transform))
        for left, right in zip(found, wanted, strict=True):
            assert_same(finish(left), finish(right))
        in_parts = transform.in_parts
        assert (("begin", True) in asked, ("collate", True) in asked, ("call", False) in asked) == (
            in_parts, in_parts, not in_parts,
        )  # fmt: skip


RAND_AUGMENT = [("ShearX", 0.2), ("ShearY", -0.2), ("Rotate", 9.0), ("Brightness", 0.3), ("Color", 0.3),
                ("Contrast", -0.3), ("Sharpness", 0.4), ("Posterize", 5.0), ("Solarize", 0.6),
                ("AutoContrast", 0.0), ("Equalize", 0.0)]  # fmt: skip
COLOURS = [
    ColorDraw(Jitter((1.2, 0.8, 1.1, 0.05), (3, 0, 2, 1)), False, (5, 1.1)),
    ColorDraw(Jitter((0.9, 1.1, 0.7, -0.1), (0, 3, 1, 2)), True, (5, 0.8)),
    ColorDraw(None, True, (3, 0.6)),
    ColorDraw(Jitter((1.2, 0.8, 1.1, 0.05), (1,)), False, None),
]


def all_changes(collator: Collator) -> list[RGBDSample]:
    """Samples with everything that is left to a device: two padded pictures among them."""
    found = samples(collator)
    for number, each in enumerate(found):
        operations = tuple(Operation(*RAND_AUGMENT[(3 * number + place) % len(RAND_AUGMENT)]) for place in range(3))
        shown = (16, 24) if number < 3 else (12, 24)
        each.changes = RgbChanges(shown, operations, COLOURS[number] if number < len(COLOURS) else None)
        each.mirrored = number % 2 == 1
    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="where CUDA is, it is asked itself, below")
@pytest.mark.parametrize("name", COLLATORS)
def test_finishing_sends_its_numbers_along(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of fake CUDA tensors: a copy for which the host waits is noted, and a look at a value raises."""
    # Its generator would need a device; the noise is drawn there.
    monkeypatch.setattr(Erasing, "noise", lambda self, frames, on: torch.randn(frames, 3, *self.box[2:], device=on))
    collator = deferring(COLLATORS[name]())
    batch = collator(all_changes(collator))
    with FakeTensorMode():

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

        finishing = batch["meta"][FINISHING]._with_tensors(moved)
        there = {key: moved(value) if torch.is_tensor(value) else value for key, value in batch.items()}
        with Waiting() as seen:
            finished = finish({**there, "meta": {FINISHING: finishing}})
    assert not seen.found
    if "pixel_values" in finished:
        assert finished["pixel_values"].device.type == "cuda" and finished["pixel_values"].dtype == torch.float32


@NEEDS_CUDA
@pytest.mark.parametrize("name", COLLATORS)
def test_the_host_never_waits_for_the_device(name: str) -> None:
    collator, device = deferring(COLLATORS[name]()), torch.device("cuda")
    batch = collator(all_changes(collator))
    there = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
    there["meta"] = {FINISHING: batch["meta"][FINISHING].to(device)}
    for _ in range(2):  # libraries may wait when they begin
        torch.cuda.synchronize()
        with no_waiting():
            finish(there)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (5, 2, 3, 4, 6)])
def test_rows_are_mirrored_on_any_device(shape: tuple[int, ...], device: str) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    rows = torch.tensor([True, False, False, True, True])
    found = mirror_rows(pixels.to(device), rows.to(device)).cpu()
    for row, flag in enumerate(rows.tolist()):
        assert torch.equal(found[row], torch.stack(pixels[row].unbind(-1)[:: -1 if flag else 1], -1))


def test_a_collator_that_changes_finished_batches_finishes_them() -> None:
    class Halved(DepthCollator):
        def __call__(self, samples: Any) -> Any:
            batch = super().__call__(samples)
            batch["pixel_values"] = batch["pixel_values"] * 0.5
            return batch

    class Counted(DepthCollator):
        defers = True

        def __call__(self, samples: Any) -> Any:
            return super().__call__(samples) | {"count": len(samples)}

    collator = Halved(config())
    assert deferring(collator) is collator and not collator.deferred
    assert deferring(Counted(config())).deferred
    plain = DepthCollator(config())
    assert deferring(plain).deferred and not plain.deferred, "the task's own collator stays as it was"


def test_tensors_of_a_step_of_somebody_else_move() -> None:
    @dataclasses.dataclass(frozen=True)
    class Add:
        values: tuple[torch.Tensor, ...]

        def apply(self, batch: Any) -> None:
            batch["pixel_values"] = batch["pixel_values"] + self.values[0]

    (step,) = Finishing((Add((torch.ones(2),)),)).to(torch.device("meta")).steps
    assert step.values[0].device.type == "meta"


def test_a_collator_written_for_batches_alone_is_told_so() -> None:
    class Old(DepthCollator):
        def collate(self, samples: Any) -> Any:
            return super().collate(samples)[0]

    sample = RGBDSample("old", rgb=torch.zeros(1, 3, 16, 24, dtype=torch.uint8), depth=torch.ones(1, 1, 16, 24))
    with pytest.raises(ConfigError, match=r"Old.collate returned a dict.*\(batch, steps\)"):
        Old(config())([sample])


def test_unfinished_pixels_are_refused_by_the_model() -> None:
    model = M33DModel(config())
    with pytest.raises(DataError, match=r"uint8.*to_device"):
        model(pixel_values=torch.zeros(1, 3, 16, 24, dtype=torch.uint8), depth_values=torch.zeros(1, 1, 16, 24))
