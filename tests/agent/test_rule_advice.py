"""The advice about what waits: every code of the code base has one, and every command that it gives exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from arriero.agent.cli.main import cli as root
from arriero.registry import errors
from arriero.registry.services.rule_advice import ADVICE, advise
from arriero.registry.store import rule_explanation, rule_work, rules
from arriero.scheduler.core import retry
from arriero.scheduler.evaluation_words import WAITING_CODES

SOURCES = Path(__file__).resolve().parents[2]

NOT_OF_A_RULE = {
    # of calls, and of processes that do not start
    "scheduler_error",
    # of brokers of events
    "broker_away",
    "broker_refuses",
    # races that are run again at once
    "rules_joined",
    # what was decided well
    "placed",
    "picked",
    # of a history: what somebody did
    "approved",
    "moved",
    "removal",
    "update",
    # of subscriptions, and of arrivals
    "described_again",
    "expired",
    "butler_unavailable",
    "replica_not_available",
    # of audits, scrubbing and deletion
    "abandoned",
    "rse_doubted",
    "grave",
}
"""Codes that no rule, group, lock or request ever shows."""

POSITIONAL = {"CannotPlan": 0, "_dropped": 1, "Dropped": 2, "Picked": 2, "Choice": 1, "Unplaced": 1}
"""Calls of the scheduler that are given a code, and where."""


def trees(*packages: str) -> Iterator[ast.AST]:
    for package in packages:
        for path in sorted((SOURCES / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def codes_of_classes() -> set[str]:
    """Codes of the errors of copies and of the scheduler."""
    return {
        line.value.value
        for tree in trees("rse", "scheduler")
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        for line in kind.body
        if isinstance(line, ast.Assign | ast.AnnAssign)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
        and line.value.value
        and "code" in {name.id for name in ast.walk(line) if isinstance(name, ast.Name)}
    }


def spelt_out(value: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """Texts that an expression can be, as far as it spells them out."""
    match value:
        case ast.Constant(value=str() as text) if re.fullmatch("[a-z_]+", text):
            yield text
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in constants:
            yield constants[name]
        case ast.IfExp(body=one, orelse=other):
            yield from spelt_out(one, constants)
            yield from spelt_out(other, constants)
        case ast.BoolOp(values=values):
            for one in values:
                yield from spelt_out(one, constants)
        case ast.Call(func=ast.Name(id="case"), args=args, keywords=keywords):
            branches = [branch.elts[1] for branch in args if isinstance(branch, ast.Tuple)]
            for one in [*branches, *(keyword.value for keyword in keywords)]:
                yield from spelt_out(one, constants)


def codes_given(tree: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """Codes that something is given: a row, a report, a choice; not those of errors that a caller gets."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if hasattr(errors, name):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if name in POSITIONAL and len(node.args) > POSITIONAL[name]:
            given.append(node.args[POSITIONAL[name]])
        for value in given:
            yield from spelt_out(value, constants)


def codes_of_the_code() -> set[str]:
    whole = list(trees("scheduler", "registry/arriero/registry/store", "registry/arriero/registry/services"))
    constants = {
        target.id: str(line.value.value)
        for tree in whole
        for line in getattr(tree, "body", [])
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
        for target in line.targets
        if isinstance(target, ast.Name) and isinstance(line.value.value, str)
    }
    return {code for tree in whole for code in codes_given(tree, constants)}


def codes_of_tables() -> set[str]:
    waits = {rule_explanation.COPYING, rule_explanation.QUEUED, rule_explanation.ANNOUNCED}
    stuck = {rule_explanation.STUCK, rule_work.RETRY_NOW, rules.CANCELLED, rules.NO_RULE, *WAITING_CODES}
    return waits | stuck | retry.PERMANENT | retry.OF_THE_SOURCE | retry.RETRYABLE


def test_every_code_has_its_advice():
    known = codes_of_classes() | codes_of_the_code() | codes_of_tables()
    assert {"no_source", "not_enough_rses", "blocked", "checksum_mismatch", "gone"} <= known
    assert known - set(ADVICE) - NOT_OF_A_RULE == set()


COMMANDS = sorted({command for hint in ADVICE.values() for command in hint.commands})
OURS = [command for command in COMMANDS if command.startswith("arriero ")]


@pytest.mark.parametrize("command", OURS)
def test_every_command_can_be_typed(command):
    """It is parsed as the command line would, to the last option, and not run."""
    words = shlex.split(filled(command))[1:]
    # a command keeps the options for its help that it is asked for first
    context = click.Context(root, info_name="arriero", **root.context_settings)
    group: click.Command = root
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(context, words)
        assert found is not None, name
        context = click.Context(found, parent=context, info_name=name)
        group = found
    group.make_context(context.info_name, words, parent=context.parent)


def filled(command: str) -> str:
    words = {"rule": "0" * 32, "rse": "A", "source": "B", "file": "raw:f", "scope": "raw"}
    text = command.format_map({**words, "account": "root", "weight": "w"})
    text = text.replace("DATASET", "raw:d")
    return re.sub(r"\b(COPIES|NUMBER|BYTES)\b", "1", text)


# it is written for an older click
@pytest.mark.filterwarnings("ignore:'BaseCommand' is deprecated:DeprecationWarning")
def test_commands_of_the_official_client_can_be_typed():
    from rucio.cli.command import main

    others = [command for command in COMMANDS if command.startswith("rucio ")]
    assert others
    for command in others:
        words = shlex.split(filled(command))[1:]
        group: click.Command = main
        while isinstance(group, click.Group):
            found = group.get_command(click.Context(group), words[0])
            assert found is not None, f"{command}: {words[0]}"
            group, words = found, words[1:]
        group.make_context(command, words)


def test_names_are_quoted_for_the_shell():
    told = advise("no_source", "x", file="raw:a b;rm -rf $HOME", scope="raw")
    assert shlex.split(told.commands[0])[4] == "raw:a b;rm -rf $HOME"


def test_a_code_of_a_plug_in_gets_the_general_advice():
    told = advise("tape_robot_on_strike", "3 files", rule="1234", file="raw:f")
    assert told.code == "tape_robot_on_strike"
    assert told.commands == ["arriero trace raw:f", "arriero rule boost 1234"]
