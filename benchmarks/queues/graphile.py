"""graphile-worker, a queue for Node.js: `npm install --prefix DIR graphile-worker`, and
GRAPHILE_WORKER=DIR in the environment."""

import os
import shutil
from pathlib import Path

from benchmarks.queues import SqlQueue

FOLDER_VARIABLE = "GRAPHILE_WORKER"
WORKER = str(Path(__file__).with_name("graphile.mjs"))
SUBMIT = """select graphile_worker.add_job('quick', '{"signal": true}')"""
FILL = """
    select count(*)
    from (
        select
            graphile_worker.add_job(
                'quick', json_build_object('text', repeat('This product is amazing! ', 8))
            )
        from generate_series(1, %s)
    ) as added
"""
LEFT = "select count(*) from graphile_worker._private_jobs"


class GraphileWorker(SqlQueue):
    """It deletes its jobs, and keeps no result."""

    name = "graphile-worker"
    fill_statement, submit_statement, left_statement = FILL, SUBMIT, LEFT
    # Its own function takes a millisecond to add one.
    jobs = 10_000
    settings = "24 at a time, local queue of 500, completions batched"

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("node"):
            return "the program node"
        return None if os.environ.get(FOLDER_VARIABLE) else f"{FOLDER_VARIABLE} in the environment"

    def install(self) -> None:
        with self.running(1):
            self._wait_for_tables()

    def _wait_for_tables(self) -> None:
        from benchmarks.system import wait_for

        query = "select to_regclass('graphile_worker._private_jobs') is not null"
        wait_for(lambda: self.connection.execute(query).fetchone() == (True,), "its tables")

    def commands(self, processes: int) -> list[list[str]]:
        return [["node", WORKER]] * processes

    def forget(self) -> None:
        self.connection.execute("truncate graphile_worker._private_jobs")
