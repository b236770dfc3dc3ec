"""The schemas that models have registered, as parts of a document that is not theirs."""

import json
from typing import Any

from jsonschema_rs import Draft202012Validator

from web.inputs import refuse_address

Json = dict[str, Any]

# What they hold is data, whatever it looks like.
DATA = ("const", "enum", "default", "examples", "example")
# What they hold are schemas by names, whatever those look like.
BY_NAME = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
# They say what a schema by itself is; a part of a document is none.
OF_THE_WHOLE = ("$id", "$schema")
# Names that would hold in the whole document.
NAMING = ("$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef")


class _Unfit(ValueError):
    """It refers to what can not be said in a document with others."""


def embedded(schema: Json, place: str) -> Json | None:
    """Copy a schema, so that what it refers to in itself holds where it stands at ``place``.

    None where it is no schema, or where it can not be copied so.
    """
    try:
        Draft202012Validator(schema, retriever=refuse_address)
        whole = {name: part for name, part in schema.items() if name not in OF_THE_WHOLE}
        copy: Json = _copied(whole, place)
    except (ValueError, RecursionError):
        return None
    return copy


def _copied(part: Any, place: str) -> Any:
    if isinstance(part, list):
        return [_copied(each, place) for each in part]
    if not isinstance(part, dict):
        return part
    return {name: _copied_keyword(name, value, place) for name, value in part.items()}


def _copied_keyword(name: str, value: Any, place: str) -> Any:
    if name in NAMING:
        raise _Unfit(name)
    if name == "$ref":
        return _moved(value, place)
    if name in DATA:
        # Those who read the document would follow it.
        if '"$ref"' in json.dumps(value):
            raise _Unfit(name)
        return value
    if name == "discriminator":
        return _copied_discriminator(value, place)
    if name in BY_NAME and isinstance(value, dict):
        if "$ref" in value:
            raise _Unfit(name)
        return {each: _copied(schema, place) for each, schema in value.items()}
    return _copied(value, place)


def _copied_discriminator(value: Any, place: str) -> Json:
    """Copy what tells the members of a union apart: OpenAPI's, which JSON Schema does not check."""
    match value:
        case {"propertyName": str(of), "mapping": dict(mapping)}:
            moved = {kind: _moved(each, place) for kind, each in mapping.items()}
            return {"propertyName": of, "mapping": moved}
        case {"propertyName": str(of), **others} if "mapping" not in others:
            return {"propertyName": of}
    raise _Unfit("discriminator")


def _moved(reference: Any, place: str) -> str:
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        return place + reference.removeprefix("#")
    raise _Unfit("$ref")
