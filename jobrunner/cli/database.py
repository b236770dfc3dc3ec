"""The commands about the database: ``migrate``, ``psql``, ``doctor``."""

import sys
from collections import Counter
from collections.abc import Sequence

import click

from jobrunner import database, doctor, migrations, psql
from jobrunner.bar import Bar
from jobrunner.cli import tables
from jobrunner.cli.common import as_json, on_a_terminal, put_rows
from jobrunner.cli.safe import safe
from jobrunner.doctor import Finding
from jobrunner.migrations import Migration
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
            done = _migrate(connection)
        found = migrations.status(connection)
    rows = [
        {"version": f"{m.version:04d}", "name": m.name, "applied_at": m.applied_at} for m in found
    ]
    if as_json or show_status:
        put_rows(rows, "MIGRATIONS", as_json=as_json, none="")
    else:
        names = ", ".join(f"{m.version:04d}_{m.name}" for m in done)
        click.echo(f"Applied {names}." if done else "Nothing to apply: the schema is up to date.")


@click.command("psql", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql_command(arguments: tuple[str, ...]) -> None:
    """Open psql on the project's database.

    What follows is passed on to psql. At a terminal the first queries of an operator have
    short names: :queues, :waiting, :running, :runners, :failures, :throughput, :slow (what
    keeps dead rows), :locks (who waits for whom). \\d+ job explains the columns.

    \b
    Example:
        jobrunner psql -c "select * from queue_health"
    """
    psql.open_psql(database.url_of(load()), arguments)


@click.command("doctor")
@as_json
def doctor_command(as_json: bool) -> None:
    """Look for what is wrong here, and say how to mend it.

    At the server and its settings, the way to it, the tables, the runners, the jobs, and at
    what keeps dead rows from being removed. Exit code 1 if there is a problem; a warning is
    none.

    \b
    Example:
        jobrunner doctor
    """
    findings = []
    for finding in doctor.examine():
        findings.append(finding)
        if not as_json:
            _tell(finding)
    if as_json:
        click.echo(tables.to_json([finding.to_row() for finding in findings]))
    else:
        click.echo(f"\n{_summary(findings)}")
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)


def _tell(finding: Finding) -> None:
    """Print a finding at once: the next one may take seconds."""
    if on_a_terminal():
        from jobrunner.cli import screen

        screen.put(screen.finding(finding.level, finding.what, finding.advice))
        return
    click.echo(f"{finding.level:<8} {safe(finding.what)}")
    if finding.advice:
        click.echo(f"         → {safe(finding.advice)}")


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    problems, warnings = counts["problem"], counts["warning"]
    if not problems and not warnings:
        return "All is well."
    return f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}."


def _migrate(connection: database.BoundedConnection) -> list[Migration]:
    """Apply what is pending, with a bar for who looks on."""
    with Bar(sys.stderr, "Migrating") as bar:
        if bar.is_seen:
            bar.begin(migrations.count_pending(connection))
        return migrations.migrate(connection, lambda _: bar.step())
