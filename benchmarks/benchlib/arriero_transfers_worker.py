"""Arriero's side of transfers: the services and the workers of the scheduler in a process of their own.

usage: arriero_transfers_worker.py DATABASE_URL
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import replicas, requests, rules
from arriero.registry.schema.tables import rses as rse_table
from arriero.registry.services import contents, dids, rses
from arriero.registry.services.account_limits import set_local_limit
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.services.replicas import add_replicas
from arriero.registry.services.rse_attributes import set_attribute
from arriero.registry.services.rse_protocols import add_protocol
from arriero.registry.services.rules import parse_rule_id
from arriero.registry.states import RequestState
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.mover import Mover
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from benchlib import data
from benchlib.arriero_rules_worker import ENOUGH, counts, let_go, new_rule, set_up_rules, use
from benchlib.arriero_worker import COMMANDS, side
from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch

LOOK_S = 0.25
"""How often a worker that found nothing to take sees whether everything is done, seconds."""


class _Kept:
    """What a worker process keeps between its tasks."""

    runner: TransferRunner | None = None


def begin(url: str) -> None:
    """Work with another database, and remember nothing of the one before."""
    use(url)
    _Kept.runner = None


def set_up_rses(protocols: Mapping[str, Mapping[str, Any]], schemes: Mapping[str, str]) -> None:
    """Add RSEs, each with a protocol; a file's path there is its scope and name."""
    root = side.actor()
    for name, protocol in protocols.items():
        rses.add_rse(side.context, root, name, {})
        set_attribute(side.context, root, name, "lfn2pfn_algorithm", "identity")
        add_protocol(side.context, root, name, schemes[name], protocol)
        set_local_limit(side.context, root, "root", name, ENOUGH)


def add_files(rse_names: Sequence[str], dataset: str, adler32: Mapping[str, str], size: int) -> None:
    """Register files that are at RSEs, by name and checksum, in a dataset."""
    root = side.actor()
    dids.add_collections(side.context, root, [dids.NewCollection(data.SCOPE, dataset, "DATASET")])
    names = list(adler32)
    most = side.context.settings.max_bulk_items
    for numbers in data.chunks(0, len(names), most):
        files = [NewReplica(data.SCOPE, names[i], size, adler32=adler32[names[i]]) for i in numbers]
        for rse in rse_names:
            add_replicas(side.context, root, rse, files)
        held = [contents.Child(data.SCOPE, file.name) for file in files]
        contents.attach(side.context, root, [contents.Attachment(data.SCOPE, dataset, held)])


def copy(rule: str) -> dict[str, object]:
    """Copy what a rule asks for, beside others who do, with the mover of production."""
    if _Kept.runner is None:
        _Kept.runner = TransferRunner(side.context)
    return _copied(rule, _Kept.runner)


def copy_nothing(rule: str) -> dict[str, object]:
    """Do all of it but the copies, which succeed at once."""
    made: Callable[[], Mover] = ScriptedMover
    return _copied(rule, TransferRunner(side.context, make_mover=made))


def _copied(rule: str, runner: TransferRunner) -> dict[str, object]:
    watch, done = Stopwatch(), 0
    rule_id = _id_of(rule)
    with watch:
        done += runner.run().done
        while _waits_for_a_sweep(rule_id):
            done += runner.run().done
    return watch.report(done)


def _id_of(rule: str) -> int:
    with side.database.snapshot() as connection:
        query = select(rules.c.id).where(rules.c.uuid == parse_rule_id(rule))
        return int(connection.execute(query).scalar_one())


def _waits_for_a_sweep(rule_id: int) -> bool:
    """Wait until the next sweep would ring, half its period on average; False when nothing of a rule is left to take."""
    query = select(requests.c.id).where(
        requests.c.rule_id == rule_id, requests.c.state == RequestState.QUEUED
    )
    until = time.monotonic() + side.context.settings.sweep_s / 2
    while True:
        with side.database.snapshot() as connection:
            if connection.scalar(query.limit(1)) is None:
                return False
        if time.monotonic() >= until:
            return True
        time.sleep(LOOK_S)


def available(rse: str) -> dict[str, int]:
    """Count the replicas at an RSE by state, and those that were verified."""
    query = (
        select(replicas.c.state, func.count(), func.count(replicas.c.verified_at))
        .join(rse_table, rse_table.c.id == replicas.c.rse_id)
        .where(rse_table.c.name == rse)
        .group_by(replicas.c.state)
    )
    with side.database.snapshot() as connection:
        rows = connection.execute(query).all()
    verified = sum(row[2] for row in rows)
    return {str(row[0]): row[1] for row in rows} | {"verified": verified}


def bury(rse: str, verified_at: str) -> None:
    """Have all replicas of an RSE be ready to go, since their files were verified at another one."""
    ids = {row.name: row.id for row in _rses()}
    with side.database.transaction() as tx:
        gone = {"tombstone": after(-60.0), "purge": True}
        tx.execute(update(replicas).where(replicas.c.rse_id == ids[rse]).values(gone))
        proven = update(replicas).where(replicas.c.rse_id == ids[verified_at])
        tx.execute(proven.values(verified_at=after(-60.0)))


def _rses() -> Sequence[Any]:
    with side.database.snapshot() as connection:
        return connection.execute(select(rse_table.c.id, rse_table.c.name)).all()


def delete(threads: int) -> dict[str, object]:
    """Delete what is due, beside others who do, over so many connections."""
    changed = side.context.settings.model_copy(update={"deletion_threads": threads})
    watch = Stopwatch()
    with watch:
        done = DeletionRunner(replace(side.context, settings=changed)).run(budget_s=3600.0)
    return watch.report(done.done, failed=done.failed, freed=done.freed)


if __name__ == "__main__":
    serve(
        {
            **COMMANDS,
            "let_go": let_go,
            "begin": begin,
            "set_up_rules": set_up_rules,
            "set_up_rses": set_up_rses,
            "add_files": add_files,
            "new_rule": new_rule,
            "counts": counts,
            "copy": copy,
            "copy_nothing": copy_nothing,
            "available": available,
            "bury": bury,
            "delete": delete,
        }
    )
