"""The jobs that a worker was given and has not taken yet.

A socket pair that keeps messages apart, both ends of which the runner has as well: each
message is read once, by the worker that takes the job or by the runner that takes it back. So
a worker can be given its next jobs ahead of time, and they never wait for a neighbour that
turns out to be slow, nor are lost with a worker that dies.
"""

import errno
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from jobrunner.outcome import Job

# Elsewhere there is no SOCK_SEQPACKET; datagrams of a socket pair are in order as well.
KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM

ID_BYTES = 36
# A larger input goes into a file, of which the message brings the descriptor.
MAX_INPUT = 64 * 1024
# There is no room, or nobody reads any more; anything else would be so again.
NOT_NOW = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.ENOTCONN)
INT = struct.Struct("i")
Ancillary = list[tuple[int, int, bytes]]
ROOM_FOR_ONE = socket.CMSG_LEN(INT.size)


class Inbox:
    """The runner's view of it. ``exit`` is the end that the worker inherits."""

    def __init__(self) -> None:
        self._entrance, self.exit = socket.socketpair(socket.AF_UNIX, KIND)
        self._entrance.setblocking(False)

    def put(self, job: Job) -> bool:
        """Give a job; False when there is no room, or nobody to read it.

        :raises OSError: when it can't be given, neither now nor later.
        """
        head, text = job.id.encode(), job.input.encode()
        try:
            if len(text) <= MAX_INPUT:
                self._entrance.send(head + text)
                return True
            with _file() as file:
                file.write(text)
                file.flush()
                socket.send_fds(self._entrance, [head], [file.fileno()])
            return True
        except OSError as error:
            if error.errno in NOT_NOW:
                return False
            raise

    def take_back(self) -> set[str]:
        """Take what the worker has not taken; give the jobs' ids."""
        ids = set()
        with suppress(BlockingIOError):
            while message := self._unread():
                ids.add(message[:ID_BYTES].decode())
        return ids

    def close(self) -> None:
        """Close it; a worker that waits for a job finds the end."""
        self._entrance.close()
        self.exit.close()

    def _unread(self) -> bytes:
        message, extra, _, _ = self.exit.recvmsg(
            ID_BYTES + MAX_INPUT, ROOM_FOR_ONE, socket.MSG_DONTWAIT
        )
        for descriptor in _descriptors(extra):
            os.close(descriptor)
        return message


class Exit:
    """The worker's end, where the jobs come out."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = bytearray(ID_BYTES + MAX_INPUT)

    def take(self) -> tuple[bytes, bytes] | None:
        """Wait for the next job and give its id and its input; None when the runner is gone.

        :raises OSError: when the process has no descriptor left for a large input.
        """
        # Not by recv_fds(): some versions of Python forget what it is given.
        size, extra, flags, _ = self._end.recvmsg_into([self._buffer], ROOM_FOR_ONE)
        if not size:
            return None
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "no file descriptor is left")
        job_id, text = bytes(self._buffer[:ID_BYTES]), bytes(self._buffer[ID_BYTES:size])
        return job_id, _read(extra) if extra else text


def _read(extra: Ancillary) -> bytes:
    """Read the large input whose descriptor has come."""
    [descriptor] = _descriptors(extra)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _descriptors(extra: Ancillary) -> Iterator[int]:
    for _, _, data in extra:
        for (descriptor,) in INT.iter_unpack(data[: len(data) // INT.size * INT.size]):
            yield descriptor


def _file() -> IO[bytes]:
    """Make a file without a name, in memory where that can be had."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("input"), "w+b")
    return tempfile.TemporaryFile()
