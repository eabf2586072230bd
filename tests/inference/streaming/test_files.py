"""Following from the command line: lines and rows as clips end, a clean end by Ctrl-C, and going on."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from helpers.feeds import causal_model, detector, growing, sender
from helpers.videos import numbered_frame, write_video
from m33d_hf.inference.live.clips import ClipPrediction, Gap
from m33d_hf.inference.streaming.files import FollowOptions, _rows_so_far, clip_line, clip_note
from m33d_hf.inference.streaming.words import camera_offsets, live_sources
from m33d_hf.scripts import detect_actions


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Sixty frames of MPEG-TS."""
    return write_video(tmp_path / "film.ts", 60, codec="mpeg2video", frames=[numbered_frame(n) for n in range(60)])


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command, without what to follow."""
    causal_model().save_pretrained(tmp_path / "model")
    return ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--device", "cpu", "--timeout", "1"]


def test_rows_are_there_while_the_file_grows_and_all_of_them_after_going_on(
    tmp_path: Path, film: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    target, table = tmp_path / "or1.ts", tmp_path / "out" / "or1_live.csv"
    data = film.read_bytes()
    cut = int(0.6 * len(data)) // 188 * 188 + 100  # inside a packet
    early: list[int] = []

    def look() -> None:
        while not early and writer.is_alive():
            early.extend([len(_rows(table))] if table.exists() and len(_rows(table)) else [])
            time.sleep(0.01)

    with growing(target, data[:cut], pause=0.2) as writer:
        looker = threading.Thread(target=look)
        looker.start()
        # So small a file is otherwise read to its end to find out what it is.
        quick = ["--stream_options", "probesize=20000", "analyzeduration=200000"]
        assert detect_actions.main([*words, "--follow", str(target), *quick]) == 1
    looker.join()
    assert early, "no row was in the file before the recording was over"
    told = capfd.readouterr()
    first = _rows(table)
    assert len(told.out.splitlines()) == len(first) - 1 and "s after its last frame" in told.out
    assert first[-1]["note"] == "stalled: the file has not grown for 1 s" and first[-1]["clip"] == ""
    assert "go on with --resume" in told.err
    whole = table.read_text(encoding="utf-8")
    again = FollowOptions(str(target), tmp_path / "out", resume=True)
    kept = _rows_so_far(detector(), again)
    for torn in ("7", "7,28", whole.splitlines()[1][:-3]):  # as a full disk leaves a row; the last has all cells
        table.write_text(f"{whole}{torn}", encoding="utf-8")
        assert _rows_so_far(detector(), again) == kept
    table.write_text(f"{whole}7,28\n", encoding="utf-8")
    assert _rows_so_far(detector(), again) == kept
    table.write_text(f"{whole}7,28", encoding="utf-8")
    target.write_bytes(data)
    assert detect_actions.main([*words, "--follow", str(target), "--resume"]) == 1
    rows = [row for row in _rows(table) if row["clip"]]
    wanted = detector().detect(film)
    assert [(row["clip"], row["start_frame"], row["end_frame"]) for row in rows] == [
        (str(n), str(clip.start), str(clip.stop - 1)) for n, clip in enumerate(wanted.clips)
    ]
    for row, clip in zip(rows, wanted.clips, strict=True):
        assert [float(row[name]) for name in wanted.names] == pytest.approx(list(clip.probabilities), abs=2e-6)
    ends = [float(row["end_time"].removeprefix("00:")) for row in rows]
    assert ends == pytest.approx([0.16 * (n + 1) for n in range(15)], abs=0.006)
    assert sum("stalled" in row["note"] for row in _rows(table)) == 2


def test_a_file_is_waited_for_whatever_its_format_and_a_pipe_ends_where_its_sender_does(
    tmp_path: Path, film: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    format_of = ["--stream_format", "mpegts"]
    assert detect_actions.main([*words, "--follow", str(film), *format_of]) == 1
    rows = _rows(tmp_path / "out" / "film_live.csv")
    assert (
        rows[-1]["note"] == "stalled: the file has not grown for 1 s"
        and "go on with --resume" in capfd.readouterr().err
    )
    both = FollowOptions({"left": "/dev/null", "right": str(film)}, tmp_path, stream_format="mpegts")
    assert both.growing and not FollowOptions("/dev/null", tmp_path, stream_format="v4l2").growing
    assert not FollowOptions("video=Camera", tmp_path, stream_format="dshow").growing
    for name, given in (("plain", []), ("stated", format_of)):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        sending = threading.Thread(target=pipe.write_bytes, args=(film.read_bytes(),))
        sending.start()
        assert detect_actions.main([*words[:-1], "5", "--follow", str(pipe), *given]) == 0, capfd.readouterr().err
        sending.join()
        seen = _rows(tmp_path / "out" / f"{name}_live.csv")
        assert seen[-1]["note"].startswith("closed: the sender closed the connection, and nothing tells whether all")
        assert [row["phase"] for row in seen[:-1]] == [row["phase"] for row in rows[:-1]]


@pytest.mark.parametrize(
    ("name", "stated", "text"),
    [
        ("live.m3u8", "hls", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nfilm.ts\n#EXT-X-ENDLIST\n"),
        ("parts.txt", "concat", "ffconcat version 1.0\nfile film.ts\n"),
    ],
)
def test_a_file_that_only_names_others_is_a_stream(
    tmp_path: Path, film: Path, words: list[str], name: str, stated: str, text: str
) -> None:
    """It ends where it says so; as a growing file it was waited for, and its frames were those of a torn end."""
    (tmp_path / name).write_text(text)
    assert film.parent == tmp_path
    assert detect_actions.main([*words[:-1], "5", "--follow", str(tmp_path / name), "--stream_format", stated]) == 0
    rows = _rows(tmp_path / "out" / f"{Path(name).stem}_live.csv")
    assert rows[-1]["note"].startswith("finished: ")
    wanted = detector().detect(film)
    assert [(row["start_frame"], row["phase"]) for row in rows[:-1]] == [
        (str(clip.start), wanted.names[clip.probabilities.argmax()]) for clip in wanted.clips
    ]


def test_ctrl_c_ends_it_cleanly(
    tmp_path: Path, film: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with sender(film.read_bytes(), then="hold") as address:
        table = tmp_path / "out" / f"127.0.0.1_{address.rpartition(':')[2]}_live.csv"

        def interrupt() -> None:
            while not (table.exists() and len(_rows(table)) > 1):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert detect_actions.main([*words[:-1], "60", "--follow", address]) == 0
        thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "stopped after 00:0" in capfd.readouterr().err
    rows = _rows(table)
    assert rows[-1]["note"] == "stopped: stopped by the caller"
    assert len(rows) > 2 and all(row["phase"] for row in rows[:-1])


def test_what_makes_no_sense_is_refused_before_anything_is_read(
    tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cam_live.csv").write_text("precious\n")
    follow = [*words, "--follow", str(tmp_path / "cam.ts")]
    for more, sentence in (
        ([], "a feed cannot be recorded twice: pass --resume"),
        (["--fps", "4"], "--fps has no use with --follow"),
        (["--stream_options", "tcp"], "--stream_options takes NAME=VALUE"),
        (["--resume"], "cam_live.safetensors: does not exist"),
    ):
        assert detect_actions.main([*follow, *more]) == 2
        assert sentence in capfd.readouterr().err
    assert (out / "cam_live.csv").read_text() == "precious\n"
    assert detect_actions.main([*words, "--follow", "none.ts", "--timeout", "0"]) == 2
    assert "timeout is 0.0; it must be above 0" in capfd.readouterr().err
    assert detect_actions.main([*words, "--follow", "none.ts", "--resume"]) == 2
    assert "--resume: " in capfd.readouterr().err
    assert detect_actions.main([*words[:-2], "--video", str(tmp_path), "--resume"]) == 2
    assert "--resume has no use with --video" in capfd.readouterr().err
    assert detect_actions.main([*words, "--follow", str(tmp_path / "none.ts")]) == 2
    assert "does not exist, after waiting 1 s for it" in capfd.readouterr().err
    assert not (out / "none_live.csv").exists(), "a feed that never began leaves no table in the way"


def test_names_and_lines() -> None:
    address = "rtsp://me:secret@10.0.0.1:554/or 1/left?key=9"
    options = FollowOptions(address, Path("out"))
    assert options.table == Path("out/10.0.0.1_554_or_1_left_live.csv")
    assert FollowOptions("/data/or1.ts", Path("out")).table == Path("out/or1_live.csv")
    import numpy as np

    shares = np.array([0.2, 0.8])
    gaps = (Gap(1.0, 3.0, 0, "there are no frames from 1.00 to 3.00 s"), Gap(None, None, 3, "a frame is late"))
    clip = ClipPrediction(0, 4, True, shares, shares, 0.0, 4.5, 0.123, gaps)
    assert clip_note(clip) == "there are no frames from 1.00 to 3.00 s; a frame is late (3 such frames)"
    assert clip_line(clip, ["a", "b"]) == (
        "00:00.00 to 00:04.50  b 80%  0.12 s after its last frame  "
        "[there are no frames from 1.00 to 3.00 s; a frame is late (3 such frames)]"
    )


def test_cameras_of_a_case_are_followed_into_one_table_and_taken_up_again(
    tmp_path: Path, film: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = [numbered_frame(7 + n) for n in range(60)]
    films = {"left": film, "right": write_video(tmp_path / "r.ts", 60, codec="mpeg2video", frames=pixels)}
    targets = {name: tmp_path / f"{name}_live.ts" for name in films}
    for name, path in films.items():
        targets[name].write_bytes(path.read_bytes()[: int(0.62 * path.stat().st_size)])
    named = [f"{name}={path}" for name, path in targets.items()]
    more = ["--wait", "5", "--offsets", "right=0.02"]
    assert detect_actions.main([*words, "--follow", *named, *more]) == 1
    told = capfd.readouterr()
    assert f"following left ({targets['left']}), right ({targets['right']}), into" in told.err
    assert "go on with --resume" in told.err
    table = tmp_path / "out" / "left_right_live.csv"
    first = _rows(table)
    assert first[-1]["note"] == (
        "stalled: left stalled: the file has not grown for 1 s; right stalled: the file has not grown for 1 s"
    )
    for name, path in films.items():
        targets[name].write_bytes(path.read_bytes())
    assert detect_actions.main([*words, "--follow", *named, *more, "--resume"]) == 1
    rows, wanted = [row for row in _rows(table) if row["clip"]], detector().detect(films, offsets={"right": 0.02})
    assert len(first) < len(rows) == 15 and {row["cameras"] for row in rows} == {"left;right"}
    for number, (row, clip) in enumerate(zip(rows, wanted.clips, strict=True)):
        assert (row["clip"], row["start_frame"]) == (str(number), str(clip.start))
        assert [float(row[name]) for name in wanted.names] == pytest.approx(list(clip.probabilities), abs=2e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--follow", "left=a.ts", "b.ts"], "several cameras as NAME=ADDRESS, such as left=b.ts"),
        (["--follow", "left=a.ts", "left=b.ts"], "two cameras have one name: left, left"),
        (["--follow", "left=a.ts", "--offsets", "left"], "--offsets takes CAMERA=SECONDS, such as right=2.5, not"),
        (["--follow", "left=a.ts", "--offsets", "left=nan"], "--offsets takes CAMERA=SECONDS"),
        (["--follow", "left=a.ts", "--offsets", "right=1"], "offsets has a camera 'right', but the videos are by"),
        (["--follow", "left=a.ts", "--wait", "0"], "wait is 0.0; it must be above 0"),
        (["--follow", "left=a.ts", "right=tcp://127.0.0.1:1"], "state when each begins with offsets, --offsets"),
        (["--follow", "a.ts", "--wait", "3"], "--wait has no use with --follow of one camera"),
        (["--follow", "a.ts", "--offsets", "left=3"], "--offsets has no use with --follow of one camera"),
        (["--follow", "left=a.ts", "--depth"], "--depth has no use with --follow"),
        (["--follow", "left=a.ts", "--cameras", "folder"], "--cameras says which recordings show one case"),
        (["--video", ".", "--wait", "3"], "--wait has no use with --video"),
    ],
)
def test_cameras_that_make_no_sense_are_refused(
    words: list[str], given: list[str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    timeout = words.index("--timeout") if "--video" in given else len(words)
    assert detect_actions.main([*words[:timeout], *given]) == 2
    assert sentence in capfd.readouterr().err


@pytest.mark.parametrize("cameras", [[], ["left", "right"]])
def test_depth_is_not_followed_and_that_is_said(
    tmp_path: Path, film: Path, words: list[str], cameras: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    given = [f"{name}={film}" for name in cameras] or [str(film)]
    both = {"task_inputs": ["rgb", "depth"], "task_fusion": "concatenation"}
    for fields, code, sentence in (
        ({"task_inputs": ["depth"]}, 2, "this model sees depth alone"),
        (both, 1, "a live feed has no depth, and it looks at RGB alone here"),
    ):
        causal_model(**fields).save_pretrained(tmp_path / "model")
        assert detect_actions.main([*words, "--follow", *given]) == code  # 1: the file does not grow any more
        assert sentence in capfd.readouterr().err


def test_words_of_sources() -> None:
    assert live_sources(["rtsp://10.0.0.1/a?key=1"]) == "rtsp://10.0.0.1/a?key=1"
    assert live_sources(["./a=b.ts"]) == "./a=b.ts" and live_sources(["/dev/video0"]) == "/dev/video0"
    assert live_sources(["left=rtsp://a?key=1", "cam-2=b.ts"]) == {"left": "rtsp://a?key=1", "cam-2": "b.ts"}
    assert camera_offsets(["left=0", "right=-2.5"]) == {"left": 0.0, "right": -2.5} and camera_offsets([]) is None
    options = FollowOptions({"left": "rtsp://me:secret@a/1", "right": "b.ts"}, Path("out"))
    assert options.table == Path("out/left_right_live.csv") and options.growing
    assert options.told == "left (rtsp://a/1), right (b.ts)"
