"""The group of commands: what goes wrong in one of them is one line, and an exit code."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, TypeVar

import click
import psycopg

from jobrunner import database
from jobrunner.errors import DatabaseUnavailable, JobrunnerError, SchemaMissing
from jobrunner.settings import load

T = TypeVar("T")

# What the tables of an older version answer.
TooOld = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


class Commands(click.Group):
    """A group whose errors are one line; exit code 1, or 2 where the usage is wrong.

    A Ctrl-C is no error: its exit code is that of a shell, and nothing is said.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # It warns of what goes wrong while a connection is given up; we say ourselves what does.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        _write_any_text()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            discard_output()
            what = error.filename or "the output can not be written"
            click.ClickException(f"{what}: {error.strerror or error}").show()
            sys.exit(1)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _one_line(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _one_line(error) from None
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except TooOld:
            raise click.ClickException(str(SchemaMissing())) from None
        except DatabaseUnavailable as error:
            raise click.ClickException(f"{error}: {_where_to_look()}") from None
        except psycopg.Error as error:
            raise click.ClickException(f"the database: {database.first_line(error)}") from None
        except JobrunnerError as error:
            raise click.ClickException(str(error)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Parsed(click.ParamType[T]):
    """What a function makes of the text; its ValueError says how that should look."""

    def __init__(self, name: str, parse: Callable[[str], T], *, secret: bool = False) -> None:
        self.name = name
        self.parse = parse
        self.secret = secret

    def convert(self, value: Any, param: Any, ctx: Any) -> T:
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(f"it {error}" if self.secret else f"{value!r} {error}", param, ctx)


def discard_output() -> None:
    """Let go of what could not be written: Python would try again at its end, and complain.

    :source: "Note on SIGPIPE", in the standard library's documentation of ``signal``.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _write_any_text() -> None:
    """Have a terminal or file of an old encoding told what it has no letter for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _where_to_look() -> str:
    if load().database_url:
        return "check DATABASE_URL and the server"
    return "`jobrunner up` starts one here"


def _one_line(error: click.UsageError) -> click.UsageError:
    """Put the way to the help on the line of the error; click would print four."""
    if error.ctx is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    said = error.format_message().rstrip(".")
    return click.UsageError(f"{said}: see `{error.ctx.command_path} --help`")
