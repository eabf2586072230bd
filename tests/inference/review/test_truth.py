"""Annotations shown beside what was detected, and the further files of detect_actions.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.detections import PHASES, detection
from m33d_hf.errors import ConfigError, LabelError
from m33d_hf.inference.review.truth import Truth
from m33d_hf.inference.review.writing import Exports

RUNS = [0, 0, 1, 2]


def _annotate(folder: Path, last: str = "Packaging") -> Path:
    folder.mkdir()
    rows = [f"0,14,{PHASES[0]}", f"15,29,{PHASES[1]}", f"30,39,{last}"]
    (folder / "v1-phase.csv").write_text("\n".join(["start_frame,end_frame,phase", *rows]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_an_annotation_is_found_by_its_name(tmp_path: Path, whole: bool) -> None:
    folder = _annotate(tmp_path / "truth")
    truth = Truth(folder if whole else folder / "v1-phase.csv", ["v1", "v2"])
    found = truth.phases("v1", detection(tmp_path / "v1.mp4", RUNS))
    np.testing.assert_array_equal(found, np.repeat([0, 1, 2], [15, 15, 10]))
    assert truth.phases("v2", detection(tmp_path / "v2.mp4", RUNS)) is None


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    folder = _annotate(tmp_path / "truth", "Packagng")
    truth = Truth(folder, ["v1"])
    with pytest.raises(LabelError, match=r"v1-phase\.csv, line 4: the phase 'Packagng' is none of .*'Packaging'"):
        truth.phases("v1", detection(tmp_path / "v1.mp4", RUNS))
    with pytest.raises(ConfigError, match=r"no annotation of any of the videos \(v7"):
        Truth(folder, ["v7"])
    with pytest.raises(ConfigError, match="does not exist"):
        Truth(tmp_path / "nowhere", ["v1"])
    with pytest.raises(ConfigError, match="--truth is shown on the pages of --export html"):
        Exports(tmp_path, ["srt"], str(folder), ["v1"])


def test_what_will_not_fit_is_said_before_anything_is_detected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, names = _annotate(tmp_path / "truth", "Packagng"), list(PHASES)
    exports = Exports(tmp_path, ["html"], str(folder), ["v1", "v2"])
    with pytest.raises(LabelError, match=r"v1-phase\.csv, line 4: the phase 'Packagng' is none of .*'Packaging'"):
        exports.check(names, {"v1": tmp_path / "v1.mp4"}, None)
    exports.check([*names, "Packagng"], {"v1": tmp_path / "v1.mp4"}, None)
    assert not capsys.readouterr().err
    (folder / "v2-phase.csv").write_text(f"start_frame,end_frame,phase\n0,39,{names[0]}\n", encoding="utf-8")
    exports = Exports(tmp_path, ["html"], str(folder), ["v1", "v2"])
    exports.check(names, {"v1": tmp_path / "v1.mp4", "v2": tmp_path / "v2.mp4"}, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("v1: it will not be exported: ") and "line 4: the phase 'Packagng' is none of" in line
    with pytest.raises(LabelError, match="Packagng"):
        exports.write("v1", detection(tmp_path / "v1.mp4", RUNS))
    assert [path.name for path in exports.write("v2", detection(tmp_path / "v2.mp4", RUNS))] == ["v2_review.html"]
    for kind in ("srt", "vtt"):
        with pytest.raises(LabelError, match="cannot be the text of a subtitle; export json"):
            Exports(tmp_path, [kind], None, []).check([*names, "a --> b"], {}, 25.0)
    Exports(tmp_path, ["json"], None, []).check([*names, "a --> b"], {}, 25.0)
    frames, film = tmp_path / "frames", tmp_path / "v1.mp4"
    frames.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(frames / f"{number}.png")
    texts = Exports(tmp_path, ["srt"], None, [])
    with pytest.raises(ConfigError, match=r"--export srt needs times, .* of frames; pass --fps"):
        texts.check(names, {"frames": frames}, None)
    texts.check(names, {"frames": frames}, 25.0)
    texts.check(names, {"frames": frames, "v1": film}, None)
    assert "frames: it will not be exported (--fps)" in capsys.readouterr().err


def test_all_forms_at_once(tmp_path: Path) -> None:
    folder = _annotate(tmp_path / "truth")
    exports = Exports(tmp_path, ["json", "html", "srt", "vtt", "srt"], str(folder), ["v1"])
    written = exports.write("v1", detection(tmp_path / "v1.mp4", RUNS))
    assert [path.name for path in written] == [
        "v1_review.html", "v1_segments.srt", "v1_segments.vtt", "v1_segments.json",
    ]  # fmt: skip
    assert '"name":"truth"' in written[0].read_text(encoding="utf-8")
    assert json.loads(written[3].read_text(encoding="utf-8"))["video"] == "v1"
    assert Exports(tmp_path, [], None, ["v1"]).write("v1", detection(tmp_path / "v1.mp4", RUNS)) == []
