"""A camera that speaks RTSP: one MPEG-2 stream as RTP packets, within the connection or by UDP."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import av

_PAYLOAD = 32  # MPEG video, RFC 3551: it needs no parameters in the description
_DESCRIPTION = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP {_PAYLOAD}\r\na=control:track\r\n"


def _packets(film: Path) -> list[bytes]:
    """RTP packets of a film, by FFmpeg's own packetizer."""
    found: list[bytes] = []
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken, av.open(str(film)) as source:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        taken.bind(("127.0.0.1", 0))
        address = f"rtp://127.0.0.1:{taken.getsockname()[1]}"
        with av.open(address, "w", format="rtp") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
                found += _waiting(taken)
        found += _waiting(taken)
    return found


def _waiting(taken: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield taken.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


@contextmanager
def camera(film: Path, udp: bool = False, pause: float = 0.0, share: float = 1.0) -> Iterator[str]:
    """Serve a film to one player; gives the address.

    Args:
        film: MPEG-2.
        udp: packets by UDP; otherwise that is refused, as cameras behind a firewall do, and they go through the
            connection.
        pause: seconds between packets.
        share: of the packets that are sent before the connection is closed.
    """
    packets = _packets(film)
    packets = packets[: round(share * len(packets))]
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=_serve, args=(server, packets, udp, pause), daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/or1"
    thread.join(5)


def _serve(server: socket.socket, packets: list[bytes], udp: bool, pause: float) -> None:
    try:
        connection, _ = server.accept()
    except OSError:
        return
    with connection:
        ports: tuple[int, int] | None = None
        lines = connection.makefile("rb")
        while request := _request(lines):
            method, headers = request
            answer, body = f"CSeq: {headers['cseq']}\r\nSession: 1\r\n", ""
            status = "200 OK"
            if method == "OPTIONS":
                answer += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = _DESCRIPTION
                answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                asked = re.search(r"client_port=(\d+)-(\d+)", headers["transport"])
                if asked and not udp:
                    status = "461 Unsupported Transport"
                elif asked:
                    ports = (int(asked[1]), int(asked[2]))
                    answer += f"Transport: RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port=6970-6971\r\n"
                else:
                    answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            connection.sendall(f"RTSP/1.0 {status}\r\n{answer}\r\n{body}".encode())
            if method == "PLAY":
                _play(connection, packets, ports, pause)
                return


def _request(lines: BinaryIO) -> tuple[str, dict[str, str]] | None:
    first = lines.readline().decode()
    if not first.strip():
        return None
    headers: dict[str, str] = {}
    while line := lines.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return first.split()[0], headers


def _play(connection: socket.socket, packets: list[bytes], ports: tuple[int, int] | None, pause: float) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        for packet in packets:
            if ports is not None:
                sender.sendto(packet, ("127.0.0.1", ports[0]))
            else:
                connection.sendall(b"$\x00" + struct.pack(">H", len(packet)) + packet)
            time.sleep(pause)
        time.sleep(0.5)
