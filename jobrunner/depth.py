"""How long the queue is, once a minute a model: see sql/0029_add_queue_depth.sql."""

from collections.abc import Sequence
from typing import Any

import psycopg

from jobrunner.database import brief

Connection = psycopg.Connection[Any]

# A long queue is counted no further, and a slow server is spared: that minute is left out.
MOST = 100_000
GIVE_UP_SOON = "set local statement_timeout = '500ms'"

# What another runner has counted in this minute is not counted again.
SAMPLE = """
    insert into activity (
        model, minute, completed, failed, retried, released, rescued,
        waits, wait_seconds, inferences, inference_seconds, pending, oldest_pending_seconds
    )
    select
        due.model,
        span.minute,
        0,
        0,
        0,
        0,
        0,
        none.counts,
        0,
        none.counts,
        0,
        queue.pending,
        queue.oldest_seconds
    from unnest(%(models)s::text[]) as due (model)
    cross join (select date_trunc('minute', clock_timestamp())) as span (minute)
    cross join (
        select array_fill(0::bigint, array[cardinality(histogram_bounds()) + 1])
    ) as none (counts)
    cross join lateral (
        select
            count(*) as pending,
            extract(epoch from now() - min(waiting.created_at))::float8 as oldest_seconds
        from (
            select job.created_at
            from job
            where
                job.model = due.model
                and job.finished_at is null
                and job.status = 'pending'
            limit %(most)s
        ) as waiting
    ) as queue
    where
        not exists (
            select
            from activity
            where
                activity.model = due.model
                and activity.minute = span.minute
                and activity.pending is not null
        )
    order by due.model
    on conflict (model, minute) do update
    set
        pending = excluded.pending,
        oldest_pending_seconds = excluded.oldest_pending_seconds
    where activity.pending is null
"""


class Depth:
    """Looks at the queues of some models once a minute, by the database's clock."""

    def __init__(self, models: Sequence[str]) -> None:
        self._models = sorted(models)
        self._minute: int | None = None
        self._looked_at: int | None = None

    @property
    def due(self) -> bool:
        """Whether a minute has begun since it looked."""
        return self._minute != self._looked_at

    def tell_time(self, clock: float) -> None:
        """Say what time it is, in seconds since the epoch."""
        self._minute = int(clock // 60)

    def sample(self, connection: Connection) -> None:
        """Record how long the queues are, if nobody has in this minute.

        :raises psycopg.Error: when that can't be done; this minute is left out then.
        """
        self._looked_at = self._minute
        with brief(connection), connection.transaction():
            connection.execute(GIVE_UP_SOON)
            connection.execute(SAMPLE, {"models": self._models, "most": MOST})
