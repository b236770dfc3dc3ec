"""The command ``status``."""

import click

from jobrunner import board, heartbeat, jobs
from jobrunner.cli import tables, watch
from jobrunner.cli.arguments import parse_interval
from jobrunner.cli.common import as_json, connect, on_a_terminal
from jobrunner.cli.group import Parsed

FAILURES = 5


@click.command()
@click.option("--watch", "live", is_flag=True, help="Show it live, until q or Ctrl-C.")
@click.option("--interval", type=Parsed("seconds", parse_interval),
              help="Seconds between two looks of --watch.  [default: 1]")  # fmt: skip
@as_json
def status(live: bool, interval: float | None, as_json: bool) -> None:
    """Show runners, workers, queue depth and rates.

    --watch wants a terminal; with --json it prints the same as one line of JSON a second.

    \b
    Example:
        jobrunner status --watch
    """
    if interval is not None and not live:
        raise click.UsageError("--interval goes with --watch")
    if not live:
        _show(as_json)
    elif as_json:
        watch.print_lines(interval or 1.0)
    elif on_a_terminal() and _takes_codes():
        watch.watch(interval or 1.0)
    else:
        raise click.UsageError(
            "--watch wants a terminal: add --json for a line of JSON a second, or leave it out"
        )


def _takes_codes() -> bool:
    """Whether the terminal can be drawn on: a dumb one would stay empty."""
    from jobrunner.cli import screen

    return not screen.console().is_dumb_terminal


def _show(as_json: bool) -> None:
    with connect() as connection:
        if on_a_terminal() and not as_json:
            from jobrunner.cli import screen
            from jobrunner.cli.board import draw

            screen.put(draw(board.read(connection, failures=FAILURES), screen.console()))
            return
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
