"""The batches that a worker was given and has not taken yet.

A socket pair that keeps messages apart, both ends of which the runner has as well: each
message is read once, by the worker that takes the batch or by the runner that takes it back.
So a worker can be given its next jobs ahead of time, and they never wait for a neighbour that
turns out to be slow, nor are lost with a worker that dies.

A message is the number of jobs, their ids, and their inputs, each after its length.
"""

import errno
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from jobrunner.outcome import MAX_BATCH_SIZE, Job

# Elsewhere there is no SOCK_SEQPACKET; datagrams of a socket pair are in order as well.
KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM

ID_BYTES = 36
COUNT = struct.Struct(">H")
LENGTH = struct.Struct(">I")
ONE = COUNT.pack(1)
# Where the input of the first job begins, if there is no other.
FIRST = COUNT.size + ID_BYTES + LENGTH.size
HEAD_BYTES = COUNT.size + ID_BYTES * MAX_BATCH_SIZE
BUFFER_BYTES = 1024 * 1024
# Larger inputs go into a file, of which the message brings the descriptor.
MAX_INPUTS = 64 * 1024
# There is no room, or nobody reads any more; anything else would be so again.
NOT_NOW = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.ENOTCONN)
# A number: as an enumeration it would be worked with in Python, for each job.
TRUNCATED = int(socket.MSG_CTRUNC)
INT = struct.Struct("i")
Ancillary = list[tuple[int, int, bytes]]
ROOM_FOR_ONE = socket.CMSG_LEN(INT.size)


class Inbox:
    """The runner's view of it. ``exit`` is the end that the worker inherits."""

    def __init__(self) -> None:
        self._entrance, self.exit = socket.socketpair(socket.AF_UNIX, KIND)
        self._entrance.setblocking(False)
        # As much as the system allows: what has no room waits in the runner, not at hand. What
        # the reader has counts where messages are datagrams.
        for end, buffer in ((self._entrance, socket.SO_SNDBUF), (self.exit, socket.SO_RCVBUF)):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)

    def put(self, jobs: Sequence[Job]) -> bool:
        """Give a batch; False when there is no room, or nobody to read it.

        :raises OSError: when it can't be given, neither now nor later.
        """
        if len(jobs) == 1:
            text = jobs[0].input.encode()
            head, inputs = ONE + jobs[0].id.encode(), LENGTH.pack(len(text)) + text
        else:
            head = COUNT.pack(len(jobs)) + "".join([job.id for job in jobs]).encode()
            texts = [job.input.encode() for job in jobs]
            inputs = b"".join([part for text in texts for part in (LENGTH.pack(len(text)), text)])
        try:
            if len(inputs) <= MAX_INPUTS:
                self._entrance.send(head + inputs)
                return True
            with _file() as file:
                file.write(inputs)
                file.flush()
                socket.send_fds(self._entrance, [head], [file.fileno()])
            return True
        except OSError as error:
            if error.errno in NOT_NOW:
                return False
            raise

    def take_back(self) -> set[str]:
        """Take what the worker has not taken; give the jobs' ids."""
        ids: set[str] = set()
        with suppress(BlockingIOError):
            while message := self._unread():
                ids.update(job_id.decode() for job_id in _ids(message))
        return ids

    def close(self) -> None:
        """Close it; a worker that waits for a job finds the end."""
        self._entrance.close()
        self.exit.close()

    def _unread(self) -> bytes:
        message, extra, _, _ = self.exit.recvmsg(
            HEAD_BYTES + MAX_INPUTS, ROOM_FOR_ONE, socket.MSG_DONTWAIT
        )
        for descriptor in _descriptors(extra):
            os.close(descriptor)
        return message


class Exit:
    """The worker's end, where the batches come out."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._seconds: float | None = None
        end.settimeout(None)
        self._buffer = memoryview(bytearray(HEAD_BYTES + MAX_INPUTS))

    def take(self, seconds: float | None = None) -> list[tuple[bytes, bytes]] | None:
        """Wait for the next batch and give the id and the input of each job.

        None when the runner is gone.

        :raises TimeoutError: when none comes in so many seconds.
        :raises OSError: when the process has no descriptor left for large inputs.
        """
        if seconds != self._seconds:
            self._seconds = seconds
            self._end.settimeout(seconds)
        # Not by recv_fds(): some versions of Python forget what it is given.
        size, extra, flags, _ = self._end.recvmsg_into([self._buffer], ROOM_FOR_ONE)
        if not size:
            return None
        if flags & TRUNCATED:
            raise OSError(errno.EMFILE, "no file descriptor is left")
        message = self._buffer[:size].tobytes()
        if message.startswith(ONE) and not extra:
            return [(message[COUNT.size : COUNT.size + ID_BYTES], message[FIRST:])]
        ids = list(_ids(message))
        inputs = _read(extra) if extra else message[COUNT.size + ID_BYTES * len(ids) :]
        return list(zip(ids, _parts(inputs), strict=True))


def _ids(message: bytes) -> Iterator[bytes]:
    (count,) = COUNT.unpack_from(message)
    for number in range(count):
        begin = COUNT.size + number * ID_BYTES
        yield message[begin : begin + ID_BYTES]


def _parts(inputs: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(inputs):
        (length,) = LENGTH.unpack_from(inputs, begin)
        begin += LENGTH.size
        yield inputs[begin : begin + length]
        begin += length


def _read(extra: Ancillary) -> bytes:
    """Read the large inputs whose descriptor has come."""
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
