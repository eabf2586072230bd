"""What all scripts share as programs: quiet ends where nobody reads on, and quick imports. Imports nothing heavy."""

from __future__ import annotations

import faulthandler
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

READER_GONE = 141  # 128 + SIGPIPE: what a shell reports of any program that wrote to a closed pipe


class _ReaderGone(BaseException):
    """Nobody reads what is printed any more. No Exception: `except OSError` is for files that cannot be written."""


class _Printed(io.FileIO):
    """Standard output or error. A closed pipe of our own, such as a worker's, remains an error; this one does not."""

    def write(self, data: Buffer, /) -> int:
        """As `io.FileIO`, but for the exception."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise _ReaderGone from None


def program(main: Callable[[], int]) -> int:
    """Run a script: `sys.exit(program(main))`; where its output is cut off (`| head`), it ends without a word.

    A crash below Python (a decoder, a process group) says which lines its threads were at.

    Args:
        main: the script; returns its exit code.

    Returns:
        that; 141 where nobody reads on.
    """
    with suppress(AttributeError, OSError, ValueError):  # standard error is no file, as under a notebook
        faulthandler.enable()
    sys.stdout, sys.stderr = _watched(sys.stdout), _watched(sys.stderr)
    try:
        try:
            return main()
        finally:  # the text of argparse's --help lies in the buffer until then
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except _ReaderGone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # Python flushes what is left when it exits
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(nowhere, stream.fileno())
        return READER_GONE


def continuable(work: Callable[[], int]) -> int:
    """Work that the same command goes on with: its exit code, 2 after an error of ours or of the system (a full disk),
    130 when it was interrupted.

    The shell's `kill` ends it like Ctrl-C: workers are told, save, and the next call continues.
    """
    from m33d_hf.errors import M33DError

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except (M33DError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130


def _watched(stream: TextIO) -> TextIO:
    """The same stream with our exception; as it is where it is no file of the system."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # none at all, or one that a test or a notebook has put there
        return stream
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Printed(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        newline=None,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


@contextmanager
def importing() -> Iterator[None]:
    """For the imports and preparations of a program: no search for dead cycles meanwhile.

    Importing torch and transformers makes a million objects that stay; Python's collector, which runs by the number of
    new objects, looks at them over and over, for a sixth of the time.
    """
    active = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if active:
            gc.enable()
