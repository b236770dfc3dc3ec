"""The command ``train``."""

import sys
from pathlib import Path

import click

from jobrunner import training
from jobrunner.bar import Bar
from jobrunner.cli.common import as_json, put_row, say_to_a_terminal


@click.command()
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
    bar = Bar(sys.stderr, "Training")
    report = training.train(examples, text_column, label_column, output, say_to_a_terminal, bar)
    put_row(report.to_row(), as_json=as_json)
    if not as_json:
        click.echo(f"\nServe it: jobrunner start --model sentiment=sklearn:{output}")
