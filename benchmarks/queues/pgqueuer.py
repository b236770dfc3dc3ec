"""PgQueuer: asyncpg and asyncio; as a module, one of its workers."""

import asyncio
import os
from importlib.util import find_spec

from benchmarks.queues import SqlQueue, python
from benchmarks.signals import SIGNAL, signal_start

BATCH = 500
LEFT = "select count(*) from pgqueuer"
FILL = """
    insert into pgqueuer (priority, status, entrypoint, payload)
    select
        0,
        'queued',
        'quick',
        convert_to(repeat('This product is amazing! ', 8), 'UTF8')
    from generate_series(1, %s)
"""
SUBMIT = """
    insert into pgqueuer (priority, status, entrypoint, payload)
    values (0, 'queued', 'quick', 'signal')
"""


class PgQueuer(SqlQueue):
    """Its jobs are inserted by SQL, which its triggers see as they do its own."""

    name = "PgQueuer"
    settings = f"batch_size {BATCH}, uvloop"
    fill_statement, submit_statement, left_statement = FILL, SUBMIT, LEFT

    @classmethod
    def missing(cls) -> str | None:
        return None if find_spec("pgqueuer") else "the package pgqueuer"

    def install(self) -> None:
        asyncio.run(self._install())

    async def _install(self) -> None:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        connection = await asyncpg.connect(self.url)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    def commands(self, processes: int) -> list[list[str]]:
        return [python(__name__)] * processes

    def forget(self) -> None:
        self.connection.execute("truncate pgqueuer, pgqueuer_log, pgqueuer_statistics")


async def work() -> None:
    """Be a worker."""
    import asyncpg
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.models import Job

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("quick")
    async def quick(job: Job) -> None:
        if job.payload == SIGNAL:
            signal_start()

    await queue.run(batch_size=BATCH)


if __name__ == "__main__":
    import uvloop

    uvloop.run(work())
