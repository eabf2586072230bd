"""Preparing data: the same bytes by any number of processes, resumed where it was cut, damage found."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.frames_on_disk import depth_array, save, write_frames
from helpers.launching import ROOT, TORCHRUN
from helpers.preparations import assert_same_items, file_bytes, keys_of, prepared
from helpers.ranks import ForkedRanks
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.prepared.encoding import read_size
from m33d_hf.data.sample import holes_of
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.preparation.arguments import build_prepared_source, parse_preparation
from m33d_hf.inference.sharding import Place
from m33d_hf.scripts.prepare_data import main
from m33d_hf.training.recipe.help import source_help

COUNT = 23


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames"), COUNT, labels="label/{i}.png")


def folder(root: Path) -> FolderSource:
    return FolderSource(root, num_classes=4, depth_unit="mm")


@pytest.fixture(scope="module")
def whole(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "out"
    prepared(folder(frames), output)
    return output


def test_two_workers_and_two_ranks_write_what_one_process_writes(frames: Path, whole: Path, tmp_path: Path) -> None:
    alone = file_bytes(whole)
    assert len(alone) > 3 and max(map(len, alone.values())) < 40_000
    summary = prepared(folder(frames), tmp_path / "workers", workers=2)
    assert summary.rows == COUNT and file_bytes(tmp_path / "workers") == alone
    for rank in range(2):
        prepared(folder(frames), tmp_path / "ranks", Place(rank, 2, rank))
    assert file_bytes(tmp_path / "ranks") == alone
    first = tmp_path / "one rank"
    prepared(folder(frames), first, Place(0, 2, 0))
    assert 0 < len(file_bytes(first)) < len(alone)
    with pytest.raises(DataError, match=r"lacks .* parts: part-00001"):
        HubSource(first)


def test_complete_parts_are_kept_and_incomplete_ones_written_anew(frames: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepared(folder(frames), output)
    parts = sorted(output.glob("part-*"))
    (parts[1] / "COMPLETE").unlink()  # as after a kill: files, whole or not, and no marker
    (parts[1] / "file-000.parquet").write_bytes(b"PAR1 cut short")
    (parts[1] / "file-007.parquet").write_bytes(b"of an earlier kill")
    kept = {part: part.joinpath("file-000.parquet").stat().st_mtime_ns for part in parts}
    summary = prepared(folder(frames), output)
    assert (summary.written, summary.kept) == (1, len(parts) - 1)
    assert file_bytes(output) == file_bytes(whole)
    changed = [part for part in parts if part.joinpath("file-000.parquet").stat().st_mtime_ns != kept[part]]
    assert changed == [parts[1]]


def _prepare_slowly(root: str, output: str) -> None:
    source = folder(Path(root))
    read = type(source[0]).read
    type(source[0]).read = lambda handle, indices: (time.sleep(0.1), read(handle, indices))[1]  # type: ignore[method-assign]
    prepared(source, Path(output), workers=1)  # in this process, whose reading is slow


def test_a_killed_preparation_is_continued(frames: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ranks = ForkedRanks(_prepare_slowly, str(frames), str(output), log=tmp_path / "log.txt")
    end = time.monotonic() + 60
    while not list(output.glob("part-*/COMPLETE")):
        assert time.monotonic() < end, ranks.output()
        time.sleep(0.02)
    os.kill(ranks.processes[0].pid or 0, signal.SIGKILL)
    ranks.wait()
    done = len(list(output.glob("part-*/COMPLETE")))
    assert done < len(list(whole.glob("part-*")))
    summary = prepared(folder(frames), output)
    assert summary.kept == done and file_bytes(output) == file_bytes(whole)


def test_damage_is_found_by_its_digest_and_written_anew(frames: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepared(folder(frames), output)
    file = sorted(output.rglob("*.parquet"))[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert prepared(folder(frames), output).written == 0
    assert prepared(folder(frames), output, verify=True).written == 1
    assert file_bytes(output) == file_bytes(whole)


def test_another_source_or_another_way_cannot_add_to_a_folder(frames: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"size: None there, 16 now"):
        prepared(folder(frames), whole, size="16")
    with pytest.raises(ConfigError, match="digest"):
        prepared(FolderSource(frames, depth_unit="mm"), whole)
    (tmp_path / "mine.txt").write_text("notes")
    with pytest.raises(ConfigError, match=r"mine\.txt"):
        prepared(folder(frames), tmp_path)


def test_unreadable_items_are_listed_and_counted(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 12)
    (root / "color" / "3.png").write_bytes((root / "color" / "3.png").read_bytes()[:300])
    source = FolderSource(root, depth_unit="mm")
    summary = prepared(source, tmp_path / "out")
    assert summary.rows == 11 and len(summary.skipped) == 1 and "3.png" in summary.describe()
    assert [Path(file.path).name for file in read_skipped(tmp_path / "out" / "skipped_files.csv")] == ["3.png"]
    expected = [key for key in keys_of(source) if key != summary.skipped[0].key]
    assert keys_of(HubSource(tmp_path / "out")) == expected
    with pytest.raises(DataError, match="max_bad_fraction"):
        prepared(source, tmp_path / "strict", max_bad_fraction=0.0)


def _blot(file: Path) -> bytes:
    """Overwrite a file by as many zeros, as of a copy that was cut short; returns what it held."""
    before = file.read_bytes()
    file.write_bytes(bytes(len(before)))
    return before


@pytest.mark.parametrize("form", ["parquet", "shards"])
def test_skipped_items_count_again_and_repaired_ones_are_taken(
    frames: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal is not passed by repeating the command; a repair, which leaves sizes as they were, is noticed."""
    root = tmp_path / "in"
    shutil.copytree(frames, root)
    whole = {number: _blot(root / "color" / f"{number}.png") for number in (2, 7, 11, 19)}
    command = ["--data.root", str(root), "--data.options.depth_unit", "mm", "--format", form, "--shard_mb", "0.02"]
    command += ["--output", str(tmp_path / "out"), "--max_bad_fraction"]
    for _ in range(3):  # refused within the first parts, whose markers are there
        assert main([*command, "0.1"]) == 2
        assert "unreadable items among" in capsys.readouterr().err
    assert main([*command, "0.5"]) == 0 and "4 items skipped" in capsys.readouterr().out
    assert main([*command, "0.5"]) == 0 and "0 parts written" in (said := capsys.readouterr().out)
    assert "4 items skipped" in said
    assert main([*command, "0.1"]) == 2 and "4 unreadable items among" in capsys.readouterr().err
    for number, content in whole.items():
        (root / "color" / f"{number}.png").write_bytes(content)
    assert main([*command, "0"]) == 0 and "files that could not be read have changed" in capsys.readouterr().out
    prepared(FolderSource(frames, depth_unit="mm"), tmp_path / "expected", format=form)
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "expected")
    assert main([*command, "0"]) == 0 and "0 parts written" in capsys.readouterr().out


def test_repaired_depth_of_clips_is_taken(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 20)
    source = FolderSource(root, depth_unit="mm", unit="clips")
    prepared(source, tmp_path / "expected")
    whole = {number: _blot(root / f"depth/{number}.png") for number in (2, *range(8, 16))}
    prepared(source, tmp_path / "out")
    assert prepared(source, tmp_path / "out").written == 0
    (root / "depth/9.png").write_bytes(whole[9])
    assert prepared(source, tmp_path / "out").written == 1
    depth = HubSource(tmp_path / "out", unit="clips")[0].read(range(20)).depth
    assert depth is not None
    empty = [bool(values.isnan().all()) for values in depth]
    assert [number for number, is_empty in enumerate(empty) if is_empty] == [2, 8, *range(10, 16)]
    for number, content in whole.items():
        (root / f"depth/{number}.png").write_bytes(content)
    assert prepared(source, tmp_path / "out").written == 1
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "expected")


def test_clips_with_frames_without_depth_are_written_whole(tmp_path: Path) -> None:
    """Frames 8 to 15 are written together, and none of them has depth that can be read."""
    root = write_frames(tmp_path / "in", 20)
    (root / "depth/2.png").unlink()
    for number in range(8, 16):
        (root / f"depth/{number}.png").write_bytes(b"torn")
    source = FolderSource(root, depth_unit="mm", unit="clips")
    summary = prepared(source, tmp_path / "out")
    assert summary.rows == 20 and not summary.skipped
    assert "of clips, the depth of 9 of 20 frames read is missing or damaged: they are holes" in summary.describe()
    again = HubSource(tmp_path / "out", unit="clips")[0]
    holes = [2, *range(8, 16)]
    for frames in (range(20), [1, 2, 3], [7, 8, 9]):
        sample, whole = again.read(frames), source[0].read(frames)
        assert sample.rgb is not None and np.array_equal(sample.rgb, whole.rgb)
        assert sample.depth is not None and np.array_equal(sample.depth, whole.depth, equal_nan=True)
        empty = [number for number, values in zip(frames, sample.depth, strict=True) if bool(values.isnan().all())]
        assert empty == [number for number in frames if number in holes]
    assert [hole.place for hole in holes_of(again.read([7, 8, 9]))] == [1, 2]
    nothing = again.read([8, 9])
    assert nothing.depth is None and nothing.rgb is not None


@pytest.mark.parametrize(
    "size, expected", [("12", (12, 16)), ("12x16", (12, 16)), ("48", (24, 32)), ("36x48", (36, 48))]
)
def test_sizes(frames: Path, tmp_path: Path, size: str, expected: tuple[int, int]) -> None:
    prepared(folder(frames), tmp_path / "out", size=size)
    before, after = folder(frames)[5].read([0]), HubSource(tmp_path / "out")[5].read([0])
    assert (after.height, after.width) == expected and after.depth is not None and before.depth is not None
    rows, columns = ((np.arange(n) + 0.5) * (m / n) for n, m in zip(expected, (24, 32)))
    taken = np.ix_(rows.astype(int), columns.astype(int))  # the nearest pixel, by its centre
    np.testing.assert_array_equal(after.depth[0, 0].numpy(), before.depth[0, 0].numpy()[taken])
    np.testing.assert_array_equal(after.segmentation[0].numpy(), before.segmentation[0].numpy()[taken])
    if expected == (12, 16):  # Pillow's own antialiased triangle filter, within its rounding
        picture = Image.fromarray(before.rgb[0].permute(1, 2, 0).numpy()).resize((16, 12), Image.Resampling.BILINEAR)
        apart = np.abs(np.asarray(picture, int) - after.rgb[0].permute(1, 2, 0).numpy().astype(int))
        assert apart.max() <= 1


def test_another_aspect_ratio_is_not_stretched(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="aspect ratio"):
        prepared(folder(frames), tmp_path / "out", size="16x16")


@pytest.mark.parametrize("text", ["big", "0", "12x", "12x0", "-3", "99999"])
def test_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="--size"):
        read_size(text)


def test_jpeg_is_near(frames: Path, tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 24 * 32, dtype=np.uint8).reshape(24, 32)
    save(tmp_path / "in" / "color" / "0.png", np.stack([smooth] * 3, axis=-1))
    save(tmp_path / "in" / "depth" / "0.png", depth_array(0))
    source = FolderSource(tmp_path / "in", depth_unit="mm")
    prepared(source, tmp_path / "out", rgb_format="jpeg", quality=95)
    one, other = source[0].read([0]), HubSource(tmp_path / "out")[0].read([0])
    assert one.rgb is not None and other.rgb is not None
    assert 0 < (one.rgb.int() - other.rgb.int()).abs().max() < 12
    with pytest.raises(ConfigError, match="rgb_format"):
        prepared(source, tmp_path / "gif", rgb_format="gif")


def test_the_command_line_speaks_as_the_run_scripts_do(frames: Path, whole: Path, tmp_path: Path) -> None:
    words = f"--data.source folder --data.root {frames} --data.options.num_classes 4 --data.options.depth_unit mm"
    options = parse_preparation([*words.split(), "--output", str(tmp_path / "out"), "--size", "240x320"])
    assert options.size == "240x320" and options.data.options == {"num_classes": 4, "depth_unit": "mm"}
    assert build_prepared_source(options).digest() == folder(frames).digest()
    with pytest.raises(ConfigError, match="Did you mean 'workers'"):
        parse_preparation(["--worker", "2"])
    with pytest.raises(ConfigError, match="workers"):
        parse_preparation(["--workers", "0"])
    with pytest.raises(ConfigError, match="reads no folder"):
        build_prepared_source(parse_preparation(["--data.source", "rooms", "--data.root", str(frames)]))
    assert "--data.options.num_classes" in "\n".join(source_help(["--data.source", "folder"]))


def _script(words: list[str]) -> int:
    from m33d_hf.scripts.prepare_data import main

    return main(words)


def test_the_script_under_a_launcher(frames: Path, whole: Path, tmp_path: Path) -> None:
    words = f"--data.source folder --data.root {frames} --data.options.num_classes 4 --data.options.depth_unit mm"
    words += f" --output {tmp_path / 'out'} --shard_mb 0.02"
    ranks = ForkedRanks(_script, words.split(), log=tmp_path / "log.txt", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()
    assert file_bytes(tmp_path / "out") == file_bytes(whole)
    assert "[rank 1 of 2]" in ranks.output()
    assert_same_items(folder(frames), HubSource(tmp_path / "out"))
    failed = ForkedRanks(_script, [*words.split(), "--size", "huge"], log=tmp_path / "failed.txt")
    assert failed.wait() == [2] and "--size 'huge'" in failed.output()


@pytest.mark.parametrize("form", ["parquet", "shards"])
def test_tasks_of_slurm_share_the_work(frames: Path, whole: Path, tmp_path: Path, form: str) -> None:
    words = f"--data.source folder --data.root {frames} --data.options.num_classes 4 --data.options.depth_unit mm"
    words += f" --output {tmp_path / 'out'} --shard_mb 0.02 --format {form}"
    tasks = [
        ForkedRanks(_script, words.split(), log=tmp_path / f"{number}.txt", SLURM_PROCID=str(number), SLURM_NTASKS="2",
                    SLURM_LOCALID=str(number), SLURM_JOB_ID="7")
        for number in range(2)
    ]  # fmt: skip
    assert [task.wait() for task in tasks] == [[0], [0]], [task.output() for task in tasks]
    assert "[rank 1 of 2] 23 items of folder in" in tasks[1].output() and " 0 there already" in tasks[1].output()
    if form == "shards":
        whole = tmp_path / "whole"
        prepared(folder(frames), whole, format="shards")
    assert file_bytes(tmp_path / "out") == file_bytes(whole)


@pytest.mark.slow
def test_the_script_under_torchrun(frames: Path, whole: Path, tmp_path: Path) -> None:
    words = f"--data.source folder --data.root {frames} --data.options.num_classes 4 --data.options.depth_unit mm"
    words += f" --output {tmp_path / 'out'} --shard_mb 0.02"
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [*TORCHRUN, str(ROOT / "scripts" / "prepare_data.py"), *words.split()],
        capture_output=True, text=True, env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[rank 1 of 2]" in done.stdout and file_bytes(tmp_path / "out") == file_bytes(whole)


def test_sources_without_a_folder(tmp_path: Path) -> None:
    source = build_source("rooms", num_frames=6, image_size=24, cache_dir=tmp_path / "cache")
    assert prepared(source, tmp_path / "out").rows == 6
    assert_same_items(source, HubSource(tmp_path / "out"))


def test_several_folders_are_prepared_as_a_run_reads_them(tmp_path: Path) -> None:
    roots = [write_frames(tmp_path / name, 6, labels="label/{i}.png") for name in ("kitchen", "office")]
    flags = ["--data.options.num_classes", "4", "--data.options.depth_unit", "mm"]
    for form in (["--data.root", *map(str, roots)], ["--data.root", f"[{roots[0]}, {roots[1]}]"]):
        source = build_prepared_source(parse_preparation([*form, *flags]))
        assert len(source) == 12 and {key.split("/")[0] for key in keys_of(source)} == {"kitchen", "office"}
    prepared(source, tmp_path / "out")
    assert_same_items(source, HubSource(tmp_path / "out"))
    held = ["--data.options.validation", "office", "--data.split", "train"]
    kept = build_prepared_source(parse_preparation(["--data.root", *map(str, roots), *flags, *held]))
    assert {key.split("/")[0] for key in keys_of(kept)} == {"kitchen"}


@pytest.mark.parametrize("form", ["parquet", "shards"])
def test_the_closing_line_says_how_to_read_it_and_the_folder_of_a_split_is_that_split(
    frames: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = {"parquet": "hub", "shards": "shards"}[form]
    for name, split in (("train", "train"), ("whole", "all")):
        out = tmp_path / name
        flags = ["--data.root", str(frames), "--data.split", split, "--data.options.depth_unit", "mm"]
        assert main([*flags, "--format", form, "--size", "16", "--output", str(out)]) == 0
        words = shlex.split(capsys.readouterr().out.strip().split("read it with: ")[-1])
        told = dict(zip(words[::2], words[1::2], strict=True))
        assert told["--data.source"] == reader
        read = build_source(reader, root=told["--data.root"], split=told.get("--data.train_split", "train"))
        assert len(read) == len(build_source(reader, root=str(out), split="all")) > 0
    assert len(build_source(reader, root=str(tmp_path / "train"), split="train")) > 0
    with pytest.raises(DataError, match="no split 'validation'"):
        build_source(reader, root=str(tmp_path / "train"), split="validation")
