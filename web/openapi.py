"""The OpenAPI 3.1 document: the operations written here, the schemas made of the models."""

from collections.abc import Mapping
from copy import copy
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web.embedding import embedded
from web.overview_schemas import History, NewestJobs, Overview
from web.problems import MEDIA_TYPE
from web.schemas import (
    Accepted,
    AcceptedBatch,
    Batch,
    BatchSubmission,
    Health,
    Job,
    JobInput,
    JobPage,
    ModelList,
    ModelSubmission,
    Problem,
    RunnerList,
    Stats,
    Status,
    Submission,
)

Json = dict[str, Any]

MODELS: list[type[BaseModel]] = [
    Accepted, AcceptedBatch, Batch, BatchSubmission, Health, History, Job, JobInput, JobPage,
    ModelList, ModelSubmission, NewestJobs, Overview, Problem, RunnerList, Stats, Submission,
]  # fmt: skip

DESCRIPTION = """Asynchronous ML inference. `POST /predict` takes a text and answers at once
with the id of a job; `GET /jobs/{job_id}` shows the job, with its result once it is `completed`.
A 202 means that the job is committed to disk. Every error is a problem of RFC 9457."""

PROBLEMS = {
    400: "The body is not strict JSON (malformed, not UTF-8, NaN, a field twice, nested deeply),"
    " or a header is not valid.",
    401: "An API key is needed, and there is none, or not a valid one. (Where keys are on.)",
    403: "The API key is not an operator's.",
    404: "There is no such job, batch or model.",
    408: "The body did not arrive in time.",
    409: "The job has not failed.",
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


class Schemas(NamedTuple):
    """What a model takes and what it gives, as far as it has said so."""

    input: Json | None
    output: Json | None


def _path(name: str) -> Json:
    schema = {"type": "string", "format": "uuid"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}


JOB_ID, BATCH_ID = _path("job_id"), _path("batch_id")
MODEL_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The name of the model: see `GET /models`.",
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"},
}
WAIT = [
    _query("wait", "Answer when the job is final, but after so many seconds anyway.", SECONDS),
    _in_header("Prefer", "`wait=20` does the same (RFC 7240).", {"type": "string"}),
]
IDEMPOTENCY_KEY = _in_header(
    "Idempotency-Key",
    "Makes it safe to repeat: the same key with the same body gives what it gave before, for as"
    " long as the job is there.",
    KEY,
)
NONE_MATCH = _in_header("If-None-Match", "The `ETag` of what is known.", {"type": "string"})
LAST_EVENT = _in_header("Last-Event-ID", "The `id` of the last event seen.", {"type": "string"})


RESULT = (
    "What the model answered, null until the job is completed. This is what the version gives that"
    " runs; an older one may have given something else."
)
REQUEST_ID = _in_header(
    "X-Request-ID",
    "What the request is called in the service's log; without it, it is given a name.",
    {"type": "string"},
)
TRACEPARENT = _in_header(
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


def document(served: Mapping[str, Schemas]) -> Json:
    """Make the document, with the addresses of these models, whose schemas are known."""
    found = copy(common())
    found["paths"] = dict(found["paths"])
    found["components"] = found["components"] | {"schemas": dict(found["components"]["schemas"])}
    for name, known in served.items():
        add_model(found, name, known)
    return found


def add_model(found: Json, name: str, known: Schemas) -> None:
    """Add the address of a model, with what it takes and what it gives."""
    schemas = found["components"]["schemas"]
    takes = _add_schema(schemas, f"{name}.input", known.input)
    gives = _add_schema(schemas, f"{name}.result", known.output)
    operation = found["paths"]["/models/{name}/predict"]["post"]
    own: Json = {
        "operationId": f"predictWithModel_{name}",
        "summary": f"Submit an input to {name}",
        "parameters": [each for each in operation["parameters"] if each is not MODEL_NAME],
    }
    if takes:
        _add_of_model(schemas, "ModelSubmission", f"{name}.submission", input=takes)
        own["requestBody"] = {"required": True, "content": _json(f"{name}.submission")}
    if gives:
        result = {"anyOf": [gives, {"type": "null"}], "description": RESULT}
        _add_of_model(schemas, "Job", f"{name}.job", result=result)
        done = operation["responses"]["200"] | {"content": _json(f"{name}.job")}
        own["responses"] = operation["responses"] | {"200": done}
    found["paths"][f"/models/{name}/predict"] = {"post": operation | own}


def _add_schema(schemas: Json, name: str, schema: Json | None) -> Json | None:
    """Add what a model has registered, as far as it can stand here; what refers to it."""
    reference = f"#/components/schemas/{name}"
    part = embedded(schema, reference) if schema is not None else None
    if part is None:
        return None
    schemas[name] = part
    return {"$ref": reference}


def _add_of_model(schemas: Json, common: str, name: str, **properties: Json) -> None:
    """Add what is said of all models as it is of one; the examples are not its."""
    said = {key: value for key, value in schemas[common].items() if key != "examples"}
    schemas[name] = said | {"title": name, "properties": said["properties"] | properties}


@cache
def common() -> Json:
    """Make what is so whatever is served, once a process."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobrunner",
            "version": version("jobrunner"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "tags": [
            {"name": "jobs", "description": "Submit texts and read what became of them."},
            {"name": "overview", "description": "How the service stands."},
            {"name": "health", "description": "For those who run the service."},
        ],
        "paths": paths(),
        "components": {
            "schemas": schemas(),
            "responses": problem_responses(),
            "securitySchemes": {"key": KEYS},
        },
    }


def paths() -> Json:
    """The operations; each takes and gives the id of the request."""
    described: Json = {
        "/": {"get": show_dashboard()},
        "/predict": {"post": predict()},
        "/predict/batch": {"post": predict_batch()},
        "/models/{name}/predict": {"post": predict_with_model()},
        "/batches/{batch_id}": {"get": show_batch()},
        "/jobs": {"get": list_jobs()},
        "/jobs/{job_id}": {"get": show_job()},
        "/jobs/{job_id}/input": {"get": show_input()},
        "/jobs/{job_id}/events": {"get": stream_events()},
        "/jobs/{job_id}/cancel": {"post": cancel_job()},
        "/jobs/{job_id}/retry": {"post": retry_job()},
        "/models": {"get": _read("listModels", "What is served", "ModelList")},
        "/runners": {"get": _read("listRunners", "Who works", "RunnerList", 403)},
        "/stats": {"get": _read("getStats", "How the queue stands", "Stats", 403)},
        "/overview/events": {"get": stream_overview()},
        "/history": {"get": _read("getHistory", "The last hour by minutes", "History", 403)},
        "/metrics": {"get": metrics()},
        "/livez": {"get": livez()},
        "/readyz": {"get": readyz()},
    }
    for operation in (each for path in described.values() for each in path.values()):
        operation["parameters"] = [*operation.get("parameters", []), REQUEST_ID]
        for response in operation["responses"].values():
            if "$ref" not in response:
                response["headers"] = response.get("headers", {}) | GIVEN_ID
    return described


def predict() -> Json:
    where = _header("Where to read the job.", {"type": "string"})
    headers = {
        "Location": where,
        "Retry-After": _retry_after("When the job should be done, in seconds."),
        "Link": _header("Where its events are, and where to cancel it.", {"type": "string"}),
    }
    return {
        "operationId": "predict",
        "tags": ["jobs"],
        "summary": "Submit a text",
        "description": "Inserts one pending job and answers at once; the model runs later. A"
        " client that waits gets the whole job, 200, if it is final in time.",
        "parameters": [*WAIT, IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": _json("Submission")},
        "responses": {
            "200": _answer("The job is final already.", "Job", {"Location": where} | APPLIED),
            "202": _answer("The job is committed.", "Accepted", headers),
            **_problems(400, 401, 408, 413, 415, 422, 429, 503),
        },
    }


def predict_with_model() -> Json:
    return {
        **predict(),
        "operationId": "predictWithModel",
        "summary": "Submit an input to a model",
        "description": "As `POST /predict`, for models that take something else than a text.",
        "parameters": [MODEL_NAME, *WAIT, IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": _json("ModelSubmission")},
        "responses": predict()["responses"] | _problems(404),
    }


def predict_batch() -> Json:
    headers = {
        "Location": _header("Where to read how far it is.", {"type": "string"}),
        "Retry-After": _retry_after("When the last job should be done, in seconds."),
    }
    return {
        "operationId": "predictBatch",
        "tags": ["jobs"],
        "summary": "Submit many texts, all or none",
        "description": "A key names the whole batch.",
        "parameters": [IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": _json("BatchSubmission")},
        "responses": {
            "202": _answer("The jobs are committed.", "AcceptedBatch", headers),
            **_problems(400, 401, 408, 413, 415, 422, 429, 503),
        },
    }


def show_batch() -> Json:
    return {
        "operationId": "getBatch",
        "tags": ["jobs"],
        "summary": "Read how far a batch is",
        "parameters": [BATCH_ID],
        "responses": {
            "200": _answer("Its jobs, counted by status.", "Batch"),
            **_problems(401, 404, 503),
        },
    }


def show_job() -> Json:
    headers = {
        "Retry-After": _retry_after("When to look again; absent once the job is final."),
        "ETag": ETAG,
    }
    return {
        "operationId": "getJob",
        "tags": ["jobs"],
        "summary": "Read a job",
        "parameters": [JOB_ID, *WAIT, NONE_MATCH],
        "responses": {
            "200": _answer("The job as it stands.", "Job", headers | APPLIED),
            "304": NOT_MODIFIED,
            **_problems(401, 404, 422, 503),
        },
    }


def show_input() -> Json:
    return {
        "operationId": "getJobInput",
        "tags": ["jobs"],
        "summary": "Read what a job was given",
        "parameters": [JOB_ID, NONE_MATCH],
        "responses": {
            "200": _answer("Its input.", "JobInput", {"ETag": ETAG}),
            "304": NOT_MODIFIED,
            **_problems(401, 404, 503),
        },
    }


def stream_events() -> Json:
    content = {"text/event-stream": {"schema": EVENT}}
    return {
        "operationId": "streamEvents",
        "tags": ["jobs"],
        "summary": "Follow a job",
        "description": "Server-Sent Events: one a change that is seen, each with the job as JSON."
        " The stream ends with the final state, and within a minute anyway: connect again.",
        "parameters": [JOB_ID, LAST_EVENT],
        "responses": {
            "200": {"description": "The stream.", "content": content},
            "204": {"description": "The final state was seen: see `Last-Event-ID`."},
            **_problems(401, 404, 503),
        },
    }


def retry_job() -> Json:
    headers = {
        "Location": _header("Where to read the new job.", {"type": "string"}),
        "Retry-After": _retry_after("When the job should be done, in seconds."),
    }
    return {
        "operationId": "retryJob",
        "tags": ["jobs"],
        "summary": "Submit a failed job anew",
        "parameters": [JOB_ID, IDEMPOTENCY_KEY, TRACEPARENT],
        "responses": {
            "202": _answer("The new job; `retry_of` names the old one.", "Job", headers),
            **_problems(400, 401, 404, 409, 422, 429, 503),
        },
    }


def cancel_job() -> Json:
    headers = {"Retry-After": _retry_after("When to look again; absent once the job is final.")}
    return {
        "operationId": "cancelJob",
        "tags": ["jobs"],
        "summary": "Cancel a job",
        "description": "A pending job fails at once with the code `cancelled`; one that is being"
        " processed within seconds, unless it is done first. May be repeated.",
        "parameters": [JOB_ID],
        "responses": {
            "200": _answer("The job was final before, and stays as it is.", "Job"),
            "202": _answer("The job as it stands now.", "Job", headers),
            **_problems(401, 404, 503),
        },
    }


def list_jobs() -> Json:
    headers = {
        "Link": _header('The next page, `rel="next"`, if any.', {"type": "string"}),
        "ETag": ETAG,
    }
    return {
        "operationId": "listJobs",
        "tags": ["jobs"],
        "summary": "List jobs, newest first",
        "parameters": [
            _query("limit", "How many at most.", LIMIT),
            _query("status", "Only jobs in this status.", STATUS),
            _query("model", "Only jobs of this model.", MODEL),
            _query("batch_id", "Only jobs of this batch.", {"type": "string", "format": "uuid"}),
            _query("created_after", "Only jobs that are younger.", TIME),
            _query("created_before", "Only jobs that are older.", TIME),
            _query("cursor", "Where to go on: the address in `next` has it.", CURSOR),
            NONE_MATCH,
        ],
        "responses": {
            "200": _answer("A page of jobs.", "JobPage", headers),
            "304": NOT_MODIFIED,
            **_problems(401, 422, 503),
        },
    }


def _read(operation: str, summary: str, model: str, *refusals: int) -> Json:
    return {
        "operationId": operation,
        "tags": ["overview"],
        "summary": summary,
        "responses": {
            "200": _answer("As it stands.", model),
            **_problems(401, *refusals, 503),
        },
    }


def stream_overview() -> Json:
    content = {"text/event-stream": {"schema": OVERVIEW_EVENT}}
    return {
        "operationId": "streamOverview",
        "tags": ["overview"],
        "summary": "Follow how all stands",
        "description": "Server-Sent Events: `overview`, `jobs` and `history` at once, and then"
        " what changes, at most once a second. The stream ends within a minute: connect again.",
        "responses": {
            "200": {"description": "The stream.", "content": content},
            **_problems(401, 403, 503),
        },
    }


def show_dashboard() -> Json:
    return {
        "operationId": "showDashboard",
        "tags": ["overview"],
        "summary": "The dashboard, for a person",
        "security": [],
        "parameters": [NONE_MATCH],
        "responses": {
            "200": {
                "description": "A page that asks for what it shows by itself.",
                "headers": {"ETag": ETAG},
                "content": {"text/html": {"schema": {"type": "string"}}},
            },
            "304": NOT_MODIFIED,
        },
    }


def metrics() -> Json:
    return {
        "operationId": "getMetrics",
        "tags": ["health"],
        "summary": "How the service stands, for Prometheus",
        "responses": {
            "200": {
                "description": "Metrics in the format that `Accept` asks for, or in plain text.",
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/openmetrics-text": {"schema": {"type": "string"}},
                },
            },
            **_problems(401, 403, 503),
        },
    }


def livez() -> Json:
    return {
        "operationId": "livez",
        "tags": ["health"],
        "summary": "Is the process up?",
        "security": [],
        "responses": {"200": _answer("It is.", "Health")},
    }


def readyz() -> Json:
    return {
        "operationId": "readyz",
        "tags": ["health"],
        "summary": "Can requests be served?",
        "security": [],
        "description": "The database answers, and its schema is at least the one expected.",
        "responses": {
            "200": _answer("They can.", "Health"),
            "503": _problem(503, "Not now; `detail` says why."),
        },
    }


def schemas() -> Json:
    """The models as JSON Schema, by name."""
    _, made = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    found: Json = made["$defs"]
    return found


def problem_responses() -> Json:
    """A response for each status that a request may be refused with."""
    return {str(status): _problem(status, said) for status, said in PROBLEMS.items()}


def _problem(status: int, description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Problem"}
    response: Json = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema}},
        "headers": dict(GIVEN_ID),
    }
    if status == 401:
        challenge = _header("How to say who you are.", {"type": "string"})
        response["headers"]["WWW-Authenticate"] = challenge
    if status in (429, 503):
        response["headers"]["Retry-After"] = _retry_after("When to try again, in seconds.")
    return response


def _problems(*statuses: int) -> Json:
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}


def _answer(description: str, model: str, headers: Json | None = None) -> Json:
    response = {"description": description, "content": _json(model)}
    return response | ({"headers": headers} if headers else {})


def _json(model: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}


def _header(description: str, schema: Json) -> Json:
    return {"description": description, "schema": schema}


def _retry_after(description: str) -> Json:
    return _header(description, {"type": "integer", "minimum": 1, "maximum": 30})
