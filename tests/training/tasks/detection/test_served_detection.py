"""The processor that a detector saves prepares clips as its features were extracted, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.phases_in_memory import MemorySource, arguments, first_stage, register
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.training.tasks.detection.first_stage import clip_rule
from m33d_hf.training.tasks.detection.task import ActionDetectionTask


@pytest.mark.parametrize("crop", ["center", "resize", "pad"])
@pytest.mark.parametrize("size", [[8, 24], [24, 16]])
def test_features_come_from_what_the_processor_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str, size: list[int]
) -> None:
    register()
    args = arguments(tmp_path / "out", first_stage(tmp_path / "first", image_size=size))
    args.transforms.eval_crop = crop  # type: ignore[assignment]
    args.data.eval_split, args.logging.progress = None, False
    task = ActionDetectionTask()
    model = task.build_model(args)
    seen: list[torch.Tensor] = []
    encode = model.encode_clips
    monkeypatch.setattr(model, "encode_clips", lambda pixels: [seen.append(pixels), encode(pixels)][1])
    task.build_datasets(args, model)
    task.save_processor(model, args, tmp_path / "out")
    processor = M33DVideoProcessor.from_pretrained(tmp_path / "out")
    source, rule, expected = MemorySource("train"), clip_rule(args, model.config), []
    for number, video in enumerate(source.videos):
        for span in source.clips(number):
            frames = video.handle.read(range(span.start, span.stop)).rgb
            # As a file would be: the clip's own frames, from which the processor takes what the rule takes.
            numbers = rule.frames(span.stop - span.start)
            expected.append(processor(frames[numbers], return_tensors="pt")["pixel_values"])
            assert rule.num_frames == processor.num_frames and rule.frame_stride == processor.frame_stride
    found = torch.cat(seen)
    assert found.shape[-2:] == tuple(size) and len(found) == len(expected)
    assert torch.equal(found, torch.cat(expected))
