"""What models take: inputs are checked against the schemas that runners have registered.

A version's schema never changes, so each process reads it once.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from flask import current_app, request
from jsonschema_rs import Draft202012Validator, ValidationError

from web import backlog, logs
from web.database import Database
from web.json_body import MAX_BYTES
from web.nesting import Schema, depth_of, has_at_most, has_choices, has_choices_in_depth
from web.problems import Faults, Invalid
from web.validation import pointer_to

MAX_DEPTH = 100
# Where each level may be one of several types that nest in turn, a check tries all: their
# number to the power of the depth.
MAX_DEPTH_OF_CHOICES = 8
MAX_FAULTS = 100
# Of the numbers of an input, in all.
MAX_ZEROS = 1_000_000
# All that is wrong with a larger body, or one of more values, is not told: each fault costs some
# 20 microseconds, and a choice of types has those of all its types.
SMALL_BYTES = 20_000
FEW_VALUES = 1000
NOT_TOLD = "is not what the model takes; of an input with so many values it is not told where"

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


class Checked(NamedTuple):
    """What a version takes."""

    validator: Draft202012Validator
    # How deeply nested what it is given may be.
    max_depth: int
    has_choices: bool


class Input(NamedTuple):
    """What a job is to be given: where it stands in the body, for which model."""

    place: Place
    model: str
    value: dict[str, Any]


class Inputs:
    """The schemas of what is served, as far as they were needed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._validators: dict[tuple[str, str], Checked | None] = {}

    def require(self, inputs: Iterable[Input]) -> None:
        """Make sure that models take what they are to be given.

        :raises Invalid: naming what they do not.
        """
        faults: Faults = []
        for given in inputs:
            version = backlog.get().now().crew(given.model).version
            if version and (checked := self._validator(given.model, version)):
                if depth_of(given.value) > checked.max_depth:
                    detail = "should not be nested so deeply"
                    faults.append({"pointer": pointer_to(given.place), "detail": detail})
                else:
                    faults += _faults(checked, given)
        if faults:
            raise Invalid(faults[:MAX_FAULTS])

    def _validator(self, model: str, version: str) -> Checked | None:
        if (model, version) not in self._validators:
            with self._database.connection() as connection:
                values = {"model": model, "version": version}
                row = connection.execute(READ_SCHEMA, values).fetchone()
            self._validators[model, version] = _compiled(model, row[0] if row else None)
        return self._validators[model, version]


def refuse_address(address: str) -> Any:
    """Fetch no part of a schema from elsewhere, whatever it names.

    :raises ValueError: always.
    """
    raise ValueError(f"a schema that is not whole: it names {address[:100]}")


def _compiled(model: str, schema: Schema | None) -> Checked | None:
    """Read a schema; one that is none, which a runner does not register, checks nothing."""
    if schema is None:
        return None
    try:
        validator = Draft202012Validator(schema, retriever=refuse_address)
        max_depth = MAX_DEPTH_OF_CHOICES if has_choices_in_depth(schema) else MAX_DEPTH
        return Checked(validator, max_depth, has_choices(schema))
    except ValueError:
        logs.error("schema_refused", model=model)
        return None


def require_storable(place: Place, value: object) -> None:
    """Make sure that PostgreSQL can hold a value of JSON, and write it as short as it came.

    :raises Invalid: naming what it can not.
    """
    faults = list(islice(_unstorable(place, value), MAX_FAULTS))
    if faults:
        raise Invalid(faults)


def _unstorable(place: Place, value: object) -> Iterator[dict[str, str]]:
    left: list[tuple[Place, dict[str, Any] | list[Any]]] = []
    zeros = 0.0
    if isinstance(value, dict | list):
        left.append((place, value))
    while left:
        place, container = left.pop()
        if len(place) > MAX_DEPTH:
            yield {"pointer": pointer_to(place[:1]), "detail": "should not be nested so deeply"}
            continue
        members: Iterable[tuple[str | int, Any]] = enumerate(container)
        if isinstance(container, dict):
            members = container.items()
            for name in container:
                if detail := _wrong_text(name):
                    yield {"pointer": pointer_to(place), "detail": f"has a name that {detail}"}
        for place_within, member in members:
            if isinstance(member, dict | list):
                left.append(((*place, place_within), member))
            elif isinstance(member, str) and (detail := _wrong_text(member)):
                yield {"pointer": pointer_to((*place, place_within)), "detail": detail}
            elif isinstance(member, float) and member:
                if not math.isfinite(member):
                    detail = "should not be so large a number"
                    yield {"pointer": pointer_to((*place, place_within)), "detail": detail}
                    continue
                zeros += abs(math.log10(abs(member)))
    # PostgreSQL writes 1e308 as a digit and 308 zeros.
    if zeros > MAX_ZEROS:
        yield {"pointer": pointer_to(place[:1]), "detail": "should not have so many large numbers"}


def _wrong_text(text: str) -> str | None:
    if "\0" in text:
        return "should not contain the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "should not contain an unpaired surrogate"
    return None


def _faults(checked: Checked, given: Input) -> Faults:
    """Say what is wrong: all of it, or of a large input the first thing, since all takes long."""
    if checked.validator.is_valid(given.value):
        return []
    few = has_at_most(given.value, FEW_VALUES)
    errors: Iterable[ValidationError]
    if few and (request.content_length or MAX_BYTES) <= SMALL_BYTES:
        errors = checked.validator.iter_errors(given.value)
    elif few or not checked.has_choices:
        errors = _first_error(checked.validator, given.value)
    else:
        return [{"pointer": pointer_to(given.place), "detail": NOT_TOLD}]
    faults = (
        fault for error in errors for fault in _said(error, (*given.place, *error.instance_path))
    )
    return list(islice(faults, MAX_FAULTS))


def _first_error(validator: Draft202012Validator, value: object) -> list[ValidationError]:
    try:
        validator.validate(value)
    except ValidationError as error:
        return [error]
    return []


def _said(error: ValidationError, place: Place) -> Faults:
    """Say what breaks a schema: what should be, never what is."""
    rule, details = error.kind.name, error.kind.as_dict()
    if rule == "required":
        return [{"pointer": pointer_to((*place, details["property"])), "detail": "is required"}]
    if rule == "additionalProperties":
        unknown = islice(details["unexpected"], MAX_FAULTS)
        pointers = [pointer_to((*place, name)) for name in unknown]
        return [{"pointer": pointer, "detail": "is not known here"} for pointer in pointers]
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
