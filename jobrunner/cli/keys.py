"""The commands about API keys."""

import click

from jobrunner import keys
from jobrunner.cli import tables
from jobrunner.cli.arguments import parse_client, parse_key_id
from jobrunner.cli.common import as_json, connect, put_rows
from jobrunner.cli.group import Parsed


@click.group("keys", context_settings={"help_option_names": ["-h", "--help"]})
def keys_group() -> None:
    """Create, list and revoke API keys.

    Where the web runs with JOBRUNNER_REQUIRE_KEYS=on, a client sees its own jobs only, and
    who has no key sees none.

    \b
    Example:
        jobrunner keys create shop
    """


@keys_group.command("create")
@click.argument("client", metavar="CLIENT", type=Parsed("client", parse_client))
@click.option("--operator", is_flag=True,
              help="Sees the jobs of all, the runners, statistics and metrics.")  # fmt: skip
@click.option("--max-pending", type=click.IntRange(1, 100_000_000),
              help="How many of its jobs may wait at once.")  # fmt: skip
@as_json
def create_key(client: str, operator: bool, max_pending: int | None, as_json: bool) -> None:
    """Create an API key and print it, this once.

    A client may have several, so that a new one can be handed out before the old one is
    revoked.

    \b
    Example:
        jobrunner keys create shop --max-pending 1000
    """
    with connect() as connection:
        key_id, key = keys.create(connection, client, operator=operator, max_pending=max_pending)
    if as_json:
        click.echo(tables.to_json({"id": key_id, "client": client, "key": key}))
        return
    click.echo(key)
    click.echo(f"Keep it: only a hash of it is stored. It is {client}'s key {key_id}.", err=True)


@keys_group.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List the API keys, without their secrets.

    \b
    Example:
        jobrunner keys list
    """
    with connect() as connection:
        found = keys.every(connection)
    put_rows(found, "KEYS", as_json=as_json, none="No keys.")


@keys_group.command("revoke")
@click.argument("key_id", metavar="KEY", type=Parsed("key", parse_key_id, secret=True))
def revoke_key(key_id: str) -> None:
    """Revoke an API key, by its id or the key itself.

    Within two seconds the web refuses it; what is waiting or streaming already goes on for a
    minute at most. Its client's jobs stay.

    \b
    Example:
        jobrunner keys revoke 1f0c9a7b
    """
    with connect() as connection:
        if not keys.revoke(connection, key_id):
            raise click.ClickException(f"there is no key {key_id}: `jobrunner keys list` has all")
    click.echo(f"Key {key_id} is revoked.")
