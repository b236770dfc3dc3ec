"""The description of the API is valid, complete, and true."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from helpers import Jobs
from web_server import add_crew

Json = dict[str, Any]


@pytest.fixture
def document(client: FlaskClient) -> Json:
    found: Json = client.get("/openapi.json").get_json()
    return found


def errors_of(instance: Any, schema: Json, document: Json) -> list[str]:
    whole = {**schema, "components": document["components"]}
    checker = Draft202012Validator.FORMAT_CHECKER
    validator = Draft202012Validator(whole, format_checker=checker)
    return [each.message for each in validator.iter_errors(instance)]


def component(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def responses(document: Json) -> Iterator[tuple[str, Json]]:
    for path in document["paths"].values():
        for operation in path.values():
            yield from operation["responses"].items()


def test_the_document_is_valid_openapi_3_1(document: Json) -> None:
    OpenAPIV31SpecValidator(document).validate()

    assert document["openapi"].startswith("3.1.")


def test_it_describes_the_routes_of_the_app_and_no_others(app: Flask, document: Json) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, each in document["paths"].items() for method in each}
    pages = {path for path, _ in routes if path.startswith(("/docs", "/dashboard", "/openapi"))}

    assert {route for route in routes if route[0] not in pages} == described


def test_every_example_is_what_its_schema_says(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            assert errors_of(example, component(name), document) == []
        for of_property in schema["properties"].values():
            for example in of_property.get("examples", []):
                assert errors_of(example, of_property, document) == []


def test_the_example_of_a_submission_is_accepted_when_it_is_sent(
    client: FlaskClient, document: Json
) -> None:
    example = document["components"]["schemas"]["Submission"]["examples"][0]

    response = client.post("/predict", json=example)

    assert response.status_code == 202
    assert errors_of(response.get_json(), component("Accepted"), document) == []


def test_the_example_of_a_batch_is_accepted_when_it_is_sent(
    client: FlaskClient, document: Json
) -> None:
    example = document["components"]["schemas"]["BatchSubmission"]["examples"][0]

    accepted = client.post("/predict/batch", json=example)
    batch = client.get(accepted.headers["Location"])

    assert accepted.status_code == 202
    assert errors_of(accepted.get_json(), component("AcceptedBatch"), document) == []
    assert errors_of(batch.get_json(), component("Batch"), document) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models", "ModelList"),
        ("/runners", "RunnerList"),
        ("/stats", "Stats"),
        ("/history", "History"),
    ],
)
def test_the_overviews_are_as_described(
    path: str, name: str, client: FlaskClient, document: Json, jobs: Jobs
) -> None:
    add_crew(jobs, workers=2, seconds=5)
    jobs.add()

    assert errors_of(client.get(path).get_json(), component(name), document) == []


@pytest.mark.parametrize(
    "body",
    [{}, {"text": ""}, {"text": " "}, {"text": 5}, {"text": "x", "more": 1}, {"text": "x" * 10_001},
     {"text": "x", "priority": 101}, {"text": "x", "priority": 8.5}, {"text": "x", "model": None}],
)  # fmt: skip
def test_what_the_schema_refuses_the_service_refuses(
    body: Json, client: FlaskClient, document: Json
) -> None:
    response = client.post("/predict", json=body)

    assert errors_of(body, component("Submission"), document)
    assert response.status_code == 422
    assert errors_of(response.get_json(), component("Problem"), document) == []


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed"])
def test_jobs_are_as_described(
    status: str, client: FlaskClient, document: Json, jobs: Jobs
) -> None:
    add_crew(jobs, workers=2, seconds=5)
    job_id = jobs.add(status=status)

    job = client.get(f"/jobs/{job_id}").get_json()
    page = client.get("/jobs").get_json()

    schema = document["components"]["schemas"]["Job"]
    assert list(job) == list(json.loads(client.get(f"/jobs/{job_id}").data))
    assert set(schema["required"]) == set(schema["properties"]) == set(job)
    assert errors_of(job, component("Job"), document) == []
    assert errors_of(page, component("JobPage"), document) == []


def test_every_error_is_described_as_a_problem(document: Json) -> None:
    for status, response in responses(document):
        if int(status) >= 400:
            name = response.get("$ref", "").rsplit("/", 1)[-1]
            found = document["components"]["responses"][name] if name else response
            schema = {"schema": component("Problem")}
            assert found["content"] == {"application/problem+json": schema}


def test_the_documentation_is_a_page_that_asks_no_other_host(client: FlaskClient) -> None:
    page = client.get("/docs")

    text = page.get_data(as_text=True)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "http:" not in text
    assert "https:" not in text


def test_everything_that_the_page_loads_is_there(client: FlaskClient) -> None:
    text = client.get("/docs").get_data(as_text=True)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', text)

    assert len(loaded) == 5
    for address in loaded:
        with client.get(address) as response:
            assert response.status_code == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "%00", ""]
)
def test_nothing_but_the_files_of_swagger_ui_is_served(name: str, client: FlaskClient) -> None:
    response = client.get(f"/docs/{name}")

    assert response.status_code == (404 if name else 200)
    assert b"import" not in response.data
