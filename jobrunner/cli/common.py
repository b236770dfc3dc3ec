"""What the commands have in common."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from jobrunner import database
from jobrunner.cli import tables
from jobrunner.cli.group import discard_output
from jobrunner.settings import load

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

NAME = "jobrunner command"


def connect(role: str | None = None) -> database.BoundedConnection:
    """Open the connection of a command, which gives JSON as its text."""
    connection = database.connect(database.url_of(load()), role=role, name=NAME)
    connection.adapters.register_loader("jsonb", tables.JsonLoader)
    return connection


def put_rows(rows: Sequence[Mapping[str, Any]], kind: str, *, as_json: bool, none: str) -> None:
    """Print rows: for programs, for a terminal by the columns of that kind, or plainly."""
    if as_json:
        click.echo(tables.to_json(rows))
    elif not rows:
        click.echo(none)
    elif on_a_terminal():
        from jobrunner.cli import columns, screen

        to = screen.console()
        to.print(screen.table(getattr(columns, kind), rows, to, fold=True))
    else:
        click.echo(tables.table(rows))


def put_row(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one row, a line a column."""
    if as_json:
        click.echo(tables.to_json(row))
    elif on_a_terminal():
        from jobrunner.cli import screen

        screen.put(screen.pairs(row))
    else:
        click.echo(tables.pairs(row))


def on_a_terminal() -> bool:
    """Whether a person looks at standard output: rich is imported for nobody else."""
    return sys.stdout.isatty()


def say(line: str) -> None:
    """Print to whom it may concern: a terminal that is gone must not keep us from stopping."""
    try:
        click.echo(line)
    except OSError:
        discard_output()


def say_to_a_terminal(line: str) -> None:
    """Say on standard error what takes its time, to a person only."""
    if sys.stderr.isatty():
        click.echo(f"{line} …", err=True)
