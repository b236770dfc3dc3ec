"""The command ``jobrunner``: reads arguments, prints, sets the exit code; nothing more."""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import psycopg

from jobrunner import (
    control,
    database,
    doctor,
    heartbeat,
    janitor,
    jobs,
    keys,
    log,
    migrations,
    psql,
    runner,
    tables,
    training,
    up,
)
from jobrunner.arguments import parse_client, parse_key_id, parse_model, parse_seconds
from jobrunner.bulk import order, submission
from jobrunner.group import Commands, Parsed, discard_output
from jobrunner.settings import Settings, load, parse_duration
from jobrunner.signals import StopSignals
from jobrunner.worker_handle import ModelSpec, WorkerLimits

RUNNER_ROLE = "job_runner"
# What takes the setting JOBRUNNER_DEVICE.
ON_A_DEVICE = ("onnx:", "transformers:")
STATUSES = ["pending", "processing", "completed", "failed"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
serve = click.option(
    "--model", "models", type=Parsed("name=implementation", parse_model), multiple=True,
    default=["sentiment=mock"], show_default=True,
    help="What to serve: mock, vader, sklearn:FILE, onnx:FOLDER, transformers:FOLDER or"
    " module:Class. May be given several times.",
)  # fmt: skip


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobrunner", message="jobrunner %(version)s")
def main() -> None:
    """Run ML models behind a PostgreSQL queue.

    Settings come from the environment; DATABASE_URL says where the database is. Without it,
    the embedded PostgreSQL that `jobrunner up` runs in JOBRUNNER_HOME is used.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


@main.command("up")
@serve
def up_command(models: Sequence[tuple[str, str]]) -> None:
    """Start database, web and a runner here, until Ctrl-C.

    Without DATABASE_URL an embedded PostgreSQL is started in JOBRUNNER_HOME (.jobrunner);
    its data stays. The first Ctrl-C or SIGTERM, or a closed terminal, lets running jobs
    finish, the second stops at once.

    \b
    Example:
        PORT=8080 MOCK_DELAY_SECONDS=1 jobrunner up
    """
    log.set_up()
    up.run(load(), _distinct(models), _say)


@main.command()
@click.option("--status", "show_status", is_flag=True, help="Show what is applied; change nothing.")
@as_json
def migrate(show_status: bool, as_json: bool) -> None:
    """Bring the tables up to date, or show what is applied.

    Several may start at once: one works, the others wait.

    \b
    Example:
        jobrunner migrate --status
    """
    with database.connect(database.url_of(load())) as connection:
        if not show_status:
            done = migrations.migrate(connection)
        found = migrations.status(connection)
    rows = [
        {"version": f"{m.version:04d}", "name": m.name, "applied_at": m.applied_at} for m in found
    ]
    if as_json:
        click.echo(tables.to_json(rows))
    elif show_status:
        click.echo(tables.table(rows))
    else:
        names = ", ".join(f"{m.version:04d}_{m.name}" for m in done)
        click.echo(f"Applied {names}." if done else "Nothing to apply: the schema is up to date.")


@main.command()
@click.option(
    "--workers", type=click.IntRange(1, 1024),
    help="Worker processes for each model.  [JOBRUNNER_WORKERS]",
)  # fmt: skip
@serve
@click.option("--detach", is_flag=True, help="Run in the background; print the runner's id.")
@click.option("--drain", is_flag=True, help="End when the queue is empty.")
def start(
    workers: int | None, models: Sequence[tuple[str, str]], detach: bool, drain: bool
) -> None:
    """Start a runner: it claims jobs and runs the model.

    SIGTERM, Ctrl-C or a closed terminal: no new claims, finish what is running within
    JOBRUNNER_GRACE_SECONDS, hand back the rest. Again: at once.

    \b
    Example:
        jobrunner start --workers 4
    """
    settings = load()
    url = database.url_of(settings)
    if detach:
        _detach(settings, url, workers, _distinct(models), drain)
        return
    log.set_up()
    served = _distinct(models)
    chosen = _runner_settings(settings, url, workers or settings.workers, drain, len(served))
    specs = [_spec(settings, model, chosen.limits) for model in served]
    with StopSignals() as signals:
        runner.Runner(chosen, specs, signals).run()


@main.command()
@click.argument("runner_id", metavar="RUNNER", required=False)
@click.option("--all", "everyone", is_flag=True, help="Stop every runner.")
@click.option("--timeout", type=Parsed("seconds", parse_seconds), default="60", show_default=True,
              help="Seconds to wait until they are gone.")  # fmt: skip
@click.option("--now", is_flag=True, help="Do not wait for running jobs: hand them back.")
def stop(runner_id: str | None, everyone: bool, timeout: float, now: bool) -> None:
    """Stop a runner, or all, on any machine.

    They are asked through the database, finish what they hold, or hand it back.

    \b
    Example:
        jobrunner stop --all --timeout 30
    """
    if (runner_id is None) == (not everyone):
        raise click.UsageError("give the id of a runner (see `jobrunner status`), or --all")
    with _connect(RUNNER_ROLE) as connection:
        control.stop(connection, runner_id, now=now, seconds=timeout, report=click.echo)


@main.command()
@as_json
def status(as_json: bool) -> None:
    """Show runners, workers, queue depth and rates.

    \b
    Example:
        jobrunner status --json
    """
    with _connect() as connection:
        queues, runners = jobs.health(connection), heartbeat.overview(connection)
        progress = jobs.in_progress(connection)
    if as_json:
        found = {"queues": queues, "runners": runners, "progress": progress}
        click.echo(tables.to_json(found))
        return
    click.echo(tables.table(queues))
    click.echo()
    if runners:
        click.echo(tables.table(runners))
    else:
        click.echo("No runner: start one with `jobrunner start`.")
    if progress:
        click.echo()
        click.echo(tables.table(progress))


@main.command("list")
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
    with _connect() as connection:
        found = jobs.newest(connection, status=status, limit=limit)
    if as_json:
        click.echo(tables.to_json(found))
    else:
        click.echo(tables.table(found) if found else "No jobs.")


@main.command()
@click.argument("job_id", metavar="JOB", type=click.UUID)
@as_json
def show(job_id: UUID, as_json: bool) -> None:
    """Show one job in full, with its text.

    \b
    Example:
        jobrunner show 01890a5d-ac96-774b-bcce-b302099a8057
    """
    with _connect() as connection:
        job = jobs.show(connection, job_id)
    if job is None:
        raise click.ClickException(f"there is no job {job_id}")
    click.echo(tables.to_json(job) if as_json else tables.pairs(job))


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--wait", is_flag=True, help="Wait until all are final.")
@click.option("--output", metavar="OUT",
              help="Wait, and write a row for each row; - is stdout.")  # fmt: skip
@click.option("--model", default="sentiment", show_default=True, help="Who is to answer.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, show_default=True,
              help="Higher first.")  # fmt: skip
@click.option("--text-column", default="text", show_default=True,
              help="Where a CSV has the texts.")  # fmt: skip
@click.option("--format", "file_format", type=click.Choice([order.CSV, order.NDJSON]),
              help="What FILE is; without it, its suffix tells.")  # fmt: skip
@click.option("--skip-invalid", is_flag=True,
              help="Write an error for a row that is not valid; do not stop.")  # fmt: skip
@as_json
def submit(
    source: str, wait: bool, output: str | None, model: str, priority: int, text_column: str,
    file_format: str | None, skip_invalid: bool, as_json: bool,
) -> None:  # fmt: skip
    """Submit a CSV or NDJSON of texts as one batch.

    FILE is a CSV with a header, or has a JSON object with "text" in each line; - is standard
    input. For a model that takes no text, "input" holds what it gets. OUT has the columns of
    FILE, then what became of the job. Interrupted, the same command goes on where it stopped.

    Exit code 1 if any job failed.

    \b
    Example:
        jobrunner submit reviews.csv --output results.csv
    """
    if skip_invalid and output is None:
        raise click.UsageError("--skip-invalid needs --output, which says what was skipped")
    found = file_format or order.format_of(source)
    if found is None:
        raise click.UsageError("the format of FILE is not clear: give --format csv or ndjson")
    if output is not None and order.format_of(output) not in (found, None):
        raise click.UsageError(f"the output is {found}, like FILE: name OUT so")
    kind = order.Kind(found, model, priority, text_column)
    wanted = order.Order(source, kind, wait or output is not None, output, skip_invalid)
    done = submission.submit(database.url_of(load()), wanted, sys.stderr)
    _tell_submitted(wanted, done, as_json)


@main.command()
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
    with _connect() as connection:
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


@main.command()
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
    with _connect() as connection:
        while deleted := janitor.clean(connection, older_than, wait=True):
            total += deleted
            if sys.stderr.isatty():
                click.echo(f"{total} so far\r", nl=False, err=True)
    click.echo(tables.to_json({"deleted": total}) if as_json else f"Deleted {total} jobs.")


@main.group("keys", context_settings={"help_option_names": ["-h", "--help"]})
def keys_group() -> None:
    """Create, list and revoke API keys.

    Where the web runs with JOBRUNNER_REQUIRE_KEYS=on, a client sees its own jobs only, and
    who has no key sees none.

    \b
    Example:
        jobrunner keys create shop
    """


@keys_group.command("create")
@click.argument("client", metavar="CLIENT", type=Parsed("client", parse_client))
@click.option("--operator", is_flag=True,
              help="Sees the jobs of all, the runners, statistics and metrics.")  # fmt: skip
@click.option("--max-pending", type=click.IntRange(1, 100_000_000),
              help="How many of its jobs may wait at once.")  # fmt: skip
@as_json
def create_key(client: str, operator: bool, max_pending: int | None, as_json: bool) -> None:
    """Create an API key and print it, this once.

    A client may have several, so that a new one can be handed out before the old one is
    revoked.

    \b
    Example:
        jobrunner keys create shop --max-pending 1000
    """
    with _connect() as connection:
        key_id, key = keys.create(connection, client, operator=operator, max_pending=max_pending)
    if as_json:
        click.echo(tables.to_json({"id": key_id, "client": client, "key": key}))
        return
    click.echo(key)
    click.echo(f"Keep it: only a hash of it is stored. It is {client}'s key {key_id}.", err=True)


@keys_group.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List the API keys, without their secrets.

    \b
    Example:
        jobrunner keys list
    """
    with _connect() as connection:
        found = keys.every(connection)
    if as_json:
        click.echo(tables.to_json(found))
    else:
        click.echo(tables.table(found) if found else "No keys.")


@keys_group.command("revoke")
@click.argument("key_id", metavar="KEY", type=Parsed("key", parse_key_id, secret=True))
def revoke_key(key_id: str) -> None:
    """Revoke an API key, by its id or the key itself.

    Within two seconds the web refuses it; what is waiting or streaming already goes on for a
    minute at most. Its client's jobs stay.

    \b
    Example:
        jobrunner keys revoke 1f0c9a7b
    """
    with _connect() as connection:
        if not keys.revoke(connection, key_id):
            raise click.ClickException(f"there is no key {key_id}: `jobrunner keys list` has all")
    click.echo(f"Key {key_id} is revoked.")


@main.command()
@click.argument("examples", metavar="CSV", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="File to write the model to.")  # fmt: skip
@click.option("--text-column", default="text", show_default=True,
              help="Column with the texts.")  # fmt: skip
@click.option("--label-column", default="sentiment", show_default=True,
              help="Column with positive or negative.")  # fmt: skip
@as_json
def train(examples: Path, output: Path, text_column: str, label_column: str, as_json: bool) -> None:
    """Train a model on the examples of a CSV file.

    A fifth of them is held out, and the report says how well the model does on these. It
    wants the extra sklearn, and is served by --model sentiment=sklearn:FILE.

    \b
    Example:
        jobrunner train sentiment.csv --output model.joblib
    """
    report = training.train(examples, text_column, label_column, output, _say_to_a_terminal)
    row = report.to_row()
    if as_json:
        click.echo(tables.to_json(row))
        return
    click.echo(tables.pairs(row))
    click.echo(f"\nServe it: jobrunner start --model sentiment=sklearn:{output}")


@main.command("psql", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql_command(arguments: tuple[str, ...]) -> None:
    """Open psql on the project's database.

    What follows is passed on to psql. To look first: the tables job, runner and model, the
    views queue_health, runner_overview and recent_failure, and \\d+ job.

    \b
    Example:
        jobrunner psql -c "select * from queue_health"
    """
    psql.open_psql(database.url_of(load()), arguments)


@main.command("doctor")
@as_json
def doctor_command(as_json: bool) -> None:
    """Look for what is wrong here, and say how to mend it.

    At the server, the tables, the runners, the queue, and at what keeps dead rows from being
    removed. Exit code 1 if anything is wrong.

    \b
    Example:
        jobrunner doctor
    """
    findings = list(doctor.examine(load()))
    if as_json:
        click.echo(tables.to_json([finding.to_row() for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{'BAD' if finding.advice else 'ok '}  {finding.what}")
            if finding.advice:
                click.echo(f"     → {finding.advice}")
    if any(finding.advice for finding in findings):
        sys.exit(1)


def _connect(role: str | None = None) -> database.BoundedConnection:
    connection = database.connect(database.url_of(load()), role=role, name="jobrunner command")
    connection.adapters.register_loader("jsonb", tables.JsonLoader)
    return connection


def _cancel_result(job: dict[str, Any]) -> str:
    """Say what became of a cancel."""
    if not job["finished_at"]:
        return f"Job {job['id']} is being run: its inference will be ended within seconds."
    cancelled = job["error"] is not None and json.loads(job["error"])["code"] == "cancelled"
    return (
        f"Job {job['id']} {'is cancelled' if cancelled else 'was ' + job['status'] + ' already'}."
    )


def _tell_submitted(wanted: order.Order, done: order.Summary, as_json: bool) -> None:
    """Say what came of a submission; where it did not all go well, end with 1."""
    tally = done.tally
    figures = {"batch_id": done.batch_id, "rows": done.rows, "submitted": done.jobs}
    if wanted.wait:
        figures |= dataclasses.asdict(tally)
    to_stderr = wanted.output == order.STREAM
    if as_json:
        click.echo(tables.to_json(figures), err=to_stderr)
    elif not wanted.wait:
        click.echo(f"Submitted {done.jobs} jobs as batch {done.batch_id}.")
    elif tally.completed == done.rows:
        click.echo(f"Completed {done.rows} jobs of batch {done.batch_id}.", err=to_stderr)
    if wanted.wait and tally.completed < done.rows:
        raise click.ClickException(
            f"of {done.rows} rows {tally.failed} failed and {tally.invalid} are not valid,"
            f" in batch {done.batch_id}"
        )


def _say(line: str) -> None:
    """Print to whom it may concern: a terminal that is gone must not keep us from stopping."""
    try:
        click.echo(line)
    except OSError:
        discard_output()


def _distinct(models: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    names = [name for name, _ in models]
    if len(set(names)) < len(names):
        raise click.UsageError("each model can be served once: give them different names")
    return models


def _say_to_a_terminal(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"{line} …", err=True)


def _spec(settings: Settings, model: tuple[str, str], limits: WorkerLimits) -> ModelSpec:
    name, implementation = model
    options: dict[str, Any] = {}
    if implementation == "mock":
        options = {"delay_seconds": settings.mock_delay_seconds}
    elif implementation.startswith(ON_A_DEVICE):
        options = {"device": settings.device, "threads": limits.threads}
    return ModelSpec(name, implementation, options)


def _runner_settings(
    settings: Settings, url: str, workers: int, drain: bool, models: int
) -> runner.Settings:
    return runner.Settings(
        url=url,
        listen_url=settings.listen_url or url,
        workers=workers,
        lease_seconds=settings.lease_seconds,
        poll_seconds=settings.poll_seconds,
        grace_seconds=settings.grace_seconds,
        limits=_limits(settings, workers * models),
        retention=settings.retention,
        drain=drain,
    )


def _limits(settings: Settings, workers: int) -> WorkerLimits:
    return WorkerLimits(
        max_result_bytes=settings.max_result_bytes,
        memory_bytes=settings.worker_memory,
        threads=settings.worker_threads or max(1, (os.cpu_count() or 1) // workers),
        max_jobs=settings.worker_max_jobs,
        devices=settings.devices,
    )


def _detach(
    settings: Settings,
    url: str,
    workers: int | None,
    models: Sequence[tuple[str, str]],
    drain: bool,
) -> None:
    arguments = [part for model in models for part in ("--model", "=".join(model))]
    arguments += ["--workers", str(workers)] if workers else []
    arguments += ["--drain"] if drain else []
    with _connect() as connection:
        log_file = settings.home / "runner.log"
        started = control.start_detached(connection, arguments, url, log_file)
    if started:
        click.echo(f"Runner {started} works in the background; its log is {log_file.absolute()}.")
    else:
        click.echo(f"The runner found nothing left to do; its log is {log_file.absolute()}.")
