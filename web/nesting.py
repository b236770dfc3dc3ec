"""How deeply JSON is nested, how many values it has, and in how many ways a schema lets it nest."""

import json
import re
from typing import Any
from urllib.parse import unquote

REFERENCE = re.compile(r'"\$(?:ref|dynamicRef|recursiveRef)": "([^"]*)"')
CHOICE = re.compile(r'"(?:anyOf|oneOf)":')

Schema = dict[str, Any]


def has_choices(schema: Schema) -> bool:
    """Whether a schema has a choice of types anywhere."""
    return bool(CHOICE.search(json.dumps(schema)))


def has_choices_in_depth(schema: Schema) -> bool:
    """Whether a schema has a choice of types that may hold themselves."""
    texts: dict[str, str] = {}
    links: dict[str, list[str]] = {}
    ahead = ["#"]
    while ahead:
        if (reference := ahead.pop()) not in texts:
            texts[reference] = json.dumps(_part(schema, reference), ensure_ascii=False)
            links[reference] = REFERENCE.findall(texts[reference])
            ahead += links[reference]
    chosen = (reference for reference, text in texts.items() if CHOICE.search(text))
    return any(_leads_back(reference, links) for reference in chosen)


def depth_of(value: object) -> int:
    """How deeply a value of JSON is nested."""
    depth, level = 0, [value]
    while level := [
        member
        for container in level
        if isinstance(container, dict | list)
        for member in (container.values() if isinstance(container, dict) else container)
        if isinstance(member, dict | list)
    ]:
        depth += 1
    return depth


def has_at_most(value: object, most: int) -> bool:
    """Whether a value of JSON holds so many values at most."""
    count, ahead = 1, [value]
    while ahead and count <= most:
        container = ahead.pop()
        if isinstance(container, dict | list):
            count += len(container)
            ahead += container.values() if isinstance(container, dict) else container
    return count <= most


def _part(schema: Schema, reference: str) -> Any:
    """What a reference means; all of it where that can not be told."""
    if reference == "#":
        # The definitions only as far as they are referred to.
        return {name: part for name, part in schema.items() if name != "$defs"}
    part: Any = schema
    for name in unquote(reference.removeprefix("#/")).split("/"):
        try:
            part = part[name.replace("~1", "/").replace("~0", "~")]
        except (LookupError, TypeError):
            return schema
    return part


def _leads_back(start: str, links: dict[str, list[str]]) -> bool:
    seen, ahead = set[str](), [*links[start]]
    while ahead:
        if (reference := ahead.pop()) == start:
            return True
        if reference not in seen:
            seen.add(reference)
            ahead += links[reference]
    return False
