"""docs/reliability.md names tests that are there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"


def known_tests() -> set[str]:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in TESTS.glob("test_*.py")]
    functions = (node for tree in trees for node in ast.walk(tree))
    return {node.name for node in functions if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_document_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text(encoding="utf-8")))

    assert len(named) > 30
    assert named - known_tests() == set()
