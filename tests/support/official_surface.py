"""What the official client offers, by introspection: its methods and the verbs of its command line."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path

import click

CONFORMANCE = Path(__file__).parents[1] / "conformance"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rucio-client.md"
MARKERS = ("client_method", "rucio_command")

NOTE = "<!-- made by tests/conformance: `make docs-conformance` -->"
INTRODUCTION = """
# The official client

Every public method of the classes behind `rucio.client.Client`, of `UploadClient` and of `DownloadClient`, and every
verb of the command line `rucio` (PyPI `rucio-clients` {version}). *Works*: a test of `tests/conformance` that drives it,
unmodified, has passed on SQLite and on PostgreSQL. What does not work answers 501 `UnsupportedOperation` with the
reason that stands here.
"""


@cache
def methods() -> tuple[str, ...]:
    """Public methods, as ``Class.method``, in the order of the classes and of their source."""
    from rucio.client.baseclient import BaseClient
    from rucio.client.client import Client
    from rucio.client.downloadclient import DownloadClient
    from rucio.client.uploadclient import UploadClient

    offering = [kind for kind in Client.__mro__ if issubclass(kind, BaseClient)]
    return tuple(
        f"{kind.__name__}.{name}"
        for kind in sorted({*offering, UploadClient, DownloadClient}, key=lambda kind: kind.__name__)
        for name, member in vars(kind).items()
        if not name.startswith("_") and inspect.isroutine(member)
    )


@cache
def verbs() -> tuple[str, ...]:
    """Leaf commands of ``rucio``, those that a site may switch on too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of click, for the official command line
        from rucio.cli.command import LazyGroup, main

        main.lazy_subcommands = set(LazyGroup.COMMAND_MAP)
        return tuple(sorted(_leaves(main, click.Context(main))))


def _leaves(command: click.Command, context: click.Context, *path: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [" ".join(path)]
    return [
        leaf
        for name in command.list_commands(context)
        if (child := command.get_command(context, name)) is not None
        for leaf in _leaves(child, context, *path, name)
    ]


def claims() -> dict[str, set[str]]:
    """Methods and verbs that markers name, each with the tests (``file::function``) that carry them."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(CONFORMANCE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for name in _named_by(node):
                    found[name].add(f"{path.name}::{node.name}")
    return dict(found)


def _named_by(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    names = []
    for decorator in node.decorator_list:
        if (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Attribute)
            and decorator.func.attr in MARKERS
        ):
            names += [ast.literal_eval(argument) for argument in decorator.args]
    return names


def page(works: set[str], missing: dict[str, str], except_for: dict[str, str]) -> str:
    """Write the reference.

    Parameters
    ----------
    works
        Methods and verbs that tests have proven.
    missing
        The others, with the reason.
    except_for
        What does not work of those that do.
    """
    from rucio import version

    lines = [NOTE, INTRODUCTION.format(version=version.version_string()).rstrip(), "", "## Summary", ""]
    lines += ["| | there are | work |", "|---|---|---|"]
    for title, names in (("methods", methods()), ("verbs", verbs())):
        lines.append(f"| {title} | {len(names)} | {len(works & set(names))} |")
    kind = None
    for name in methods():
        owner, _, method = name.partition(".")
        if owner != kind:
            kind = owner
            lines += ["", f"## {owner}", "", "| method | |", "|---|---|"]
        lines.append(f"| `{method}` | {_verdict(name, works, missing, except_for)} |")
    lines += ["", "## The command line", "", "| command | |", "|---|---|"]
    lines += [f"| `rucio {verb}` | {_verdict(verb, works, missing, except_for)} |" for verb in verbs()]
    return "\n".join(lines) + "\n"


def _verdict(name: str, works: set[str], missing: dict[str, str], except_for: dict[str, str]) -> str:
    if name in works:
        return f"works, except: {_cell(except_for[name])}" if name in except_for else "works"
    return f"**no**: {_cell(missing.get(name, 'nothing proves it'))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
