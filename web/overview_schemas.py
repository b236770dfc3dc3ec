"""What the overview and its history say, as pydantic models: see schemas.py."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from web.schemas import JOB_ID, RunnerState, Status

NONE: list[Any] = [0] * 59
UNKNOWN: list[Any] = [None] * 59
NOW = "2026-01-31T12:00:05.127001Z"
MINUTES = 60


class Queue(BaseModel):
    """How the queue of a model stands, in facts that stay true until something happens."""

    model: str
    pending: int
    waiting_to_retry: int = Field(description="Of the pending ones, those not due yet.")
    processing: int
    oldest_pending_at: datetime | None = Field(description="When the oldest of them came.")
    runners: int = Field(description="Live runners that serve it.")
    workers: int
    jobs_per_second: float = Field(description="Averaged over about a minute.")
    inference_seconds: float | None = Field(description="What a call takes lately.")
    versions: list[str] = Field(description="All that run.")


class RunnerNow(BaseModel):
    """A runner, in facts that stay true until something happens."""

    runner: str
    state: RunnerState
    host: str
    models: list[str]
    versions: list[str | None] | None = Field(description="Those of its models, in their order.")
    workers: int
    ready: int = Field(description="Workers that have loaded the model.")
    busy: int = Field(description="Jobs that it holds.")
    heartbeat_at: datetime
    started_at: datetime
    completed: int
    failed: int = Field(description="Attempts that failed.")
    jobs_per_second: float
    inference_seconds: float | None
    trouble: str | None = Field(description="What is wrong with it, if anything.")
    memory_mb: int | None = Field(description="Memory of its workers.")


class Overview(BaseModel):
    """How all stands: the data of the event `overview`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "now": NOW,
                    "queues": [
                        {
                            "model": "sentiment",
                            "pending": 3,
                            "waiting_to_retry": 0,
                            "processing": 2,
                            "oldest_pending_at": "2026-01-31T12:00:01.5Z",
                            "runners": 1,
                            "workers": 2,
                            "jobs_per_second": 0.4,
                            "inference_seconds": 5.0,
                            "versions": ["1"],
                        }
                    ],
                    "runners": [],
                }
            ]
        }
    )

    now: datetime = Field(description="What time it is by the database.")
    queues: list[Queue]
    runners: list[RunnerNow]


class JobBrief(BaseModel):
    """What a list says of a job."""

    job_id: str
    status: Status
    model: str
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    batch_id: str | None
    retry_of: str | None
    result: Any = Field(description="Where it is short, and else null.")
    error_code: str | None
    inference_seconds: float | None
    fraction: float | None = Field(description="How far it is, where its model says so.")


class NewestJobs(BaseModel):
    """The newest jobs: the data of the event `jobs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "whole": False,
                    "jobs": [
                        {
                            "job_id": JOB_ID,
                            "status": "completed",
                            "model": "sentiment",
                            "attempt": 1,
                            "created_at": "2026-01-31T12:00:00.123456Z",
                            "started_at": "2026-01-31T12:00:00.125789Z",
                            "finished_at": NOW,
                            "batch_id": None,
                            "retry_of": None,
                            "result": {"sentiment": "positive", "confidence": 0.95},
                            "error_code": None,
                            "inference_seconds": 5.0004,
                            "fraction": None,
                        }
                    ],
                }
            ]
        }
    )

    whole: bool = Field(description="Whether these are all; else what has changed of them.")
    jobs: list[JobBrief]


Counts = Annotated[list[int], Field(min_length=MINUTES, max_length=MINUTES)]
Values = Annotated[list[float | None], Field(min_length=MINUTES, max_length=MINUTES)]


class ModelHistory(BaseModel):
    """What was done for a model, minute by minute."""

    model: str | None = Field(description="Null for all together.")
    completed: Counts
    failed: Counts = Field(description="Attempts with which their job failed.")
    retried: Counts = Field(description="Attempts that failed, of jobs that are tried again.")
    pending: Values = Field(description="Jobs that waited when a runner looked.")
    oldest_pending_seconds: Values
    wait_seconds: Values = Field(description="From when jobs were due to their claim, on average.")
    wait_p95_seconds: Values = Field(description="95 of 100 waited no longer, about.")
    inference_seconds: Values = Field(description="What inferences took, on average.")
    inference_p95_seconds: Values


class History(BaseModel):
    """The last hour by minutes, as the runners have counted them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "first_minute": "2026-01-31T11:01:00Z",
                    "models": [
                        {
                            "model": None,
                            "completed": [*NONE, 12],
                            "failed": [*NONE, 0],
                            "retried": [*NONE, 0],
                            "pending": [*UNKNOWN, 3],
                            "oldest_pending_seconds": [*UNKNOWN, 4.2],
                            "wait_seconds": [*UNKNOWN, 1.5],
                            "wait_p95_seconds": [*UNKNOWN, 2.4],
                            "inference_seconds": [*UNKNOWN, 5.0],
                            "inference_p95_seconds": [*UNKNOWN, 7.2],
                        }
                    ],
                }
            ]
        }
    )

    first_minute: datetime = Field(description="The others follow it, each a minute later.")
    models: list[ModelHistory] = Field(description="All together first, and then each.")
