"""How far jobs are, where their models say so: kept for a moment, then told to the database.

The functions take an autocommit connection.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg

from jobrunner.database import brief
from jobrunner.outcome import Job

Connection = psycopg.Connection[Any]

TELL_SECONDS = 1.0

# Of claims that still hold.
TELL = """
    insert into job_progress (job_id, attempt, fraction, word)
    select
        job.id,
        job.attempt,
        said.fraction,
        said.word
    from jsonb_to_recordset(%(said)s::jsonb) as said (
        id uuid,
        lease_token uuid,
        fraction real,
        word text
    )
    inner join job
        on
            said.id = job.id
            and said.lease_token = job.lease_token
    order by job.id
    on conflict (job_id) do update
    set
        attempt = excluded.attempt,
        fraction = excluded.fraction,
        word = excluded.word,
        updated_at = clock_timestamp()
"""

# Of an attempt that is not ours any more another runner may tell.
FORGET = """
    delete from job_progress
    using jsonb_to_recordset(%(over)s::jsonb) as over (id uuid, attempt smallint)
    where
        job_progress.job_id = over.id
        and job_progress.attempt = over.attempt
"""

# Left behind by runners that were killed, or left without a word.
DELETE_OLD = """
    delete from job_progress
    where
        updated_at < now() - interval '1 day'
        or exists (
            select
            from job
            where
                job.id = job_progress.job_id
                and job.finished_at is not null
        )
"""


@dataclass(frozen=True)
class Progress:
    """How far a job is: ``fraction`` from 0 to 1, and a word for what is being done."""

    fraction: float
    word: str


class Reporter:
    """What was said of the jobs of a runner, and what the database knows of it."""

    def __init__(self) -> None:
        self._new: dict[str, tuple[Job, Progress]] = {}
        # The attempt of each job of which it was told.
        self._told: dict[str, int] = {}
        self._tell_at = 0.0

    @property
    def due(self) -> bool:
        """Whether there is something to be told, and may be."""
        return bool(self._new or self._told) and monotonic() >= self._tell_at

    @property
    def tell_at(self) -> list[float]:
        """When that may be, by the monotonic clock, if there is something new."""
        return [self._tell_at] if self._new else []

    def note(self, said: Iterable[tuple[Job, Progress]]) -> None:
        """Take in what models say."""
        self._new.update((job.id, (job, progress)) for job, progress in said)

    def tell(self, connection: Connection, in_hand: Iterable[Job]) -> None:
        """Let the database know what is new of the jobs in hand, and forget what is over.

        :raises psycopg.Error: when that can't be done now; nothing is lost but this.
        """
        self._tell_at = monotonic() + TELL_SECONDS
        held = {job.id for job in in_hand}
        new, self._new = self._new, {}
        said = [
            {
                "id": job.id,
                "lease_token": job.lease_token,
                "fraction": progress.fraction,
                "word": progress.word,
            }
            for job, progress in new.values()
            if job.id in held
        ]
        if said:
            # Of what may have been told: the answer can be lost.
            self._told.update((job.id, job.attempt) for job, _ in new.values() if job.id in held)
            with brief(connection):
                connection.execute(TELL, {"said": json.dumps(said)})
        if over := self._told.keys() - held:
            rows = [{"id": each, "attempt": self._told[each]} for each in over]
            with brief(connection):
                connection.execute(FORGET, {"over": json.dumps(rows)})
            self._told = {each: self._told[each] for each in self._told.keys() - over}


def delete_old(connection: Connection) -> None:
    """Delete what runners have left behind."""
    with brief(connection):
        connection.execute(DELETE_OLD)
