"""API keys: made, listed and revoked here; the web reads them (see sql/0021_create_api_key.sql).

The functions take an autocommit connection.
"""

import hashlib
import secrets
from typing import Any

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.Connection[Any]

ID_BYTES = 4
# As many as SHA-256 has: nothing can be gained by guessing.
SECRET_BYTES = 32

INSERT_KEY = """
    insert into api_key (id, client_id, secret_hash, operator, max_pending)
    values (%(id)s, %(client)s, %(secret_hash)s, %(operator)s, %(max_pending)s)
"""

LIST_KEYS = """
    select
        id,
        client_id as client,
        operator,
        max_pending,
        created_at,
        revoked_at
    from api_key
    order by created_at, id
"""

# At once, however often it is revoked; when that was first done is kept.
REVOKE_KEY = """
    update api_key
    set revoked_at = coalesce(revoked_at, clock_timestamp())
    where id = %(id)s
"""


def create(
    connection: Connection, client: str, *, operator: bool = False, max_pending: int | None = None
) -> tuple[str, str]:
    """Make a key of a client; return its id, and the key itself, which is not kept."""
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    values = {
        "id": key_id,
        "client": client,
        "secret_hash": hashlib.sha256(secret.encode()).digest(),
        "operator": operator,
        "max_pending": max_pending,
    }
    connection.execute(INSERT_KEY, values)
    return key_id, f"jr_{key_id}_{secret}"


def every(connection: Connection) -> list[dict[str, Any]]:
    """List all keys, the oldest first, without anything that would open."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST_KEYS).fetchall()


def revoke(connection: Connection, key_id: str) -> bool:
    """Revoke a key; False where there is none of that id."""
    return connection.execute(REVOKE_KEY, {"id": key_id}).rowcount == 1
