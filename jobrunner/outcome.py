"""What comes of an attempt: a result or a failure, judged before anything is written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from jsonschema_rs import Draft202012Validator
from jsonschema_rs import ValidationError as SchemaFault
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from jobrunner.frames import ENCODER

STRICT = ConfigDict(strict=True, hide_input_in_errors=True)

MAX_BATCH_SIZE = 1000
MAX_MESSAGE = 1000
MAX_PLACE = 100
# What jsonb can't keep, and would quote in the server's log: as JSON writes it, not a
# backslash that happens to stand before u0000.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(slots=True, eq=False)
class Job:
    """A claimed job: what a worker needs, and what proves that the claim is ours.

    The ids are text: nothing is done with them but to pass them on.
    """

    id: str
    lease_token: str
    model: str
    input: str  # the JSON text, passed on as it is
    attempt: int
    priority: int = 0
    run_at: float = 0.0  # in seconds since the epoch
    trace_id: str = ""  # of the trace that its client has named, if any
    claimed_at: float = 0.0  # by the monotonic clock
    # Its batch has killed a worker: it is to be run by itself.
    alone: bool = False

    @property
    def traced(self) -> str:
        """What the end of a line of the log says of its trace."""
        return f" trace_id={self.trace_id}" if self.trace_id else ""


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


@dataclass(slots=True, eq=False)
class Outcome:
    """The end of an attempt: ``result`` is JSON text, or there is a ``failure``."""

    job: Job
    # Of the call of the model; None where it came to no reply that says so.
    seconds: float | None
    result: str | None = None
    failure: Failure | None = None
    # How many jobs that call had, where the seconds are known.
    batch_size: int = 1
    # Of the model, where it is known.
    version: str | None = None


class Sentiment(TypedDict):
    """The result of every sentiment model."""

    __pydantic_config__ = STRICT | ConfigDict(extra="forbid")  # type: ignore[misc]

    sentiment: Literal["positive", "negative"]
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ReplyError(TypedDict):
    """Why the model gave no result, in its worker's words."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    code: Literal["model_error", "invalid_output", "invalid_input"]
    message: str
    retryable: bool


class ReplyHead(TypedDict):
    """What a worker says of a job before the result; its process is not trusted to say it well."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    batch: NotRequired[Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]]
    error: NotRequired[ReplyError]


def refuse_address(address: str) -> Any:
    """Fetch no part of a schema from elsewhere, whatever it names.

    :raises ValueError: always.
    """
    raise ValueError(f"a schema that is not whole: it names {address[:MAX_PLACE]}")


class Output:
    """What a model has promised of its results, as a JSON Schema (2020-12)."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Read the schema.

        :raises ValueError: when it is none.
        """
        self._validator = Draft202012Validator(dict(schema), retriever=refuse_address)

    def check(self, value: Any) -> None:
        """Compare a result with it.

        :raises ValueError: naming the place that differs, never the value there.
        """
        try:
            # Not all that is wrong: of a large result that takes seconds.
            self._validator.validate(value)
        except SchemaFault as fault:
            place = ".".join(map(str, fault.instance_path))[:MAX_PLACE] or "result"
            said = f"{place}: breaks the rule {fault.kind.name} of the model's schema"
            raise ValueError(said) from None


# Of the validators themselves: what an adapter does before it asks one takes as long.
read_head = TypeAdapter(ReplyHead).validator.validate_json
RESULT_TYPES = {"sentiment": TypeAdapter(Sentiment).validator}


def judge(job: Job, reply: bytes, max_result_bytes: int, output: Output | None = None) -> Outcome:
    """Turn a worker's reply into an outcome; a bad reply is a failure of that attempt.

    A reply is a line of JSON, and after it the result as JSON or nothing. ``output`` is what
    the model's results are like, where it has said so.
    """
    line, _, result = reply.partition(b"\n")
    try:
        head = read_head(line)
    except ValidationError as error:
        return Outcome(job, None, failure=_misfit(error))
    outcome = Outcome(job, head["seconds"], batch_size=head.get("batch", 1))
    if fault := head.get("error"):
        outcome.failure = Failure(fault["code"], fault["message"], fault["retryable"])
        return outcome
    try:
        outcome.result = _accepted(job, result, max_result_bytes, output)
    except ValidationError as error:
        outcome.failure = _misfit(error)
    except (ValueError, RecursionError) as error:
        outcome.failure = invalid_output(f"the result can not be kept: {error}")
    return outcome


def cancelled(job: Job) -> Outcome:
    """The outcome of an attempt that was ended because nobody wants its result."""
    failure = Failure("cancelled", "the job was cancelled", retryable=False)
    return Outcome(job, None, failure=failure)


def invalid_output(message: str) -> Failure:
    """The failure of an attempt whose result can't be stored."""
    return Failure("invalid_output", message)


def _misfit(error: ValidationError) -> Failure:
    """Name the first place that is not as it should be, never the value there."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])[:MAX_PLACE] or "result"
    return invalid_output(f"{place}: {fault['msg']}")


def _accepted(job: Job, result: bytes, max_result_bytes: int, output: Output | None) -> str:
    if len(result) > max_result_bytes:
        raise ValueError(f"it is larger than {max_result_bytes} bytes")
    if result_type := RESULT_TYPES.get(job.model):
        result_type.validate_json(result)
        text = result.decode()
    else:
        value = from_json(result)
        if value is None:
            raise ValueError("there is none")
        if output:
            output.check(value)
        # Written anew: a number like 1e999 was read as an infinity, which is a ValueError here.
        text = ENCODER.encode(value)
    if "\\u0000" in text and NUL.search(text):
        raise ValueError("it holds the character NUL")
    return text


def clean(message: str) -> str:
    """Make of a message what PostgreSQL can store: no NUL, no lone surrogate, not too long."""
    return message[:MAX_MESSAGE].encode(errors="replace").decode().replace("\0", "")
