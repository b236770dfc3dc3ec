"""What the commands have in common."""

import sys

import click

from jobrunner import database
from jobrunner.cli import tables
from jobrunner.cli.group import discard_output
from jobrunner.settings import load

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def connect(role: str | None = None) -> database.BoundedConnection:
    """Open the connection of a command, which gives JSON as its text."""
    connection = database.connect(database.url_of(load()), role=role, name="jobrunner command")
    connection.adapters.register_loader("jsonb", tables.JsonLoader)
    return connection


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
