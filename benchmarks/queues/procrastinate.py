"""procrastinate: psycopg and asyncio; as a module, one of its workers."""

import asyncio
import os
from importlib.util import find_spec

from benchmarks.queues import SqlQueue, python
from benchmarks.signals import signal_start

CONCURRENCY = 20
LEFT = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
FILL = """
    insert into procrastinate_jobs (queue_name, task_name, args)
    select
        'default',
        'quick',
        jsonb_build_object('text', repeat('This product is amazing! ', 8))
    from generate_series(1, %s)
"""
SUBMIT = """
    insert into procrastinate_jobs (queue_name, task_name, args)
    values ('default', 'quick', '{"text": "now", "signal": true}')
"""


class Procrastinate(SqlQueue):
    """Its jobs are inserted by SQL, which its triggers see as they do its own."""

    name = "procrastinate"
    settings = f"concurrency {CONCURRENCY}"
    jobs = 5_000
    fill_statement, submit_statement, left_statement = FILL, SUBMIT, LEFT

    @classmethod
    def missing(cls) -> str | None:
        return None if find_spec("procrastinate") else "the package procrastinate"

    def install(self) -> None:
        from procrastinate import App, SyncPsycopgConnector

        with App(connector=SyncPsycopgConnector(conninfo=self.url)).open() as app:
            app.schema_manager.apply_schema()

    def commands(self, processes: int) -> list[list[str]]:
        return [python(__name__)] * processes

    def forget(self) -> None:
        self.connection.execute("truncate procrastinate_jobs cascade")


async def work() -> None:
    """Be a worker."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))

    @app.task(name="quick", queue="default")
    async def quick(text: str, signal: bool = False) -> None:
        if signal:
            signal_start()

    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    asyncio.run(work())
