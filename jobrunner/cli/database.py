"""The commands about the database: ``migrate``, ``psql``, ``doctor``."""

import sys

import click

from jobrunner import database, doctor, migrations, psql
from jobrunner.cli import tables
from jobrunner.cli.common import as_json
from jobrunner.settings import load


@click.command()
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


@click.command("psql", context_settings={"ignore_unknown_options": True})
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


@click.command("doctor")
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
