"""The tests' words for what they do: add a job, wait for a fact, move time."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
from click.testing import Result
from psycopg.rows import dict_row

# login: its roles; the first is what it acts as (alter role … set role).
LOGINS = {
    "web_login": ["job_web"],
    "runner_login": ["job_runner", "job_janitor"],
    "janitor_login": ["job_janitor"],
}

# A runner as it names itself.
RUNNER = "here-1-abcd"

POSITIVE = {"sentiment": "positive", "confidence": 0.95}
ERROR = {"code": "model_error", "message": "it broke", "retryable": True}

T = TypeVar("T")

# What a worker says of a model that takes and gives anything.
CARD = {
    "version": "1",
    "timeout_seconds": 60.0,
    "max_batch_size": 1,
    "max_wait_ms": 0.0,
    "input_schema": None,
    "output_schema": None,
}


def login_url(url: str, login: str) -> str:
    """The same database for another login, whose password is its name."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{login}@{parts.hostname}:{parts.port}"))


def create_logins(connection: psycopg.Connection[Any]) -> None:
    """Make the logins of a deployment, each with its roles."""
    for login, roles in LOGINS.items():
        connection.execute(f"create role {login} login password '{login}'")
        connection.execute(f"grant {', '.join(roles)} to {login}")
        connection.execute(f"alter role {login} set role {roles[0]}")


def leave_dead_rows(db: psycopg.Connection[Any], count: int) -> None:
    """Leave so many rows of ``job`` behind that nobody can see, and let that be known."""
    dead = "select n_dead_tup from pg_stat_user_tables where relid = 'job'::regclass"
    # What was before is told late, and could come in between: that the tables were emptied, say.
    db.execute("select pg_stat_force_next_flush()")
    [(before,)] = db.execute(dead).fetchall()
    with db.transaction(force_rollback=True):
        db.execute(
            """
            insert into job (input)
            select '{"text": "I love it"}'
            from generate_series(1, %(count)s)
            """,
            {"count": count},
        )
    db.execute("select pg_stat_force_next_flush()")
    wait_for(lambda: db.execute(dead).fetchall() >= [(before + count,)], "the dead rows are known")


def empty(owner: psycopg.Connection[Any]) -> None:
    """Empty the tables, where there are many tests: a truncate each would take its time."""
    with owner.transaction():
        # No trigger fires for a replica: unfinished jobs go as well.
        owner.execute("set local session_replication_role = replica")
        owner.execute("delete from job; delete from cancel_request")
        owner.execute("delete from runner; delete from runner_model; delete from roll_call")
        owner.execute("delete from model; delete from model_version")
        owner.execute("insert into model (name) values ('sentiment')")


def wait_for(fact: Callable[[], T], what: str, seconds: float = 45) -> T:
    """Wait until ``fact()`` is true and return it."""
    deadline = monotonic() + seconds
    pause = Event()
    while not (value := fact()):
        if monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        pause.wait(0.01)
    return value


def only_line(result: Result, code: int = 1) -> str:
    """The error, which must be one line on standard error, with nothing on standard output."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


def signs(file: Path) -> int:
    """How many ``leave_sign`` of the strange models has left there."""
    return len(file.read_text()) if file.exists() else 0


class Jobs:
    """The table ``job`` in the hands of its owner."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db

    def add(
        self,
        text: str = "I love it",
        *,
        status: str = "pending",
        model: str = "sentiment",
        priority: int = 0,
        attempt: int | None = None,
        max_attempts: int = 3,
        claimed_by: str = "somebody",
        created: str = "0 s",
        finished: str = "0 s",
        due_in: str = "0 s",
    ) -> str:
        """Insert a job in any state; ``created`` and ``finished`` are ages."""
        started = status in ("processing", "completed")
        row = self.db.execute(
            """
            insert into job (
                model, input, priority, status, attempt, max_attempts, run_at,
                claimed_by, lease_token, created_at, started_at, finished_at, result, error
            )
            values (
                %(model)s, %(input)s, %(priority)s, %(status)s, %(attempt)s, %(max_attempts)s,
                clock_timestamp() + %(due_in)s::interval,
                case when %(status)s <> 'pending' then %(claimed_by)s end,
                case when %(status)s = 'processing' then gen_random_uuid() end,
                clock_timestamp() - %(created)s::interval,
                case when %(started)s then clock_timestamp() - %(finished)s::interval end,
                case when %(final)s then clock_timestamp() - %(finished)s::interval end,
                %(result)s, %(error)s
            )
            returning id
            """,
            {
                "model": model,
                "input": json.dumps({"text": text}),
                "priority": priority,
                "status": status,
                "attempt": int(status != "pending") if attempt is None else attempt,
                "max_attempts": max_attempts,
                "due_in": due_in,
                "claimed_by": claimed_by,
                "created": created,
                "started": started,
                "finished": finished,
                "final": status in ("completed", "failed"),
                "result": json.dumps(POSITIVE) if status == "completed" else None,
                "error": json.dumps(ERROR) if status == "failed" else None,
            },
        ).fetchone()
        assert row
        if status == "processing":
            self._note_claim(row[0])
        return str(row[0])

    def add_many(self, count: int) -> list[str]:
        """Insert so many pending jobs."""
        return [self.add() for _ in range(count)]

    def add_runner(
        self,
        runner: str,
        *,
        has_lock: bool = False,
        lease: str = "30 s",
        heartbeat_ago: str = "0 s",
    ) -> None:
        """Insert the row of a runner, as if it had last beaten so long ago."""
        self.db.execute(
            """
            with added as (
                insert into runner (id, host, pid, version, models, workers, lease, has_lock,
                    heartbeat_at, ready_workers, answers_roll_call)
                values (%(runner)s, 'here', 1, '0', array['sentiment'], 2, %(lease)s::interval,
                    %(has_lock)s, clock_timestamp() - %(heartbeat_ago)s::interval, 2, true)
                returning id
            )
            insert into roll_call (runner, may_claim) select id, true from added
            """,
            {
                "runner": runner,
                "lease": lease,
                "has_lock": has_lock,
                "heartbeat_ago": heartbeat_ago,
            },
        )

    def get(self, job_id: str) -> dict[str, Any]:
        """The row of a job by column."""
        with self.db.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("select * from job where id = %s", [job_id]).fetchone()
        assert row, f"no job {job_id}"
        return row

    def status(self, job_id: str) -> str:
        return str(self.get(job_id)["status"])

    def start(self, job_id: str) -> None:
        """Claim a job, as a runner would."""
        self.db.execute(
            """
            update job
            set
                status = 'processing',
                attempt = attempt + 1,
                claimed_by = 'somebody',
                lease_token = gen_random_uuid(),
                started_at = clock_timestamp()
            where id = %s
            """,
            [job_id],
        )
        self._note_claim(job_id)

    def finish(self, job_id: str) -> None:
        """Complete a job that was claimed."""
        self.db.execute(
            """
            update job
            set
                status = 'completed',
                lease_token = null,
                finished_at = clock_timestamp(),
                result = %s
            where id = %s
            """,
            [json.dumps(POSITIVE), job_id],
        )

    def _note_claim(self, job_id: str) -> None:
        self.db.execute(
            """
            insert into job_claim (lease_token, job_ids)
            select lease_token, array[id]
            from job
            where id = %s
            """,
            [job_id],
        )

    def start_quickly(self, submit: Callable[[], str] | None = None) -> bool:
        """Whether a runner is told of a new job: it starts long before the next poll."""
        asleep = "select from runner where sleeping"
        wait_for(lambda: self.db.execute(asleep).rowcount, "it sleeps")
        before = monotonic()
        wait_for(lambda: monotonic() > before + 0.3, "it has looked twice, and only listens now")
        began, job_id = monotonic(), submit() if submit else self.add("good")
        wait_for(lambda: self.status(job_id) != "pending", "the job is started")
        return monotonic() - began < 5

    def count(self, status: str | None = None) -> int:
        query = "select count(*) from job where %(status)s::text is null or status = %(status)s"
        row = self.db.execute(query, {"status": status}).fetchone()
        return int(row[0]) if row else 0

    def wait(self, job_id: str, status: str, seconds: float = 45) -> dict[str, Any]:
        """Wait until the job has that status; return its row."""
        wait_for(lambda: self.status(job_id) == status, f"job {job_id} is {status}", seconds)
        return self.get(job_id)
