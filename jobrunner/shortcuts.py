"""What psql is opened with where a person sits before it: a query behind a short name.

They are psql's own variables, given before the user's arguments, and so before his
``~/.psqlrc`` is read: what that or the command line says of the same name counts.
"""

import getopt
from collections.abc import Sequence

SHORTCUTS = {
    "queues": """
        select
            model, pending, waiting_to_retry, processing, oldest_pending_age,
            runners, workers, jobs_per_second
        from queue_health
    """,
    "waiting": "table waiting_job",
    "running": "table running_job",
    "runners": """
        select
            runner, state, models, ready, busy, last_heartbeat_ago, up_for,
            completed, failed, trouble
        from runner_overview
    """,
    "failures": "table failure_summary",
    "throughput": "table throughput",
    "slow": "table table_health",
    # Who is held by a prepared transaction is held by 0.
    "locks": """
        select
            waiting.pid,
            date_trunc('second', now() - waiting.query_start) as waits_for,
            left(waiting.query, 60) as waiting_query,
            blocking.pid as held_by,
            holder.usename as of_user,
            holder.state,
            date_trunc('second', now() - holder.xact_start) as held_for,
            left(holder.query, 60) as query
        from pg_stat_activity as waiting
        cross join lateral unnest(pg_blocking_pids(waiting.pid)) as blocking (pid)
        left join pg_stat_activity as holder on blocking.pid = holder.pid
        where waiting.wait_event_type = 'Lock'
        order by waits_for desc
    """,
}
HINT = "Type " + ", ".join(f":{name}" for name in SHORTCUTS) + r"; \d+ job explains the columns."

# As psql 15 to 18 read their arguments.
SHORT = "aAbc:d:eEf:F:h:HlL:no:p:P:qR:sStT:U:v:VwWxXz?01"
LONG = [
    "echo-all", "no-align", "command=", "dbname=", "echo-queries", "echo-errors",
    "echo-hidden", "file=", "field-separator=", "field-separator-zero", "host=", "html", "list",
    "log-file=", "no-readline", "single-transaction", "output=", "port=", "pset=", "quiet",
    "record-separator=", "record-separator-zero", "single-step", "single-line", "tuples-only",
    "table-attr=", "username=", "set=", "variable=", "version", "no-password", "password",
    "expanded", "no-psqlrc", "help=", "csv",
]  # fmt: skip
# With one of these, psql does what it is told and ends.
ENDING = {"-c", "--command", "-f", "--file", "-l", "--list", "-V", "--version", "-?", "--help"}


def for_psql(arguments: Sequence[str]) -> list[str]:
    """Give what to put before a person's own arguments; nothing where no person will type."""
    names = _options(arguments)
    if names is None or names & ENDING:
        return []
    return [
        part
        for name, query in SHORTCUTS.items()
        for part in ("--set", f"{name}={' '.join(query.split())};")
    ]


def hint_for(arguments: Sequence[str]) -> str | None:
    """Give the line that says what there is; None where none is wanted."""
    names = _options(arguments)
    return None if names is None or names & {*ENDING, "-q", "--quiet"} else HINT


def _options(arguments: Sequence[str]) -> set[str] | None:
    """Read the names of the options; None where psql will not understand them either."""
    try:
        options, _ = getopt.gnu_getopt(list(arguments), SHORT, LONG)
    except getopt.GetoptError:
        return None
    return {name for name, _ in options}
