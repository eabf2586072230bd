"""A web server of a folder that answers requests of byte ranges, as object storage does, and counts them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Traffic:
    """What was asked for.

    Attributes:
        url: of the folder.
        ranges: (file, first byte, bytes) of every answer with content.
        asked: path of every request that was answered by data_hub.
        failing: so many of the next requests are refused with an error of the server.
    """

    url: str = ""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    failing: int = 0

    @property
    def bytes(self) -> int:
        """Sent altogether."""
        return sum(size for _, _, size in self.ranges)


class _Handler(BaseHTTPRequestHandler):
    root: Path
    traffic: Traffic
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Headers alone."""
        self.do_GET()

    def do_GET(self) -> None:
        """A listing of a folder, or bytes of a file."""
        if self.traffic.failing > 0:
            self.traffic.failing -= 1
            return self._answer(503, b"", {})
        name = unquote(self.path).strip("/")
        path = self.root / name
        if path.is_dir():
            names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in sorted(path.iterdir())]
            page = "".join(f'<a href="/{name}/{entry}">{entry}</a>\n' for entry in names)
            return self._answer(200, page.replace('"//', '"/').encode(), {"Content-Type": "text/html"})
        if not path.is_file():
            return self._answer(404, b"", {})
        content, asked = path.read_bytes(), self.headers.get("Range")
        if asked is None:
            return self._answer(200, content, {"Accept-Ranges": "bytes"}, (name, 0))
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}", "Accept-Ranges": "bytes"}
        self._answer(206, content[start:stop], told, (name, start))

    def _answer(self, status: int, content: bytes, headers: dict[str, str], of: tuple[str, int] | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            if of is not None:
                self.traffic.ranges.append((*of, len(content)))
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_ranges(root: Path) -> Iterator[Traffic]:
    """Serve a folder; yields its address and the account of what is asked for."""
    traffic = Traffic()
    handler = type("Handler", (_Handler,), {"root": root, "traffic": traffic})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traffic.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield traffic
        finally:
            server.shutdown()
