"""Two files of one name, and an RSE whose paths leave the scope out (D13)."""

from __future__ import annotations

from sqlalchemy import select

from arriero.registry.schema.tables import scopes
from arriero.registry.states import RuleState
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.scheduling import Catalogue, locks, replicas
from support.storage_sites import add_file


def test_a_path_belongs_to_one_file(catalogue: Catalogue) -> None:
    slac = catalogue.rse("SLAC")
    in2p3 = catalogue.rse("IN2P3", attributes={"lfn2pfn_algorithm": "lsst_butler"})
    catalogue.rse("LANCS", attributes={"lfn2pfn_algorithm": "identity"})
    with catalogue.database.transaction() as tx:
        other = catalogue._insert(tx, scopes, name="user.jdoe", account_id=catalogue.account_id)
    # the same bytes: nothing at the storage would tell them apart
    files = [
        add_file(catalogue, "night/f", b"bytes"),
        add_file(catalogue, "night/f", b"bytes", scope_id=other),
    ]
    files.append(add_file(catalogue, "night/g", b"bytes", scope_id=other))
    catalogue.replicas(files, slac, size=5)
    dataset = catalogue.collection("night", children=files)
    rules = [catalogue.rule(dataset, rse) for rse in ("IN2P3", "LANCS")]
    Evaluator(catalogue.context).run()
    done = TransferRunner(catalogue.context, make_mover=ScriptedMover).run()
    assert (done.done, done.failed) == (5, 1)
    assert [catalogue.rule_row(rule).state for rule in rules] == [RuleState.STUCK, RuleState.OK]
    stuck = catalogue.one(select(locks).where(locks.c.state == "STUCK"))
    assert (stuck.file_id, stuck.rse_id, stuck.code) == (files[1], in2p3, "already_exists")
    assert "belongs to the file of that name in scope raw" in stuck.reason
    at = select(replicas.c.file_id).where(replicas.c.rse_id == in2p3, replicas.c.state == "AVAILABLE")
    assert {row.file_id for row in catalogue.rows(at)} == {files[0], files[2]}
    catalogue.check_invariants()
