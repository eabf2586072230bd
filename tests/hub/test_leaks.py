"""What names this machine is found, and what only looks like it holds nobody up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from m33d_hf.errors import HubError
from m33d_hf.hub.leaks import refuse_leaks, secrets_of
from m33d_hf.modeling import auto_m33d

_CODE = Path(auto_m33d.__file__).parent


def _folder(tmp_path: Path, text: str = "A model.") -> Path:
    """Code of this package, and a card."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in _CODE.glob("*_m33d.py"):
        shutil.copy(path, folder)
    shutil.copy(_CODE.parent / "model_cards" / "endpoint_handler.py", folder / "handler.py")
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("word", ["camera", "vision", "server", "student", "/data", "encoder", "picture"])
def test_names_that_are_words_of_the_package_hold_nobody_up(word: str, tmp_path: Path) -> None:
    text = "Pictures of one camera, by a vision transformer, as a server or a student may use it: m33d_hf/data, ../data"
    files = "m33d_hf/inference/live/camera.py, weights/vision_transformer, models/vision-base, camera_clips"
    refuse_leaks(_folder(tmp_path, f"{text}, {files}"), {word})


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("jsmith", "trained by jsmith"),
        ("jsmith", "from /home/jsmith/videos"),
        ("student", "from /home/student/videos"),
        ("camera", "sent by me@camera"),
        ("/data", "from /data/patients"),
        ("/data", "file:///data"),
        ("/srv/recordings", "from /mnt/srv/recordings/1"),
        ("gpu-box-1", "measured on gpu-box-1."),
        ("jsmith", "from /home/x/jsmith_data"),
        ("student", "from /mnt/nas/student"),
        ("student", "It was in /mnt/nas/student."),
        ("server", "from http://server:80/x"),
        ("server", "from rtsp://server.clinic.org/1"),
    ],
)
def test_what_names_this_machine_is_found(word: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"README.md names .*nothing was sent"):
        refuse_leaks(_folder(tmp_path, text), {word})


@pytest.mark.parametrize(
    ("root", "text"),
    [("/data/", "/data/patients"), ("clinic7/", "clinic7/1"), ("/srv/x//", "/srv/x"), ("C:\\films\\", "C:\\films\\1")],
)
def test_a_folder_is_found_however_it_was_given(root: str, text: str, tmp_path: Path) -> None:
    secrets = {word for word in secrets_of({"data": {"root": root}}) if word.rstrip("/\\") == root.rstrip("/\\")}
    with pytest.raises(HubError, match=r"README.md names .*nothing was sent"):
        refuse_leaks(_folder(tmp_path, f"from {text}"), secrets)


@pytest.mark.parametrize(
    ("root", "text"),
    [
        ("polyps/", '"0": "polyps", eval/iou/polyps'),
        ("frames/", "train/frames"),
        ("depth//", "eval/loss/depth"),
        ("train/", "train/loss"),
        ("rooms\\", "rooms/semseg"),
        ("data/", "m33d_hf/data/x"),
    ],
)
def test_a_class_or_a_figure_named_like_a_folder_is_no_leak(root: str, text: str, tmp_path: Path) -> None:
    given = secrets_of({"data": {"root": root}}) - secrets_of({})
    refuse_leaks(_folder(tmp_path, text), given)


@pytest.mark.parametrize(
    ("root", "text"),
    [("polyps/", "polyps/1"), ("polyps//", "x=/mnt/polyps/1"), ("train/", "/mnt/nas/train/7.png")],
)
def test_a_folder_of_one_name_is_found_in_paths(root: str, text: str, tmp_path: Path) -> None:
    given = secrets_of({"data": {"root": root}}) - secrets_of({})
    with pytest.raises(HubError, match=r"README.md names .*nothing was sent"):
        refuse_leaks(_folder(tmp_path, text), given)


def test_a_name_within_another_word_is_none(tmp_path: Path) -> None:
    refuse_leaks(_folder(tmp_path, "by jsmithson"), {"jsmith"})


def test_code_that_was_changed_is_searched_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    with (folder / "tasks_m33d.py").open("a", encoding="utf-8") as file:
        file.write("# of jsmith\n")
    with pytest.raises(HubError, match=r"tasks_m33d.py names 'jsmith'"):
        refuse_leaks(folder, {"jsmith"})


def test_long_names_are_found_in_weights(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\0" * 99 + b"/home/workstation7/x" + b"\0" * 99)
    with pytest.raises(HubError, match=r"model.safetensors names 'workstation7'"):
        refuse_leaks(folder, {"workstation7"})
