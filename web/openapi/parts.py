"""What the operations of the OpenAPI document are put together from."""

from typing import Any, get_args

from web.problems import MEDIA_TYPE
from web.schemas import Status

Json = dict[str, Any]

PROBLEMS = {
    400: "The body is not strict JSON (malformed, not UTF-8, NaN, a field twice, nested deeply),"
    " or a header is not valid.",
    401: "An API key is needed, and there is none, or not a valid one. (Where keys are on.)",
    403: "The API key is not an operator's.",
    404: "There is no such job, batch or model.",
    408: "The body did not arrive in time.",
    409: "The job has not failed.",
    412: "It is not as `If-Match` says.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not `application/json`.",
    422: "Some fields are not valid; `errors` names each.",
    429: "The queue is full.",
    503: "The database is away. A job may have been accepted all the same, if the answer was lost.",
}

LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
STATUS = {"type": "string", "enum": list(get_args(Status))}
CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]{32}$"}
MODEL = {"type": "string", "pattern": r"^[^\u0000]+$"}
TIME = {"type": "string", "format": "date-time"}
# What is said of each event.
EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Names the state of the job."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Job"},
        },
    },
}
# What is said of each event of the overview.
OVERVIEW_EVENT = {
    "type": "object",
    "properties": {
        "event": {
            "type": "string",
            "enum": ["overview", "jobs", "history", "away"],
            "description": "`away`: the database does not answer; the data is a problem.",
        },
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": f"#/components/schemas/{name}"}
                    for name in ("Overview", "NewestJobs", "History", "Problem")
                ]
            },
        },
    },
}
KEYS = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, where the service asks for one.",
}
SECONDS = {"type": "number", "minimum": 0, "maximum": 30, "default": 0}
KEY = {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"}


def in_path(name: str) -> Json:
    """A parameter that is an id in the address."""
    schema = {"type": "string", "format": "uuid"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def in_query(name: str, description: str, schema: Json) -> Json:
    """A parameter behind the question mark."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_header(name: str, description: str, schema: Json) -> Json:
    """A parameter that is a header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def problems(*statuses: int) -> Json:
    """The responses that refuse a request with these statuses."""
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}


def answer(description: str, model: str, headers: Json | None = None) -> Json:
    """A response whose body is of this schema."""
    response = {"description": description, "content": json_body(model)}
    return response | ({"headers": headers} if headers else {})


def json_body(model: str) -> Json:
    """A body of this schema."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}


def header(description: str, schema: Json) -> Json:
    """A header of a response."""
    return {"description": description, "schema": schema}


def retry_after(description: str) -> Json:
    """The header that says when to come again."""
    return header(description, {"type": "integer", "minimum": 1, "maximum": 30})


JOB_ID, BATCH_ID = in_path("job_id"), in_path("batch_id")
MODEL_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The name of the model: see `GET /models`.",
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"},
}
WAIT = [
    in_query("wait", "Answer when the job is final, but after so many seconds anyway.", SECONDS),
    in_header("Prefer", "`wait=20` does the same (RFC 7240).", {"type": "string"}),
]
IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    "Makes it safe to repeat: the same key with the same body gives what it gave before, for as"
    " long as the job is there.",
    KEY,
)
NONE_MATCH = in_header("If-None-Match", "The `ETag` of what is known.", {"type": "string"})
LAST_EVENT = in_header("Last-Event-ID", "The `id` of the last event seen.", {"type": "string"})
REQUEST_ID = in_header(
    "X-Request-ID",
    "What the request is called in the service's log; without it, it is given a name.",
    {"type": "string"},
)
TRACEPARENT = in_header(
    "traceparent",
    "The trace that the job belongs to (W3C Trace Context); what is none is passed over.",
    {"type": "string"},
)
ETAG = {"description": "Changes with the answer.", "schema": {"type": "string"}}
NOT_MODIFIED = {"description": "It is as it was: see `If-None-Match`."}
GIVEN_ID = {
    "X-Request-ID": {
        "description": "What the request is called in the service's log.",
        "schema": {"type": "string"},
    }
}
APPLIED = {
    "Preference-Applied": {
        "description": "Says that `Prefer: wait` was followed.",
        "schema": {"type": "string"},
    }
}


def problem_responses() -> Json:
    """A response for each status that a request may be refused with."""
    return {str(status): problem(status, said) for status, said in PROBLEMS.items()}


def problem(status: int, description: str) -> Json:
    """A response that refuses a request."""
    schema = {"$ref": "#/components/schemas/Problem"}
    response: Json = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema}},
        "headers": dict(GIVEN_ID),
    }
    if status == 401:
        challenge = header("How to say who you are.", {"type": "string"})
        response["headers"]["WWW-Authenticate"] = challenge
    if status in (429, 503):
        response["headers"]["Retry-After"] = retry_after("When to try again, in seconds.")
    return response
