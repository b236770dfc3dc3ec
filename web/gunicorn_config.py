"""How gunicorn serves the web: ``gunicorn -c python:web.gunicorn_config 'web:create_app()'``."""

import os
import resource
import socket
import struct
from typing import Any

from web import logs
from web import settings as web_settings
from web.errors import SettingsError
from web.loads import loads

try:
    _settings = web_settings.load()
except SettingsError as error:
    raise SystemExit(f"jobrunner web: {error}") from None

_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host

bind = f"{_host}:{_settings.port}"
worker_class = "web.connections.Worker"
workers = _settings.processes
threads = _settings.threads
worker_connections = 1000
preload_app = False
control_socket_disable = True
proc_name = "jobrunner-web"
# No header of a client moves the app to another path, whatever its address is.
forwarder_headers = ""

keepalive = 5
graceful_timeout = 8
timeout = 30

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# The workers' heartbeat is a file that is touched all the time: not on a disk.
_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes a file of its own there
if os.access(_MEMORY, os.W_OK):
    worker_tmp_dir = _MEMORY

logger_class = "web.logs.GunicornLogger"
logconfig_dict: dict[str, Any] = {
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": True},
        # It warns of each connection that was lost; the app says so itself.
        "psycopg": {"level": "ERROR"},
    },
    "handlers": {
        "console": {
            "class": "web.logs.LineHandler",
            "formatter": "logfmt",
            "filters": ["no_stalled_clients"],
        },
    },
    "formatters": {"logfmt": {"()": "web.logs.Logfmt"}},
    "filters": {"no_stalled_clients": {"()": "web.logs.NoStalledClients"}},
}

# A client that stops in the middle of a request, or of reading an answer, holds a thread so
# long and no longer. gunicorn has no such limit; connections inherit it from the listener.
_STALL_SECONDS = 10

# A client that connects and says nothing is the kernel's for so long (Linux only), not ours.
_SILENT_SECONDS = 5

_OPEN_FILES = 4096

_ADVICE = "anybody who reaches this port can use it: set JOBRUNNER_REQUIRE_KEYS=on"


def on_starting(_server: Any) -> None:
    """Warn of an open door; allow as many open files as we may: each connection is one."""
    if _settings.open_to_all:
        logs.warning("open_to_all", host=_settings.host, advice=_ADVICE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def post_worker_init(worker: Any) -> None:
    """Connect to the database in the new process, before its first request."""
    worker.wsgi.extensions["database"].warm_up()


def worker_exit(_server: Any, worker: Any) -> None:
    """Let nobody wait, and close the pool: threads would hold up the end of the process."""
    if app := getattr(worker, "wsgi", None):
        app.extensions["changes"].close()
        app.extensions["viewers"].close()
        app.extensions["database"].close()


def child_exit(_server: Any, worker: Any) -> None:
    """Take a process that is gone out of the comparison."""
    loads.clear(worker.age)


def when_ready(server: Any) -> None:
    """Put the limits on the listening sockets."""
    limit = struct.pack("ll", _STALL_SECONDS, 0)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if defer := getattr(socket, "TCP_DEFER_ACCEPT", None):
            listener.sock.setsockopt(socket.IPPROTO_TCP, defer, _SILENT_SECONDS)
