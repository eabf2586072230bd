"""Feeds for tests: a causal model, a server that sends a file as slowly as asked, a file that grows."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import m33d_hf
from helpers.phases_in_memory import MODEL, NAMES, SIDE
from m33d_hf.data.randomness import generator_of
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection


def causal_model(**changes: Any) -> M33DForVideoActionDetection:
    """A detection model that never saw any training; two frames of a clip, two apart."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    fields = {"temporal_hidden_size": 8, "temporal_frame_stride": 2, "temporal_causal": True}
    return M33DForVideoActionDetection(M33DConfig(**{**MODEL, **labels, **fields, **changes})).eval()


def detector(**changes: Any) -> ActionDetector:
    """Of `causal_model`, a clip at a time."""
    return ActionDetector(causal_model(**changes), batch_size=1)


def pictures(count: int, side: int = SIDE) -> list[np.ndarray]:
    """(side, side, 3) uint8 noise that changes every five frames."""
    return [
        torch.randint(0, 256, (side, side, 3), generator=generator_of(n // 5, "f"), dtype=torch.uint8).numpy()
        for n in range(count)
    ]


def same(found: Sequence[ClipPrediction], wanted: Sequence[ClipPrediction]) -> None:
    """Both tell the same of the same clips."""
    assert [(c.start, c.stop, c.readable) for c in found] == [(c.start, c.stop, c.readable) for c in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        np.testing.assert_allclose(one.clipwise, other.clipwise, atol=1e-6)


def memory_held(clips: Iterable[Any], start: int, looks: Sequence[int]) -> list[int]:
    """Bytes of Python that are held at some clips of a feed, of what was allocated since clip `start`."""
    held = []
    for number, _clip in enumerate(clips):
        if number == start:
            tracemalloc.start()
        if number in looks:
            held.append(held_by_package())
    tracemalloc.stop()
    return held


def held_by_package() -> int:
    """Bytes that lines of the package have allocated and hold, since `tracemalloc.start`.

    All that a process allocates is no measure: caches of the interpreter, threads of other tests and the tracing itself
    grow by tens of thousands of bytes, now and then.
    """
    gc.collect()
    ours = tracemalloc.Filter(True, f"{Path(m33d_hf.__file__).parent}/*")
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)


@contextmanager
def sender(*parts: bytes, then: str = "close", pause: float = 0.002, chunk: int = 1880) -> Iterator[str]:
    """tcp:// address of a server on this machine; its n-th connection gets the n-th part, a chunk after the other.

    Args:
        parts: what is sent.
        then: "close" the connection, "reset" it, or "hold" it open without another byte.
        pause: seconds between two chunks.
        chunk: bytes.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, parts, then, pause, chunk, over), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        server.close()
    thread.join(5)


def _serve(
    server: socket.socket, parts: Sequence[bytes], then: str, pause: float, chunk: int, over: threading.Event
) -> None:
    for part in parts:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            for place in range(0, len(part), chunk):
                try:
                    connection.sendall(part[place : place + chunk])
                except OSError:
                    break
                if over.wait(pause):
                    return
            if then == "hold":
                over.wait()
            if then == "reset":  # an answer that is no end: the connection is torn down
                time.sleep(0.5)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def growing(path: Path, content: bytes, pause: float = 0.002, chunk: int = 1880) -> Iterator[threading.Thread]:
    """A file to which a thread appends content, a chunk after the other."""

    def write() -> None:
        with path.open("ab") as file:
            for place in range(0, len(content), chunk):
                file.write(content[place : place + chunk])
                file.flush()
                time.sleep(pause)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
