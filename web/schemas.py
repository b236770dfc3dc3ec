"""What goes in and what comes out, as pydantic models: the source of the checks and of
``/openapi.json`` alike.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

TEXT_CHARACTERS = 10_000

MAX_ITEMS = 1000

JOB_ID = "0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"
BATCH_ID = "3f2b8c1e-5a4d-4e7f-9b6a-1c2d3e4f5a6b"

Status = Literal["pending", "processing", "completed", "failed"]


def check_text(text: str) -> str:
    """Refuse a text that says nothing, or that PostgreSQL can't hold."""
    if "\0" in text:
        raise ValueError("should not contain the character NUL")
    if text.isspace():
        raise ValueError("should not be white space only")
    return text


def read_integer(value: Any) -> Any:
    """Let 8.0 be the integer 8, as JSON Schema does."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Priority = Annotated[
    int, Field(ge=-100, le=100, description="Higher first."), BeforeValidator(read_integer)
]


class Submission(BaseModel):
    """A text to be analysed."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"text": "This product is amazing!"}]},
    )

    text: Annotated[str, AfterValidator(check_text)] = Field(
        min_length=1,
        max_length=TEXT_CHARACTERS,
        description="The text; not only white space, and without the character NUL.",
        json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"},
    )
    model: str = Field("sentiment", description="The name of the model that is to answer.")
    priority: Priority = 0


class ModelSubmission(BaseModel):
    """An input for a model."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"input": {"text": "This product is amazing!"}}]},
    )

    input: dict[str, Any] = Field(
        description="What the model takes: `GET /models` shows the schema of each."
    )
    priority: Priority = 0


class BatchSubmission(BaseModel):
    """Many texts to be analysed, all or none."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [{"items": [{"text": "I love it"}, {"text": "Never again"}]}]
        },
    )

    items: list[Submission] = Field(min_length=1, max_length=MAX_ITEMS)


class AcceptedBatch(BaseModel):
    """The jobs are committed, in the order of the items."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"batch_id": BATCH_ID, "job_ids": [JOB_ID]}]}
    )

    batch_id: UUID
    job_ids: list[UUID]


class Batch(BaseModel):
    """How many jobs of a batch are in which status."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "batch_id": BATCH_ID,
                    "total": 3,
                    "pending": 1,
                    "processing": 1,
                    "completed": 1,
                    "failed": 0,
                }
            ]
        }
    )

    batch_id: UUID
    total: int
    pending: int
    processing: int
    completed: int
    failed: int


class Accepted(BaseModel):
    """The job is committed; poll the address in `Location`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"job_id": JOB_ID, "status": "processing"}]}
    )

    job_id: UUID
    status: Literal["processing"]


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(
        description="`model_error`, `timeout`, `worker_lost`, `runner_lost`, `invalid_output`,"
        " `invalid_input` or `cancelled`; there may be others one day.",
        examples=["timeout"],
    )
    message: str
    retryable: bool


class AttemptError(BaseModel):
    """Why one attempt failed."""

    attempt: int
    code: str
    message: str
    retryable: bool
    runner: str | None = None
    started_at: datetime | None = None
    failed_at: datetime | None = None


class Place(BaseModel):
    """Where a pending job stands in the queue."""

    position: int = Field(ge=0, le=1000, description="How many are ahead: 0 is next.")
    at_least: bool = Field(description="True where the count ended at 1000.")
    eta_seconds: float | None = Field(
        description="When it should be done at the present rate, if not later (`at_least`);"
        " null while no runner is there to tell by."
    )


class Progress(BaseModel):
    """How far a job is."""

    fraction: float = Field(ge=0, le=1)
    word: str = Field(description="What the model is doing, in its words.")


class Job(BaseModel):
    """A job as it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": JOB_ID,
                    "status": "completed",
                    "result": {"sentiment": "positive", "confidence": 0.95},
                    "error": None,
                    "errors": [],
                    "model": "sentiment",
                    "priority": 0,
                    "attempt": 1,
                    "created_at": "2026-01-31T12:00:00.123456Z",
                    "started_at": "2026-01-31T12:00:00.125789Z",
                    "finished_at": "2026-01-31T12:00:05.127001Z",
                    "queue": None,
                    "retry_of": None,
                    "batch_id": None,
                    "model_version": "1",
                    "batch_size": 1,
                    "inference_seconds": 5.0004,
                    "progress": None,
                }
            ]
        }
    )

    job_id: UUID
    status: Status
    result: Any = Field(
        description="What the model answered, null until the job is completed. Of sentiment:"
        ' `{"sentiment": "positive" | "negative", "confidence": 0 to 1}`.'
    )
    error: JobError | None = Field(description="Why the job failed; null unless it did.")
    errors: list[AttemptError] = Field(description="One entry a failed attempt, oldest first.")
    model: str
    priority: int
    attempt: int = Field(description="How many starts were counted.")
    created_at: datetime
    started_at: datetime | None = Field(description="When the latest attempt began.")
    finished_at: datetime | None
    queue: Place | None = Field(description="While the job is pending. Null in a list.")
    retry_of: UUID | None = Field(description="The failed job that this one repeats.")
    batch_id: UUID | None
    model_version: str | None = Field(description="Which version of the model ran last.")
    batch_size: int | None = Field(description="How many jobs the call had that answered it.")
    inference_seconds: float | None = Field(description="How long that call took.")
    progress: Progress | None = Field(
        description="While the job is being processed, where its model says so. Null in a list."
    )


class JobInput(BaseModel):
    """What a job was given."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": {"text": "This product is amazing!"}}]}
    )

    input: dict[str, Any] = Field(description="As the model gets it.")


class JobPage(BaseModel):
    """Some jobs, newest first."""

    jobs: list[Job]
    next: str | None = Field(
        description="The address of the next page; null on the last.",
        examples=["/jobs?limit=50&cursor=AaIUwsn-fZGd4hh_rTGWLylgVmsznyI6"],
    )


class ModelShown(BaseModel):
    """A model, and how its queue stands."""

    model: str
    pending: int
    waiting_to_retry: int = Field(description="Of the pending ones, those not due yet.")
    processing: int
    oldest_pending_seconds: float | None = Field(description="How old the oldest pending job is.")
    runners: int = Field(description="Live runners that serve it.")
    workers: int
    jobs_per_second: float = Field(description="Averaged over about a minute.")
    version: str | None = Field(
        description="The newest that runs, or else that ever did: inputs are checked against it."
    )
    versions: list[str] = Field(description="All that run.")
    max_batch_size: int | None = Field(description="How many jobs a call may have.")
    input_schema: dict[str, Any] | None = Field(
        description="JSON Schema of an input; null where any object will do."
    )
    output_schema: dict[str, Any] | None = Field(
        description="JSON Schema of a result; null where anything will do."
    )


class ModelList(BaseModel):
    """The models that there are."""

    models: list[ModelShown]


RunnerState = Literal["starting", "idle", "working", "stopping", "silent", "lost"]


class RunnerShown(BaseModel):
    """A runner, and what it has done since it started."""

    runner: str
    state: RunnerState
    host: str
    models: list[str]
    workers: int
    ready: int = Field(description="Workers that have loaded the model.")
    busy: int = Field(description="Jobs that it holds.")
    last_heartbeat_seconds_ago: float
    up_seconds: float
    completed: int
    failed: int = Field(description="Attempts that failed.")
    jobs_per_second: float
    inference_seconds: float | None
    trouble: str | None = Field(description="What is wrong with it, if anything.")
    versions: list[str | None] | None = Field(description="Those of its models, in their order.")
    memory_mb: int | None = Field(description="Memory of its workers.")


class RunnerList(BaseModel):
    """The runners that there are."""

    runners: list[RunnerShown]


class Stats(BaseModel):
    """How the queue stands, over all models."""

    pending: int
    waiting_to_retry: int
    processing: int
    oldest_pending_seconds: float | None
    jobs_per_second: float
    runners: int
    workers: int


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"]


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str | None = Field(
        None, description="Where in the body, as a JSON Pointer (RFC 6901): there for a body."
    )
    parameter: str | None = Field(None, description="Which query parameter: there for a query.")
    header: str | None = Field(None, description="Which header: there for a header.")
    detail: str


class Problem(BaseModel):
    """Why a request was not served (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such job."])
    errors: list[Fault] = Field(default=[], description="Only where fields are at fault.")
