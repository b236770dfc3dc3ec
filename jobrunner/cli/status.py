"""The command ``status``."""

import click

from jobrunner import heartbeat, jobs
from jobrunner.cli import tables
from jobrunner.cli.common import as_json, connect


@click.command()
@as_json
def status(as_json: bool) -> None:
    """Show runners, workers, queue depth and rates.

    \b
    Example:
        jobrunner status --json
    """
    with connect() as connection:
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
