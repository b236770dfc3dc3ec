"""What is wrong with a dashboard, by the types of Grafana's own foundation SDK."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, get_type_hints

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import Runtime, UnknownDataquery
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

register_default_plugins()

# Grafana writes it into each variable that asks, and its types leave it out.
UNTYPED = {"definition"}


def faults(dashboard: dict[str, Any]) -> list[str]:
    """Name what Grafana does not know, and what it would not take as a value.

    The SDK itself drops the one and lets the other pass; so what it has read is compared with
    what was there, and with its types.
    """
    try:
        read = Dashboard.from_json(deepcopy(dashboard))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [f"it can not be read: {error!r}"]
    kinds = {"row", *Runtime().panelcfg_variants}
    unknown = [panel["type"] for panel in dashboard["panels"] if panel["type"] not in kinds]
    return [
        *(f"no panel is called {kind}" for kind in unknown),
        *_lost(dashboard, JSONEncoder().default(read)),
        *_mistyped(read, "dashboard"),
    ]


def _lost(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """Name each field that was there and is not any more, or is another thing."""
    if hasattr(read, "to_json"):
        read = read.to_json()
    if isinstance(given, dict) and isinstance(read, dict):
        for name, value in given.items():
            if name in read:
                yield from _lost(value, read[name], f"{path}/{name}")
            elif name not in UNTYPED:
                yield f"{path}/{name} is not known"
    elif isinstance(given, list) and isinstance(read, list):
        for index, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _lost(one, other, f"{path}/{index}")
    elif isinstance(read, dict | list):
        yield f"{path} can not be {given!r}"


def _mistyped(read: Any, path: str) -> Iterator[str]:
    """Name each value that is none of its type."""
    if isinstance(read, UnknownDataquery):
        yield f"{path} asks no data source that is known"
    elif isinstance(read, list):
        for index, each in enumerate(read):
            yield from _mistyped(each, f"{path}[{index}]")
    elif hasattr(read, "to_json"):
        hints = get_type_hints(type(read))
        for name, value in vars(read).items():
            if not _is(value, hints[name]):
                yield f"{path}.{name} can not be {value!r}"
            yield from _mistyped(value, f"{path}.{name}")


def _is(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type as it stands, where pydantic would make one of it."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return bool(adapter.validate_python(value) == value)
    except ValidationError:
        return False
