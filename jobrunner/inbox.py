"""The jobs that a worker was given and has not taken yet.

A socket pair that keeps messages apart, both ends of which the runner has as well: each
message is read once, by the worker that takes the job or by the runner that takes it back. So
a worker can be given its next jobs ahead of time, and they never wait for a neighbour that
turns out to be slow, nor are lost with a worker that dies.
"""

import os
import socket
import struct
import sys
import tempfile
from contextlib import suppress

from jobrunner.outcome import Job

# Elsewhere there is no SOCK_SEQPACKET; datagrams of a socket pair are in order as well.
KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM

ID_BYTES = 36
# A larger input goes into a file, of which the message brings the descriptor.
MAX_INPUT = 64 * 1024
INT = struct.Struct("i")
ROOM_FOR_ONE = socket.CMSG_LEN(INT.size)


class Inbox:
    """The runner's view of it. ``exit`` is the end that the worker inherits."""

    def __init__(self) -> None:
        self._entrance, self.exit = socket.socketpair(socket.AF_UNIX, KIND)
        self._entrance.setblocking(False)

    def put(self, job: Job) -> bool:
        """Give a job; False when there is no room, or nobody to read it."""
        head, text = job.key.encode(), job.input.encode()
        try:
            if len(text) <= MAX_INPUT:
                self._entrance.send(head + text)
                return True
            with tempfile.TemporaryFile() as file:
                file.write(text)
                file.flush()
                socket.send_fds(self._entrance, [head], [file.fileno()])
            return True
        except OSError:
            return False

    def take_back(self) -> set[str]:
        """Take what the worker has not taken; give the jobs' ids."""
        ids = set()
        with suppress(BlockingIOError):
            while received := _receive(self.exit, socket.MSG_DONTWAIT):
                ids.add(received[0])
        return ids

    def close(self) -> None:
        """Close it; a worker that waits for a job finds the end."""
        self._entrance.close()
        self.exit.close()


def take(end: socket.socket) -> tuple[str, bytes] | None:
    """Wait for the next job and give its id and its input; None when the runner is gone."""
    return _receive(end)


def _receive(end: socket.socket, flags: int = 0) -> tuple[str, bytes] | None:
    # Not by recv_fds(): some versions of Python forget the flags.
    message, extra, _, _ = end.recvmsg(ID_BYTES + MAX_INPUT, ROOM_FOR_ONE, flags)
    if not message:
        return None
    job_id, text = message[:ID_BYTES].decode(), message[ID_BYTES:]
    for _, _, descriptor in extra:
        with os.fdopen(INT.unpack(descriptor[: INT.size])[0], "rb") as file:
            file.seek(0)
            text = file.read()
    return job_id, text
