"""Published protocols of depth: against formulas written out in numpy, and through an evaluation of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from helpers.frames_on_disk import save
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.tasks.base import to_device
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.depth_protocols import PROTOCOLS


def metrics_of(p: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """Of the valid pixels of one image, or of many pooled."""
    p, t = p.astype(np.float64), t.astype(np.float64)
    ratio = np.maximum(p / t, t / p)
    return {
        **{f"delta{n}": float((ratio < 1.25**n).mean()) for n in (1, 2, 3)},
        "abs_rel": float((abs(p - t) / t).mean()),
        "sq_rel": float(((p - t) ** 2 / t).mean()),
        "log10": float(abs(np.log10(p) - np.log10(t)).mean()),
        "rmse": float(((p - t) ** 2).mean() ** 0.5),
        "rmse_log": float(((np.log(p) - np.log(t)) ** 2).mean() ** 0.5),
        "silog": float(np.std(np.log(p) - np.log(t)) * 100),
    }


def test_the_window_of_eigen() -> None:
    """One pixel just outside each edge is wrong, and is not seen; one just inside is."""
    protocol = PROTOCOLS["eigen"]
    right = torch.full((1, 480, 640), 2.0)
    for rows, columns, seen in (
        (44, 300, False), (45, 300, True), (470, 300, True), (471, 300, False),
        (200, 40, False), (200, 41, True), (200, 600, True), (200, 601, False),
    ):  # fmt: skip
        wrong = right.clone()
        wrong[0, rows, columns] = 9.0
        judge = protocol.metrics(torch.device("cpu"))
        judge.update(*protocol.compared(wrong, right))
        assert (judge.compute()["rmse"] > 0) is seen, (rows, columns)


def test_the_bounds_of_eigen() -> None:
    protocol = PROTOCOLS["eigen"]
    truth = torch.full((1, 480, 640), 10.5)
    truth[0, 100], truth[0, 101], truth[0, 102], truth[0, 103] = 10.0, 1e-3, 5e-4, 9.999999
    predicted = torch.full((1, 480, 640), 80.0)  # clamped to 10 m
    judge = protocol.metrics(torch.device("cpu"))
    judge.update(*protocol.compared(predicted, truth))
    assert judge.compute()["abs_rel"] == pytest.approx(0, abs=1e-6)


def write_data(root: Path, count: int, size: tuple[int, int] = (480, 640)) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(500, 12_000, (6, 8)).astype(np.float32)
        depth = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.BICUBIC)).clip(0, 60_000).astype(np.uint16)
        depth[: 60 * number] = 0  # images with unequal numbers of valid pixels
        save(root / f"test/depth/{number}.png", depth)
        save(root / f"test/rgb/{number}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return root


def arguments(root: Path, *words: str) -> RunArguments:
    tiny = ["hidden_size", "16", "num_hidden_layers", "1", "num_attention_heads", "2", "intermediate_size", "16"]
    flags = [word if i % 2 else f"--model.{word}" for i, word in enumerate(tiny)]
    heads = ["--model.depth_head_layers", "[0, 0, 0, 0]", "--model.depth_head_width", "8"]
    given = ["--data.source", "folder", "--data.root", str(root), "--data.options.depth_unit", "mm"]
    return resolve(["--recipe", "nyuv2_depth", *flags, *heads, *given, *words], "depth_estimation").args


def evaluate(root: Path, *words: str) -> tuple[dict[str, float], Any, Any]:
    """Metrics by the task, its model and its evaluation data."""
    args = arguments(root, *words)
    task = DepthEstimationTask()
    torch.manual_seed(0)
    model = task.build_model(args).eval()
    data = task.build_eval_dataset(args, model)
    assert data is not None
    collator = task.build_collator(args, model, train=False)
    rows = [data[0, row] for row in range(len(data))]
    batches = [collator(rows[:2]), collator(rows[2:])]
    with torch.no_grad():
        found = task.evaluate(model, batches, Accelerator(cpu=True))
    assert set(found) == set(task.metric_names(args, model))
    return found, model, batches


def test_eigen_through_an_evaluation(tmp_path: Path) -> None:
    root = write_data(tmp_path, 3)
    crop = ["--transforms.eval_crop", "resize", "--model.image_size", "[96, 128]"]
    found, model, batches = evaluate(root, "--evaluation.depth_protocol", "eigen", *crop)
    expected = []
    for number in range(3):
        truth = np.asarray(Image.open(root / f"test/depth/{number}.png")).astype(np.float32) / 1000
        pixels = to_device(batches[number // 2], torch.device("cpu"))["pixel_values"][number % 2 :][:1]
        with torch.no_grad():
            small = model(pixel_values=pixels).predicted_depth.float()
        large = torch.nn.Upsample((480, 640), mode="bilinear")(small[:, None])[0, 0].numpy().clip(1e-3, 10)
        mask = np.zeros(truth.shape, bool)
        mask[45:471, 41:601] = True
        mask &= (truth > 1e-3) & (truth < 10)
        expected.append(metrics_of(large[mask], truth[mask]))
    for name in expected[0]:
        assert found[name] == pytest.approx(np.mean([each[name] for each in expected]), rel=1e-5), name


@pytest.mark.parametrize("name", ["multimae", "exact_multimae"])
def test_multimae_through_an_evaluation(tmp_path: Path, name: str) -> None:
    root = write_data(tmp_path, 3)
    found, model, batches = evaluate(root, "--evaluation.depth_protocol", name)
    pairs = []
    for number, batch in enumerate(batches):
        inputs = to_device(batch, torch.device("cpu"))
        truth = inputs["labels"].numpy()
        for row in range(len(truth)):
            stored = Image.open(root / f"test/depth/{2 * number + row}.png")
            short = np.asarray(stored.resize((341, 256), Image.NEAREST)).astype(np.float32) / 1000
            assert truth[row].shape == (256, 256)
            middle = short[:, 42:298]
            same = np.isclose(np.nan_to_num(truth[row]), middle, atol=0.05)
            assert same.mean() > 0.97  # the centre, but for which of two neighbours is nearest
        with torch.no_grad():
            predicted = model(pixel_values=inputs["pixel_values"]).predicted_depth.float().numpy()
        valid = np.isfinite(truth) & (truth > 0)
        pairs.append((np.maximum(predicted[valid], 1e-6), truth[valid]))
    if name == "multimae":
        expected = metrics_of(*(np.concatenate(side) for side in zip(*pairs)))
    else:
        each = [metrics_of(*pair) for pair in pairs]
        expected = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key


def test_runs_that_could_not_be_judged_so(tmp_path: Path) -> None:
    root = write_data(tmp_path / "a", 2)
    with pytest.raises(ConfigError, match=r"eigen requires transforms\.eval_crop 'resize'.*depth_protocol null"):
        evaluate(root, "--evaluation.depth_protocol", "eigen")
    with pytest.raises(ConfigError, match=r"multimae requires 256 x 256 pixels, but model\.image_size is \[64, 64\]"):
        evaluate(root, "--model.image_size", "64")
    with pytest.raises(ConfigError, match=r"depth_protocol must be one of"):
        evaluate(root, "--evaluation.depth_protocol", "eigen2014")
    other = write_data(tmp_path / "b", 3, (240, 320))
    with pytest.raises(DataError, match=r"eigen is defined for pictures of \(480, 640\)"):
        evaluate(other, "--evaluation.depth_protocol", "eigen", "--transforms.eval_crop", "resize")


def test_pictures_of_another_size_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """At the first evaluation is too late: that is after hours. A picture that cannot be read is passed over."""
    root = write_data(tmp_path, 2, (240, 320))
    (root / "test/rgb/0.png").write_bytes(b"no picture")
    args = arguments(root, "--evaluation.depth_protocol", "eigen", "--transforms.eval_crop", "resize")
    task = DepthEstimationTask()
    with pytest.raises(DataError, match=r"1.*eigen is defined for pictures of \(480, 640\).*depth_protocol null"):
        task.build_eval_dataset(args, task.build_model(args))


def test_the_protocol_is_said(tmp_path: Path) -> None:
    words = ["--recipe", "nyuv2_depth", "--data.root", str(tmp_path)]
    args = resolve(words, "depth_estimation").args
    model = M33DForDepthEstimation(M33DConfig(**{**args.model, "hidden_size": 16, "num_hidden_layers": 12,
        "num_attention_heads": 2, "intermediate_size": 16}))  # fmt: skip
    (line,) = DepthEstimationTask().describe(args, model, None)  # type: ignore[arg-type]
    assert line.startswith("depth is judged by the protocol multimae: 256-pixel centre crop")
