"""Clients of the streams of Server-Sent Events."""

import json
from http.client import HTTPConnection, HTTPResponse
from typing import Any, ClassVar

from web_server import SECONDS, WebServer


class Stream:
    """A client of a stream."""

    opened: ClassVar[list["Stream"]] = []

    def __init__(self, web: WebServer, path: str, **headers: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", web.port, timeout=SECONDS)
        self._connection.request("GET", path, None, headers)
        self.response: HTTPResponse = self._connection.getresponse()
        self.opened.append(self)

    def next(self) -> dict[str, str]:
        """The fields of the next block; none at the end of the stream."""
        fields = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        return fields

    def event(self) -> Any:
        """The next job."""
        while fields := self.next():
            if "data" in fields:
                return json.loads(fields["data"])
        return None

    def told(self, name: str) -> Any:
        """The data of the next event of that name."""
        while fields := self.next():
            if fields.get("event") == name:
                return json.loads(fields["data"])
        return None

    def close(self) -> None:
        self.response.close()
        self._connection.close()

    @classmethod
    def close_all(cls) -> None:
        """Close all that are open."""
        while cls.opened:
            cls.opened.pop().close()
