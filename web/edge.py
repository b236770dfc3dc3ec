"""The outermost layer: what every answer has, whatever was asked and whatever went wrong.

Below Flask's own hooks, since it does the same for each request: this takes a tenth of the
time that it takes there.
"""

from collections.abc import Callable, Iterable
from typing import Any

from web import tracing

Environ = dict[str, Any]
HeaderList = list[tuple[str, str]]
Start = Callable[..., Any]
Application = Callable[[Environ, Start], Iterable[bytes]]

# Browsers and caches are to make no more of an answer than it is; what says of itself that it
# may be kept, or what its page may load, is left as it is.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Edge:
    """Names each request, and adds to its answer that name and the headers of all."""

    def __init__(self, inner: Application) -> None:
        self._inner = inner

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        name = tracing.begin(environ)

        def start(status: str, headers: HeaderList, *more: Any) -> Any:
            present = {header for header, _ in headers}
            added = [pair for pair in HEADERS.items() if pair[0] not in present]
            return start_response(status, [*headers, *added, (tracing.HEADER, name)], *more)

        return self._inner(environ, start)
