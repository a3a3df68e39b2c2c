"""A catalogue with the rule engine at its desk: rules are added, evaluated and copied in the test's own process."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import func, select

from arriero.registry.schema.tables import audit_log, rule_history
from arriero.registry.services.context import Actor
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import DidType, Role
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.scheduling import dataset_locks, evaluations, locks, replicas, requests, rules

EVERYTHING = (rules, locks, dataset_locks, replicas, requests, evaluations, rule_history, audit_log)


@pytest.fixture
def desk(catalogue):
    """The catalogue with the rule engine, and root at it."""
    settings = catalogue.context.settings
    catalogue.context = replace(catalogue.context, engine=Engine(settings))
    catalogue.root = Actor(catalogue.account_id, "root", Role.ADMIN)
    return catalogue


@pytest.fixture
def filled(desk, five_rses):
    """Two datasets of ten files in a container: all at SLAC, half of the first at T1; T2 is full, T3 blocked."""
    slac, tier = five_rses
    first = desk.files(10, prefix="a", at=[slac])
    second = desk.files(10, prefix="b", at=[slac])
    desk.replicas(first[:5], tier[1])
    sets = [desk.collection("first", children=first), desk.collection("second", children=second)]
    desk.collection("both", DidType.CONTAINER, children=sets)
    desk.collection("empty")
    return slac, tier


def set_chunk(desk, files: int) -> None:
    settings = desk.context.settings.model_copy(update={"evaluation_chunk_files": files})
    desk.context = replace(desk.context, settings=settings, engine=Engine(settings))


def evaluate(desk) -> None:
    Evaluator(desk.context).run()


def copy(desk) -> None:
    TransferRunner(desk.context, make_mover=ScriptedMover).run()


def everything(desk) -> dict:
    return {table.name: sorted(map(repr, desk.rows(select(table)))) for table in EVERYTHING}


def held(desk, rule_id: str) -> dict[str, tuple[int, int]]:
    """Files and bytes of the locks of a rule at each RSE."""
    query = (
        select(locks.c.rse_id, func.count(), func.sum(locks.c.bytes))
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.uuid == UUID(rule_id))
        .group_by(locks.c.rse_id)
    )
    return {row[0]: (row[1], int(row[2])) for row in desk.rows(query)}


def added(desk, target: str, expression: str, copies: int = 1, **options) -> str:
    [uuid] = add_rules(desk.context, desk.root, RuleSpec(expression, copies, **options), [("raw", target)])
    evaluate(desk)
    return uuid.hex
