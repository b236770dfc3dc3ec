"""The clients of a run: they submit by HTTP and by SQL, cancel, and note what they are told."""

import itertools
import json
import random
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from threading import Event, Thread

import psycopg

from chaos.histories import Notebook, Result
from chaos.plan import Load
from jobrunner import database
from jobrunner.errors import DatabaseError

HTTP_SECONDS = 20
RECENT = 30

INSERT = """
    insert into job (model, input, priority, max_attempts)
    values ('chaos', jsonb_build_object('text', %(text)s::text), %(priority)s, %(max_attempts)s)
    returning id::text
"""
CANCEL = "insert into cancel_request (job_id) values (%(job)s) on conflict (job_id) do nothing"

Answer = tuple[Result, str | None, str]


class Clients:
    """Threads that use the system until they are ended."""

    def __init__(self, load: Load, seed: int, port: int, url: str) -> None:
        self.notebook = Notebook()
        self._load = load
        self._port = port
        self._url = url
        self._numbers = itertools.count(1)
        self._over = Event()
        rates: list[tuple[float, Use]] = [(load.http_rate / 2, self._submit_by_http)] * 2
        rates += [(load.sql_rate, self._submit_by_sql), (load.cancel_rate, self._cancel)]
        self._keeps_keys = keeps_keys(port)
        self._threads = [
            Thread(target=self._use, args=[random.Random(f"{seed} {place}"), rate, act])
            for place, (rate, act) in enumerate(rates)
            if rate
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End, each when its last call has returned."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _use(self, chance: random.Random, rate: float, act: "Use") -> None:
        sql = Sql(self._url)
        while not self._over.wait(1 / rate if self._load.even else chance.expovariate(rate)):
            act(chance, sql)
        sql.close()

    def _submit_by_http(self, chance: random.Random, sql: "Sql") -> None:
        text = self._text(chance)
        body = {"text": text, "model": "chaos", "priority": chance.choice([0, 0, 0, 5])}
        key = f"key of {text}" if self._keeps_keys and chance.random() < 0.5 else None
        tries = 3 if key else 1
        for _ in range(tries):
            post = lambda: post_job(self._port, body, key)  # noqa: E731
            done = self.notebook.record("submit", text, post, via="http", key=key)
            if done.result != "unknown" or self._over.wait(0.5):
                return

    def _submit_by_sql(self, chance: random.Random, sql: "Sql") -> None:
        text = self._text(chance)
        row = {"text": text, "priority": 0, "max_attempts": chance.choice([1, 2, 3, 3])}
        self.notebook.record("submit", text, lambda: sql.say(INSERT, row), via="sql")

    def _cancel(self, chance: random.Random, sql: "Sql") -> None:
        known = [done for done in self.notebook.operations if done.kind == "submit" and done.job]
        if known:
            job = chance.choice(known[-RECENT:])
            row = {"job": job.job}
            call = lambda: (sql.say(CANCEL, row)[0], job.job, "")  # noqa: E731
            self.notebook.record("cancel", job.text, call, via="sql")

    def _text(self, chance: random.Random) -> str:
        load = self._load
        seconds = chance.uniform(*load.work_seconds)
        if load.slow_one_in and chance.randrange(load.slow_one_in) == 0:
            seconds = chance.uniform(0.7, 1.3) * load.slow_seconds
        name = f"{next(self._numbers)}-{chance.getrandbits(24):06x}"
        return f"{name} {chance.choice(load.deeds)} {seconds:.3f}"


class Sql:
    """A connection under ``job_web`` that is opened again when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: database.BoundedConnection | None = None

    def say(self, statement: str, row: Mapping[str, object]) -> Answer:
        """Execute one statement; an answer that did not come leaves it unknown."""
        try:
            connection = self._open()
        except DatabaseError as error:
            return "failed", None, str(error)
        try:
            cursor = connection.execute(statement.encode(), row)
            return "ok", cursor.fetchone()[0] if cursor.description else None, ""  # type: ignore[index]
        except database.Lost as error:
            self.close()
            return "unknown", None, database.first_line(error)
        except psycopg.Error as error:
            return "failed", None, database.first_line(error)

    def close(self) -> None:
        """Close it."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _open(self) -> database.BoundedConnection:
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self._url, name="chaos client")
        return self._connection


Use = Callable[[random.Random, Sql], None]


def post_job(port: int, body: dict[str, object], key: str | None) -> Answer:
    """Submit by HTTP. A 5xx may hide a commit; a refused connection can't."""
    connection = HTTPConnection("127.0.0.1", port, timeout=HTTP_SECONDS)
    try:
        try:
            connection.connect()
        except OSError as error:
            return "failed", None, str(error)
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        try:
            connection.request("POST", "/predict", json.dumps(body), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            return "unknown", None, repr(error)
        if answer.status == 202:
            return "ok", said["job_id"], ""
        return "unknown" if answer.status >= 500 else "failed", None, f"status {answer.status}"
    finally:
        connection.close()


def keeps_keys(port: int) -> bool:
    """Whether this web says that it takes an Idempotency-Key."""
    connection = HTTPConnection("127.0.0.1", port, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", "/openapi.json")
        described = json.loads(connection.getresponse().read())
        parameters = described["paths"]["/predict"]["post"].get("parameters", [])
        return any(one.get("name") == "Idempotency-Key" for one in parameters)
    except (OSError, HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()
