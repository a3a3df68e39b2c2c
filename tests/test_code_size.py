"""Rules about the files themselves: how long they may be, what may not be in them, and where none may be."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Written once and never changed: a migration is a record, not code to work on.
RECORDS = "/migrations/versions/"
CODE = ("rse", "registry", "scheduler", "agent", "deploy", "tests", "benchmarks")

MODULE_LINES, MODULE_LIMIT = 400, 600
FUNCTION_LINES, FUNCTION_LIMIT = 60, 100

# Longer than MODULE_LINES or FUNCTION_LINES, never than the limits: "path" or "path::function" and why.
JUSTIFIED: dict[str, str] = {}

# Places of one person's or one company's machine. What is between the brackets keeps this file from matching.
FOREIGN = re.compile(
    r"(?<![\w.-])/(?:work|root|home/\w+|Users/\w+)/[\w.]"
    r"|--(?:extra-)?index-url\b|\bindex-url\s*=|\bartifact[o]ry\b|\bdevp[i]\b"
    r"|\bfiles\.pythonh[o]sted\.org\b|//(?!pyp[i]\.org\b)[\w.-]*\bpyp[i][\w.-]*/"
)
# Text that others wrote or a tool made, and names on it that are no place of ours.
NOT_READ = {"LICENSE"}


@cache
def committed() -> tuple[Path, ...]:
    """Every file that git tracks or would track, as it is on disk."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(ROOT / name for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file())


@cache
def modules() -> tuple[Path, ...]:
    code = (path for path in committed() if path.suffix == ".py" and RECORDS not in str(path))
    return tuple(path for path in code if path.relative_to(ROOT).parts[0] in CODE)


def functions(module: Path) -> list[tuple[str, int]]:
    """Names and lengths in lines, without decorators and docstring."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            found.append((node.name, length))
    return found


@cache
def sizes() -> list[tuple[str, int, int, int]]:
    """What is long: its name, lines, the size from which it needs a reason, and the limit."""
    long = []
    for module in modules():
        name = str(module.relative_to(ROOT))
        lines = len(module.read_text().splitlines())
        long.append((name, lines, MODULE_LINES, MODULE_LIMIT))
        for function, length in functions(module):
            long.append((f"{name}::{function}", length, FUNCTION_LINES, FUNCTION_LIMIT))
    return [entry for entry in long if entry[1] > entry[2]]


def test_modules_and_functions_are_short() -> None:
    refused = [f"{name}: {lines} lines, limit {limit}" for name, lines, _, limit in sizes() if lines > limit]
    assert not refused, "split:\n" + "\n".join(refused)
    unjustified = [f"{name}: {lines} lines" for name, lines, _, _ in sizes() if name not in JUSTIFIED]
    assert not unjustified, "split, or say why in JUSTIFIED:\n" + "\n".join(unjustified)


def test_no_justification_is_left_over() -> None:
    long = {name for name, *_ in sizes()}
    assert sorted(set(JUSTIFIED) - long) == []


def test_arriero_and_its_tests_are_namespaces() -> None:
    found = [str(path.relative_to(ROOT)) for path in committed() if path.name == "__init__.py"]
    assert found == [], "an __init__.py hides the other packages of the namespace"


def test_no_committed_file_names_somebodys_machine_or_registry() -> None:
    found = []
    for path in committed():
        name = str(path.relative_to(ROOT))
        if name in NOT_READ or b"\0" in (content := path.read_bytes())[:8192]:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if foreign := FOREIGN.search(line):
                found.append(f"{name}:{number}: {foreign.group()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main/x",
        "cd /" + "root/y",
        "--extra-" + "index-url x",
        "https://pypi" + ".example.org/simple/x",
    ],
)
def test_the_rule_recognises_what_it_refuses(line: str) -> None:
    assert FOREIGN.search(line)


@pytest.mark.parametrize(
    "line", ["https://pypi" + ".org/project/arriero/", "raw/work/20241108", "a root/b", "/rucio/root"]
)
def test_the_rule_lets_other_names_be(line: str) -> None:
    assert not FOREIGN.search(line)
