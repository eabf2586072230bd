"""A hub on this machine that also takes commits: the protocol of huggingface_hub's client as far as publishing and
loading go, with large files by git-LFS on a second port, as the real one has them on another host.

Written after what the client asks (`HfApi.create_repo`, `upload_folder`, `create_tag`, `snapshot_download`), not after
our code. Faults are planted by tests: connections cut in the middle of an upload or a download.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from helpers.hub_large_files import READ_TOKEN, TOKEN, LargeFiles

_LARGE = (".safetensors", ".mp4", ".png")
_SPACES = "spaces/"


@dataclass(frozen=True)
class Blob:
    """A file in a commit; `lfs` where it came by git-LFS."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """As the hub names it: git's, or the SHA-256 of large files."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repo:
    """Commits, oldest first, as (id, files, message), and names for them; `sdk` of a Space."""

    commits: list[tuple[str, dict[str, Blob], str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    sdk: str | None = None

    def commit(self, files: dict[str, Blob], message: str) -> str:
        """Add a commit; returns its id."""
        parent = self.commits[-1][0] if self.commits else ""
        listed = repr(sorted((name, blob.oid) for name, blob in files.items()))
        sha = hashlib.sha1(f"{parent}{message}{listed}".encode()).hexdigest()
        self.commits.append((sha, files, message))
        return sha

    def resolve(self, revision: str) -> str | None:
        """Id of a commit."""
        if revision in ("main", "refs/heads/main"):
            return self.commits[-1][0]
        known = {sha for sha, *_ in self.commits}
        return self.tags.get(revision) or (revision if revision in known else None)

    def files(self, revision: str = "main") -> dict[str, Blob]:
        """Files of a commit."""
        wanted = self.resolve(revision)
        return next(files for sha, files, _ in self.commits if sha == wanted)


@dataclass
class Hub:
    """What is stored, what was asked, and which faults are to happen.

    Attributes:
        repos: by their address here: "org/name" of models, "spaces/org/name" of Spaces.
        part_size: bytes of the parts that large files are asked for in; None takes them whole.
        cut_requests: number of requests of the first port whose connection ends before there is an answer.
        cut_uploads: number of large files, or parts of one, whose connection ends after half of their bytes.
        cut_downloads: likewise.
        spoil_parts: number of parts that are stored as something else.
        refuse_commits: number of commits that get no answer but "503".
        meeting: number of first commits that wait for each other; the loser must notice that it has lost.
        log: (method, path, whether a token came with it); "cdn" in front of paths of the second port.
        unknown: requests that nothing answers to; a test that meets one has to add it.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    part_size: int | None = None
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    cut_requests: int = 0
    cut_uploads: int = 0
    cut_downloads: int = 0
    spoil_parts: int = 0
    refuse_commits: int = 0
    meeting: int = 0
    log: list[tuple[str, str, bool]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    address: str = ""
    cdn: str = ""


class _Handler(LargeFiles):
    hub: Hub
    is_cdn: bool

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append((self.command, ("cdn " if self.is_cdn else "") + path, "authorization" in self.headers))
        if self.is_cdn:
            return self._large(path)
        body = self._body()
        if self._fault("cut_requests"):
            return self._cut()
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return getattr(self, method)(body, *match.groups())
        self.hub.unknown.append(f"{self.command} {path}")
        return self._send(404, {"error": "not implemented"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve

    # --- repositories

    def _who(self, _: bytes) -> None:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in (TOKEN, READ_TOKEN):
            return self._send(401, {"error": "Invalid user token."})
        access = {"displayName": "test", "role": "write" if token == TOKEN else "read"}
        auth = {"type": "access_token", "accessToken": access}
        return self._send(200, {"type": "user", "name": "someone", "orgs": [], "auth": auth})

    def _nothing(self, _: bytes) -> None:
        self._send(404, {"error": "Not found"})

    def _validate(self, body: bytes) -> None:
        """The card must begin with YAML that can be read."""
        _, front, *_ = json.loads(body)["content"].split("---\n")
        good = isinstance(yaml.safe_load(front), dict)
        self._send(200, {"errors": [] if good else [{"message": "no mapping"}], "warnings": []})

    def _create(self, body: bytes) -> None:
        if not self._may_write():
            return None
        asked = json.loads(body)
        kind = asked.get("type") or "model"
        if kind == "space" and not asked.get("sdk"):
            return self._send(400, {"error": "a Space needs an SDK"})
        place = {"model": "", "space": _SPACES}[kind]
        name = f"{place}{asked.get('organization') or 'someone'}/{asked['name']}"
        address = {"url": f"{self.hub.address}/{name}", "name": name, "id": "x"}
        with self.hub.lock:
            if name in self.hub.repos:
                return self._send(409, {"error": f"You already created this {kind} repo", **address})
            repo = self.hub.repos[name] = Repo(
                private=asked.get("visibility") == "private" or bool(asked.get("private")), sdk=asked.get("sdk")
            )
            repo.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        return self._send(200, address)

    def _api(self, body: bytes, name: str, rest: str | None) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        verb, _, revision = (rest or "").partition("/")
        with self.hub.lock:
            if verb == "" or verb == "revision":
                return self._describe(repo, name, revision or "main")
            if verb == "refs":
                return self._refs(repo)
            if verb in ("tree", "paths-info"):
                return self._list(repo, verb, revision, body)
        if not self._may_write():
            return None
        if verb == "preupload":
            return self._preupload(repo, revision, body)
        if verb == "commit":
            return self._commit(repo, name, body)
        if verb == "tag":
            return self._tag(repo, revision, body)
        self.hub.unknown.append(f"{self.command} {rest}")
        return self._send(404, {"error": "not implemented"})

    def _describe(self, repo: Repo, name: str, revision: str) -> None:
        sha = repo.resolve(revision)
        if sha is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        plain = name.removeprefix(_SPACES)
        facts = {
            "_id": "x",
            "id": plain,
            **({"sdk": repo.sdk} if name.startswith(_SPACES) else {"modelId": plain}),
            "sha": sha,
            "private": repo.private,
            "gated": False,
            "tags": [],
        }
        facts |= {"siblings": [{"rfilename": each} for each in sorted(repo.files(sha))], "disabled": False}
        return self._send(200, facts)

    def _refs(self, repo: Repo) -> None:
        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1][0]}]
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in repo.tags.items()]
        self._send(200, {"branches": branches, "tags": tags, "converts": []})

    def _list(self, repo: Repo, verb: str, rest: str, body: bytes) -> None:
        revision, _, below = rest.partition("/")
        if repo.resolve(revision) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.files(revision)
        names = sorted(name for name in files if name.startswith(f"{below}/" if below else ""))
        if verb == "paths-info":
            plain = self.headers.get("Content-Type", "").startswith("application/json")
            asked = json.loads(body)["paths"] if plain else [v for k, v in parse_qsl(body.decode()) if k == "paths"]
            names = [name for name in names if name in asked]
        return self._send(200, [_entry(name, files[name]) for name in names])

    def _preupload(self, repo: Repo, revision: str, body: bytes) -> None:
        known = repo.files(revision)
        found = []
        for each in json.loads(body)["files"]:
            mode = "lfs" if each["path"].endswith(_LARGE) else "regular"
            entry = {"path": each["path"], "uploadMode": mode, "shouldIgnore": False}
            found.append(entry | ({"oid": known[each["path"]].oid} if each["path"] in known else {}))
        self._send(200, {"files": found})

    def _commit(self, repo: Repo, name: str, body: bytes) -> None:
        if self._fault("refuse_commits"):
            return self._send(503, {"error": "Service unavailable"})
        if self._fault("meeting"):
            deadline = time.monotonic() + 30
            while self.hub.meeting and time.monotonic() < deadline:
                time.sleep(0.01)
        with self.hub.lock:
            files, message = dict(repo.files()), ""
            for line in filter(None, body.splitlines()):
                each = json.loads(line)
                value = each["value"]
                if each["key"] == "header":
                    message = value["summary"]
                    if value.get("parentCommit") not in (None, repo.commits[-1][0]):
                        return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
                elif each["key"] == "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
                elif each["key"] == "lfsFile":
                    if value["oid"] not in self.hub.blobs:
                        return self._send(400, {"error": "LFS object is missing"})
                    files[value["path"]] = Blob(self.hub.blobs[value["oid"]], True)
                elif each["key"] == "deletedFile":
                    files.pop(value["path"], None)
            sha = repo.commit(files, message)
        address = f"{self.hub.address}/{name}/commit/{sha}"
        return self._send(200, {"success": True, "commitOid": sha, "commitUrl": address, "hookOutput": ""})

    def _tag(self, repo: Repo, revision: str, body: bytes) -> None:
        name, sha = json.loads(body)["tag"], repo.resolve(revision)
        if name in repo.tags:
            return self._send(409, {"error": f"Tag {name} exists"})
        if sha is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        repo.tags[name] = sha
        return self._send(200, {})

    # --- files

    def _resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        sha = repo.resolve(revision)
        if sha is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blob, headers = repo.files(sha).get(path), {"X-Repo-Commit": sha}
        if blob is None:
            return self._send(404, b"Entry not found", {**headers, "X-Error-Code": "EntryNotFound"})
        if not blob.lfs:
            return self._send(200, blob.content, {**headers, "ETag": f'"{blob.oid}"'})
        linked = {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.oid}"'}
        return self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.cdn}/{blob.oid}"})


_REPO = r"((?:spaces/)?[^/]+/[^/]+)"
_ROUTES = (
    ("/api/whoami-v2", "_who"),
    ("/api/agent-harnesses", "_nothing"),  # asked by the command line; what it says is of no use here
    ("/api/validate-yaml", "_validate"),
    ("/api/repos/create", "_create"),
    (rf"/api/(?:models/|(?=spaces/)){_REPO}(?:/(.*))?", "_api"),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", "_batch"),
    (r"/_verify/([0-9a-f]{64})", "_verify"),
    (r"/_complete/([0-9a-f]{64})", "_complete"),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", "_resolve"),
)


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.oid[:40], "size": len(blob.content), "path": name}
    return entry | ({"lfs": {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}} if blob.lfs else {})


@contextmanager
def running() -> Iterator[Hub]:
    """A hub with nothing in it, until the block ends."""
    hub, servers = Hub(), []
    for is_cdn in (False, True):
        handler = type("Handler", (_Handler,), {"hub": hub, "is_cdn": is_cdn})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        servers[-1].daemon_threads = True
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def client_environment(hub: Hub, home: str, token: str | None = TOKEN) -> dict[str, str]:
    """Variables for a process that talks to the hub."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "HUGGING"))
    }
    kept |= {"HF_ENDPOINT": hub.address, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept |= {"PYTHONWARNINGS": "ignore", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return kept | ({"HF_TOKEN": token} if token is not None else {})
