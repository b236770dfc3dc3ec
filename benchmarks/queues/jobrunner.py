"""This system."""

import os
import sys

from benchmarks.queues import SqlQueue, execute, python
from jobrunner import database, migrations

MODEL = "sentiment=benchmarks.models:Quick"

FILL = """
    insert into job (model, input)
    select
        'sentiment',
        jsonb_build_object('text', repeat('This product is amazing! ', 8))
    from generate_series(1, %s)
"""
SUBMIT = (
    """insert into job (model, input) values ('sentiment', '{"text": "now", "signal": true}')"""
)
LEFT = "select count(*) from job where finished_at is null"


class Jobrunner(SqlQueue):
    """One row a job, with all guards; results are stored. A runner of one worker a process."""

    name = "jobrunner"
    settings = "runners of one worker; results are stored"
    jobs = 40_000
    model = MODEL
    fill_statement, submit_statement, left_statement = FILL, SUBMIT, LEFT

    def install(self) -> None:
        with database.connect(self.url) as connection:
            migrations.migrate(connection)

    def commands(self, processes: int) -> list[list[str]]:
        return [python("jobrunner", "start", "--model", self.model, "--workers", "1")] * processes

    def forget(self) -> None:
        execute(self.url, ["truncate job, job_claim, job_progress, cancel_request", "analyze job"])


class Checked(Jobrunner):
    """The same, with the rules as CHECKs, each of which is read anew in every statement."""

    name = "jobrunner, rules as CHECKs"
    # The migrations that have a function know all the rules.
    left_out = (15, 16, 39)

    def install(self) -> None:
        self.connection.execute(migrations.CREATE_LEDGER)
        for migration in migrations.available():
            if migration.version not in self.left_out:
                self.connection.execute(migration.sql.encode())


class Unlisted(Jobrunner):
    """The same, without the indexes that only lists need."""

    name = "jobrunner, no indexes of lists"
    indexes = ("job_model_idx", "job_failed_list_idx", "job_unfinished_list_idx")

    def install(self) -> None:
        super().install()
        execute(self.url, [f"drop index {index}" for index in self.indexes])


FULL = os.environ.get("FULL") == "1"
PART = 50_000
# As if runners had done it, so that the rows lie in the pages as they would.
AGE = (
    FILL,
    """
    update job
    set
        status = 'processing',
        attempt = 1,
        claimed_by = 'before-1-abcd',
        lease_token = gen_random_uuid(),
        started_at = clock_timestamp()
    where finished_at is null
    """,
    """
    update job
    set
        status = 'completed',
        lease_token = null,
        finished_at = clock_timestamp(),
        result = '{"sentiment": "positive", "confidence": 0.5}'
    where finished_at is null
    """,
)


class Aged(Jobrunner):
    """The same, with as many finished rows as a service has after a while."""

    name = "jobrunner, aged"
    finished = 10_000_000 if FULL else 1_000_000

    def install(self) -> None:
        super().install()
        fill, *moves = AGE
        for done in range(0, self.finished, PART):
            print(f"{done:,} of {self.finished:,} finished rows", end="\r", file=sys.stderr)
            self.connection.execute(fill, [PART])
            for move in moves:
                self.connection.execute(move)
        self.connection.execute("vacuum analyze job")
        self.connection.execute("checkpoint")

    def forget(self) -> None:
        """What was finished stays."""


OCCUPY = """insert into job (input) values ('{"text": "long", "seconds": 600}')"""


class OneRunner(Jobrunner):
    """One runner, with as many workers as there are processes to be."""

    name = "jobrunner, one runner"
    settings = "one runner of two workers"
    model = MODEL

    def occupy(self) -> None:
        """Give one worker something to do for as long as it runs."""
        self.connection.execute(OCCUPY)

    def commands(self, processes: int) -> list[list[str]]:
        return [python("jobrunner", "start", "--model", self.model, "--workers", str(processes))]


class Batching(Jobrunner):
    """One runner of one worker, with a model that takes batches."""

    settings = "one worker, its defaults"
    jobs = 5_000
    model = "sentiment=benchmarks.models:Batching"


class Prompt(Batching):
    """The same, where no item waits for others."""

    name = "jobrunner, max_wait_ms 0"
    model = "sentiment=benchmarks.models:Prompt"
