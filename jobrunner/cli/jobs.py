"""The commands about jobs: ``list``, ``show``, ``cancel``, ``cleanup``."""

import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import click
import psycopg

from jobrunner import janitor, jobs
from jobrunner.cli import tables
from jobrunner.cli.common import as_json, connect
from jobrunner.cli.group import Parsed
from jobrunner.settings import parse_duration

STATUSES = ["pending", "processing", "completed", "failed"]


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True,
              help="How many.")  # fmt: skip
@as_json
def list_jobs(status: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first.

    \b
    Example:
        jobrunner list --status failed --limit 50
    """
    with connect() as connection:
        found = jobs.newest(connection, status=status, limit=limit)
    if as_json:
        click.echo(tables.to_json(found))
    else:
        click.echo(tables.table(found) if found else "No jobs.")


@click.command()
@click.argument("job_id", metavar="JOB", type=click.UUID)
@as_json
def show(job_id: UUID, as_json: bool) -> None:
    """Show one job in full, with its text.

    \b
    Example:
        jobrunner show 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with connect() as connection:
        job = jobs.show(connection, job_id)
    if job is None:
        raise click.ClickException(f"there is no job {job_id}")
    click.echo(tables.to_json(job) if as_json else tables.pairs(job))


@click.command()
@click.argument("job_id", metavar="JOB", type=click.UUID)
@as_json
def cancel(job_id: UUID, as_json: bool) -> None:
    """Cancel a job: it fails with the code cancelled.

    At once while it is pending; while it runs, its inference is ended within seconds, unless
    it is done first. A final job stays as it is.

    \b
    Example:
        jobrunner cancel 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with connect() as connection:
        try:
            jobs.request_cancel(connection, job_id)
        except psycopg.errors.ForeignKeyViolation:
            raise click.ClickException(f"there is no job {job_id}") from None
        job = jobs.show(connection, job_id)
    assert job
    if as_json:
        click.echo(tables.to_json({"id": job["id"], "status": job["status"]}))
    else:
        click.echo(_cancel_result(job))


@click.command()
@click.option("--older-than", type=Parsed("duration", parse_duration), required=True,
              help="Age since the end: 7d, 12h.")  # fmt: skip
@as_json
def cleanup(older_than: timedelta, as_json: bool) -> None:
    """Delete old final jobs; never one that is not final.

    In batches, so that nobody waits for it. Runners do the same by themselves for jobs older
    than JOBRUNNER_RETENTION.

    \b
    Example:
        jobrunner cleanup --older-than 7d
    """
    total = 0
    with connect() as connection:
        while deleted := janitor.clean(connection, older_than, wait=True):
            total += deleted
            if sys.stderr.isatty():
                click.echo(f"{total} so far\r", nl=False, err=True)
    click.echo(tables.to_json({"deleted": total}) if as_json else f"Deleted {total} jobs.")


def _cancel_result(job: dict[str, Any]) -> str:
    """Say what became of a cancel."""
    if not job["finished_at"]:
        return f"Job {job['id']} is being run: its inference will be ended within seconds."
    cancelled = job["error"] is not None and json.loads(job["error"])["code"] == "cancelled"
    return (
        f"Job {job['id']} {'is cancelled' if cancelled else 'was ' + job['status'] + ' already'}."
    )
