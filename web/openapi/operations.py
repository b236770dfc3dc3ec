"""The operations of the OpenAPI document."""

from web.openapi.parts import (
    APPLIED,
    BATCH_ID,
    CURSOR,
    ETAG,
    EVENT,
    GIVEN_ID,
    IDEMPOTENCY_KEY,
    JOB_ID,
    LAST_EVENT,
    LIMIT,
    MODEL,
    MODEL_NAME,
    NONE_MATCH,
    NOT_MODIFIED,
    OVERVIEW_EVENT,
    REQUEST_ID,
    STATUS,
    TIME,
    TRACEPARENT,
    WAIT,
    Json,
    answer,
    header,
    in_query,
    json_body,
    problem,
    problems,
    retry_after,
)


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
        "/models": {"get": list_models()},
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
    where = header("Where to read the job.", {"type": "string"})
    headers = {
        "Location": where,
        "Retry-After": retry_after("When the job should be done, in seconds."),
        "Link": header("Where its events are, and where to cancel it.", {"type": "string"}),
    }
    return {
        "operationId": "predict",
        "tags": ["jobs"],
        "summary": "Submit a text",
        "description": "Inserts one pending job and answers at once; the model runs later. A"
        " client that waits gets the whole job, 200, if it is final in time.",
        "parameters": [*WAIT, IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": json_body("Submission")},
        "responses": {
            "200": answer("The job is final already.", "Job", {"Location": where} | APPLIED),
            "202": answer("The job is committed.", "Accepted", headers),
            **problems(400, 401, 408, 413, 415, 422, 429, 503),
        },
    }


def predict_with_model() -> Json:
    return {
        **predict(),
        "operationId": "predictWithModel",
        "summary": "Submit an input to a model",
        "description": "As `POST /predict`, for models that take something else than a text.",
        "parameters": [MODEL_NAME, *WAIT, IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": json_body("ModelSubmission")},
        "responses": predict()["responses"] | problems(404),
    }


def predict_batch() -> Json:
    headers = {
        "Location": header("Where to read how far it is.", {"type": "string"}),
        "Retry-After": retry_after("When the last job should be done, in seconds."),
    }
    return {
        "operationId": "predictBatch",
        "tags": ["jobs"],
        "summary": "Submit many texts, all or none",
        "description": "A key names the whole batch.",
        "parameters": [IDEMPOTENCY_KEY, TRACEPARENT],
        "requestBody": {"required": True, "content": json_body("BatchSubmission")},
        "responses": {
            "202": answer("The jobs are committed.", "AcceptedBatch", headers),
            **problems(400, 401, 408, 413, 415, 422, 429, 503),
        },
    }


def show_batch() -> Json:
    return {
        "operationId": "getBatch",
        "tags": ["jobs"],
        "summary": "Read how far a batch is",
        "parameters": [BATCH_ID, NONE_MATCH],
        "responses": {
            "200": answer("Its jobs, counted by status.", "Batch", {"ETag": ETAG}),
            "304": NOT_MODIFIED,
            **problems(401, 404, 412, 503),
        },
    }


def show_job() -> Json:
    headers = {
        "Retry-After": retry_after("When to look again; absent once the job is final."),
        "ETag": ETAG,
    }
    return {
        "operationId": "getJob",
        "tags": ["jobs"],
        "summary": "Read a job",
        "parameters": [JOB_ID, *WAIT, NONE_MATCH],
        "responses": {
            "200": answer("The job as it stands.", "Job", headers | APPLIED),
            "304": NOT_MODIFIED,
            **problems(401, 404, 412, 422, 503),
        },
    }


def show_input() -> Json:
    return {
        "operationId": "getJobInput",
        "tags": ["jobs"],
        "summary": "Read what a job was given",
        "parameters": [JOB_ID, NONE_MATCH],
        "responses": {
            "200": answer("Its input.", "JobInput", {"ETag": ETAG}),
            "304": NOT_MODIFIED,
            **problems(401, 404, 412, 503),
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
            **problems(401, 404, 503),
        },
    }


def retry_job() -> Json:
    headers = {
        "Location": header("Where to read the new job.", {"type": "string"}),
        "Retry-After": retry_after("When the job should be done, in seconds."),
    }
    return {
        "operationId": "retryJob",
        "tags": ["jobs"],
        "summary": "Submit a failed job anew",
        "parameters": [JOB_ID, IDEMPOTENCY_KEY, TRACEPARENT],
        "responses": {
            "202": answer("The new job; `retry_of` names the old one.", "Job", headers),
            **problems(400, 401, 404, 409, 422, 429, 503),
        },
    }


def cancel_job() -> Json:
    headers = {"Retry-After": retry_after("When to look again; absent once the job is final.")}
    return {
        "operationId": "cancelJob",
        "tags": ["jobs"],
        "summary": "Cancel a job",
        "description": "A pending job fails at once with the code `cancelled`; one that is being"
        " processed within seconds, unless it is done first. May be repeated.",
        "parameters": [JOB_ID],
        "responses": {
            "200": answer("The job was final before, and stays as it is.", "Job"),
            "202": answer("The job as it stands now.", "Job", headers),
            **problems(401, 404, 503),
        },
    }


def list_jobs() -> Json:
    headers = {
        "Link": header('The next page, `rel="next"`, if any.', {"type": "string"}),
        "ETag": ETAG,
    }
    return {
        "operationId": "listJobs",
        "tags": ["jobs"],
        "summary": "List jobs, newest first",
        "parameters": [
            in_query("limit", "How many at most.", LIMIT),
            in_query("status", "Only jobs in this status.", STATUS),
            in_query("model", "Only jobs of this model.", MODEL),
            in_query("batch_id", "Only jobs of this batch.", {"type": "string", "format": "uuid"}),
            in_query("created_after", "Only jobs that are younger.", TIME),
            in_query("created_before", "Only jobs that are older.", TIME),
            in_query("cursor", "Where to go on: the address in `next` has it.", CURSOR),
            NONE_MATCH,
        ],
        "responses": {
            "200": answer("A page of jobs.", "JobPage", headers),
            "304": NOT_MODIFIED,
            **problems(401, 412, 422, 503),
        },
    }


def _read(operation: str, summary: str, model: str, *refusals: int) -> Json:
    return {
        "operationId": operation,
        "tags": ["overview"],
        "summary": summary,
        "responses": {
            "200": answer("As it stands.", model),
            **problems(401, *refusals, 503),
        },
    }


def list_models() -> Json:
    described = _read("listModels", "What is served", "ModelList")
    said = 'Where an operator is told of all that changes, `rel="monitor"`.'
    described["responses"]["200"]["headers"] = {"Link": header(said, {"type": "string"})}
    return described


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
            **problems(401, 403, 503),
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
            **problems(412),
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
            **problems(401, 403, 503),
        },
    }


def livez() -> Json:
    return {
        "operationId": "livez",
        "tags": ["health"],
        "summary": "Is the process up?",
        "security": [],
        "responses": {"200": answer("It is.", "Health")},
    }


def readyz() -> Json:
    return {
        "operationId": "readyz",
        "tags": ["health"],
        "summary": "Can requests be served?",
        "security": [],
        "description": "The database answers, and its schema is at least the one expected.",
        "responses": {
            "200": answer("They can.", "Health"),
            "503": problem(503, "Not now; `detail` says why."),
        },
    }
