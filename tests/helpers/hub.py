"""A hub of models on this machine, as far as the clients' reading goes: revisions, files, and what is not there.

Written after what the clients ask (`HfApi.model_info`, `hf_hub_download`); files also come as plain addresses below
`/files/`, for pictures and videos.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


def commit_of(folder: Path) -> str:
    """A commit's name for a folder."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    repos: Mapping[str, Mapping[str, Path]]
    files: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        """Headers alone."""
        self.do_GET()

    def do_GET(self) -> None:
        """Facts of a repo, or a file of it."""
        path = unquote(self.path).split("?")[0].strip("/")
        self.asked.append(path)
        if path.startswith("files/"):
            return self._send(self.files / path.removeprefix("files/"), {})
        words = path.removeprefix("api/models/").split("/")
        revisions = self.repos.get("/".join(words[:2]))
        if revisions is None:
            return self._refuse("RepoNotFound")
        if path.startswith("api/models/"):
            return self._describe(revisions, words)
        folder = self._at(revisions, words[3])  # org/name/resolve/revision/file
        if folder is None:
            return self._refuse("RevisionNotFound")
        self._send(folder / "/".join(words[4:]), {"X-Repo-Commit": commit_of(folder)})

    @staticmethod
    def _at(revisions: Mapping[str, Path], name: str) -> Path | None:
        return revisions.get(name) or {commit_of(folder): folder for folder in revisions.values()}.get(name)

    def _describe(self, revisions: Mapping[str, Path], words: list[str]) -> None:
        folder = self._at(revisions, words[3] if words[2:3] == ["revision"] else "main")
        if folder is None:
            return self._refuse("RevisionNotFound")
        names = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
        facts = {"id": "/".join(words[:2]), "sha": commit_of(folder), "siblings": names, "private": False, "tags": []}
        self._answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _send(self, path: Path, headers: dict[str, str]) -> None:
        if not path.is_file():
            return self._refuse("EntryNotFound", headers)
        content = path.read_bytes()
        self._answer(200, content, {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _refuse(self, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._answer(404, b"", {**(headers or {}), "X-Error-Code": code})

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(repos: Mapping[str, Mapping[str, Path]], files: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve repos ("org/name" -> revision -> folder) and plain files; yields the address and the paths asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"repos": repos, "files": files, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
