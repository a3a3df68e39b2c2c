"""The page of threats names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "threats.md"
NAMED = re.compile(r"`([a-z_/]+\.py)::(\w+)`")


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if name not in _defined(TESTS / file)]
    assert missing == []


def test_every_threat_has_a_line() -> None:
    told = re.findall(r"^\| D(\d+) \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(map(int, told)) == list(range(1, 31))


@cache
def _defined(path: Path) -> set[str]:
    if not path.exists():
        return set()
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}
