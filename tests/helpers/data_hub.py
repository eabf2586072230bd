"""A hub of data sets on this machine, as far as `datasets` and `huggingface_hub` read one without downloading it.

Written after what the clients ask: facts of a repository, its tree, facts of paths, and bytes of files.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from helpers.hub import commit_of
from helpers.range_server import Traffic


class _Handler(BaseHTTPRequestHandler):
    repos: Mapping[str, Path]
    traffic: Traffic
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Headers alone."""
        self._serve()

    def do_GET(self) -> None:
        """Facts of a repository, its tree, or a file of it."""
        self._serve()

    def do_POST(self) -> None:
        """Facts of some paths."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        kind = self.headers.get("Content-Type", "")
        asked = json.loads(body)["paths"] if "json" in kind else parse_qs(body).get("paths", [])
        words = unquote(self.path).split("?")[0].strip("/").split("/")
        folder = self.repos.get("/".join(words[2:4]))
        if folder is None or words[4:5] != ["paths-info"]:
            return self._answer(404, b"{}", {})
        found = [_facts(folder, folder / path) for path in asked if (folder / path).exists()]
        self._answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _serve(self) -> None:
        words = unquote(self.path).split("?")[0].strip("/").split("/")
        if words[:2] == ["api", "datasets"]:
            folder = self.repos.get("/".join(words[2:4]))
            if folder is None:
                return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            facts = json.dumps(_described(folder, words)).encode()
            return self._answer(200, facts, {"Content-Type": "application/json"})
        folder = self.repos.get("/".join(words[1:3])) if words[:1] == ["datasets"] else None
        path = None if folder is None else folder / "/".join(words[5:])  # datasets/org/name/resolve/revision/file
        if folder is None or path is None or not path.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        told = {"X-Repo-Commit": commit_of(folder), "ETag": f'"{_oid(path)}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked is None:
            return self._answer(200, content, told, (path.name, 0))
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
        told["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._answer(206, content[start:stop], told, (path.name, start))

    def _answer(self, status: int, content: bytes, headers: dict[str, str], of: tuple[str, int] | None = None) -> None:
        self.traffic.asked.append(self.path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            if of is not None:
                self.traffic.ranges.append((*of, len(content)))
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _described(folder: Path, words: list[str]) -> Any:
    if words[4:5] == ["tree"]:
        inside = folder / "/".join(words[6:])
        return [_facts(folder, path) for path in sorted(inside.rglob("*"))]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
    return {"id": "/".join(words[2:4]), "sha": commit_of(folder), "siblings": siblings, "private": False, "tags": []}


def _facts(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
    return {"type": "file", "path": name, "oid": _oid(path), "size": path.stat().st_size}


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving_data(repos: Mapping[str, Path]) -> Iterator[Traffic]:
    """Serve repositories ("org/name" -> folder); yields the address and the account of the bytes of files."""
    traffic = Traffic()
    handler = type("Handler", (_Handler,), {"repos": repos, "traffic": traffic})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traffic.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield traffic
        finally:
            server.shutdown()
