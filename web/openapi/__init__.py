"""The OpenAPI 3.1 document: the operations written here, the schemas made of the models."""

from collections.abc import Mapping
from copy import copy
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web.embedding import embedded
from web.openapi.operations import paths
from web.openapi.parts import KEYS, MODEL_NAME, Json, json_body, problem_responses
from web.overview_schemas import History, NewestJobs, Overview
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
    Submission,
)

MODELS: list[type[BaseModel]] = [
    Accepted, AcceptedBatch, Batch, BatchSubmission, Health, History, Job, JobInput, JobPage,
    ModelList, ModelSubmission, NewestJobs, Overview, Problem, RunnerList, Stats, Submission,
]  # fmt: skip

DESCRIPTION = """Asynchronous ML inference. `POST /predict` takes a text and answers at once
with the id of a job; `GET /jobs/{job_id}` shows the job, with its result once it is `completed`.
A 202 means that the job is committed to disk. Every error is a problem of RFC 9457."""


RESULT = (
    "What the model answered, null until the job is completed. This is what the version gives that"
    " runs; an older one may have given something else."
)


class Schemas(NamedTuple):
    """What a model takes and what it gives, as far as it has said so."""

    input: Json | None
    output: Json | None


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
        own["requestBody"] = {"required": True, "content": json_body(f"{name}.submission")}
    if gives:
        result = {"anyOf": [gives, {"type": "null"}], "description": RESULT}
        _add_of_model(schemas, "Job", f"{name}.job", result=result)
        done = operation["responses"]["200"] | {"content": json_body(f"{name}.job")}
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


def schemas() -> Json:
    """The models as JSON Schema, by name."""
    _, made = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    found: Json = made["$defs"]
    return found
