"""The commands about jobs: ``list``, ``show``, ``cancel``, ``retry``, ``cleanup``."""

import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import click
import psycopg

from jobrunner import janitor, jobs
from jobrunner.bar import Bar
from jobrunner.cli import tables
from jobrunner.cli.arguments import parse_model_name
from jobrunner.cli.common import as_json, connect, put_row, put_rows
from jobrunner.cli.completion import job_ids
from jobrunner.cli.group import Parsed
from jobrunner.settings import parse_duration

STATUSES = ["pending", "processing", "completed", "failed"]
# Who inserts: see sql/0007_create_roles.sql.
SUBMITTING_ROLE = "job_web"


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this state.")
@click.option("--model", type=Parsed("name", parse_model_name), help="Only jobs of this model.")
@click.option("--batch", "batch_id", type=click.UUID, help="Only jobs of this batch.")
@click.option("--since", type=Parsed("duration", parse_duration),
              help="Only jobs submitted since then: 2h, 7d.")  # fmt: skip
@click.option("--older-than", type=Parsed("duration", parse_duration),
              help="Only jobs submitted before that: 15m, 1d.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True,
              help="How many.")  # fmt: skip
@as_json
def list_jobs(
    status: str | None, model: str | None, batch_id: UUID | None, since: timedelta | None,
    older_than: timedelta | None, limit: int, as_json: bool,
) -> None:  # fmt: skip
    """List jobs, newest first.

    \b
    Example:
        jobrunner list --status failed --since 2h
    """
    wanted = jobs.Wanted(status, model, batch_id, since, older_than, limit)
    with connect() as connection:
        found = jobs.newest(connection, wanted)
    put_rows(found, "JOBS", as_json=as_json, none="No jobs.")


@click.command()
@click.argument("job_id", metavar="JOB", type=click.UUID,
                shell_complete=job_ids())  # fmt: skip
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
    put_row(job, as_json=as_json)


@click.command()
@click.argument("job_id", metavar="JOB", type=click.UUID,
                shell_complete=job_ids("pending", "processing"))  # fmt: skip
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
@click.argument("job_id", metavar="JOB", type=click.UUID,
                shell_complete=job_ids("failed"))  # fmt: skip
@as_json
def retry(job_id: UUID, as_json: bool) -> None:
    """Submit a failed job anew, as another job.

    The new one has the input, model and priority of the old one, which stays as it is.

    \b
    Example:
        jobrunner retry 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with connect(SUBMITTING_ROLE) as connection:
        try:
            new_id = jobs.retry(connection, job_id)
        except (
            psycopg.errors.NoDataFound,
            psycopg.errors.ObjectNotInPrerequisiteState,
        ) as error:
            said = error.diag.message_primary
            raise click.ClickException(f"job {job_id} can not be retried: {said}") from None
    if as_json:
        click.echo(tables.to_json({"id": new_id, "retry_of": job_id}))
    else:
        click.echo(f"Job {new_id} repeats job {job_id}.")


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
    deleted = 0
    with connect() as connection, Bar(sys.stderr, "Deleting") as bar:
        if bar.is_seen:
            bar.begin(janitor.count_old(connection, older_than))
        while batch := janitor.clean(connection, older_than, wait=True):
            deleted += batch
            bar.show(deleted)
    click.echo(tables.to_json({"deleted": deleted}) if as_json else f"Deleted {deleted} jobs.")


def _cancel_result(job: dict[str, Any]) -> str:
    """Say what became of a cancel."""
    if not job["finished_at"]:
        return f"Job {job['id']} is being run: its inference will be ended within seconds."
    cancelled = job["error"] is not None and json.loads(job["error"])["code"] == "cancelled"
    return (
        f"Job {job['id']} {'is cancelled' if cancelled else 'was ' + job['status'] + ' already'}."
    )
