"""The web and the runner share ``sql/`` and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no {package}/ in {ROOT}"
    return found


def imports(source: Path) -> set[str]:
    """The top-level packages that a file imports, in any way that names them."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                found |= {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=module, level=0) if module:
                found.add(module.split(".")[0])
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="__import__")):
                found |= {
                    argument.value.split(".")[0]
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                }
    return found


def modules_with(package: str, wanted: str) -> list[str]:
    return [
        str(source.relative_to(ROOT / package))
        for source in sources(package)
        if wanted in imports(source)
    ]


@pytest.mark.parametrize(("package", "other"), [("web", "jobrunner"), ("jobrunner", "web")])
def test_neither_package_imports_the_other(package: str, other: str) -> None:
    assert modules_with(package, other) == []


@pytest.mark.parametrize(
    ("package", "library", "places"),
    [
        ("jobrunner", "click", ("cli/",)),
        # bar.py imports it when there is something to draw: see test_terminal.py.
        ("jobrunner", "rich", ("cli/", "bar.py")),
        ("jobrunner", "flask", ()),
        ("web", "click", ()),
    ],
)
def test_a_library_is_known_where_it_belongs_only(
    package: str, library: str, places: tuple[str, ...]
) -> None:
    assert [found for found in modules_with(package, library) if not found.startswith(places)] == []


@pytest.mark.parametrize("package", ["web", "jobrunner"])
def test_only_the_settings_read_the_environment(package: str) -> None:
    reads = [
        source.name
        for source in sources(package)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
    ]

    assert set(reads) <= {"settings.py"}
