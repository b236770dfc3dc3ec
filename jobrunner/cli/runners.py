"""The commands about runners: ``up``, ``start``, ``stop``."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from jobrunner import control, database, log, runner, up
from jobrunner.bar import Bar
from jobrunner.cli.arguments import parse_model, parse_model_name, parse_seconds
from jobrunner.cli.common import connect, say
from jobrunner.cli.completion import runner_ids
from jobrunner.cli.group import Parsed
from jobrunner.errors import ModelLoadError
from jobrunner.naming import name_of
from jobrunner.settings import Settings, load
from jobrunner.signals import StopSignals
from jobrunner.worker_handle import ModelSpec, WorkerLimits

RUNNER_ROLE = "job_runner"
# What takes the setting JOBRUNNER_DEVICE.
ON_A_DEVICE = ("onnx:", "transformers:")

# A name, unless the model's own is meant, and an implementation.
Wanted = tuple[str | None, str]

serve = click.option(
    "--model", "models", type=Parsed("name=implementation", parse_model), multiple=True,
    default=["sentiment=mock"], show_default=True,
    help="What to serve: mock, vader, sklearn:FILE, onnx:FOLDER, transformers:FOLDER or"
    " module:Class. Without NAME=, under the name that its class says. May be given several times.",
)  # fmt: skip


@click.command("up")
@serve
def up_command(models: Sequence[Wanted]) -> None:
    """Start database, web and a runner here, until Ctrl-C.

    Without DATABASE_URL an embedded PostgreSQL is started in JOBRUNNER_HOME (.jobrunner);
    its data stays. The first Ctrl-C or SIGTERM, or a closed terminal, lets running jobs
    finish, the second stops at once.

    \b
    Example:
        PORT=8080 MOCK_DELAY_SECONDS=1 jobrunner up
    """
    log.set_up()
    up.run(load(), _named(models), say)


@click.command()
@click.option(
    "--workers", type=click.IntRange(1, 1024),
    help="Worker processes for each model.  [JOBRUNNER_WORKERS]",
)  # fmt: skip
@serve
@click.option("--detach", is_flag=True, help="Run in the background; print the runner's id.")
@click.option("--drain", is_flag=True, help="End when the queue is empty.")
def start(workers: int | None, models: Sequence[Wanted], detach: bool, drain: bool) -> None:
    """Start a runner: it claims jobs and runs the model.

    SIGTERM, Ctrl-C or a closed terminal: no new claims, finish what is running within
    JOBRUNNER_GRACE_SECONDS, hand back the rest. Again: at once.

    \b
    Example:
        jobrunner start --workers 4
    """
    settings = load()
    url = database.url_of(settings)
    served = _named(models)
    if detach:
        _detach(settings, url, workers, served, drain)
        return
    log.set_up()
    chosen = _runner_settings(settings, url, workers or settings.workers, drain, len(served))
    specs = [_spec(settings, model, chosen.limits) for model in served]
    with StopSignals(ends=True) as signals:
        runner.Runner(chosen, specs, signals).run()


@click.command()
@click.argument("runner_id", metavar="RUNNER", required=False, shell_complete=runner_ids)
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
    with connect(RUNNER_ROLE) as connection, Bar(sys.stderr, "Stopping") as bar:

        def report(line: str) -> None:
            bar.end()
            click.echo(line)

        def tell(gone: int, total: int) -> None:
            bar.begin(total)
            bar.show(gone)

        control.stop(connection, runner_id, now=now, seconds=timeout, report=report, tell=tell)


def _named(models: Sequence[Wanted]) -> list[tuple[str, str]]:
    """Ask those that were given no name for their own; no two are called the same."""
    named = [(name or _own_name(implementation), implementation) for name, implementation in models]
    if len({name for name, _ in named}) < len(named):
        raise click.UsageError("each model can be served once: give them different names")
    return named


def _own_name(implementation: str) -> str:
    try:
        return parse_model_name(name_of(implementation))
    except ModelLoadError as error:
        raise click.UsageError(str(error)) from None
    except ValueError as error:
        raise click.UsageError(
            f"the name of {implementation} {error}: write NAME={implementation}"
        ) from None


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
    with connect() as connection:
        log_file = settings.home / "runner.log"
        started = control.start_detached(connection, arguments, url, log_file)
    if started:
        click.echo(f"Runner {started} works in the background; its log is {log_file.absolute()}.")
    else:
        click.echo(f"The runner found nothing left to do; its log is {log_file.absolute()}.")
