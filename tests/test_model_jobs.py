"""Models with inputs of their own: checked by what they say they take, before all else."""

from typing import Annotated, Any, Literal

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field, TypeAdapter

from helpers import CARD, Jobs
from jobrunner import heartbeat, registry
from jobrunner.contract import Served
from jobrunner.errors import ModelLoadError
from jobrunner.models.mock import MockSentiment
from web import backlog
from web.inputs import NOT_TOLD

Json = dict[str, Any]

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "width": {"type": "integer", "minimum": 1, "maximum": 4096},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        "mode": {"enum": ["fast", "good"]},
        "inner": {"$ref": "#/$defs/Inner"},
    },
    "required": ["width"],
    "additionalProperties": False,
    "$defs": {"Inner": {"type": "object", "properties": {"x": {"type": "number"}}}},
}
OTHER = {"type": "object", "required": ["height"]}
URL = "/models/resize/predict"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


Kinds = Annotated[Cat | Dog, Field(discriminator="kind")]


def register(
    jobs: Jobs, version: str = "1", schema: Json | None = SCHEMA, output: Json | None = None
) -> None:
    said = {"version": version, "input_schema": schema, "output_schema": output}
    registry.register_model(jobs.db, "resize", CARD | said)


def serve(jobs: Jobs, version: str) -> None:
    """Let a runner live that serves a version."""
    heartbeat.register(jobs.db, f"of-{version}", models={"resize": 1}, lease_seconds=30)
    pulse = heartbeat.ModelPulse("resize", version, 1, 1, 0.0, None, None, None)
    heartbeat.beat(jobs.db, f"of-{version}", heartbeat.Pulse(True, 0, 0, [pulse]))
    heartbeat.tell_models(jobs.db, f"of-{version}", [pulse])


def faults(response: Any) -> dict[str, str]:
    assert response.status_code == 422
    return {fault["pointer"]: fault["detail"] for fault in response.get_json()["errors"]}


def look_anew(app: Flask) -> None:
    """Let the web see what has just been registered."""
    with app.app_context():
        backlog.get()._snapshot = None


def test_an_input_that_the_model_takes_is_stored_as_it_is(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)
    given = {"width": 8.0, "names": ["ä"], "inner": {"x": 1.5}}

    response = client.post(URL, json={"input": given, "priority": 3})

    assert response.status_code == 202
    assert list(response.get_json()) == ["job_id", "status"]
    job = jobs.get(response.get_json()["job_id"])
    assert (job["model"], job["input"], job["priority"]) == ("resize", given, 3)
    assert response.headers["Location"] == f"/jobs/{job['id']}"


@pytest.mark.parametrize("text", ["", " \n\u3000", "x" * 10_001, 7, None])
def test_a_model_in_the_box_takes_the_texts_that_predict_takes(
    client: FlaskClient, jobs: Jobs, text: object
) -> None:
    register(jobs, schema=Served(MockSentiment()).describe()["input_schema"])

    assert "/input/text" in faults(client.post(URL, json={"input": {"text": text}}))
    assert client.post(URL, json={"input": {"text": "ä" * 10_000}}).status_code == 202


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({}, "/input/width", "is required"),
        ({"width": "8"}, "/input/width", "should be of type integer"),
        ({"width": 0}, "/input/width", "should be at least 1"),
        ({"width": 5000}, "/input/width", "should be at most 4096"),
        ({"width": 1, "more": "secret"}, "/input/more", "is not known here"),
        ({"width": 1, "a/b~c": 1}, "/input/a~1b~0c", "is not known here"),
        ({"width": 1, "mode": "secret"}, "/input/mode", "should be one of those that are listed"),
        ({"width": 1, "names": ["ok", "secret"]}, "/input/names/1", "at most 5 characters"),
        ({"width": 1, "names": [""] * 3}, "/input/names", "should have at most 2 items"),
        ({"width": 1, "inner": {"x": []}}, "/input/inner/x", "should be of type number"),
    ],
)
def test_a_fault_is_named_by_its_place_and_never_by_its_value(
    client: FlaskClient, jobs: Jobs, given: Json, pointer: str, detail: str
) -> None:
    register(jobs)

    response = client.post(URL, json={"input": given})

    assert detail in faults(response)[pointer]
    assert "secret" not in response.get_data(as_text=True)
    assert jobs.count() == 0


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ('{"input": {"a": ["\\u0000"]}}', "/input/a/0", "should not contain the character NUL"),
        ('{"input": {"a": "\\ud800"}}', "/input/a", "unpaired surrogate"),
        ('{"input": {"\\u0000": 1}}', "/input", "has a name that should not contain"),
        ('{"input": {"a": 1e999}}', "/input/a", "should not be so large a number"),
        ('{"input": {"a": ' + "[" * 200 + "]" * 200 + "}}", "/input", "nested so deeply"),
        ('{"input": []}', "/input", "should be"),
        ('{"input": {}, "text": "x"}', "/text", "is not known here"),
        ("{}", "/input", "is required"),
    ],
)
def test_what_no_row_can_hold_is_refused(
    client: FlaskClient, jobs: Jobs, body: str, pointer: str, detail: str
) -> None:
    register(jobs, schema=None)

    response = client.post(URL, data=body, content_type="application/json")

    assert detail in faults(response)[pointer]
    assert jobs.count() == 0


def test_numbers_that_postgresql_writes_at_length_are_refused(
    client: FlaskClient, jobs: Jobs
) -> None:
    register(jobs, schema=None)

    response = client.post(URL, json={"input": {"l": [1e308] * 10_000}})

    assert faults(response) == {"/input": "should not have so many large numbers"}


def either(*references: str) -> Json:
    """An object whose field a is one of these."""
    choice = {"anyOf": [*({"$ref": reference} for reference in references), {"type": "null"}]}
    return {"type": "object", "properties": {"a": choice}}


def nested(depth: int, value: Json) -> Json:
    for _ in range(depth):
        value = {"a": value}
    return value


NESTS_BY_NAMES = either("#/$defs/N", "#/$defs/P")


@pytest.mark.parametrize(
    "schema",
    [
        NESTS_BY_NAMES | {"$defs": {"N": NESTS_BY_NAMES, "P": NESTS_BY_NAMES}},
        either("#", "#"),
        either("#/$defs/N", "#") | {"$defs": {"N": {"allOf": [{"$ref": "#"}]}}},
        either("#/$defs/%4E", "#/$defs/N")
        | {"$defs": {"N": {"properties": {"a": {"$ref": "#/properties/a"}}}}},
    ],
)
def test_a_choice_of_types_that_nest_is_not_tried_in_depth(
    schema: Json, client: FlaskClient, jobs: Jobs
) -> None:
    register(jobs, schema=schema)

    assert faults(client.post(URL, json={"input": nested(30, {"a": 5})})) == {
        "/input": "should not be nested so deeply"
    }
    assert client.post(URL, json={"input": {"a": {"a": {}}}}).status_code == 202


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        either("#/$defs/N") | {"$defs": {"N": {"properties": {"a": {"$ref": "#/$defs/N"}}}}},
        {"properties": {"a": {"$ref": "#"}}, "$defs": {"N": either("#/$defs/N", "#/$defs/N")}},
    ],
)
def test_what_nests_without_a_choice_at_each_level_may_be_deep(
    schema: Json, client: FlaskClient, jobs: Jobs
) -> None:
    register(jobs, schema=schema)

    response = client.post(URL, json={"input": nested(30, {})})

    assert response.status_code == 202


def test_of_a_large_input_the_first_fault_is_told(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)

    for count in (3000, 50_000):
        response = client.post(URL, json={"input": {"width": 1, "names": [0] * count}})
        assert len(faults(response)) == 1


def test_of_a_small_input_a_hundred_faults_are_told(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)

    response = client.post(URL, json={"input": {f"{number}": 1 for number in range(500)}})

    assert len(faults(response)) == 100


def test_of_a_large_input_with_a_choice_of_types_it_is_not_told_where_it_is_wrong(
    client: FlaskClient, jobs: Jobs
) -> None:
    names = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    register(jobs, schema={"type": "object", "properties": {"names": names}})

    large = client.post(URL, json={"input": {"names": [0] * 300_000}})
    small = client.post(URL, json={"input": {"names": [0] * 300}})

    assert faults(large) == {"/input": NOT_TOLD}
    assert list(faults(small)) == ["/input/names"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "file:///etc/hostname", "other"])
def test_nothing_is_fetched_for_a_schema(client: FlaskClient, jobs: Jobs, address: str) -> None:
    register(jobs, schema={"type": "object", "properties": {"a": {"$ref": address}}})

    # It is no schema that can be checked by; a runner would not have registered it.
    assert client.post(URL, json={"input": {"a": 1}}).status_code == 202


@pytest.mark.parametrize(
    "schema", [{"type": "object", "$defs": []}, {"properties": {"a": {"pattern": "\\Aab\\Z"}}}]
)
def test_an_odd_schema_breaks_nothing(client: FlaskClient, jobs: Jobs, schema: Json) -> None:
    register(jobs, schema=schema)

    assert client.post(URL, json={"input": {"a": "ab"}}).status_code in (202, 422)
    assert client.get("/openapi.json").status_code == 200


def test_a_model_that_was_never_there_is_not_found(client: FlaskClient, jobs: Jobs) -> None:
    response = client.post("/models/nothing/predict", json={"input": {}})

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_a_model_that_says_nothing_takes_any_object(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs, schema=None)

    assert client.post(URL, json={"input": {"anything": [1, None]}}).status_code == 202


def test_a_text_for_a_model_that_takes_none_is_refused(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)

    one = client.post("/predict", json={"text": "good", "model": "resize"})
    many = client.post("/predict/batch", json={"items": [{"text": "x", "model": "resize"}]})

    assert faults(one) == {"/text": "is not known here", "/width": "is required"}
    assert faults(many)["/items/0/width"] == "is required"
    assert jobs.count() == 0


def test_a_key_makes_it_safe_to_repeat(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)
    headers = {"Idempotency-Key": "one"}

    first = client.post(URL, json={"input": {"width": 1}}, headers=headers)
    again = client.post(URL, json={"input": {"width": 1}}, headers=headers)
    other = client.post(URL, json={"input": {"width": 2}}, headers=headers)

    assert first.get_json() == again.get_json()
    assert other.status_code == 422
    assert jobs.count() == 1


def test_inputs_are_checked_against_the_version_that_runs(
    app: Flask, client: FlaskClient, jobs: Jobs
) -> None:
    register(jobs, "1", SCHEMA)
    register(jobs, "2", OTHER)
    serve(jobs, "1")
    assert client.post(URL, json={"input": {"width": 1}}).status_code == 202

    serve(jobs, "2")
    look_anew(app)

    response = client.post(URL, json={"input": {"width": 1}})
    assert faults(response) == {"/input/height": "is required"}


def test_a_version_keeps_its_schema(jobs: Jobs) -> None:
    register(jobs)
    register(jobs)

    with pytest.raises(ModelLoadError, match="version 1 that is registered: give it a new version"):
        register(jobs, "1", OTHER)


def test_what_is_only_said_of_a_schema_may_change(jobs: Jobs) -> None:
    register(jobs)

    register(jobs, "1", SCHEMA | {"title": "Resize", "description": "In words."})


def test_what_no_row_can_hold_ends_the_runner_with_a_line(jobs: Jobs) -> None:
    with pytest.raises(ModelLoadError, match="the database can not keep what the model resize"):
        register(jobs, "1", SCHEMA | {"description": "\0"})


def test_models_are_listed_with_what_they_take(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)
    serve(jobs, "1")

    found = {each["model"]: each for each in client.get("/models").get_json()["models"]}

    assert found["resize"]["input_schema"] == SCHEMA
    assert (found["resize"]["version"], found["resize"]["versions"]) == ("1", ["1"])
    assert found["sentiment"]["version"] is None
    assert found["sentiment"]["versions"] == []


def test_the_description_has_what_each_model_takes(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs)

    document = client.get("/openapi.json").get_json()

    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/models/resize/predict"]["post"]
    assert "name" not in {parameter["name"] for parameter in operation["parameters"]}
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/resize.submission"}
    assert is_valid({"input": {"width": 1, "inner": {"x": 1.5}}}, body, document)
    assert not is_valid({"input": {"width": 1, "inner": {"x": "?"}}}, body, document)


def test_the_description_has_what_each_model_gives(client: FlaskClient, jobs: Jobs) -> None:
    register(jobs, schema=None, output=SCHEMA)
    job = client.get(f"/jobs/{jobs.add(status='completed', model='resize')}").get_json()

    document = client.get("/openapi.json").get_json()

    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/models/resize/predict"]["post"]
    body = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/resize.job"}
    assert is_valid(job | {"result": {"width": 1, "inner": {"x": 1.5}}}, body, document)
    assert is_valid(job | {"result": None}, body, document)
    assert not is_valid(job | {"result": {"width": 1, "inner": {"x": "?"}}}, body, document)
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ModelSubmission"
    }


# Each takes an object that holds itself: of the first name as deeply as one likes.
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#"}}},
        {"$ref": "#/$defs/A~1%20c", "$defs": {"A/ c": {"properties": {"a": {"$ref": "#"}},
                                                       "type": "object"}}},
        {"$id": "https://example.org/it", "$schema": "https://json-schema.org/draft/2020-12/schema",
         "type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "default": {"default": {"a": 1}}}},
    ],
)  # fmt: skip
def test_what_a_schema_refers_to_is_found_in_the_description(
    client: FlaskClient, jobs: Jobs, schema: Json
) -> None:
    register(jobs, schema=schema, output=schema)

    document = client.get("/openapi.json").get_json()

    OpenAPIV31SpecValidator(document).validate()
    for name in ("resize.input", "resize.result"):
        place = {"$ref": f"#/components/schemas/{name}"}
        assert is_valid({"a": {"a": {}}}, place, document)
        assert not is_valid({"a": {"a": 1}}, place, document)


def test_members_of_a_union_are_found_by_what_tells_them_apart(
    client: FlaskClient, jobs: Jobs
) -> None:
    kinds = TypeAdapter(Kinds).json_schema()
    register(jobs, output=kinds)

    document = client.get("/openapi.json").get_json()

    OpenAPIV31SpecValidator(document).validate()
    result = document["components"]["schemas"]["resize.result"]
    prefix = "#/components/schemas/resize.result/$defs/"
    assert result["discriminator"]["mapping"] == {"cat": f"{prefix}Cat", "dog": f"{prefix}Dog"}
    assert is_valid({"kind": "dog"}, result, document)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"$ref": "#/$defs/Nothing"},
        {"$ref": "https://example.org/elsewhere"},
        {"$ref": "#word", "$defs": {"A": {"$anchor": "word"}}},
        {"$ref": "inner", "$defs": {"A": {"$id": "inner"}}},
        {"properties": {"$ref": {"type": "string"}}},
        {"default": {"$ref": "#/nowhere"}},
        {"discriminator": "kind"},
        {"discriminator": {"propertyName": "kind", "mapping": {"a": "A"}}},
    ],
)
def test_a_schema_that_can_not_stand_in_the_description_is_left_out(
    client: FlaskClient, jobs: Jobs, schema: Json
) -> None:
    register(jobs, schema=schema, output=schema)

    document = client.get("/openapi.json").get_json()

    OpenAPIV31SpecValidator(document).validate()
    assert "/models/resize/predict" in document["paths"]
    assert not {name for name in document["components"]["schemas"] if name.startswith("resize")}


def is_valid(value: Json, schema: Json, document: Json) -> bool:
    whole = schema | {"components": document["components"]}
    return bool(Draft202012Validator(whole).is_valid(value))


def test_the_description_is_there_without_the_tables(client: FlaskClient, jobs: Jobs) -> None:
    jobs.db.execute("alter table model_version rename to elsewhere")
    try:
        assert client.get("/openapi.json").status_code == 200
    finally:
        jobs.db.execute("alter table elsewhere rename to model_version")
