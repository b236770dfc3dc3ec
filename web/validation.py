"""Checks a request's fields against a model, and says which are at fault.

A fault names the field and what it should be, never the value that stood there.
"""

from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MultiDict

from web.problems import Faults, Invalid

MAX_UNKNOWN = 20
# One an item of a batch, at least.
MAX_FAULTS = 1000
NAME_CHARACTERS = 100

# Our words where pydantic's speak of Python and not of JSON.
DETAILS = {
    "missing": "is required",
    "model_type": "should be an object",
    "string_type": "should be a string",
    "string_unicode": "should not contain an unpaired surrogate",
    "int_type": "should be an integer",
    "list_type": "should be an array",
    "extra_forbidden": "is not known here",
}

Place = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


def check_body(model: type[M], body: Any) -> M:
    """Make a model of a parsed body.

    :raises Invalid: with the pointers of the fields at fault.
    """
    if not isinstance(body, dict):
        raise Invalid([{"pointer": "", "detail": DETAILS["model_type"]}])
    return _check(model, body, "pointer")


def check_query(model: type[M], query: MultiDict[str, str]) -> M:
    """Make a model of query parameters, each of which may be given once.

    :raises Invalid: with the names of the parameters at fault.
    """
    for name, values in query.lists():
        if len(values) > 1:
            raise Invalid([_fault("parameter", (name,), "should be given once")])
    return _check(model, query.to_dict(), "parameter")


def _check(model: type[M], fields: dict[str, Any], kind: str) -> M:
    faults: Faults = []
    known = _known(model, fields, kind, (), faults)
    try:
        checked = model.model_validate(known)
    except ValidationError as error:
        raise Invalid((_refused(error, kind) + faults)[:MAX_FAULTS]) from None
    if faults:
        raise Invalid(faults[:MAX_FAULTS])
    return checked


def _known(
    model: type[BaseModel], fields: dict[str, Any], kind: str, place: Place, faults: Faults
) -> dict[str, Any]:
    """Take the fields that there are, of the members of a list as well; the others are faults.

    Not left to pydantic: a hostile body has 150,000 of them, or one that is not Unicode.
    """
    names = _names(model)
    unknown = (name for name in fields if name not in names)
    faults += [
        _fault(kind, (*place, name), DETAILS["extra_forbidden"])
        for name in islice(unknown, min(MAX_UNKNOWN, max(0, MAX_FAULTS - len(faults))))
    ]
    known = {name: fields[name] for name in names if name in fields}
    for name, value in known.items():
        # A longer list is refused without a look at what it holds.
        if not isinstance(value, list) or len(value) > MAX_FAULTS:
            continue
        if member := _model_of_members(model, name):
            known[name] = [
                _known(member, each, kind, (*place, name, number), faults)
                if isinstance(each, dict)
                else each
                for number, each in enumerate(value)
            ]
    return known


@cache
def _names(model: type[BaseModel]) -> dict[str, None]:
    """The fields that there are, in their order. (To ask pydantic takes long.)"""
    return dict.fromkeys(model.model_fields)


@cache
def _model_of_members(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    hint = model.model_fields[name].annotation
    [member] = get_args(hint) if get_origin(hint) is list else [None]
    return member if isinstance(member, type) and issubclass(member, BaseModel) else None


def _refused(error: ValidationError, kind: str) -> Faults:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    told = found[:MAX_FAULTS]
    return [_fault(kind, each["loc"], _detail(each["type"], each["msg"])) for each in told]


def _detail(kind: str, message: str) -> str:
    """Say what is wrong in words that fit after the name of the field."""
    words = DETAILS.get(kind, message)
    for opening in ("Value error, ", "Input ", "String "):
        words = words.removeprefix(opening)
    return words


def _fault(kind: str, place: Sequence[str | int], detail: str) -> dict[str, str]:
    """Name a field at fault, as far as its name is fit to print."""
    if kind == "pointer":
        return {kind: pointer_to(place), "detail": detail}
    return {kind: _printable(str(place[0])), "detail": detail}


def pointer_to(place: Sequence[str | int]) -> str:
    """Write a JSON Pointer (RFC 6901), its names as far as they are fit to print."""
    names = (_printable(str(each)) for each in place)
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)


def _printable(name: str) -> str:
    return name[:NAME_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
