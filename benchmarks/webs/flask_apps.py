"""Three Flask applications as one would write them at first."""

import os
from functools import cache
from typing import Any
from uuid import uuid4

from flask import Flask, request
from flask.typing import ResponseReturnValue
from psycopg_pool import ConnectionPool

from benchmarks.queues.celery import REDIS_VARIABLE, make_app

POOL_CONNECTIONS = 8
INSERT = "insert into plain_job (id, input) values (%s, %s)"


@cache
def pool() -> ConnectionPool:
    """The pool of this process."""
    options = {"autocommit": True}
    return ConnectionPool(
        os.environ["DATABASE_URL"], min_size=POOL_CONNECTIONS, kwargs=options, open=True
    )


@cache
def tasks() -> Any:
    """The tasks of Celery."""
    return make_app(os.environ[REDIS_VARIABLE]).tasks


def accepted() -> ResponseReturnValue:
    """Answer as ours does."""
    return {"job_id": str(uuid4()), "status": "processing"}, 202


nothing, insert, celery = Flask("nothing"), Flask("insert"), Flask("celery")


@nothing.post("/predict")
def keep_nothing() -> ResponseReturnValue:
    """Read the text and forget it."""
    assert request.get_json()["text"]
    return accepted()


@insert.post("/predict")
def keep_row() -> ResponseReturnValue:
    """Insert a row."""
    text = request.get_json()["text"]
    with pool().connection() as connection:
        connection.execute(INSERT, [uuid4(), text])
    return accepted()


@celery.post("/predict")
def send_task() -> ResponseReturnValue:
    """Send a task."""
    tasks()["quick"].delay(request.get_json()["text"])
    return accepted()
