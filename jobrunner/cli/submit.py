"""The command ``submit``."""

import dataclasses
import sys

import click

from jobrunner import database
from jobrunner.bulk import order, submission
from jobrunner.cli import tables
from jobrunner.cli.common import as_json
from jobrunner.settings import load


@click.command()
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
