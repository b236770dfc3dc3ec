"""FastAPI that defers a job of procrastinate."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from procrastinate import App, PsycopgConnector
from pydantic import BaseModel

queue = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=8))


@queue.task(name="quick", queue="default")
async def quick(text: str) -> None:
    """Do nothing."""


@asynccontextmanager
async def opened(_: FastAPI) -> AsyncIterator[None]:
    """Hold the pool open while the application runs."""
    async with queue.open_async():
        yield


app = FastAPI(lifespan=opened)


class Request(BaseModel):
    """What is posted."""

    text: str


@app.post("/predict", status_code=202)
async def predict(body: Request) -> dict[str, str]:
    """Defer a job."""
    job_id = await quick.defer_async(text=body.text)
    return {"job_id": str(job_id), "status": "processing"}
