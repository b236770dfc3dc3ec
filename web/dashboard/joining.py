"""All scripts of the page in one: to fetch each by itself took a browser longer than all they do.

They are modules as a browser knows them. Here each becomes a function that gives what it
exports, after those that it imports from; imports and exports are one line each, of the two or
three forms that IMPORT and EXPORT know. Comments on lines of their own are for who reads the
modules: no browser is sent them.
"""

import re
from collections.abc import Mapping

IMPORT = re.compile(r'^import (?:\* as (\w+)|\{ ([\w, ]+) \}) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:const|class|function) (\w+))", re.MULTILINE)
COMMENT = re.compile(r"^ *(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)\n", re.MULTILINE | re.DOTALL)
LEFT_OVER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def join(sources: Mapping[str, str], first: str) -> str:
    """Write the modules as one, of which the first needs the others.

    :raises ValueError: when one imports or exports in another form, or itself in the end.
    """
    written: dict[str, str] = {}
    _write(sources, first, written, ())
    return "\n".join(written.values())


def _write(
    sources: Mapping[str, str], name: str, written: dict[str, str], path: tuple[str, ...]
) -> None:
    """Write a module, after those that it imports from; ``path`` is who has asked for it."""
    if name in path:
        raise ValueError(f"{name}.js imports itself, by way of {', '.join(path)}")
    for _, _, needed in IMPORT.findall(sources[name]):
        if needed not in written:
            _write(sources, needed, written, (*path, name))
    written[name] = _as_function(name, sources[name])


def _as_function(name: str, source: str) -> str:
    exports = ", ".join(EXPORT.findall(source))
    body = COMMENT.sub("", EXPORT.sub("", IMPORT.sub(_as_constant, source)))
    if found := LEFT_OVER.search(body):
        raise ValueError(f"{name}.js: {found[0]}")
    return f"const {name}_js = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"


def _as_constant(found: re.Match[str]) -> str:
    whole, parts, module = found.groups()
    return f"const {whole or f'{{ {parts} }}'} = {module}_js;"
