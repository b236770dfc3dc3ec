"""What ``POST /predict`` would refuse."""

import json
from contextlib import suppress
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError

from jobrunner.outcome import refuse_address

# The same as in web/schemas.py.
TEXT_CHARACTERS = 10_000
# More than Python and PostgreSQL can read is deeper by far.
MAX_DEPTH = 100


class Fault(Exception):
    """Says what is wrong with a row, in words that fit after its place."""


class Schema:
    """What the version that serves a model takes; without one, whatever it is."""

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._validator: Draft202012Validator | None = None
        # One that is none, which a runner does not register, checks nothing.
        with suppress(ValueError):
            if schema is not None:
                self._validator = Draft202012Validator(schema, retriever=refuse_address)

    def check(self, text: str) -> None:
        """Let an input pass, as JSON, that the model takes.

        :raises Fault: naming the place that differs.
        """
        if self._validator is None:
            return
        try:
            self._validator.validate(json.loads(text))
        except ValidationError as error:
            raise Fault(_said(error)) from None


def _said(error: ValidationError) -> str:
    rule, place = error.kind.name, "/".join(map(str, ("input", *error.instance_path)))
    if rule == "required":
        return f"{place}/{error.kind.as_dict()['property']} is required"
    return f"{place} breaks the rule {rule} of the model's schema"


def check_text(text: Any) -> str:
    """Give the text if a job may have it.

    :raises Fault: when it may not.
    """
    if not isinstance(text, str):
        raise Fault("text should be a string")
    if not text:
        raise Fault("text should not be empty")
    if len(text) > TEXT_CHARACTERS:
        raise Fault(f"text should have at most {TEXT_CHARACTERS} characters")
    if text.isspace():
        raise Fault("text should not be white space only")
    _check_characters(text, "text")
    return text


def check_input(value: Any) -> dict[str, Any]:
    """Give the input if a job may have it.

    :raises Fault: when it may not.
    """
    if not isinstance(value, dict):
        raise Fault("input should be an object")
    _check_value(value, 0)
    return value


def _check_value(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Fault("input is nested too deeply")
    match value:
        case str():
            _check_characters(value, "input")
        case float() if value in (float("inf"), float("-inf")):
            raise Fault("input holds a number that is too large")
        case dict():
            for name, each in value.items():
                _check_characters(name, "input")
                _check_value(each, depth + 1)
        case list():
            for each in value:
                _check_value(each, depth + 1)


def _check_characters(text: str, what: str) -> None:
    """Refuse what PostgreSQL can't hold."""
    if "\0" in text:
        raise Fault(f"{what} should not contain the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Fault(f"{what} should not contain an unpaired surrogate") from None
