"""What models take: inputs are checked against the schemas that runners have registered.

A version's schema never changes, so each process reads it once.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from flask import current_app
from jsonschema_rs import Draft202012Validator, ValidationError

from web import backlog
from web.database import Database
from web.problems import Faults, Invalid
from web.validation import pointer_to

MAX_DEPTH = 100
MAX_FAULTS = 100

READ_SCHEMA = """
    select input_schema
    from model_version
    where
        model = %(model)s
        and version = %(version)s
"""

# By the keyword that is broken, what should be; ``{}`` is what the schema has there.
DETAILS = {
    "type": "should be of type {}",
    "enum": "should be one of those that are listed for it",
    "const": "should be what the model has fixed for it",
    "minimum": "should be at least {}",
    "maximum": "should be at most {}",
    "exclusiveMinimum": "should be more than {}",
    "exclusiveMaximum": "should be less than {}",
    "multipleOf": "should be a multiple of {}",
    "minLength": "should have at least {} characters",
    "maxLength": "should have at most {} characters",
    "minItems": "should have at least {} items",
    "maxItems": "should have at most {} items",
    "pattern": "should match the pattern that is given for it",
}

Place = tuple[str | int, ...]
Schema = dict[str, Any]


class Input(NamedTuple):
    """What a job is to be given: where it stands in the body, for which model."""

    place: Place
    model: str
    value: dict[str, Any]


class Inputs:
    """The schemas of what is served, as far as they were needed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._validators: dict[tuple[str, str], Draft202012Validator | None] = {}

    def require(self, inputs: Iterable[Input]) -> None:
        """Make sure that models take what they are to be given.

        :raises Invalid: naming what they do not.
        """
        faults: Faults = []
        for given in inputs:
            version = backlog.get().now().crew(given.model).version
            if version and (validator := self._validator(given.model, version)):
                faults += _faults(validator, given)
        if faults:
            raise Invalid(faults[:MAX_FAULTS])

    def _validator(self, model: str, version: str) -> Draft202012Validator | None:
        if (model, version) not in self._validators:
            with self._database.connection() as connection:
                values = {"model": model, "version": version}
                row = connection.execute(READ_SCHEMA, values).fetchone()
            schema = row[0] if row else None
            self._validators[model, version] = schema and Draft202012Validator(schema)
        return self._validators[model, version]


def require_storable(place: Place, value: object) -> None:
    """Make sure that PostgreSQL can hold a value of JSON.

    :raises Invalid: naming what it can not.
    """
    faults = [fault for _, fault in zip(range(MAX_FAULTS), _unstorable(place, value), strict=False)]
    if faults:
        raise Invalid(faults)


def _unstorable(place: Place, value: object) -> Iterator[dict[str, str]]:
    left: list[tuple[Place, object]] = [(place, value)]
    while left:
        place, value = left.pop()
        if isinstance(value, dict | list) and len(place) > MAX_DEPTH:
            yield {"pointer": pointer_to(place[:1]), "detail": "should not be nested so deeply"}
        elif isinstance(value, dict):
            for name, member in value.items():
                left += [((*place, name), member)]
                if detail := _wrong_text(name):
                    yield {"pointer": pointer_to(place), "detail": f"has a name that {detail}"}
        elif isinstance(value, list):
            left += [((*place, number), member) for number, member in enumerate(value)]
        elif isinstance(value, str) and (detail := _wrong_text(value)):
            yield {"pointer": pointer_to(place), "detail": detail}
        elif isinstance(value, float) and not math.isfinite(value):
            yield {"pointer": pointer_to(place), "detail": "should not be so large a number"}


def _wrong_text(text: str) -> str | None:
    if "\0" in text:
        return "should not contain the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "should not contain an unpaired surrogate"
    return None


def _faults(validator: Draft202012Validator, given: Input) -> Faults:
    found: Faults = []
    for error in validator.iter_errors(given.value):
        found += _said(error, (*given.place, *error.instance_path))
        if len(found) >= MAX_FAULTS:
            break
    return found


def _said(error: ValidationError, place: Place) -> Faults:
    """Say what breaks a schema: what should be, never what is."""
    rule, details = error.kind.name, error.kind.as_dict()
    if rule == "required":
        return [{"pointer": pointer_to((*place, details["property"])), "detail": "is required"}]
    if rule == "additionalProperties":
        unknown = [pointer_to((*place, name)) for name in details["unexpected"]]
        return [{"pointer": pointer, "detail": "is not known here"} for pointer in unknown]
    limit = details.get("limit", details.get("multiple_of", ""))
    named = " or ".join(details.get("types", ())) or f"{limit}"
    detail = DETAILS.get(rule, "is not what the model takes: it breaks the rule {}")
    return [
        {"pointer": pointer_to(place), "detail": detail.format(named if rule in DETAILS else rule)}
    ]


def get() -> Inputs:
    """The inputs of the current app."""
    inputs: Inputs = current_app.extensions["inputs"]
    return inputs
