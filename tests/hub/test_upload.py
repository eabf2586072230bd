"""One commit and one tag on a hub of this machine, by the real client, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_large_files import UNTOLD_TOKEN
from helpers.hub_server import READ_TOKEN, TOKEN, Blob, Hub, client_environment, running

SCRIPT = Path(__file__).parents[1] / "helpers" / "send_folder.py"
CONTENT = {"README.md": b"---\nlicense: mit\n---\n", "model.safetensors": bytes(range(256)) * 4096, "a_m33d.py": b"1\n"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub; whatever was asked of it, it must have known."""
    with running() as hub:
        yield hub
    assert not hub.unknown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is sent."""
    return _write(tmp_path / "folder", CONTENT)


def _write(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, value in content.items():
        (folder / name).write_bytes(value)
    return folder


def _send(hub: Hub, folder: Path, token: str | None = TOKEN, repo: str = "org/name", **options: Any) -> dict[str, Any]:
    home = folder.parent / "home"
    words = [sys.executable, str(SCRIPT), str(folder), repo, json.dumps(options)]
    environment = client_environment(hub, str(home), token)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def _files(hub: Hub, repo: str = "org/name") -> dict[str, bytes]:
    return {name: blob.content for name, blob in hub.repos[repo].files().items() if name != ".gitattributes"}


def test_one_commit_and_one_tag(hub: Hub, folder: Path) -> None:
    sent = _send(hub, folder, tag="v1", new_tag=True)
    repo = hub.repos["org/name"]
    assert _files(hub) == CONTENT and len(repo.commits) == 2  # the hub's own first one, and ours
    assert repo.tags == {"v1": sent["commit"]} and sent["commit"] == repo.commits[-1][0]
    assert all(not with_token for _, path, with_token in hub.log if path.startswith("cdn")), "the token went elsewhere"
    again = _send(hub, folder, tag="v1")
    assert len(repo.commits) == 2 and again["commit"] == sent["commit"]
    assert "has a tag 'v1' already" in _send(hub, folder, tag="v1", new_tag=True)["error"]


def test_what_is_gone_is_removed_and_what_is_others_stays(hub: Hub, folder: Path) -> None:
    _send(hub, folder)
    repo = hub.repos["org/name"]
    repo.commit({**repo.files(), "notes.md": Blob(b"by hand", False)}, "by hand")
    newer = _write(folder.parent / "newer", {"README.md": b"---\nlicense: mit\n---\nnew", "b_m33d.py": b"2\n"})
    _send(hub, newer, replace=["*_m33d.py", "*.safetensors"])
    assert set(_files(hub)) == {"README.md", "b_m33d.py", "notes.md"} and len(repo.commits) == 4


def test_a_connection_cut_in_the_middle_of_an_upload(hub: Hub, folder: Path) -> None:
    hub.cut_uploads = 2
    _send(hub, folder, tag="v1")
    repo = hub.repos["org/name"]
    assert hub.cut_uploads == 0 and _files(hub) == CONTENT and len(repo.commits) == 2


def test_a_connection_cut_before_there_is_an_answer(hub: Hub, folder: Path) -> None:
    hub.cut_requests = 3
    _send(hub, folder, tag="v1")
    assert hub.cut_requests == 0 and _files(hub) == CONTENT and len(hub.repos["org/name"].commits) == 2


def test_a_hub_that_cannot_be_reached_is_said(folder: Path) -> None:
    with running() as hub:
        pass  # nobody listens there any more
    assert "Could not create the repository of org/name" in (said := _send(hub, folder)["error"])
    assert "in 6 attempts" in said and "refused" in said


def test_a_large_file_goes_in_the_parts_that_the_hub_dictates(hub: Hub, folder: Path) -> None:
    hub.part_size, hub.cut_uploads = 300_000, 1  # one of the parts breaks off in the middle
    _send(hub, folder, tag="v1")
    large, whole = CONTENT["model.safetensors"], hashlib.sha256(CONTENT["model.safetensors"]).hexdigest()
    sizes = {number: len(part) for number, part in hub.parts[whole].items()}
    assert sizes == {1: 300_000, 2: 300_000, 3: 300_000, 4: len(large) - 900_000}
    assert _files(hub) == CONTENT and hub.cut_uploads == 0 and len(hub.repos["org/name"].commits) == 2
    put = [path for method, path, _ in hub.log if method == "PUT"]
    assert f"cdn /{whole}" not in put and len(put) == 4 + 1
    assert all(not with_token for _, path, with_token in hub.log if path.startswith("cdn")), "the token went elsewhere"


def test_parts_that_do_not_make_the_file_are_not_committed(hub: Hub, folder: Path) -> None:
    hub.part_size, hub.spoil_parts = 300_000, 100
    said = _send(hub, folder)["error"]
    assert "'model.safetensors'" in said and "The hub's answer: Bad request: the parts are not the file" in said
    assert len(hub.repos["org/name"].commits) == 1
    hub.spoil_parts = 0
    _send(hub, folder)
    assert _files(hub) == CONTENT


def test_a_hub_that_never_takes_it_leaves_no_commit_and_the_next_try_goes_on(hub: Hub, folder: Path) -> None:
    small = b"another large file"
    (folder / "model-2.safetensors").write_bytes(small)
    hub.refuse_commits = 100
    said = _send(hub, folder)["error"]
    assert "in 6 attempts" in said and "goes on with the large files that have arrived" in said
    assert len(hub.repos["org/name"].commits) == 1 and not hub.repos["org/name"].tags
    sent = [path for method, path, _ in hub.log if method == "PUT"]
    hub.refuse_commits = 0
    _send(hub, folder)
    assert _files(hub) == {**CONTENT, "model-2.safetensors": small}
    assert [path for method, path, _ in hub.log if method == "PUT"] == sent  # nothing large was sent twice


def test_two_publishers_at_once(hub: Hub, folder: Path) -> None:
    other = _write(folder.parent / "other", {"README.md": b"---\nlicense: mit\n---\nother", "b_m33d.py": b"2\n"})
    hub.meeting = 2  # both have read the newest commit before either may make one
    replace = ["*_m33d.py", "*.safetensors"]
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(_send, hub, folder, tag="one", replace=replace)
        two = pool.submit(_send, hub, other, tag="two", replace=replace)
        commits = {"one": one.result()["commit"], "two": two.result()["commit"]}
    repo = hub.repos["org/name"]
    assert repo.tags == commits and len(set(commits.values())) == 2 and len(repo.commits) == 3
    assert sum("/commit/" in path for _, path, _ in hub.log) == 3  # one of them was refused, and made again on top
    for name, place in (("one", folder), ("two", other)):
        found = {each: blob.content for each, blob in repo.files(name).items() if each != ".gitattributes"}
        assert found == {path.name: path.read_bytes() for path in place.iterdir()}, "files of both in one commit"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("hf_wrong", "does not accept the token"),
        (None, "hf auth login"),
        (READ_TOKEN, "may not write there (403 Forbidden: Forbidden: you must use a write token to"),
        (UNTOLD_TOKEN, "may not write there (403 Forbidden). Use a token"),
    ],
)
def test_a_token_that_will_not_do(hub: Hub, folder: Path, token: str | None, said: str) -> None:
    message = _send(hub, folder, token)["error"]
    assert said in message and "hf_" not in message and not hub.repos


def test_names_and_revisions_that_cannot_be(hub: Hub, folder: Path) -> None:
    assert "is no name of a repository" in _send(hub, folder, repo="a b/c!")["error"]
