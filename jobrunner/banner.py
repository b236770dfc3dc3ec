"""What `jobrunner up` says once all is ready: where everything is, and what to try."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobrunner import database
from jobrunner.settings import Settings

# What a POST that names no model asks for.
DEFAULT_MODEL = "sentiment"
TEXT = json.dumps("This product is amazing!")

BANNER = """
  jobrunner is up. Ctrl-C stops everything.

    API        {base}            the documentation: {base}/docs
    database   {database}
    try it     curl -X POST {base}{path} -H "Content-Type: application/json" \\
                 -d '{body}'
    then       curl {base}/jobs/<job_id>
    look       {command} status, {command} list, {command} psql
"""

READ_SCHEMA = """
    select input_schema
    from model_version
    where model = %(model)s
    order by registered_at desc
    limit 1
"""


def banner(settings: Settings, base: str, url: str, models: list[str]) -> str:
    """Make it, for a web at ``base`` and a database at ``url``."""
    model = DEFAULT_MODEL if DEFAULT_MODEL in models else models[0]
    path, body = example(model, _schema(url, model))
    return BANNER.format(
        base=base,
        database="DATABASE_URL" if settings.database_url else database.display(settings.home),
        path=path,
        body=body,
        command=_command(),
    )


def example(model: str, schema: Mapping[str, Any] | None) -> tuple[str, str]:
    """Say where and how to ask a model, by the schema of its input, if it has one."""
    fields = (schema or {"required": ["text"]}).get("required", [])
    if fields == ["text"]:
        named = "" if model == DEFAULT_MODEL else f'"model": "{model}", '
        return "/predict", f'{{{named}"text": {TEXT}}}'
    # What stands in a field is for whoever knows the model to say.
    inner = ", ".join(f"{json.dumps(field)}: …" for field in fields)
    return f"/models/{model}/predict", f'{{"input": {{{inner}}}}}'


def _schema(url: str, model: str) -> Mapping[str, Any] | None:
    with database.connect(url) as connection:
        row = connection.execute(READ_SCHEMA, {"model": model}).fetchone()
    schema: Mapping[str, Any] | None = row[0] if row else None
    return schema


def _command() -> str:
    called = Path(sys.argv[0])
    on_path = called.name != "jobrunner" or shutil.which("jobrunner")
    return "jobrunner" if on_path else str(called)
