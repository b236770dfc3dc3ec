"""Tells an orchestrator how the runner of this container stands, by what the database knows.

``--ready``: it beats, and a worker with its model is ready. ``--alive``: it beats; and where
the database can't be asked, it is taken as alive, since no restart would mend that: an outage
would only end the inferences that are under way, and lose the outcomes that wait for its end.
"""

import argparse
import os
import socket

import psycopg

# By the rules of runner_overview, without all that it counts: every pod asks at every probe.
FIND = """
    select
        1
    from runner
    where
        host = %(host)s
        and lost_at is null
        and heartbeat_at + lease >= now()
        and (ready_workers > 0 or stop_requested_at is not null or not %(ready)s)
"""
CONNECT_SECONDS = 4
STATEMENT_TIMEOUT = "set local statement_timeout = '4s'"


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the runner of this container.")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--ready", action="store_true", help="it can run jobs")
    wanted.add_argument("--alive", action="store_true", help="it need not be restarted")
    options = parser.parse_args()

    try:
        found = find(ready=options.ready)
    except psycopg.Error:
        if options.ready:
            raise SystemExit("the database can't be asked") from None
        return
    if not found:
        raise SystemExit("no live runner on this host")


def find(*, ready: bool) -> bool:
    """Whether a runner of this host beats, and can run jobs or has been asked to stop (``ready``).

    :raises psycopg.Error: when the database can't be asked.
    """
    url = os.environ["DATABASE_URL"]
    with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
        connection.execute(STATEMENT_TIMEOUT)
        wanted = {"host": socket.gethostname(), "ready": ready}
        return connection.execute(FIND, wanted).fetchone() is not None


if __name__ == "__main__":
    main()
