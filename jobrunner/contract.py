"""A model as the worker uses it: what it said of itself, checked once, and its calls.

See ``jobrunner.models`` for what a model may say.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import reduce
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from itertools import islice
from math import inf
from operator import or_
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from jobrunner.errors import ModelLoadError
from jobrunner.outcome import MAX_BATCH_SIZE, MAX_PLACE

TIMEOUT_SECONDS = 60.0
MAX_WAIT_MS = 60_000
MAX_VERSION = 100
MAX_SCHEMA_BYTES = 65_536
# Hints that say nothing of a type.
UNTYPED = (Any, object, dict)
OTHER_TYPED_DICT = (
    "before Python 3.12 types can not be read from typing.TypedDict: write"
    " `from typing_extensions import TypedDict` instead"
)

# What can be gone through, but not as a list of results; a set has them in no order.
NO_LISTS = (str, bytes, Mapping, Set)

# What json.loads() finds out first, whether its text is UTF-8 say and where it begins, is known: it
# is what PostgreSQL says of a jsonb.
DECODER = json.JSONDecoder()

Json = dict[str, Any]
# Says how far a call is: a fraction from 0 to 1, and a word for what is being done.
Tell = Callable[..., None]


class InvalidInput(ValueError):
    """The input is not what the model takes. Another version, which may run as well, may take it;
    what is no JSON object never will be one."""

    def __init__(self, message: str, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidOutput(ValueError):
    """The model gave back what it said it would not."""


class Served:
    """A model that was set up, ready to be called."""

    def __init__(self, model: Any) -> None:
        """Read what the model says of itself.

        :raises ModelLoadError: when that makes no sense.
        """
        self._model = model
        self._predict_batch: Callable[..., Any] | None = getattr(model, "predict_batch", None)
        self._predict: Callable[..., Any] | None = getattr(model, "predict", None)
        call = self._predict_batch or self._predict
        if not callable(call):
            raise ModelLoadError(f"{type(model).__name__} has no method predict")
        if iscoroutinefunction(call) or isasyncgenfunction(call):
            raise ModelLoadError(f"{call.__name__} is async: write it as a plain method")
        self._tells = "progress" in signature(call).parameters
        self.timeout_seconds = _number(model, "timeout_seconds", TIMEOUT_SECONDS, inf, "seconds")
        self.max_batch_size = self._batch_size()
        self.max_wait_ms = _number(model, "max_wait_ms", 0, MAX_WAIT_MS, "milliseconds")
        self._input, self._output = _types(call, many=call is self._predict_batch)
        self.input_schema = _schema(self._input, "input")
        self.output_schema = _schema(self._output, "output")
        self.version = self._version()

    @property
    def health(self) -> Callable[[], object] | None:
        """How to ask whether it is well, if it can say."""
        found = getattr(self._model, "health", None)
        return found if callable(found) else None

    @property
    def teardown(self) -> Callable[[], object] | None:
        """How to let it clean up, if it wants to."""
        found = getattr(self._model, "teardown", None)
        return found if callable(found) else None

    def describe(self) -> Json:
        """Say what the runner and the web need to know."""
        return {
            "version": self.version,
            "timeout_seconds": self.timeout_seconds,
            "max_batch_size": self.max_batch_size,
            "max_wait_ms": self.max_wait_ms,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "has_teardown": self.teardown is not None,
        }

    def read(self, text: bytes) -> Any:
        """Make an item of a job's input.

        :raises InvalidInput: when it is none.
        """
        try:
            if self._input is None:
                said = text.decode()
                value, end = DECODER.raw_decode(said)
                if end != len(said):
                    raise ValueError("something follows it")
                return value
            return self._input.validate_json(text)
        except ValidationError as error:
            raise InvalidInput(f"the input is not valid: {_said(error)}") from None
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the input can not be read: {error}", retryable=False) from None

    def run(self, items: Sequence[Any], tell: Tell) -> Sequence[Any]:
        """Give a result, or an exception, for each item; more than one only of a batching model.

        A model with a parameter ``progress`` is given ``tell`` for it.

        :raises InvalidOutput: when the model gives too few or too many.
        """
        told = {"progress": tell} if self._tells else {}
        if self._predict_batch is None:
            assert self._predict is not None
            return [self._predict(item, **told) for item in items]
        results = self._predict_batch(list(items), **told)
        if not isinstance(results, Iterable) or isinstance(results, NO_LISTS):
            raise InvalidOutput("predict_batch should give a list of results")
        # Who goes on for ever is not listened to for so long.
        given, wanted = list(islice(results, len(items) + 1)), len(items)
        if len(given) != wanted:
            said = f"over {wanted}" if len(given) > wanted else len(given)
            raise InvalidOutput(f"predict_batch gave {said} results for {wanted} items")
        return given

    def plain(self, result: Any) -> Any:
        """Make of a result what JSON can say.

        :raises InvalidOutput: when it is not of the type that was promised.
        """
        if self._output is None:
            return result
        try:
            value = self._output.validate_python(result)
            # By alias, as the schema has it.
            return self._output.dump_python(value, mode="json", by_alias=True)
        except ValidationError as error:
            raise InvalidOutput(_said(error)) from None

    def _batch_size(self) -> int:
        size = _number(self._model, "max_batch_size", 1, MAX_BATCH_SIZE)
        if not size.is_integer():
            raise ModelLoadError("max_batch_size should be a whole number")
        if size > 1 and self._predict_batch is None:
            raise ModelLoadError("a max_batch_size over 1 needs a method predict_batch")
        return int(size)

    def _version(self) -> str:
        """What it is called, or, where it has no name, a mark of what it takes and gives."""
        said = getattr(self._model, "version", None)
        if said is None:
            schemas = [self.input_schema, self.output_schema]
            if not any(schemas):
                return "unversioned"
            return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()[:12]
        text = str(said)
        if not text.isprintable() or not 0 < len(text) <= MAX_VERSION:
            raise ModelLoadError(f"version should have 1 to {MAX_VERSION} printable characters")
        return text


def _number(model: Any, name: str, default: float, most: float, unit: str = "") -> float:
    """Read an attribute that is a number over 0, or, in milliseconds, at least 0."""
    value = getattr(model, name, default)
    least = "at least 0" if unit == "milliseconds" else "over 0"
    good = isinstance(value, int | float) and not isinstance(value, bool) and value <= most
    if not good or value == inf or value < 0 or (value == 0 and least == "over 0"):
        kind = f"a number of {unit}" if unit else "a number"
        limit = f" and at most {most:g}" if most < inf else ""
        raise ModelLoadError(f"{name} should be {kind} {least}{limit}")
    return float(value)


def _types(call: Callable[..., Any], many: bool) -> tuple[TypeAdapter[Any] | None, ...]:
    """Read the types of an item and of a result from the hints of a method."""
    try:
        # With what stands beside a type in Annotated: limits are part of the promise.
        hints = get_type_hints(call, include_extras=True)
    except Exception as error:
        raise ModelLoadError(
            f"the type hints of {call.__name__} can not be read: {error}"
        ) from error
    result = hints.pop("return", None)
    item = hints.get(next(iter(signature(call).parameters), ""))
    if many:
        item, result = _element(item), _element(result)
    return _adapter(item), _adapter(result)


def _element(hint: Any) -> Any:
    """The type of the elements of a list; the exceptions among them are errors."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    arguments = get_args(hint)
    if not arguments:
        return None
    members = get_args(arguments[0])
    kept = tuple(each for each in members if not _is_exception(each))
    return reduce(or_, kept) if kept and len(kept) < len(members) else arguments[0]


def _is_exception(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseException)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    if _says_nothing(hint):
        return None
    try:
        return TypeAdapter(hint)
    except PydanticUserError as error:
        if error.code == "typed-dict-version":
            raise ModelLoadError(OTHER_TYPED_DICT) from error
        raise ModelLoadError(f"{hint} is no type that JSON can be read into") from error


def _says_nothing(hint: Any) -> bool:
    """Whether anything will do; of a dict, where it does not say what its values are."""
    if get_origin(hint) is dict:
        return all(value in UNTYPED for value in get_args(hint)[1:])
    return hint is None or hint in UNTYPED


def _schema(adapter: TypeAdapter[Any] | None, what: str) -> Json | None:
    if adapter is None:
        return None
    try:
        mode = "validation" if what == "input" else "serialization"
        schema = adapter.json_schema(mode=mode)  # type: ignore[arg-type]
    except PydanticUserError as error:
        raise ModelLoadError(
            f"the type of the {what} has no JSON Schema: {error.message}"
        ) from error
    if what == "input" and not _is_of_objects(schema):
        raise ModelLoadError("the input should be an object: a pydantic model, say, or a dataclass")
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except ValueError:
        said = f"the {what} has a default or limit of NaN or infinity, which JSON can not say"
        raise ModelLoadError(said) from None
    if size > MAX_SCHEMA_BYTES:
        raise ModelLoadError(f"the schema of the {what} is larger than {MAX_SCHEMA_BYTES} bytes")
    return schema


def _is_of_objects(schema: Json) -> bool:
    members = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return all(each.get("type") == "object" or "$ref" in each for each in members)


def _said(error: ValidationError) -> str:
    """Say what is wrong first, and never the value that stood there."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])[:MAX_PLACE]
    # The only one that quotes the value.
    quotes = fault["type"] == "union_tag_invalid"
    said = "Input has a tag that is not expected" if quotes else str(fault["msg"])
    return f"{place}: {said}" if place else said
