"""The registry of models: which there are, and what each version of them takes and gives."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg

from jobrunner.database import first_line
from jobrunner.errors import ModelLoadError

Connection = psycopg.Connection[Any]

# What a JSON Schema says beside its rules (2020-12, "Meta-Data Annotations").
ANNOTATIONS = ("title", "description", "examples", "default", "deprecated", "$comment")

REGISTER_MODEL = "insert into model (name) values (%(name)s) on conflict (name) do nothing"

REGISTER_VERSION = """
    insert into model_version (
        model, version, input_schema, output_schema,
        max_batch_size, max_wait_ms, timeout_seconds
    )
    values (
        %(model)s, %(version)s, %(input_schema)s::jsonb, %(output_schema)s::jsonb,
        %(max_batch_size)s, %(max_wait_ms)s, %(timeout_seconds)s
    )
    on conflict (model, version) do nothing
"""

READ_SCHEMAS = """
    select
        input_schema,
        output_schema
    from model_version
    where
        model = %(model)s
        and version = %(version)s
"""


def register_model(connection: Connection, model: str, card: Mapping[str, Any]) -> None:
    """Make a version of a model known, so that the web takes jobs for it from now on.

    ``card`` is what its worker has said of it.

    :raises ModelLoadError: when that version has been something else.
    """
    values = {
        **card,
        "model": model,
        "input_schema": _jsonb(card["input_schema"]),
        "output_schema": _jsonb(card["output_schema"]),
    }
    try:
        connection.execute(REGISTER_VERSION, values)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise ModelLoadError(
            f"the database can not keep what the model {model} says of itself: {first_line(error)}"
        ) from None
    [registered] = connection.execute(READ_SCHEMAS, values).fetchall()
    if [*map(rules_of, registered)] != [
        rules_of(card["input_schema"]), rules_of(card["output_schema"]),
    ]:  # fmt: skip
        raise ModelLoadError(
            f"the model {model} takes or gives something else than its version"
            f" {card['version']} that is registered: give it a new version"
        )
    connection.execute(REGISTER_MODEL, {"name": model})


def rules_of(schema: Any) -> Any:
    """Give of a JSON Schema what tells values apart: no titles, descriptions or examples."""
    if not isinstance(schema, dict):
        return schema
    named = ("properties", "patternProperties", "$defs", "dependentSchemas")
    return {
        key: {name: rules_of(each) for name, each in value.items()}
        if key in named and isinstance(value, dict)
        else [rules_of(each) for each in value]
        if isinstance(value, list)
        else rules_of(value)
        for key, value in schema.items()
        if key not in ANNOTATIONS
    }


def _jsonb(value: object) -> str | None:
    return None if value is None else json.dumps(value)
