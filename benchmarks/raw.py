"""What PostgreSQL itself can do: claim 100 and complete 100, by pgbench, on the barest table."""

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from benchmarks.queues import execute
from jobrunner.binaries import find_binaries

CLIENTS = 2
BATCH = 100  # as in SCRIPT
JOBS = 100_000
TABLES = [
    "drop table if exists raw_job",
    """
    create table raw_job (
        id bigint generated always as identity primary key,
        input text not null,
        status smallint not null default 0
    ) with (fillfactor = 50)
    """,
    "create index on raw_job (id) where status = 0",
]
FILL = """
    insert into raw_job (input)
    select repeat('This product is amazing! ', 8) from generate_series(1, %s)
"""
SCRIPT = """
with claimed as (
    update raw_job set status = 1
    where id = any(array(
        select id from raw_job where status = 0 order by id limit 100 for update skip locked
    ))
    returning id
)
select coalesce(min(id), 0) as first, coalesce(max(id), 0) as last from claimed \\gset
update raw_job set status = 2 where id between :first and :last and status = 1;
"""


def missing() -> str | None:
    """Say what it would need that is not there, if anything."""
    return None if pgbench() else "the program pgbench"


def measure(url: str) -> float:
    """Jobs a second, claimed and completed."""
    execute(url, TABLES)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL, [JOBS])
        connection.execute("vacuum analyze raw_job")
    with TemporaryDirectory() as folder:
        script = Path(folder) / "claim.sql"
        script.write_text(SCRIPT)
        rounds = JOBS // BATCH // CLIENTS * 9 // 10
        options = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-t", str(rounds)]
        command = [str(pgbench()), *options, "-f", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return rate_said(done.stdout) * BATCH


def rate_said(output: str) -> float:
    """The transactions a second that pgbench has printed."""
    found = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    if not found:
        raise SystemExit(f"pgbench said: {output}")
    return float(found[1])


def pgbench() -> str | None:
    """Where pgbench is, if it is here."""
    beside = find_binaries() / "pgbench"
    return str(beside) if beside.exists() else shutil.which("pgbench")
