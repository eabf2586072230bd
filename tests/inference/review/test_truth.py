"""Annotations shown beside what was detected, and the further files of detect_actions.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.detections import PHASES, detection
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.inference.review.truth import Truth
from m33d_hf.inference.review.truth_options import TruthOptions, truth_options
from m33d_hf.inference.review.writing import Exports
from m33d_hf.modeling.video_times_m33d import Lack

RUNS = [0, 0, 1, 2]


def _videos(folder: Path, *names: str) -> dict[str, Path]:
    """Name -> a video that is not there, so that nothing is known of its frames."""
    return {name: folder / f"{name}.mp4" for name in names}


def _pictures(folder: Path, count: int) -> Path:
    """A video of `count` frames."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{number:04}.png")
    return folder


def _annotate(folder: Path, last: str = "Packaging") -> Path:
    folder.mkdir()
    rows = [f"0,14,{PHASES[0]}", f"15,29,{PHASES[1]}", f"30,39,{last}"]
    (folder / "v1-phase.csv").write_text("\n".join(["start_frame,end_frame,phase", *rows]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_an_annotation_is_found_by_its_name(tmp_path: Path, whole: bool) -> None:
    folder = _annotate(tmp_path / "truth")
    truth = Truth(folder if whole else folder / "v1-phase.csv", _videos(tmp_path, "v1", "v2"))
    found = truth.phases("v1", detection(tmp_path / "v1.mp4", RUNS))
    np.testing.assert_array_equal(found, np.repeat([0, 1, 2], [15, 15, 10]))
    assert truth.phases("v2", detection(tmp_path / "v2.mp4", RUNS)) is None


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    folder = _annotate(tmp_path / "truth", "Packagng")
    truth = Truth(folder, _videos(tmp_path, "v1"))
    with pytest.raises(LabelError, match=r"v1-phase\.csv, line 4: the phase 'Packagng' is none of .*'Packaging'"):
        truth.phases("v1", detection(tmp_path / "v1.mp4", RUNS))
    with pytest.raises(ConfigError, match=r"no annotation of any of the videos \(v7"):
        Truth(folder, _videos(tmp_path, "v7"))
    with pytest.raises(ConfigError, match="does not exist"):
        Truth(tmp_path / "nowhere", _videos(tmp_path, "v1"))
    with pytest.raises(ConfigError, match="--truth is shown on the pages of --export html"):
        Exports(tmp_path, ["srt"], str(folder), _videos(tmp_path, "v1"))


def test_what_will_not_fit_is_said_before_anything_is_detected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, names = _annotate(tmp_path / "truth", "Packagng"), list(PHASES)
    exports = Exports(tmp_path, ["html"], str(folder), _videos(tmp_path, "v1", "v2"))
    with pytest.raises(LabelError, match=r"v1-phase\.csv, line 4: the phase 'Packagng' is none of .*'Packaging'"):
        exports.check(names)
    exports.check([*names, "Packagng"])
    assert not capsys.readouterr().err
    (folder / "v2-phase.csv").write_text(f"start_frame,end_frame,phase\n0,39,{names[0]}\n", encoding="utf-8")
    exports = Exports(tmp_path, ["html"], str(folder), _videos(tmp_path, "v1", "v2"))
    exports.check(names)
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("v1: its page is without its annotation: ")
        and "line 4: the phase 'Packagng' is none of" in line
    )
    without = exports.write("v1", detection(tmp_path / "v1.mp4", RUNS))
    assert [path.name for path in without.files] == ["v1_review.html"] and "Packagng" in without.lacking
    whole = exports.write("v2", detection(tmp_path / "v2.mp4", RUNS))
    assert [path.name for path in whole.files] == ["v2_review.html"] and not whole.lacking
    for kind in ("srt", "vtt"):
        with pytest.raises(LabelError, match="cannot be the text of a subtitle; export json"):
            Exports(tmp_path, [kind], None, {}, 25.0).check([*names, "a --> b"])
    Exports(tmp_path, ["json"], None, {}, 25.0).check([*names, "a --> b"])
    frames, film = _pictures(tmp_path / "frames", 3), tmp_path / "v1.mp4"
    with pytest.raises(ConfigError, match=r"--export srt needs times, .* of frames; pass --fps"):
        Exports(tmp_path, ["srt"], None, {"frames": frames}).check(names)
    Exports(tmp_path, ["srt"], None, {"frames": frames}, 25.0).check(names)
    Exports(tmp_path, ["srt"], None, {"frames": frames, "v1": film}).check(names)
    assert "frames: it will not be exported (--fps)" in capsys.readouterr().err


def test_all_forms_at_once(tmp_path: Path) -> None:
    folder = _annotate(tmp_path / "truth")
    exports = Exports(tmp_path, ["json", "html", "srt", "vtt", "srt"], str(folder), _videos(tmp_path, "v1"))
    written, lacking = exports.write("v1", detection(tmp_path / "v1.mp4", RUNS))
    assert not lacking
    assert [path.name for path in written] == [
        "v1_review.html", "v1_segments.srt", "v1_segments.vtt", "v1_segments.json",
    ]  # fmt: skip
    assert '"name":"truth"' in written[0].read_text(encoding="utf-8")
    assert json.loads(written[3].read_text(encoding="utf-8"))["video"] == "v1"
    assert Exports(tmp_path, [], None, _videos(tmp_path, "v1")).write("v1", detection(tmp_path / "v1.mp4", RUNS)) == (
        [],
        "",
    )


def _per_second(folder: Path, first: int = 0) -> Path:
    """Annotation of a video of 40 frames at 10 per second, one label a second."""
    folder.mkdir()
    lines = "".join(f"{first + second}\t{PHASES[second // 2]}\n" for second in range(4))
    (folder / "v1-phase.txt").write_text(f"Frame\tPhase\n{lines}", encoding="utf-8")
    return folder


def test_labels_at_one_per_second_are_refused_before_a_detection_and_shown_where_that_is_stated(tmp_path: Path) -> None:
    folder, videos = _per_second(tmp_path / "truth"), {"v1": _pictures(tmp_path / "v1", 40)}
    with pytest.raises(DataError, match=r"frame counts do not match.* pass --truth_options label_fps=1\.") as told:
        Exports(tmp_path, ["html"], str(folder), videos, 10.0).check(list(PHASES))
    assert "--data." not in str(told.value)
    stated = truth_options(["label_fps=1", "length_tolerance=2"])
    assert stated == TruthOptions(label_fps=1.0, length_tolerance=2.0)
    exports = Exports(tmp_path, ["html"], str(folder), videos, 10.0, stated)
    exports.check(list(PHASES))
    found = Truth(folder, videos, 10.0, stated).phases("v1", detection(videos["v1"], RUNS, fps=10.0))
    np.testing.assert_array_equal(found, np.repeat([0, 0, 1, 1], 10))


def test_whether_the_first_frame_is_0_or_1_is_found_or_asked_for(tmp_path: Path) -> None:
    folder, videos = _per_second(tmp_path / "truth", first=1), {"v1": _pictures(tmp_path / "v1", 60)}
    with pytest.raises(ConfigError, match=r"Pass --truth_options label_start=1 \(or 0\)"):
        Truth(folder, videos, 10.0, TruthOptions(label_fps=1.0))
    seen = detection(videos["v1"], [0] * 6, fps=10.0)
    for first, before in ((1, []), (0, [255] * 10)):
        given = TruthOptions(label_fps=1.0, label_start=first)
        found = Truth(folder, videos, 10.0, given).phases("v1", seen)
        expected = [*before, *np.repeat([0, 0, 1, 1], 10), *[255] * (20 - len(before))]
        np.testing.assert_array_equal(found, expected)
    (folder / "other-phase.txt").write_text(f"Frame\tPhase\n0\t{PHASES[0]}\n1\t{PHASES[0]}\n", encoding="utf-8")
    found = Truth(folder, videos, 10.0, TruthOptions(label_fps=1.0)).phases("v1", seen)
    assert found is not None and found[0] == 255 and found[10] == 0, "another file of the data set counts from 0"


def test_an_annotation_of_a_recording_that_was_cut_short_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    folder, videos = tmp_path / "truth", _videos(tmp_path, "v1")
    folder.mkdir()
    text = f"start_frame,end_frame,phase\n0,14,{PHASES[0]}\n15,99,{PHASES[1]}"
    (folder / "v1-phase.csv").write_text(text, encoding="utf-8")
    whole, cut = (detection(videos["v1"], RUNS, lacks=lacks) for lacks in ((), (Lack(1.6, 4.0, 60, 40, "cut short"),)))
    np.testing.assert_array_equal(Truth(folder, videos).phases("v1", cut), np.repeat([0, 1], [15, 25]))
    with pytest.raises(DataError, match=r"longer than the video.* pass --truth_options length_tolerance=60"):
        Truth(folder, videos).phases("v1", whole)
    exports = Exports(tmp_path, ["html", "srt", "vtt", "json"], str(folder), videos)
    written = exports.write("v1", whole)
    assert len(written.files) == 4 and all(path.is_file() for path in written.files)
    assert "length_tolerance" in written.lacking and '"name":"truth"' not in written.files[0].read_text("utf-8")


def test_options_of_an_annotation_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--truth_options has no 'label_fp'; it takes .*Did you mean 'label_fps'"):
        truth_options(["label_fp=1"])
    with pytest.raises(ConfigError, match="--truth_options label_fps"):
        truth_options(["label_fps=0"])
    with pytest.raises(ConfigError, match="--truth_options takes NAME=VALUE, such as label_fps=1"):
        truth_options(["label_fps"])
    with pytest.raises(ConfigError, match="--truth_options are of the annotations of --truth"):
        Exports(tmp_path, ["html"], None, {}, None, TruthOptions(label_fps=1.0))
    folder = _annotate(tmp_path / "truth", "idle")
    shown = Truth(folder, _videos(tmp_path, "v1"), None, TruthOptions(ignored_phases="idle"))
    assert not shown.check(list(PHASES))
    found = shown.phases("v1", detection(tmp_path / "v1.mp4", RUNS))
    np.testing.assert_array_equal(found, np.repeat([0, 1, 255], [15, 15, 10]))
