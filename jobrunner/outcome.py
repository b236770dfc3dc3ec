"""What comes of an attempt: a result or a failure, judged before anything is written."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobrunner.frames import ENCODER

MAX_MESSAGE = 1000
MAX_PLACE = 100
# What jsonb can't keep, and would quote in the server's log: as JSON writes it, not a
# backslash that happens to stand before u0000.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Job:
    """A claimed job: what a worker needs, and what proves that the claim is ours."""

    id: UUID
    lease_token: UUID
    model: str
    input: str  # the JSON text, passed on as it is
    attempt: int
    priority: int = 0
    run_at: datetime = datetime.min

    @cached_property
    def key(self) -> str:
        """The id as text; made once, since it is needed at every step."""
        return str(self.id)


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed; the codes are the contract's."""

    code: str
    message: str
    retryable: bool = True

    def to_json(self) -> str:
        """Write it as ``job.error`` keeps it."""
        message = clean(self.message)
        return json.dumps({"code": self.code, "message": message, "retryable": self.retryable})


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt: ``result`` is JSON text, or there is a ``failure``."""

    job: Job
    # Of the inference; None where it came to no reply that says so.
    seconds: float | None
    result: str | None = None
    failure: Failure | None = None


class Sentiment(BaseModel):
    """The result of every sentiment model."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    sentiment: Literal["positive", "negative"]
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ReplyError(BaseModel):
    """Why the model gave no result, in its worker's words."""

    code: Literal["model_error", "invalid_output", "invalid_input"]
    message: str
    retryable: bool


class Reply(BaseModel):
    """What a worker says of a job; its process is not trusted to say it well."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    result: Any = None
    error: ReplyError | None = None


RESULT_TYPES: dict[str, type[BaseModel]] = {"sentiment": Sentiment}


def judge(job: Job, message: dict[str, Any], max_result_bytes: int) -> Outcome:
    """Turn a worker's reply into an outcome; a bad reply is a failure of that attempt."""
    try:
        reply = Reply.model_validate(message)
        if reply.error:
            failure = Failure(reply.error.code, reply.error.message, reply.error.retryable)
            return Outcome(job, reply.seconds, failure=failure)
        return Outcome(job, reply.seconds, result=_accepted(job, reply.result, max_result_bytes))
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in fault["loc"])[:MAX_PLACE] or "result"
        return Outcome(job, None, failure=invalid_output(f"{place}: {fault['msg']}"))
    except RecursionError:
        return Outcome(job, None, failure=invalid_output("the result is nested too deeply"))
    except ValueError as error:
        return Outcome(job, None, failure=invalid_output(str(error)))


def cancelled(job: Job) -> Outcome:
    """The outcome of an attempt that was ended because nobody wants its result."""
    failure = Failure("cancelled", "the job was cancelled", retryable=False)
    return Outcome(job, None, failure=failure)


def invalid_output(message: str) -> Failure:
    """The failure of an attempt whose result can't be stored."""
    return Failure("invalid_output", message)


def _accepted(job: Job, result: Any, max_result_bytes: int) -> str:
    if result is None:
        raise ValueError("the model gave no result")
    if result_type := RESULT_TYPES.get(job.model):
        result_type.model_validate(result)
    # A number like 1e999 was read as an infinity, which is no JSON and a ValueError here.
    text = ENCODER.encode(result)
    if NUL.search(text):
        raise ValueError("the result holds the character NUL")
    if len(text.encode()) > max_result_bytes:
        raise ValueError(f"the result is larger than {max_result_bytes} bytes")
    return text


def clean(message: str) -> str:
    """Make of a message what PostgreSQL can store: no NUL, no lone surrogate, not too long."""
    return message[:MAX_MESSAGE].encode(errors="replace").decode().replace("\0", "")
