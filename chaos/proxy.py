"""A TCP proxy between the services and PostgreSQL, to break connections class by class.

A channel is one class of connections (the statements of a runner, its listener, the web's). It
has a port for each PostgreSQL there is, and can be cut, refused, delayed, stalled (what is on
its way arrives later, even after the sender has gone and connected anew) or made half-open
(what is sent is swallowed, and neither end learns of it).
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Swallow = Literal["", "both", "answers"]
CHUNK = 65536


class Connection:
    """Two sockets that belong together."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.torn = False  # something was swallowed: it can never be whole again
        self.flows = asyncio.Event()
        self.flows.set()

    def abort(self) -> None:
        """Close both ends at once, with a reset."""
        for end in self.ends:
            end.transport.abort()


class Channel:
    """One class of connections and what is being done to it; lives in the proxy's thread."""

    def __init__(self, seed: str) -> None:
        self.in_use = False  # some fault has to do with it
        self.swallow: Swallow = ""
        self.refuse = False
        self.delay_seconds = 0.0
        self.swallowed = 0
        self._random = random.Random(seed)
        self._connections: set[Connection] = set()

    def cut(self) -> int:
        """Reset every connection; return how many there were."""
        count = len(self._connections)
        for connection in list(self._connections):
            connection.abort()
        return count

    def stall(self) -> int:
        """Hold back what goes over the connections there are; return how many those are."""
        for connection in self._connections:
            connection.flows.clear()
        return len(self._connections)

    def heal(self) -> None:
        """Let everything pass again; what was half-open is reset."""
        self.swallow, self.refuse, self.delay_seconds = "", False, 0.0
        self.in_use = False
        for connection in list(self._connections):
            connection.flows.set()
            if connection.torn:
                connection.abort()

    async def serve(
        self, upstream: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry a new connection until one end closes it."""
        if self.refuse:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, up_writer)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._carry(connection, reader, up_writer, "asking"),
                self._carry(connection, up_reader, writer, "answering"),
            )
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _carry(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: str,
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                await connection.flows.wait()
                if self.delay_seconds:
                    await asyncio.sleep(self._random.uniform(0, self.delay_seconds))
                if self.swallow == "both" or (self.swallow and way == "answering"):
                    connection.torn = True
                    self.swallowed += 1
                    continue
                writer.write(data)
                await writer.drain()
            await connection.flows.wait()
            if not connection.torn:
                writer.close()
        except OSError:
            connection.abort()


class Proxy:
    """The channels, carried by an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._servers: list[asyncio.Server] = []

    def open(self, name: str, upstreams: list[int]) -> tuple[Channel, list[int]]:
        """Make a channel; give it and its ports, one for each upstream."""
        return self._run(self._open(name, upstreams))

    def do(self, act: Callable[[], T]) -> T:
        """Do something to a channel, in the thread in which it lives."""

        async def in_the_loop() -> T:
            return act()

        return self._run(in_the_loop())

    def close(self) -> None:
        """Drop every connection and end the thread."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(10)

    async def _open(self, name: str, upstreams: list[int]) -> tuple[Channel, list[int]]:
        channel = Channel(name)
        ports = []
        for upstream in upstreams:
            server = await asyncio.start_server(_server_of(channel, upstream), "127.0.0.1", 0)
            self._servers.append(server)
            ports.append(server.sockets[0].getsockname()[1])
        return channel, ports

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _server_of(channel: Channel, upstream: int) -> Callable[..., Any]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await channel.serve(upstream, reader, writer)

    return serve
