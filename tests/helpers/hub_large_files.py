"""What the hub's two ports have in common, and large files by git-LFS: whole, or in the parts that the hub dictates."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from http.server import BaseHTTPRequestHandler
from typing import Any

TOKEN = "hf_test"
READ_TOKEN = "hf_read"
UNTOLD_TOKEN = "hf_untold"  # refused without a word


class Answering(BaseHTTPRequestHandler):
    """Bodies in, answers out, and the faults that tests plant."""

    protocol_version = "HTTP/1.1"
    hub: Any

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().strip(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _may_write(self) -> bool:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token == TOKEN:
            return True
        if token == UNTOLD_TOKEN:
            self._send(403)
        elif token == READ_TOKEN:
            self._send(403, {"error": "Forbidden: you must use a write token to write to a repository."})
        else:
            self._send(401, {"error": "Invalid username or password."})
        return False

    def _fault(self, name: str) -> bool:
        with self.hub.lock:
            left = getattr(self.hub, name)
            setattr(self.hub, name, max(left - 1, 0))
            return left > 0

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class LargeFiles(Answering):
    """Uploads and downloads of large files, and the questions before and after them."""

    def _batch(self, body: bytes, name: str) -> None:
        if name not in self.hub.repos or not self._may_write():
            return None if name in self.hub.repos else self._refuse(404, "RepoNotFound", "Repository not found")
        found = []
        for each in json.loads(body)["objects"]:
            entry: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.blobs:
                verify = f"{self.hub.address}/_verify/{each['oid']}"
                entry["actions"] = {"upload": self._upload(each["oid"], each["size"]), "verify": {"href": verify}}
            found.append(entry)
        return self._send(200, {"transfer": "multipart" if self.hub.part_size else "basic", "objects": found})

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        """Where a file goes; files above the size of a part get an address for each, as the real hub gives them."""
        place, part = f"{self.hub.cdn}/{oid}", self.hub.part_size
        if part is None or size <= part:
            return {"href": place}
        addresses = {f"{number:05d}": f"{place}/{number}" for number in range(1, -(-size // part) + 1)}
        return {"href": f"{self.hub.address}/_complete/{oid}", "header": {"chunk_size": str(part), **addresses}}

    def _complete(self, body: bytes, oid: str) -> None:
        """Put the parts together: all that were sent, in the order of their numbers, under the tags they were given."""
        asked, parts = json.loads(body), self.hub.parts.get(oid, {})
        numbers = [each["partNumber"] for each in asked["parts"]]
        tags = [each["etag"] for each in asked["parts"]]
        content = b"".join(parts[number] for number in sorted(parts))
        good = asked["oid"] == oid and numbers == sorted(parts) == list(range(1, len(parts) + 1))
        good = good and tags == [_tag(parts[number]) for number in numbers]
        if not good or hashlib.sha256(content).hexdigest() != oid:
            return self._send(400, {"error": "the parts are not the file that was announced"})
        self.hub.blobs[oid] = content
        return self._send(200, {})

    def _verify(self, body: bytes, oid: str) -> None:
        good = len(self.hub.blobs.get(oid, b"")) == json.loads(body)["size"]
        self._send(200 if good else 404, {})

    def _large(self, path: str) -> None:
        oid, _, number = path.strip("/").partition("/")
        if self.command == "PUT":
            return self._take(oid, int(number or 0))
        content = self.hub.blobs[oid]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            self.hub.ranges.append(asked[0])
            start, stop = int(asked[1]), int(asked[2] or len(content) - 1) + 1
            where = f"bytes {start}-{stop - 1}/{len(content)}"
            return self._send(206, content[start:stop], {"ETag": f'"{oid}"', "Content-Range": where})
        if self.command == "GET" and self._fault("cut_downloads"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{oid}"')
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return self._cut()
        return self._send(200, content, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _take(self, oid: str, number: int) -> None:
        """A whole file, or part `number` of it, from 1."""
        size = int(self.headers["Content-Length"])
        if self._fault("cut_uploads"):
            self.rfile.read(size // 2)
            return self._cut()
        content = self.rfile.read(size)
        if number:
            damaged = self._fault("spoil_parts")
            self.hub.parts.setdefault(oid, {})[number] = content[::-1] if damaged else content
            return self._send(200, b"", {"ETag": _tag(content)})
        if hashlib.sha256(content).hexdigest() != oid:
            return self._send(400, {"error": "not the content that was announced"})
        self.hub.blobs[oid] = content
        return self._send(200, b"", {"ETag": f'"{oid}"'})


def _tag(part: bytes) -> str:
    """As the storage behind the real hub tags a part: its MD5, in quotes."""
    return f'"{hashlib.md5(part).hexdigest()}"'
