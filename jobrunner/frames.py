"""The language between a runner and its workers: JSON in frames, each after its length.

A frame is four bytes, big-endian, and so many bytes of UTF-8. Never pickle: what comes from a
model's process is data. Known messages:

    runner → worker   {"implementation", "options", "max_result_bytes"}   once, first
                      (jobs come by another way: see inbox.py)
    worker → runner   {"ready": true, …}                                  once: see contract.py
                      {"setup_error"}                                     instead of it
                      {"unwell"}                                          before it ends itself
                      id {"seconds", "batch"} newline result
                      id {"seconds", "batch", "error": {"code", "message", "retryable"}}
                      id SINGLY
                      id PROGRESS {"fraction", "word"}

A reply begins with the job's id, 36 bytes. The result comes last, so that what is valid needs
not be written anew. ``batch`` is how many items the call had, where that is more than one.
PROGRESS is of all jobs of the call. SINGLY says that a batch failed, and that its jobs are
run one by one, from that one on.
"""

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from jobrunner.errors import FrameError

LENGTH = struct.Struct(">I")
READ_BYTES = 256 * 1024
SINGLY = b"singly"
PROGRESS = b"progress"

Message = dict[str, Any]

# Made once, like the decoder below: to make one takes longer than a small message does.
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def encode(message: Message) -> bytes:
    """Make a frame of a message.

    :raises ValueError: when it holds NaN, an infinity, an unpaired surrogate, or itself.
    :raises TypeError: when it holds what JSON has no word for.
    """
    return frame(ENCODER.encode(message).encode())


def frame(payload: bytes) -> bytes:
    """Put the length before a payload."""
    return LENGTH.pack(len(payload)) + payload


def read(connection: socket.socket) -> bytes | None:
    """Wait for the next frame and give its payload; None when the other side is gone."""
    header = _read_exactly(connection, LENGTH.size)
    return None if header is None else _read_exactly(connection, LENGTH.unpack(header)[0])


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(size - len(received), READ_BYTES))
        if not part:
            return None
        received += part
    return bytes(received)


class FrameReader:
    """Puts frames together from whatever pieces arrive."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # What has come of a frame that is not whole, and how much of it is known to be missing.
        self._parts: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the payload of each frame that ``data`` completes.

        :raises FrameError: when a frame is over the limit.
        """
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        data = b"".join(self._parts)
        self._parts, self._missing = [], 0
        begin, length = 0, len(data)
        while begin + LENGTH.size <= length:
            (size,) = LENGTH.unpack_from(data, begin)
            if size > self._max_bytes:
                raise FrameError(f"a frame of {size} bytes; at most {self._max_bytes} are read")
            end = begin + LENGTH.size + size
            if end > length:
                self._missing = end - length
                break
            yield data[begin + LENGTH.size : end]
            begin = end
        self._parts = [data[begin:]]


def parse(payload: bytes) -> Message:
    """Read a message.

    :raises FrameError: when it is not a JSON object.
    """
    try:
        message = DECODER.decode(payload.decode())
    except (ValueError, RecursionError):
        raise FrameError("a frame that is not valid JSON") from None
    if not isinstance(message, dict):
        raise FrameError("a frame that is not a JSON object")
    return message


def _refuse(constant: str) -> float:
    raise ValueError(constant)


DECODER = json.JSONDecoder(parse_constant=_refuse)
