"""The command ``jobrunner``: reads arguments, prints, sets the exit code; nothing more."""

import click

from jobrunner.cli import database, jobs, keys, runners, status, submit, training
from jobrunner.cli.group import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobrunner", message="jobrunner %(version)s")
def main() -> None:
    """Run ML models behind a PostgreSQL queue.

    Settings come from the environment; DATABASE_URL says where the database is. Without it,
    the embedded PostgreSQL that `jobrunner up` runs in JOBRUNNER_HOME is used.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


# In the order in which the overview lists them.
for command in (
    runners.up_command,
    database.migrate,
    runners.start,
    runners.stop,
    status.status,
    jobs.list_jobs,
    jobs.show,
    submit.submit,
    jobs.cancel,
    jobs.retry,
    jobs.cleanup,
    keys.keys_group,
    training.train,
    database.psql_command,
    database.doctor_command,
):
    main.add_command(command)
