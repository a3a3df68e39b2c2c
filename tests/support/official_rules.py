"""Rules of the official client's tests, done by the scheduler's own code in the test's process."""

from __future__ import annotations

from sqlalchemy import update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import evaluations
from arriero.registry.services.rule_moves import release_parents
from arriero.registry.services.rule_removal import remove_expired_rules
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.testing import Script, ScriptedMover, always_succeeds
from arriero.scheduler.transfer import TransferRunner
from support.official import Official


def evaluate(official: Official) -> None:
    """Evaluate every rule that is due, or would be later."""
    with official.registry.database.transaction() as connection:
        connection.execute(update(evaluations).values(not_before=after(-1)))
    Evaluator(official.registry.context).run()


def copy(official: Official, script: Script = always_succeeds) -> None:
    """Copy what is asked for; no byte moves."""
    TransferRunner(official.registry.context, make_mover=lambda: ScriptedMover(script)).run()


def sweep(official: Official) -> None:
    """Do what the sweep of rules does."""
    release_parents(official.registry.context)
    remove_expired_rules(official.registry.context)
